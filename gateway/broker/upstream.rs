//! One session at AWS: what it is called, how to reach it, with which keys.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use tokio::sync::Mutex;

use super::Token;
use crate::session::{Document, Principal, SessionId, Target};

/// Keys this close to their end are not used for another call.
const KEYS_MARGIN: Duration = Duration::from_secs(5 * 60);

/// What a session's keys are for: one person, machine and document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Our id of the session.
    pub session: SessionId,
    /// Whose it is.
    pub principal: Principal,
    /// The machine.
    pub target: Target,
    /// The document.
    pub document: Document,
    /// The account that the machine is in, twelve digits.
    pub account: String,
    /// The region that it is in.
    pub region: String,
    /// The user of the machine that it runs as, if not SSM's own.
    pub run_as: Option<String>,
}

/// AWS keys, for one session or for the gateway itself.
#[derive(Clone)]
pub struct Keys(pub(super) Credentials);

impl Keys {
    /// The access key id; not a secret.
    pub fn access_key_id(&self) -> &str {
        self.0.access_key_id()
    }

    /// Whether they are good for another five minutes.
    pub(super) fn are_good(&self) -> bool {
        self.0.expiry().is_none_or(|end| end > SystemTime::now() + KEYS_MARGIN)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id()).finish_non_exhaustive()
    }
}

/// A session at AWS, ready to be dialled.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The session's id at AWS; never parsed.
    pub session_id: String,
    /// Where its data channel is; used byte for byte.
    pub stream_url: String,
    /// What opens the data channel, once, soon.
    pub token: Token,
    /// What signs the dial.
    pub keys: Keys,
    pub(super) scope: Arc<Scope>,
}

impl Upstream {
    /// What is needed later to resume or end the session.
    pub fn reference(&self) -> UpstreamRef {
        UpstreamRef {
            session_id: self.session_id.clone(),
            stream_url: Some(self.stream_url.clone()),
            scope: Arc::clone(&self.scope),
            keys: Mutex::new(Some(self.keys.clone())),
        }
    }
}

/// A session at AWS, to be resumed or ended later.
#[derive(Debug)]
pub struct UpstreamRef {
    /// The session's id at AWS.
    pub session_id: String,
    pub(super) stream_url: Option<String>,
    pub(super) scope: Arc<Scope>,
    pub(super) keys: Mutex<Option<Keys>>,
}

impl UpstreamRef {
    /// A session that another process started; keys are taken when needed.
    pub fn new(session_id: String, scope: Scope) -> Self {
        Self { session_id, stream_url: None, scope: Arc::new(scope), keys: Mutex::new(None) }
    }
}
