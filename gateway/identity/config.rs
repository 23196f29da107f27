//! What identity is told: its own name, whom it admits, where STS is.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use sigv4::sts_proof;

use super::IdentityError;
use super::provider::{OidcConfig, WebIdentityConfig};

/// Shortest life of issued keys: the CLI refreshes at 15 minutes left.
const KEY_TTL_MIN: Duration = Duration::from_secs(15 * 60);
/// Longest life of issued keys: one working day.
const KEY_TTL_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Configuration of identity.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// The URL clients use for this gateway, `https://host[:port]`.
    pub server_url: String,
    /// Further `host[:port]` that a request may be signed for.
    pub hosts: Vec<String>,
    /// The AWS accounts whose identities are admitted; never empty.
    pub allowed_accounts: Vec<String>,
    /// The regions served; empty means every region there is.
    pub regions: Vec<String>,
    /// Where to connect for STS instead of the region's own endpoint.
    ///
    /// The signed `Host` stays the region's; plain http only for loopback.
    pub sts_endpoint_url: Option<String>,
    /// Further roots to trust STS by, PEM.
    pub ca_bundle: Option<PathBuf>,
    /// How long issued keys live, 15 minutes to 12 hours.
    pub key_ttl: Duration,
    /// The company's identity provider, if people sign in with it.
    pub oidc: Option<OidcConfig>,
    /// The accounts whose STS issues tokens for this gateway.
    pub web_identity: WebIdentityConfig,
}

impl IdentityConfig {
    /// A configuration with every default, for these accounts.
    pub fn new(server_url: impl Into<String>, allowed_accounts: Vec<String>) -> Self {
        Self {
            server_url: server_url.into(),
            hosts: Vec::new(),
            allowed_accounts,
            regions: Vec::new(),
            sts_endpoint_url: None,
            ca_bundle: None,
            key_ttl: Duration::from_secs(60 * 60),
            oidc: None,
            web_identity: WebIdentityConfig::default(),
        }
    }
}

/// A configuration that has been checked.
pub(super) struct Checked {
    /// The gateway's URL without a trailing slash.
    pub(super) server_url: String,
    pub(super) sts_endpoint_url: Option<Url>,
    pub(super) ca_bundle: Option<PathBuf>,
    pub(super) key_ttl: Duration,
    pub(super) oidc: Option<OidcConfig>,
    pub(super) web_identity: WebIdentityConfig,
    hosts: Vec<String>,
    allowed_accounts: Vec<String>,
    regions: Vec<String>,
}

impl Checked {
    pub(super) fn of(config: IdentityConfig) -> Result<Self, IdentityError> {
        let wrong = |text: String| Err(IdentityError::Config(text));
        let server = endpoint("server_url", &config.server_url)?;
        let server_url = server.as_str().trim_end_matches('/').to_owned();
        let sts_endpoint_url =
            config.sts_endpoint_url.as_deref().map(|url| endpoint("sts_endpoint_url", url)).transpose()?;
        if config.allowed_accounts.is_empty() {
            return wrong("allowed_accounts is empty: name at least one AWS account".to_owned());
        }
        let malformed =
            |account: &&String| account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(account) = config.allowed_accounts.iter().find(malformed) {
            return wrong(format!("allowed_accounts: {account:?} is not twelve digits"));
        }
        if let Some(region) = config.regions.iter().find(|region| sts_proof::endpoint(region).is_none()) {
            return wrong(format!("regions: {region:?} is not a region of AWS"));
        }
        if !(KEY_TTL_MIN..=KEY_TTL_MAX).contains(&config.key_ttl) {
            return wrong("key_ttl must be 15 minutes to 12 hours".to_owned());
        }
        config.oidc.as_ref().map_or(Ok(()), OidcConfig::check)?;
        config.web_identity.check()?;
        let unadmitted = |account: &&String| !config.allowed_accounts.contains(account);
        if let Some(account) = config.web_identity.issuers.keys().find(unadmitted) {
            return wrong(format!("web_identity.issuers: {account} is not in allowed_accounts"));
        }
        let mut hosts: Vec<String> = config.hosts.iter().map(|host| canonical_host(host)).collect();
        hosts.extend(server_url.split_once("://").map(|(_, host)| canonical_host(host)));
        Ok(Self {
            server_url,
            sts_endpoint_url,
            ca_bundle: config.ca_bundle,
            key_ttl: config.key_ttl,
            oidc: config.oidc,
            web_identity: config.web_identity,
            hosts,
            allowed_accounts: config.allowed_accounts,
            regions: config.regions,
        })
    }

