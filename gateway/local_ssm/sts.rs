//! STS: who am I, and let me be this role for a while.

use std::collections::BTreeMap;
use std::fmt::Write;

use data_encoding::BASE32_NOPAD;
use http::StatusCode;
use ring::digest::{SHA256, digest};
use sigv4::{Request, Rules, SignatureError};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Service;
use super::answer::{self, Answer};
use super::callers::{Caller, Refusal, Temporary};
use super::federation::Wish;
use super::session_policy::SessionPolicy;
use crate::error::ApiError;

/// The namespace of every answer.
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// The only version of the API.
const VERSION: &str = "2011-06-15";
/// Shortest life of temporary keys, seconds, as in AWS.
const DURATION_MIN: i64 = 900;
/// Longest life of temporary keys, seconds, as in AWS.
const DURATION_MAX: i64 = 43_200;
/// Their life when the call names none, seconds, as in AWS.
const DURATION_DEFAULT: i64 = 3_600;
/// Most session tags, as in AWS.
const TAGS_MAX: usize = 50;
/// Longest session policy, characters, as in AWS.
const POLICY_MAX: usize = 2_048;

/// Why a call is not answered: code, status, sentence.
struct Fault(&'static str, StatusCode, String);

impl Fault {
    fn validation(message: impl Into<String>) -> Self {
        Self("ValidationError", StatusCode::BAD_REQUEST, message.into())
    }

    fn of(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::UnknownKey => "InvalidClientTokenId",
            Refusal::Expired => "ExpiredToken",
            Refusal::Signature(SignatureError::Unsigned) => "MissingAuthenticationToken",
            Refusal::Signature(SignatureError::Malformed(_) | SignatureError::NotSigned(_)) => {
                "IncompleteSignature"
            }
            _ => "SignatureDoesNotMatch",
        };
        Self(code, StatusCode::FORBIDDEN, refusal.to_string())
    }

    fn answer(&self) -> Answer {
        let Self(code, status, message) = self;
        let message = escaped(message);
        let id = Uuid::new_v4();
        let body = format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>{message}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
        );
        answer::xml(*status, body)
    }
}

impl Service {
    /// Answers one call of the Query protocol.
    pub(super) fn sts(&self, request: &Request<'_>, now: OffsetDateTime) -> Answer {
        let result = self.callers.verify(request, &Rules::plain("sts"), now);
        let result = result.map_err(|refusal| Fault::of(&refusal)).and_then(|caller| {
            let form = form(request.body)?;
            match (form.get("Action").map(String::as_str), form.get("Version").map(String::as_str)) {
                (Some("GetCallerIdentity"), Some(VERSION)) => Ok(self.get_caller_identity(&caller)),
                (Some("AssumeRole"), Some(VERSION)) => self.assume_role(&caller, &form, now),
                (Some("GetWebIdentityToken"), Some(VERSION)) => {
                    self.get_web_identity_token(&caller, &form, now)
                }
                _ => {
                    let why = "Could not find operation for this action and version".to_owned();
                    Err(Fault("InvalidAction", StatusCode::BAD_REQUEST, why))
                }
            }
        });
        result.unwrap_or_else(|fault| fault.answer())
    }

    fn get_caller_identity(&self, caller: &Caller) -> Answer {
        let (arn, user_id, account) = (escaped(&caller.arn), escaped(&caller.user_id), &self.account);
        let result = format!("<Arn>{arn}</Arn><UserId>{user_id}</UserId><Account>{account}</Account>");
        document("GetCallerIdentity", &result)
    }

    fn get_web_identity_token(
        &self,
        caller: &Caller,
        form: &BTreeMap<String, String>,
        now: OffsetDateTime,
    ) -> Result<Answer, Fault> {
        let denied = |error: ApiError| Fault("AccessDenied", StatusCode::FORBIDDEN, error.message);
        self.permit(caller, "sts:GetWebIdentityToken", "*").map_err(denied)?;
        let wish = Wish::read(form).map_err(Fault::validation)?;
        let token = self.federation.token(caller, &wish, now);
        let token = token.ok_or_else(|| Fault::validation("the token cannot be signed"))?;
        let expires = wish.expires(now).format(&Rfc3339).unwrap_or_default();
        let result = format!(
            "<WebIdentityToken>{}</WebIdentityToken><Expiration>{expires}</Expiration>",
            escaped(&token)
        );
        Ok(document("GetWebIdentityToken", &result))
    }

    fn assume_role(
        &self,
        caller: &Caller,
        form: &BTreeMap<String, String>,
        now: OffsetDateTime,
    ) -> Result<Answer, Fault> {
        let wanted = Wanted::read(form)?;
        let trusts = self.external_id.as_ref().is_none_or(|id| form.get("ExternalId") == Some(id));
        if !self.roles.contains(&wanted.role_arn) || !trusts {
            let why = format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {}",
                caller.arn, wanted.role_arn
            );
            return Err(Fault("AccessDenied", StatusCode::FORBIDDEN, why));
        }
        let role = wanted.role_arn.rsplit('/').next().unwrap_or_default();
        let (account, name, id) = (&self.account, &wanted.session_name, role_id(&wanted.role_arn));
        let assumed = Caller {
            arn: format!("arn:aws:sts::{account}:assumed-role/{role}/{name}"),
            user_id: format!("{id}:{name}"),
            session_policy: wanted.policy.clone(),
            source_identity: wanted.source_identity.clone(),
            run_as: wanted.run_as.clone(),
        };
        let keys = self.callers.mint(assumed, now + wanted.duration, now);
        Ok(document("AssumeRole", &assumed_role(&keys, &wanted)))
    }
}

