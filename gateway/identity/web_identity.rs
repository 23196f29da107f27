//! STS web identity: a token that an account's STS issued for this gateway.
//!
//! It is verified here, against the account's own issuer, so STS is not
//! asked and nothing that it could be replayed to is in between.

use time::{Duration, OffsetDateTime};

use super::config::Checked;
use super::issuer::Issuer;
use super::jwt::{Algorithm, Claims, Expected, Token};
use super::outbound::Outbound;
use super::spent::Spent;
use super::{IdentityError, arn};
use crate::session::{AuthMethod, Facts, Principal};

/// What STS signs with.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Rs256, Algorithm::Es384];
/// Longest life of a token; a client asks for one minute.
const LIFE: Duration = Duration::minutes(15);
/// The claim under which STS puts what only AWS knows.
const AWS: &str = "https://sts.amazonaws.com/";
/// Longest id of a token, bytes; real ones are UUIDs.
const ID_MAX: usize = 256;

/// The accounts' issuers and the tokens that were used.
pub(super) struct WebIdentity {
    issuers: Vec<(String, Issuer)>,
    audience: String,
    spent: Spent,
}

impl WebIdentity {
    pub(super) fn new(config: &Checked) -> Result<Self, IdentityError> {
        let issuer = |(account, name): (&String, &String)| {
            let outbound = Outbound::new(config.ca_bundle.as_deref())?;
            Ok((account.clone(), Issuer::new(name, true, outbound)))
        };
        let issuers = config.web_identity.issuers.iter().map(issuer).collect::<Result<_, IdentityError>>()?;
        Ok(Self { issuers, audience: config.server_url.clone(), spent: Spent::default() })
    }

    /// Whom a token names: checked whole, and good once.
    pub(super) async fn prove(&self, token: &str, now: OffsetDateTime) -> Result<Principal, IdentityError> {
        let token = Token::parse(token, &ALGORITHMS)?;
        let claimed = token.claimed_issuer().unwrap_or_default();
        // By exact name: any account of AWS has an issuer of the same form.
        let found = self.issuers.iter().find(|(_, issuer)| issuer.name() == claimed);
        let (account, issuer) = found.ok_or(IdentityError::Token(
            "its issuer is not one of the accounts whose tokens this gateway takes",
        ))?;
        let claims = issuer.claims(token, now).await?;
        let expected = Expected { issuer: issuer.name(), audience: &self.audience, life: LIFE, age: LIFE };
        claims.check(&expected, now)?;
        let principal = principal(&claims, account)?;
        let id = claims.text("jti").filter(|id| id.len() <= ID_MAX);
        let id = id.ok_or(IdentityError::Token("it has no id of its own"))?;
        let end = claims.moment("exp").unwrap_or(now) + super::jwt::LEEWAY;
        self.spent.spend(&[issuer.name(), id], end, now)?;
        Ok(principal)
    }
}

/// The person: a user, or whom AWS names behind a role's session.
fn principal(claims: &Claims, account: &str) -> Result<Principal, IdentityError> {
    let wrong = |why| IdentityError::Token(why);
    let aws = claims.object(AWS).ok_or_else(|| wrong("it says nothing of an AWS identity"))?;
    if aws.text("aws_account") != Some(account) {
        return Err(wrong("it is of another account than its issuer"));
    }
    let subject = claims.text("sub").unwrap_or_default();
    if aws.text("principal_id").is_some_and(|id| id != subject) {
        return Err(wrong("its subject is not the identity that asked for it"));
    }
    let who = arn::iam(subject, account).ok_or_else(|| wrong("its subject is no user and no role"))?;
    let source_identity = aws.text("source_identity");
    let user = aws.text("identity_store_user_id");
    let person = source_identity.or(user);
    let person = match person {
        Some(person) if !arn::is_name(person) => {
            return Err(wrong("the person behind the role has no name of IAM's form"));
        }
        other => other,
    };
    let tags = match aws.object("principal_tags") {
        None if aws.has("principal_tags") => return Err(wrong("its tags are not an object")),
        None => Vec::new(),
        Some(tags) => {
            let texts = tags.all_texts().ok_or_else(|| wrong("its tags are not texts"))?;
            texts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        }
    };
    let (id, arn, name, role) = match (who.is_role, person) {
        // The subject is the role: without more, everybody who has it is one.
        (true, None) => return Err(IdentityError::NobodyBehindRole),
        (true, Some(person)) => {
            let session = format!("arn:{}:sts::{account}:assumed-role/{}/{person}", who.partition, who.name);
            (format!("{subject}|{person}"), session, person, Some(who.name.to_owned()))
        }
        (false, _) => (subject.to_owned(), subject.to_owned(), who.name, None),
    };
    Ok(Principal {
        id,
        arn,
        account: account.to_owned(),
        name: name.to_owned(),
        role,
        method: AuthMethod::WebIdentity,
        authenticated_at: claims.moment("iat").map_or(0, OffsetDateTime::unix_timestamp),
        facts: Facts {
            source_identity: source_identity.map(str::to_owned),
            identity_center_user: user.filter(|id| arn::is_name(id)).map(str::to_owned),
            tags: tags.into_iter().collect(),
            ..Facts::default()
        },
    })
}
