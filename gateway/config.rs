//! One configuration file, made of what each room wants to know.
//!
//! `deploy/postern.toml` shows every key with its default; a test reads it
//! and compares.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::alerts::AlertsConfig;
use crate::archive::ArchiveConfig;
use crate::broker::BrokerConfig;
use crate::console::ConsoleConfig;
use crate::front_door::Tls;
use crate::identity::{OidcConfig, WebIdentityConfig};
use crate::lifecycle::Unproved;
use crate::relay::Times;
use crate::shipper::{AtLimit, ShipperConfig};

/// A session outlives its person's proof by a day at the most.
const GRACE_MINUTES_MAX: u32 = 24 * 60;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file is not TOML of the known keys; tells line and column.
    #[error("{path} is not a valid configuration: {why}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong where.
        why: toml::de::Error,
    },
    /// A value cannot be used.
    #[error("{key}: {why}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong and what to write instead.
        why: String,
    },
}

/// The whole configuration of `postern serve`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where keys, recordings and the embedded database are kept.
    pub state_directory: PathBuf,
    /// The public listener.
    pub listen: ListenConfig,
    /// Metrics and health.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Who is calling?
    pub identity: IdentitySection,
    /// May they?
    pub policy: PolicyConfig,
    /// Which session upstream?
    #[serde(default)]
    pub broker: BrokerConfig,
    /// Where sessions and decisions are kept.
    #[serde(default)]
    pub registry: RegistrySection,
    /// Where recordings are written.
    #[serde(default)]
    pub recorder: RecorderSection,
    /// What is worth telling somebody.
    #[serde(default)]
    pub alerts: AlertsConfig,
    /// Where recordings are kept for good.
    #[serde(default)]
    pub archive: ArchiveConfig,
    /// Where recordings are shipped to.
    #[serde(default)]
    pub shipper: ShipperConfig,
    /// What sessions may do.
    #[serde(default)]
    pub sessions: SessionsConfig,
    /// The pages for browsers.
    #[serde(default)]
    pub console: ConsoleConfig,
}

/// The public listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Address and port; port 0 takes a free one.
    #[serde(default = "listen_address")]
    pub address: SocketAddr,
    /// What clients call it; `https://<address>` if not set.
    pub public_url: Option<String>,
    /// The certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Connections of one IPv4 address or IPv6 /64 at the most; 0: any.
    #[serde(default = "connections_per_source")]
    pub connections_per_source: usize,
}

/// The admin listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Plain HTTP, so on loopback unless a firewall stands before it.
    pub address: SocketAddr,
}

/// Sign-in and signatures.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentitySection {
    /// Accounts whose identities may sign in, twelve digits each.
    pub allowed_accounts: Vec<String>,
    /// Regions that calls may be signed for.
    pub regions: Vec<String>,
    /// Life of gateway-issued keys, minutes.
    #[serde(default = "key_minutes")]
    pub key_minutes: u32,
    /// Where STS is called, if not at AWS; the signed host stays AWS's.
    pub sts_endpoint_url: Option<String>,
    /// PEM file of roots trusted for that call besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The company's identity provider, if people sign in with it.
    #[serde(default)]
    pub oidc: Option<OidcConfig>,
    /// The accounts whose STS issues tokens for this gateway.
    #[serde(default)]
    pub web_identity: WebIdentityConfig,
}

/// The policy folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// Holds `*.cedar` and `groups.toml`.
    pub directory: PathBuf,
}

/// The database.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySection {
    /// `sqlite:<file>`; `<state_directory>/postern.db` if not set.
    pub url: Option<String>,
}

/// The recordings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecorderSection {
    /// The spool; `<state_directory>/recordings` if not set.
    pub spool: Option<PathBuf>,
    /// Megabytes that must be free where the spool is for a session to begin.
    pub reserve_mb: u64,
}

impl Default for RecorderSection {
    fn default() -> Self {
        Self { spool: None, reserve_mb: 512 }
    }
}