/// What an `AssumeRole` call asks for.
struct Wanted {
    role_arn: String,
    session_name: String,
    source_identity: Option<String>,
    policy: Option<String>,
    tags: usize,
    /// The value of the tag `SSMSessionRunAs`.
    run_as: Option<String>,
    duration: Duration,
}

impl Wanted {
    fn read(form: &BTreeMap<String, String>) -> Result<Self, Fault> {
        let need =
            |key: &str| form.get(key).cloned().ok_or_else(|| Fault::validation(format!("{key} is missing")));
        let session_name = need("RoleSessionName")?;
        let source_identity = form.get("SourceIdentity").cloned();
        for name in [Some(&session_name), source_identity.as_ref()].into_iter().flatten() {
            if !is_session_name(name) {
                return Err(Fault::validation("names must have 2 to 64 letters, digits or _+=,.@-"));
            }
        }
        let policy = form.get("Policy").cloned();
        if let Some(text) = &policy {
            if text.chars().count() > POLICY_MAX {
                return Err(Fault::validation("Policy is longer than 2048 characters"));
            }
            SessionPolicy::parse(text).map_err(|why| {
                Fault("MalformedPolicyDocument", StatusCode::BAD_REQUEST, format!("Policy: {why}"))
            })?;
        }
        let seconds = match form.get("DurationSeconds") {
            None => Some(DURATION_DEFAULT),
            Some(text) => text.parse().ok().filter(|s| (DURATION_MIN..=DURATION_MAX).contains(s)),
        };
        let seconds = seconds.ok_or_else(|| Fault::validation("DurationSeconds must be 900 to 43200"))?;
        let duration = Duration::seconds(seconds);
        let tags = tags(form)?;
        let run_as = tagged(form, "SSMSessionRunAs");
        Ok(Self { role_arn: need("RoleArn")?, session_name, source_identity, policy, tags, run_as, duration })
    }
}

/// How many session tags there are; each has a key and a value.
fn tags(form: &BTreeMap<String, String>) -> Result<usize, Fault> {
    let mut keys = form.iter().filter(|(name, _)| name.starts_with("Tags.member.") && name.ends_with(".Key"));
    let whole = |(name, key): (&String, &String)| {
        let value = form.get(&name.replace(".Key", ".Value"));
        (1..=128).contains(&key.chars().count()) && value.is_some_and(|v| v.chars().count() <= 256)
    };
    let count = keys.clone().count();
    if count > TAGS_MAX || !keys.all(whole) {
        return Err(Fault::validation("Tags must be at most 50 pairs of a key and a value"));
    }
    Ok(count)
}

/// The value of one session tag.
fn tagged(form: &BTreeMap<String, String>, tag: &str) -> Option<String> {
    let key = form.iter().find(|(name, key)| name.starts_with("Tags.member.") && *key == tag)?.0;
    form.get(&key.replace(".Key", ".Value")).cloned()
}

fn assumed_role(keys: &Temporary, wanted: &Wanted) -> String {
    let expires = keys.expires.replace_nanosecond(0).ok().and_then(|t| t.format(&Rfc3339).ok());
    let mut xml = format!(
        "<AssumedRoleUser><AssumedRoleId>{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>",
        escaped(&keys.caller.user_id),
        escaped(&keys.caller.arn),
        keys.access_key_id,
        keys.secret,
        keys.token,
        expires.unwrap_or_default(),
    );
    if let Some(source_identity) = &wanted.source_identity {
        // Writing to a string does not fail.
        let _ = write!(xml, "<SourceIdentity>{}</SourceIdentity>", escaped(source_identity));
    }
    if wanted.policy.is_some() || wanted.tags > 0 {
        xml.push_str("<PackedPolicySize>10</PackedPolicySize>");
    }
    xml
}

fn document(action: &str, result: &str) -> Answer {
    let id = Uuid::new_v4();
    let body = format!(
        "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>\
         <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
    );
    answer::xml(StatusCode::OK, body)
}

/// The form's fields; one that is there twice makes it invalid.
fn form(body: &[u8]) -> Result<BTreeMap<String, String>, Fault> {
    let mut fields = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(body) {
        if fields.insert(key.into_owned(), value.into_owned()).is_some() {
            return Err(Fault::validation("a parameter is there more than once"));
        }
    }
    Ok(fields)
}

/// A role's unique id: always the same for one ARN.
fn role_id(arn: &str) -> String {
    let hash = BASE32_NOPAD.encode(digest(&SHA256, arn.as_bytes()).as_ref());
    format!("AROA{}", hash.get(..17).unwrap_or_default())
}

fn is_session_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    (2..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
