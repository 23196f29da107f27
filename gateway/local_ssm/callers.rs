//! Who signed a call: long-term keys, and the temporary ones we gave out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use sigv4::{Presented, Request, Rules, SignatureError};
use time::OffsetDateTime;

use super::parking::Mutex;
use super::settings::{LocalConfig, LocalIdentity};

/// Most temporary keys kept; at 200 sessions an hour's worth fits.
const TEMPORARY_MAX: usize = 5_000;
/// Random bytes of a session token; 240 give the 320 characters of a short
/// real one.
const TOKEN_BYTES: usize = 240;
/// Random bytes of a secret: 30 give the 40 characters that SDKs expect.
const SECRET_BYTES: usize = 30;

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The ARN that `GetCallerIdentity` tells.
    pub(super) arn: String,
    /// The unique id that it tells.
    pub(super) user_id: String,
    /// The session policy that narrows it, if it came from `AssumeRole`.
    pub(super) session_policy: Option<String>,
    /// The source identity of its session, if it is a session.
    pub(super) source_identity: Option<String>,
    /// The user of the machine that its session tags say.
    pub(super) run_as: Option<String>,
}

impl Caller {
    /// The user or role session name: how its sessions' ids begin.
    pub(super) fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or(&self.arn)
    }
}

/// Why a call's signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such key, or not with this token.
    UnknownKey,
    /// The temporary keys are too old.
    Expired,
    /// The scope names another region.
    OtherRegion,
    /// The request was sent to a host that is not this one.
    OtherHost,
    /// The signature itself.
    Signature(SignatureError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey => f.write_str("The security token included in the request is invalid."),
            Self::Expired => f.write_str("The security token included in the request is expired"),
            Self::OtherRegion => f.write_str("Credential should be scoped to a valid region."),
            Self::OtherHost => f.write_str("The Host header does not name this service."),
            Self::Signature(error) => error.fmt(f),
        }
    }
}

/// Keys of `AssumeRole`.
#[derive(Clone)]
pub(super) struct Temporary {
    /// The key's id, `ASIA…`.
    pub(super) access_key_id: String,
    /// The secret.
    pub(super) secret: String,
    /// The token that must come with it.
    pub(super) token: String,
    /// When it stops working.
    pub(super) expires: OffsetDateTime,
    /// Who the caller is then.
    pub(super) caller: Caller,
}

/// Every key that is good for a signature.
pub(super) struct Callers {
    region: String,
    hosts: Vec<String>,
    lasting: BTreeMap<String, LocalIdentity>,
    temporary: Mutex<HashMap<String, Temporary>>,
}

impl Callers {
    /// The configured identities, reached under the listener's address.
    pub(super) fn new(config: &LocalConfig, addr: SocketAddr, public_url: &str) -> Self {
        let region = config.region.clone();
        let named = public_url.split("://").nth(1).unwrap_or_default().to_owned();
        let mut hosts = vec![addr.to_string(), format!("localhost:{}", addr.port()), named];
        hosts.extend(
            ["ssm", "sts", "kms", "ssmmessages"].map(|service| format!("{service}.{region}.amazonaws.com")),
        );
        let lasting = config.identities.iter().map(|i| (i.access_key_id.clone(), i.clone())).collect();
        Self { region, hosts, lasting, temporary: Mutex::default() }
    }

    /// Verifies a request's signature for a service.
    pub(super) fn verify(
        &self,
        request: &Request<'_>,
        rules: &Rules<'_>,
        now: OffsetDateTime,
    ) -> Result<Caller, Refusal> {
        let presented = Presented::read(request).map_err(Refusal::Signature)?;
        let key = self.key(&presented.access_key_id).ok_or(Refusal::UnknownKey)?;
        if !same(key.token.as_deref(), presented.security_token.as_deref()) {
            return Err(Refusal::UnknownKey);
        }
        sigv4::verify(request, &presented, &key.secret, now, rules).map_err(Refusal::Signature)?;
        if presented.region != self.region {
            return Err(Refusal::OtherRegion);
        }
        if !request
            .values("host")
            .all(|host| self.hosts.iter().any(|h| h.as_bytes().eq_ignore_ascii_case(host)))
        {
            return Err(Refusal::OtherHost);
        }
        if key.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::Expired);
        }
        Ok(key.caller)
    }

    /// Mints temporary keys for a caller.
    pub(super) fn mint(&self, caller: Caller, expires: OffsetDateTime, now: OffsetDateTime) -> Temporary {
        let id = BASE32_NOPAD.encode(&random::<10>());
        let keys = Temporary {
            access_key_id: format!("ASIA{id}"),
            secret: STANDARD.encode(random::<SECRET_BYTES>()),
            token: STANDARD.encode(random::<TOKEN_BYTES>()),
            expires,
            caller,
        };
        let mut temporary = self.temporary.lock();
        if temporary.len() >= TEMPORARY_MAX {
            temporary.retain(|_, keys| keys.expires > now);
        }
        if temporary.len() >= TEMPORARY_MAX {
            let soonest = temporary.values().min_by_key(|keys| keys.expires);
            if let Some(id) = soonest.map(|keys| keys.access_key_id.clone()) {
                temporary.remove(&id);
            }
        }
        temporary.insert(keys.access_key_id.clone(), keys.clone());
        keys
    }

    /// Makes every temporary key too old at once.
    pub(super) fn expire_all(&self) {
        for keys in self.temporary.lock().values_mut() {
            keys.expires = OffsetDateTime::UNIX_EPOCH;
        }
    }

    fn key(&self, access_key_id: &str) -> Option<Key> {
        if let Some(identity) = self.lasting.get(access_key_id) {
            let (arn, user_id) = (identity.arn.clone(), identity.user_id.clone());
            return Some(Key {
                secret: identity.secret_access_key.clone(),
                token: identity.session_token.clone(),
                expires: None,
                caller: Caller {
                    source_identity: session_name(&arn),
                    arn,
                    user_id,
                    session_policy: None,
                    run_as: None,
                },
            });
        }
        let temporary = self.temporary.lock();
        let keys = temporary.get(access_key_id)?;
        Some(Key {
            secret: keys.secret.clone(),
            token: Some(keys.token.clone()),
            expires: Some(keys.expires),
            caller: keys.caller.clone(),
        })
    }
}

/// A configured session is the person's that its name says.
fn session_name(arn: &str) -> Option<String> {
    arn.contains(":assumed-role/").then(|| arn.rsplit('/').next().unwrap_or_default().to_owned())
}

struct Key {
    secret: String,
    token: Option<String>,
    expires: Option<OffsetDateTime>,
    caller: Caller,
}

/// Whether two tokens are equal, in a time that tells nothing of them.
fn same(kept: Option<&str>, given: Option<&str>) -> bool {
    let hash = |token: Option<&str>| token.map(token_digest);
    hash(kept) == hash(given)
}

/// What is kept of a token: comparing it needs no care about time.
pub(super) fn token_digest(token: &str) -> [u8; 32] {
    let mut kept = [0; 32];
    kept.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    kept
}

/// Bytes from the operating system; without them nothing here is safe.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}
