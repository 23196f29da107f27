//! Keys of ours: an id, a derived secret, and a sealed token that says whose.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::key_ring::{Opened, random};
use super::{IdentityError, KeyRing};
use crate::session::Principal;

/// What our access key ids begin with; no key of AWS does.
pub(super) const PREFIX: &str = "PSTN";
/// Longest session token, bytes: several headers must fit into 8 KB.
const TOKEN_MAX: usize = 1536;
/// What a session token is sealed for.
const TOKEN: &str = "session token";
/// What the secret is derived for.
const SECRET: &str = "secret access key";

/// Issues keys and reads their tokens; keeps no state of them.
pub(super) struct Keys {
    ring: Arc<KeyRing>,
    ttl: Duration,
}

/// Keys for one identity, for a limited time.
///
/// Serialised, they are what `credential_process` must print.
#[derive(Clone)]
pub struct Issued {
    /// The id, `PSTN` and 16 characters.
    pub access_key_id: String,
    /// The secret, 40 characters.
    pub secret_access_key: String,
    /// The sealed session token, at most 1.5 KB.
    pub session_token: String,
    /// When they end.
    pub expiration: OffsetDateTime,
    /// Whose they are.
    pub principal: Principal,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

impl Serialize for Issued {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Output<'a> {
            version: u8,
            access_key_id: &'a str,
            secret_access_key: &'a str,
            session_token: &'a str,
            expiration: String,
            #[serde(skip_serializing_if = "str::is_empty")]
            account_id: &'a str,
            principal_arn: &'a str,
        }
        let expiration = self.expiration.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        let output = Output {
            version: 1,
            access_key_id: &self.access_key_id,
            secret_access_key: &self.secret_access_key,
            session_token: &self.session_token,
            expiration,
            account_id: &self.principal.account,
            principal_arn: &self.principal.arn,
        };
        output.serialize(serializer)
    }
}

/// What a session token holds; times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    pub(super) access_key_id: String,
    pub(super) principal: Principal,
    pub(super) issued_at: i64,
    pub(super) expires_at: i64,
}

/// A token that opened, and the secret that belongs to it.
pub(super) struct Known {
    pub(super) claims: Claims,
    pub(super) secret: String,
}

impl Keys {
    pub(super) fn new(ring: Arc<KeyRing>, ttl: Duration) -> Self {
        Self { ring, ttl }
    }

    pub(super) fn issue(&self, principal: Principal, now: OffsetDateTime) -> Result<Issued, IdentityError> {
        self.issue_for(principal, self.ttl, now)
    }

    /// The same, for another time than usual.
    pub(super) fn issue_for(
        &self,
        principal: Principal,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, IdentityError> {
        let access_key_id = format!("{PREFIX}{}", BASE32_NOPAD.encode(&random::<10>()));
        let issued_at = now.unix_timestamp();
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or_default();
        let claims = Claims { access_key_id, principal, issued_at, expires_at: issued_at + ttl };
        let bytes = serde_json::to_vec(&claims).map_err(|_| IdentityError::TooLong)?;
        let session_token = self.ring.seal(TOKEN, &bytes);
        if session_token.len() > TOKEN_MAX {
            return Err(IdentityError::TooLong);
        }
        // Read back as every node will: the secret comes from what was sealed.
        let known = self.read(&session_token)?;
        Ok(Issued {
            access_key_id: known.claims.access_key_id,
            secret_access_key: known.secret,
            session_token,
            expiration: moment(known.claims.expires_at),
            principal: known.claims.principal,
        })
    }

    /// Opens a session token and derives its secret; expiry is not looked at.
    pub(super) fn read(&self, session_token: &str) -> Result<Known, IdentityError> {
        if session_token.len() > TOKEN_MAX {
            return Err(IdentityError::NotSealed);
        }
        let Opened { bytes, key_id } = self.ring.opened(TOKEN, session_token)?;
        let claims: Claims = serde_json::from_slice(&bytes).map_err(|_| IdentityError::NotSealed)?;
        // The claims name id, identity and end: the secret is bound to all.
        let tag = self.ring.mac(&key_id, SECRET, &bytes).ok_or(IdentityError::NotSealed)?;
        let secret = STANDARD.encode(tag.as_ref().get(..30).unwrap_or_default());
        Ok(Known { claims, secret })
    }
}

/// The moment of a Unix time that we wrote ourselves.
pub(super) fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{AuthMethod, Facts};

