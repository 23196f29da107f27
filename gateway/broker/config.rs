//! What the broker is told; the rest is standard AWS configuration.

use std::path::PathBuf;
use std::time::Duration;

use aws_credential_types::Credentials;
use serde::Deserialize;

use super::Secret;

/// The StartSession quota of one account and region, calls a second.
const STARTS_PER_SECOND: u32 = 3;
/// Longest life of keys of a chained role, seconds.
const KEY_SECONDS_MAX: u32 = 3600;
/// Shortest life STS gives, seconds.
const KEY_SECONDS_MIN: u32 = 900;

/// How long what SSM says of a machine holds, seconds.
const DESCRIBE_SECONDS: u32 = 30;

/// What the broker is told beyond the standard AWS configuration.
///
/// Environment, profiles, `AWS_ENDPOINT_URL_*`, web identity and instance
/// metadata are read as the AWS SDKs read them; what is set here wins.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// The region of the machines; empty: as the AWS configuration says.
    pub region: String,
    /// The role taken for every session; none: the gateway's own keys.
    pub role_arn: Option<String>,
    /// The external id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The account of the machines; empty: the role's, or asked of STS.
    pub account: String,
    /// The SSM API, if not AWS's own; `https`, or `http` on loopback.
    pub ssm_endpoint_url: Option<String>,
    /// The STS API, if not AWS's own; `https`, or `http` on loopback.
    pub sts_endpoint_url: Option<String>,
    /// The KMS API, if not AWS's own; `https`, or `http` on loopback.
    pub kms_endpoint_url: Option<String>,
    /// The tagging API, if not AWS's own; `https`, or `http` on loopback.
    pub tagging_endpoint_url: Option<String>,
    /// PEM file of roots trusted besides the system's.
    ///
    /// Without it `AWS_CA_BUNDLE` is looked at.
    pub ca_bundle: Option<PathBuf>,
    /// How many StartSession calls go out a second; 0: no limit.
    pub starts_per_second: u32,
    /// How long a session's keys live, seconds, 900 to 3600.
    pub key_seconds: u32,
    /// How long what SSM says of a machine holds, seconds; machines with
    /// running sessions are described again as often.
    pub describe_seconds: u32,
    /// Further accounts and regions with machines.
    pub accounts: Vec<AccountConfig>,
    /// Keys handed over by the embedded demo; never read from a file.
    #[serde(skip)]
    pub static_keys: Option<StaticKeys>,
}

/// One more account and region; what is not said is as for the first.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// The role taken there for every session; it names the account.
    pub role_arn: String,
    /// The external id that this role's trust policy asks for.
    pub external_id: Option<String>,
    /// The region of the machines; the first one's if not set.
    pub region: Option<String>,
    /// The SSM API there, if not AWS's own.
    pub ssm_endpoint_url: Option<String>,
    /// The STS API there, if not AWS's own.
    pub sts_endpoint_url: Option<String>,
    /// The KMS API there, if not AWS's own.
    pub kms_endpoint_url: Option<String>,
    /// The tagging API there, if not AWS's own.
    pub tagging_endpoint_url: Option<String>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            region: String::new(),
            role_arn: None,
            external_id: None,
            account: String::new(),
            ssm_endpoint_url: None,
            sts_endpoint_url: None,
            kms_endpoint_url: None,
            tagging_endpoint_url: None,
            ca_bundle: None,
            starts_per_second: STARTS_PER_SECOND,
            key_seconds: KEY_SECONDS_MAX,
            describe_seconds: DESCRIBE_SECONDS,
            accounts: Vec::new(),
            static_keys: None,
        }
    }
}

impl BrokerConfig {
    /// One configuration for each account and region, the first one first.
    pub(super) fn each(self) -> Vec<Self> {
        let others = self.accounts.iter().map(|other| Self {
            region: other.region.clone().unwrap_or_else(|| self.region.clone()),
            role_arn: Some(other.role_arn.clone()),
            // An external id is a secret between two: never another's.
            external_id: other.external_id.clone(),
            account: String::new(),
            ssm_endpoint_url: other.ssm_endpoint_url.clone(),
            sts_endpoint_url: other.sts_endpoint_url.clone(),
            kms_endpoint_url: other.kms_endpoint_url.clone(),
            tagging_endpoint_url: other.tagging_endpoint_url.clone(),
            accounts: Vec::new(),
            ..self.clone()
        });
        let others: Vec<Self> = others.collect();
        std::iter::once(Self { accounts: Vec::new(), ..self }).chain(others).collect()
    }

    /// How long what SSM says of a machine holds; at least a second.
    pub fn describe_every(&self) -> Duration {
        Duration::from_secs(u64::from(self.describe_seconds.max(1)))
    }

    /// The life of a session's keys within what STS allows.
    pub(super) fn key_seconds(&self) -> i32 {
        let seconds = self.key_seconds.clamp(KEY_SECONDS_MIN, KEY_SECONDS_MAX);
        i32::try_from(seconds).unwrap_or(i32::MAX)
    }
}

/// An access key given in so many words.
#[derive(Debug, Clone)]
pub struct StaticKeys {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: Secret,
    /// The session token of temporary keys.
    pub session_token: Option<Secret>,
}

impl StaticKeys {
    /// As the SDK takes them.
    pub(crate) fn credentials(&self) -> Credentials {
        let token = self.session_token.as_ref().map(|token| token.expose().to_owned());
        Credentials::new(&self.access_key_id, self.secret_access_key.expose(), token, None, "static")
    }
}