    pub(super) fn check_region(&self, region: &str) -> Result<(), IdentityError> {
        let known = sts_proof::endpoint(region).is_some();
        let served = self.regions.is_empty() || self.regions.iter().any(|one| one == region);
        if known && served { Ok(()) } else { Err(IdentityError::Region(region.chars().take(32).collect())) }
    }

    pub(super) fn allows_account(&self, account: &str) -> bool {
        self.allowed_accounts.iter().any(|allowed| allowed == account)
    }

    /// Whether a signed `Host` names this gateway.
    pub(super) fn is_our_host(&self, host: &str) -> bool {
        let host = canonical_host(host);
        self.hosts.contains(&host)
    }
}

/// Reads an `https` URL without path; `http` is for loopback alone.
fn endpoint(key: &str, text: &str) -> Result<Url, IdentityError> {
    let wrong = |why: &str| IdentityError::Config(format!("{key}: {text:?} {why}"));
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() || url.host_str().is_none() {
        return Err(wrong("must be https://host[:port] and nothing more"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(wrong("must be https; plain http is for loopback addresses only")),
    }
}

/// Reads the address of something at a provider: https, or loopback.
pub(super) fn web_address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL")?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match url.scheme() {
        _ if !plain || url.host_str().is_none() => Err("has parts that it must not have"),
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err("must be https; plain http is for loopback addresses only"),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Lower case, without the default port of https.
fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(":443").map(str::to_owned).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> IdentityConfig {
        IdentityConfig::new("https://gw.example.com:8443/", vec!["111122223333".to_owned()])
    }

    fn refusal(change: impl Fn(&mut IdentityConfig)) -> String {
        let mut config = config();
        change(&mut config);
        Checked::of(config).err().expect("the configuration was accepted").to_string()
    }

    #[test]
    fn a_configuration_that_admits_nobody_or_nonsense_is_refused() {
        assert!(refusal(|config| config.allowed_accounts.clear()).contains("at least one AWS account"));
        assert!(refusal(|config| config.allowed_accounts.push("1234".into())).contains("twelve digits"));
        assert!(refusal(|config| config.regions.push("mars-1".into())).contains("not a region"));
        assert!(refusal(|config| config.key_ttl = Duration::from_secs(60)).contains("15 minutes"));
    }

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for good in
            ["http://127.0.0.1:1234", "http://[::1]:1234", "http://localhost:1", "https://sts.example.com"]
        {
            assert!(endpoint("x", good).is_ok(), "{good} was refused");
        }
        for bad in [
            "http://10.0.0.1",
            "http://localhost.evil.example",
            "ftp://localhost",
            "https://a/b",
            "https://u:p@a",
            "x",
        ] {
            assert!(endpoint("x", bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_host_is_ours_in_any_case_and_with_the_default_port() {
        let mut given = config();
        given.hosts.push("alias.example.com".to_owned());
        let checked = Checked::of(given).unwrap();
        assert_eq!(checked.server_url, "https://gw.example.com:8443");
        for ours in
            ["gw.example.com:8443", "GW.example.com:8443", "alias.example.com", "alias.example.com:443"]
        {
            assert!(checked.is_our_host(ours), "{ours} is not ours");
        }
        for other in ["gw.example.com", "evil.example.com", "", "gw.example.com:8443.evil"] {
            assert!(!checked.is_our_host(other), "{other} is ours");
        }
    }
}