    const NOW: i64 = 1_795_342_500;

    fn principal() -> Principal {
        Principal {
            id: "AROAEXAMPLE:alice".to_owned(),
            arn: "arn:aws:sts::111122223333:assumed-role/Admin/alice".to_owned(),
            account: "111122223333".to_owned(),
            name: "alice".to_owned(),
            role: Some("Admin".to_owned()),
            method: AuthMethod::StsProof,
            authenticated_at: NOW,
            facts: Facts::default(),
        }
    }

    fn keys(folder: &tempfile::TempDir) -> Keys {
        let ring = KeyRing::open(&folder.path().join("keys")).unwrap();
        Keys::new(Arc::new(ring), Duration::from_secs(3600))
    }

    #[test]
    fn issued_keys_have_the_shape_that_aws_tools_expect() {
        let folder = tempfile::tempdir().unwrap();
        let issued = keys(&folder).issue(principal(), moment(NOW)).unwrap();
        assert_eq!((issued.access_key_id.len(), issued.secret_access_key.len()), (20, 40));
        assert!(issued.access_key_id.starts_with("PSTN"));
        assert!(issued.session_token.len() < 800, "{}", issued.session_token.len());
        let json = serde_json::to_value(&issued).unwrap();
        assert_eq!(json["Version"], 1);
        assert_eq!(json["Expiration"], "2026-11-22T11:15:00Z");
        assert_eq!(json["AccountId"], "111122223333");
        assert_eq!(json["PrincipalArn"], "arn:aws:sts::111122223333:assumed-role/Admin/alice");
        assert_eq!(json["SecretAccessKey"], issued.secret_access_key);
    }

    #[test]
    fn another_node_with_the_same_ring_reads_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let issued = keys(&folder).issue(principal(), moment(NOW)).unwrap();
        let known = keys(&folder).read(&issued.session_token).unwrap();
        assert_eq!(known.secret, issued.secret_access_key);
        assert_eq!(known.claims.principal, principal());
        assert_eq!(known.claims.expires_at, NOW + 3600);
    }

    #[test]
    fn every_issue_has_its_own_secret_and_another_ring_reads_none() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys_here = keys(&folder);
        let one = keys_here.issue(principal(), moment(NOW)).unwrap();
        let two = keys_here.issue(principal(), moment(NOW)).unwrap();
        assert_ne!(one.secret_access_key, two.secret_access_key);
        assert!(keys(&other).read(&one.session_token).is_err());
    }

    #[test]
    fn the_longest_role_session_still_fits_and_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut long = principal();
        (long.name, long.role) = ("n".repeat(64), Some("r".repeat(64)));
        long.arn =
            format!("arn:aws-us-gov:sts::111122223333:assumed-role/{}/{}", "r".repeat(64), "n".repeat(64));
        long.id = format!("AROA{}:{}", "X".repeat(17), "n".repeat(64));
        assert!(keys(&folder).issue(long.clone(), moment(NOW)).is_ok());
        long.name = "n".repeat(1500);
        assert!(matches!(keys(&folder).issue(long, moment(NOW)), Err(IdentityError::TooLong)));
    }

    #[test]
    fn no_secret_is_shown_in_debug() {
        let folder = tempfile::tempdir().unwrap();
        let issued = keys(&folder).issue(principal(), moment(NOW)).unwrap();
        let shown = format!("{issued:?}");
        assert!(!shown.contains(&issued.secret_access_key) && !shown.contains(&issued.session_token));
    }
}
