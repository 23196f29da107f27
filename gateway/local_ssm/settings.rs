//! What the stand-in is made of: identities, roles, targets, habits.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What an agent says it is: new enough for every feature of a plugin.
const AGENT_VERSION: &str = "3.3.1957.0";

/// Everything [`LocalSsm::start`](super::LocalSsm::start) needs.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS; without it the listener speaks plain text, on loopback only.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// `https://host:port` for stream URLs; the listener's address if none.
    pub public_url: Option<String>,
    /// The account, twelve digits.
    pub account: String,
    /// The region in every signature's scope.
    pub region: String,
    /// Who has long-term keys.
    pub identities: Vec<LocalIdentity>,
    /// ARNs of the roles that any caller may assume.
    pub roles: Vec<String>,
    /// The external id that every role's trust policy asks for, if any.
    pub external_id: Option<String>,
    /// The KMS keys, by id or ARN.
    pub kms_keys: Vec<String>,
    /// The machines; each is this machine under another name.
    pub targets: Vec<LocalTarget>,
    /// The account's own session documents, name to JSON content.
    ///
    /// One named `SSM-SessionManagerRunShell` replaces the default shell's.
    pub documents: BTreeMap<String, String>,
    /// How service and agent behave.
    pub habits: Habits,
}

impl LocalConfig {
    /// Nobody and nothing yet, at the given address.
    pub fn new(listen: SocketAddr, account: &str, region: &str) -> Self {
        Self {
            listen,
            tls: None,
            public_url: None,
            account: account.to_owned(),
            region: region.to_owned(),
            identities: Vec::new(),
            roles: Vec::new(),
            external_id: None,
            kms_keys: Vec::new(),
            targets: Vec::new(),
            documents: BTreeMap::new(),
            habits: Habits::default(),
        }
    }
}

/// One holder of long-term keys.
#[derive(Clone)]
pub struct LocalIdentity {
    /// The key's id.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// The session token that must come with it, if any.
    pub session_token: Option<String>,
    /// Its ARN.
    pub arn: String,
    /// Its unique id, `AIDA…` or `AROA…:session`.
    pub user_id: String,
}

impl fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIdentity")
            .field("access_key_id", &self.access_key_id)
            .field("arn", &self.arn)
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// One machine: a shell in a folder and ports, under an instance id.
#[derive(Debug, Clone)]
pub struct LocalTarget {
    /// Its id, `i-…`, `mi-…` or `ecs:cluster_task_runtime`.
    pub id: String,
    /// Its name, as `ComputerName` and `Name`.
    pub name: String,
    /// Its tags; SSM tells them of `mi-…` only.
    pub tags: BTreeMap<String, String>,
    /// The shell with its arguments.
    pub shell: Vec<String>,
    /// Where sessions start.
    pub directory: PathBuf,
    /// Added to the small environment that every session gets.
    pub environment: BTreeMap<String, String>,
    /// The KMS key that encrypts its sessions, by id or ARN.
    ///
    /// A document that names a key of its own wins.
    pub kms_key: Option<String>,
    /// Where its ports are; any other is the same port of this machine.
    pub ports: BTreeMap<u16, SocketAddr>,
    /// Where ports of hosts are that it reaches; others are looked up.
    pub hosts: BTreeMap<(String, u16), SocketAddr>,
    /// What its agent says it is, four numbers; a recent one if none.
    ///
    /// Both ends pick the mode of a port session by it, so an old agent is
    /// old: up to 3.0.196.0 it carries one connection at a time.
    pub agent_version: Option<String>,
}

impl LocalTarget {
    /// A machine with a login `bash`, starting in `/`.
    pub fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            tags: BTreeMap::new(),
            shell: vec!["/bin/bash".to_owned(), "-l".to_owned()],
            directory: PathBuf::from("/"),
            environment: BTreeMap::new(),
            kms_key: None,
            ports: BTreeMap::new(),
            hosts: BTreeMap::new(),
            agent_version: None,
        }
    }

    /// The machine for a session whose document may name a key.
    pub(super) fn encrypting_with(self: &Arc<Self>, kms_key: Option<String>) -> Arc<Self> {
        match kms_key {
            None => Arc::clone(self),
            Some(_) => Arc::new(Self { kms_key, ..Self::clone(self) }),
        }
    }

    /// What its agent says it is.
    pub(super) fn agent_version(&self) -> &str {
        self.agent_version.as_deref().unwrap_or(AGENT_VERSION)
    }

    /// Whether there is no newer one here.
    pub(super) fn agent_is_latest(&self) -> bool {
        self.agent_version() == AGENT_VERSION
    }
}

/// How service and agent behave; the default suits demos and tests.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Wait before a terminal's first output; the real agent waits 1 s.
    pub initial_delay: Duration,
    /// Wait before an acknowledge; real peers lose those under 2 ms.
    pub acknowledge_delay: Duration,
    /// A session that nobody is connected to ends after this.
    pub disconnected_end: Duration,
    /// Wait after each message of output; the real agent waits 1 ms.
    pub pace: Duration,
    /// How often smux tells old clients that it lives; its own value is 10 s.
    pub keep_alive: Duration,
    /// Acknowledge the answer to the handshake after HandshakeComplete, as the
    /// real agent may.
    pub acknowledge_after_complete: bool,
    /// Name this port in handshakes, whatever is dialled: a lying agent.
    pub handshake_port: Option<u16>,
    /// Keep the bytes that the agent sent, for tests to compare.
    pub keep_sent: bool,
    /// Have a random challenge bound to KMS keys, as newer agents do.
    pub kms_challenge: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            initial_delay: Duration::ZERO,
            // Above the 2 ms in which both real programs miss one.
            acknowledge_delay: Duration::from_millis(3),
            // The service's own idle timeout when nobody changed it.
            disconnected_end: Duration::from_secs(20 * 60),
            pace: Duration::ZERO,
            keep_alive: Duration::from_secs(10),
            acknowledge_after_complete: false,
            handshake_port: None,
            keep_sent: false,
            kms_challenge: true,
        }
    }
}