/// Limits and times of sessions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// Sessions on this node at the most.
    pub maximum: usize,
    /// Sessions of one principal on this node at the most.
    pub per_principal: usize,
    /// Connections at once in one port session at the most.
    pub connections_per_session: usize,
    /// Own pings on both legs, seconds.
    pub ping_seconds: u64,
    /// How long a new session waits for its first client, seconds.
    pub first_client_seconds: u64,
    /// How long a session lives without a client, seconds.
    pub client_away_seconds: u64,
    /// How often SSM is asked for sessions past the gateway, seconds.
    pub shadow_seconds: u64,
    /// What becomes of sessions whose person's proof of identity is over.
    pub identity_expiry: IdentityExpiry,
    /// How long after it they end, minutes, 0 to 1440.
    pub identity_grace_minutes: u32,
    /// This node's name in records; the host's name if empty.
    pub node: String,
    /// What happens to sessions when the gateway is stopped.
    pub on_stop: OnStop,
}

/// What becomes of sessions whose person's proof of identity is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityExpiry {
    /// They end, `identity_grace_minutes` later.
    #[default]
    End,
    /// What policy says, which is asked again then.
    Ask,
}

/// What happens to sessions when the gateway is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// They are left as they are; the next start goes on with them.
    #[default]
    HandOver,
    /// They are ended and their recordings sealed.
    End,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464) }
    }
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            maximum: 5000,
            per_principal: 50,
            connections_per_session: 256,
            ping_seconds: 30,
            first_client_seconds: 60,
            client_away_seconds: 1200,
            shadow_seconds: 60,
            identity_expiry: IdentityExpiry::End,
            identity_grace_minutes: 480,
            node: String::new(),
            on_stop: OnStop::HandOver,
        }
    }
}

fn listen_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443)
}

/// A tenth of all; an office behind one address has a few hundred.
fn connections_per_source() -> usize {
    2000
}

