//! What the operator sets about the pages for browsers.

use serde::Deserialize;

use crate::broker::Secret;
use crate::session::Principal;

/// The pages for browsers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// Whether there are any.
    pub enabled: bool,
    /// Whom one may be without a proof; no file can say so, only a demo.
    #[serde(skip)]
    pub people: Option<People>,
    /// Whether people sign in at the company's identity provider too.
    #[serde(skip)]
    pub provider: bool,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { enabled: true, people: None, provider: false }
    }
}

/// The identities of a demo, for whoever knows its key.
#[derive(Debug, Clone)]
pub struct People {
    /// What has to be known.
    pub key: Secret,
    /// Who is there, and what they may do in a few words.
    pub cast: Vec<(Principal, String)>,
}
