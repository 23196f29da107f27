//! Outbound identity federation: STS issues tokens that others verify.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::answer::{self, Answer};
use super::callers::Caller;

/// The one key's id, as AWS names its first key of this kind.
const KEY_ID: &str = "EC384_0";
/// Bytes of a coordinate on P-384.
const COORDINATE: usize = 48;
/// Most audiences of a token, as in AWS.
const AUDIENCES_MAX: usize = 10;

/// The account's issuer and its key.
pub(super) struct Federation {
    issuer: String,
    account: String,
    region: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

/// What a token is asked for.
pub(super) struct Wish {
    audiences: Vec<String>,
    life: Duration,
}

impl Wish {
    /// Reads the call's fields, within AWS's own limits.
    pub(super) fn read(form: &BTreeMap<String, String>) -> Result<Self, &'static str> {
        let audiences: Vec<String> =
            (1..=AUDIENCES_MAX).map_while(|n| form.get(&format!("Audience.member.{n}")).cloned()).collect();
        if audiences.is_empty() || audiences.iter().any(|audience| audience.is_empty()) {
            return Err("Audience must have 1 to 10 members");
        }
        match form.get("SigningAlgorithm").map(String::as_str) {
            Some("ES384") => {}
            Some("RS256") => return Err("this stand-in has no RSA key: ask for ES384"),
            _ => return Err("SigningAlgorithm must be RS256 or ES384"),
        }
        let seconds = form.get("DurationSeconds").map_or(Some(300), |text| text.parse().ok());
        let seconds = seconds.filter(|seconds| (60..=3600).contains(seconds));
        let seconds = seconds.ok_or("DurationSeconds must be 60 to 3600")?;
        Ok(Self { audiences, life: Duration::seconds(seconds) })
    }

    /// When a token ends that is issued now.
    pub(super) fn expires(&self, now: OffsetDateTime) -> OffsetDateTime {
        let end = now + self.life;
        end.replace_nanosecond(0).unwrap_or(end)
    }
}

impl Federation {
    /// An issuer under this URL with a key of its own; none without random.
    pub(super) fn new(issuer: &str, account: &str, region: &str) -> Option<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).ok()?;
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, document.as_ref(), &random).ok()?;
        let (issuer, account, region) = (issuer.to_owned(), account.to_owned(), region.to_owned());
        Some(Self { issuer, account, region, key, random })
    }

    /// What the issuer publishes under a path, if anything.
    pub(super) fn published(&self, path: &str) -> Option<Answer> {
        match path {
            "/.well-known/openid-configuration" => Some(answer::json(&json!({
                "issuer": self.issuer,
                "jwks_uri": format!("{}/.well-known/jwks.json", self.issuer),
                "id_token_signing_alg_values_supported": ["ES384"],
                "subject_types_supported": ["public"],
            }))),
            "/.well-known/jwks.json" => Some(answer::json(&json!({ "keys": [self.public()] }))),
            _ => None,
        }
    }

    fn public(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(COORDINATE).unwrap_or_default();
        json!({
            "kty": "EC", "crv": "P-384", "alg": "ES384", "use": "sig", "kid": KEY_ID,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// A token that names the caller; none if it cannot be signed.
    pub(super) fn token(&self, caller: &Caller, wish: &Wish, now: OffsetDateTime) -> Option<String> {
        let subject = subject(&caller.arn);
        let mut aws = json!({
            "aws_account": self.account,
            "source_region": self.region,
            "principal_id": subject,
        });
        if let (Some(name), Some(aws)) = (caller.source_identity.as_deref(), aws.as_object_mut()) {
            aws.insert("source_identity".to_owned(), name.into());
        }
        let audience = match wish.audiences.as_slice() {
            [one] => json!(one),
            many => json!(many),
        };
        let claims = json!({
            "iss": self.issuer,
            "aud": audience,
            "sub": subject,
            "iat": now.unix_timestamp(),
            "exp": (now + wish.life).unix_timestamp(),
            "jti": Uuid::new_v4().to_string(),
            "https://sts.amazonaws.com/": aws,
        });
        let header = json!({"alg": "ES384", "kid": KEY_ID, "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The user, or the role without its session: what STS puts into a token.
fn subject(arn: &str) -> String {
    match arn.split_once(":assumed-role/") {
        None => arn.to_owned(),
        Some((head, rest)) => {
            let role = rest.split('/').next().unwrap_or_default();
            format!("{}:role/{role}", head.replacen(":sts:", ":iam:", 1))
        }
    }
}