fn key_minutes() -> u32 {
    60
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|why| ConfigError::Read { path: shown(), why })?;
        let config: Self = toml::from_str(&text).map_err(|why| ConfigError::Parse { path: shown(), why })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that would only fail later, or fail open.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Value { key, why: why.to_owned() });
        if self.identity.allowed_accounts.is_empty() {
            return wrong("identity.allowed_accounts", "name at least one account, or nobody can sign in");
        }
        if self.identity.regions.is_empty() {
            return wrong("identity.regions", "name at least one region that callers sign for");
        }
        if let Some(url) = &self.listen.public_url
            && (!url.starts_with("https://") || url.ends_with('/'))
        {
            return wrong(
                "listen.public_url",
                "write it as https://host or https://host:port, without a path",
            );
        }
        if self.sessions.ping_seconds == 0 || self.sessions.maximum == 0 || self.sessions.per_principal == 0 {
            return wrong("sessions", "maximum, per_principal and ping_seconds must be at least 1");
        }
        if let Err(error) = self.archive.check() {
            return wrong("archive", &error.to_string());
        }
        if self.archive.location.is_some() && self.shipper.at_limit == AtLimit::RemoveShipped {
            return wrong(
                "shipper.at_limit",
                "with an archive, recordings leave the spool once archived: set archive.keep_local_days",
            );
        }
        if self.sessions.identity_grace_minutes > GRACE_MINUTES_MAX {
            return wrong("sessions.identity_grace_minutes", "it must be 0 to 1440 minutes, which is a day");
        }
        if self.sessions.connections_per_session == 0 {
            return wrong("sessions.connections_per_session", "it must be at least 1");
        }
        Ok(())
    }

    /// Certificate and key of the public listener.
    pub fn tls(&self) -> Tls {
        Tls { certificate: self.listen.certificate.clone(), key: self.listen.key.clone() }
    }

    /// The database's URL.
    pub fn registry_url(&self) -> String {
        let default = || format!("sqlite:{}", self.state_directory.join("postern.db").display());
        self.registry.url.clone().unwrap_or_else(default)
    }

    /// The spool's folder.
    pub fn spool(&self) -> PathBuf {
        self.recorder.spool.clone().unwrap_or_else(|| self.state_directory.join("recordings"))
    }

    /// Where the shipper keeps its own files.
    pub fn shipper_folder(&self) -> PathBuf {
        self.state_directory.join("shipper")
    }

    /// The key that signs recordings.
    pub fn signing_key(&self) -> PathBuf {
        self.state_directory.join("keys").join("recording.key")
    }

    /// The master keys that seal tokens and derive secrets.
    pub fn key_ring(&self) -> PathBuf {
        self.state_directory.join("keys").join("ring.key")
    }

    /// What becomes of sessions whose person's proof is over.
    pub fn unproved(&self) -> Unproved {
        let grace = u64::from(self.sessions.identity_grace_minutes) * 60;
        match self.sessions.identity_expiry {
            IdentityExpiry::End => Unproved::End(Duration::from_secs(grace)),
            IdentityExpiry::Ask => Unproved::AsPolicySays,
        }
    }

    /// The relay's times.
    pub fn times(&self) -> Times {
        Times {
            ping: Duration::from_secs(self.sessions.ping_seconds),
            first_client: Duration::from_secs(self.sessions.first_client_seconds),
            client_away: Duration::from_secs(self.sessions.client_away_seconds),
            ..Times::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        state_directory = "/var/lib/postern"
        [listen]
        certificate = "/etc/postern/tls.pem"
        key = "/etc/postern/tls.key"
        [identity]
        allowed_accounts = ["111122223333"]
        regions = ["us-east-1"]
        [policy]
        directory = "/etc/postern/policies"
    "#;

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let shipped = include_str!("../deploy/postern.toml");
        // Keys that have no default are written out; the others stand behind a `#`.
        let uncommented: String = shipped.lines().map(uncomment).collect();
        let full: Config = toml::from_str(&uncommented).unwrap();
        let least: Config = toml::from_str(LEAST).unwrap();
        full.check().unwrap();
        assert_eq!(full.listen.address, least.listen.address);
        assert_eq!(full.listen.connections_per_source, least.listen.connections_per_source);
        assert_eq!(full.admin.address, least.admin.address);
        assert_eq!(full.identity.key_minutes, least.identity.key_minutes);
        assert_eq!(format!("{:?}", full.sessions), format!("{:?}", least.sessions));
        assert_eq!(full.broker.starts_per_second, least.broker.starts_per_second);
        assert_eq!(full.broker.key_seconds, least.broker.key_seconds);
        assert_eq!(full.registry_url(), least.registry_url());
        assert_eq!(full.spool(), least.spool());
        assert_eq!(full.shipper.retention_days, least.shipper.retention_days);
        let as_shipped: Config = toml::from_str(shipped).unwrap();
        assert_eq!(format!("{as_shipped:?}"), format!("{least:?}"));
    }

    #[test]
    fn what_the_archive_may_still_need_is_not_removed_for_the_shipper() {
        let removing = "\n[shipper]\nlog_group = \"/postern\"\nat_limit = \"remove_shipped\"\n";
        let alone: Config = toml::from_str(&format!("{LEAST}{removing}")).unwrap();
        alone.check().unwrap();
        let both = format!("{LEAST}{removing}[archive]\nlocation = \"/var/lib/archive\"\n");
        let refused = toml::from_str::<Config>(&both).unwrap().check().unwrap_err();
        assert!(refused.to_string().contains("archive.keep_local_days"), "{refused}");
    }

    /// `#key = value` becomes `key = value`; prose begins with `# `.
    fn uncomment(line: &str) -> String {
        let key = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        format!("{}\n", key.unwrap_or(line))
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let text = LEAST.replace("regions", "regoins");
        let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
        assert!(error.contains("regoins") && error.contains("line 8"), "{error}");
    }

    #[test]
    fn a_gateway_that_nobody_can_sign_in_to_does_not_start() {
        let text = LEAST.replace("\"111122223333\"", "");
        let config: Config = toml::from_str(&text).unwrap();
        assert!(config.check().unwrap_err().to_string().contains("allowed_accounts"));
    }
}
