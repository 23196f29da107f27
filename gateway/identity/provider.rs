//! What identity is told of providers: the company's own, and AWS accounts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::IdentityError;
use super::config::web_address;

/// The company's identity provider, as it is configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Its exact name, which is its URL.
    pub issuer: String,
    /// How the gateway is registered with it.
    pub client_id: String,
    /// The file with the client's secret; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for; `openid` is always.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim with the person's name.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// The claim with the groups.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// The groups that policies know, `*` for any characters; empty: all.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Domains of verified addresses that may sign in; empty: all.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    /// Groups of which one must be the person's; empty: none needed.
    #[serde(default)]
    pub allowed_groups: Vec<String>,
    /// Words of `amr` that stand for a second factor.
    #[serde(default = "mfa_words")]
    pub mfa: Vec<String>,
    /// Life of the keys that a sign-in is answered with, minutes.
    #[serde(default = "key_minutes")]
    pub key_minutes: u32,
    /// PEM file of roots to trust it by, besides the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// The accounts whose STS issues tokens for this gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebIdentityConfig {
    /// Account to its issuer, `https://<uuid>.tokens.sts.global.api.aws`.
    pub issuers: BTreeMap<String, String>,
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

fn name_claim() -> String {
    "preferred_username".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

fn mfa_words() -> Vec<String> {
    vec!["mfa".to_owned()]
}

fn key_minutes() -> u32 {
    480
}

impl OidcConfig {
    /// A configuration with every default.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            client_id: client_id.into(),
            client_secret_file: None,
            scopes: scopes(),
            name_claim: name_claim(),
            groups_claim: groups_claim(),
            groups: Vec::new(),
            allowed_domains: Vec::new(),
            allowed_groups: Vec::new(),
            mfa: mfa_words(),
            key_minutes: key_minutes(),
            ca_bundle: None,
        }
    }

    /// Refuses what could not work, or would let everybody in by mistake.
    pub(super) fn check(&self) -> Result<(), IdentityError> {
        let wrong = |text: String| Err(IdentityError::Config(format!("oidc.{text}")));
        web_address(&self.issuer).map_err(|why| IdentityError::Config(format!("oidc.issuer: {why}")))?;
        if self.client_id.is_empty() {
            return wrong("client_id is empty".to_owned());
        }
        if !(15..=720).contains(&self.key_minutes) {
            return wrong("key_minutes must be 15 to 720".to_owned());
        }
        if self.scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
            return wrong("scopes has an empty one, or one with a space in it".to_owned());
        }
        if let Some(domain) = self.allowed_domains.iter().find(|domain| domain.contains(['@', '*'])) {
            return wrong(format!("allowed_domains: write {domain:?} as a bare domain"));
        }
        Ok(())
    }

    /// The client's secret, read from its file.
    pub(super) fn secret(&self) -> Result<Option<String>, IdentityError> {
        let Some(path) = &self.client_secret_file else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| {
            IdentityError::Config(format!("oidc.client_secret_file {}: {why}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        match text.trim() {
            "" => Err(wrong(&"it is empty")),
            secret => Ok(Some(secret.to_owned())),
        }
    }
}

impl WebIdentityConfig {
    pub(super) fn check(&self) -> Result<(), IdentityError> {
        let wrong = |text: String| Err(IdentityError::Config(format!("web_identity.issuers: {text}")));
        for (account, issuer) in &self.issuers {
            if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
                return wrong(format!("{account:?} is not twelve digits"));
            }
            if let Err(why) = web_address(issuer) {
                return wrong(format!("{issuer:?} {why}"));
            }
            // One issuer for two accounts would let each speak for the other.
            if self.issuers.values().filter(|other| *other == issuer).count() > 1 {
                return wrong(format!("{issuer} is named for two accounts"));
            }
        }
        Ok(())
    }
}
