//! AWS, for one machine: SSM API, STS, KMS, message gateway and agent.
//!
//! The gateway reaches it as it reaches AWS: signed calls over HTTP, a stream
//! URL, a data channel. Behind each target are a real shell and real ports.

mod agent;
mod answer;
mod callers;
mod channel;
mod document;
mod documents;
mod faults;
mod federation;
mod input;
mod inventory;
mod kms;
mod listener;
mod parking;
mod platform;
mod process;
mod runes;
mod session_policy;
mod sessions;
mod settings;
mod ssm;
mod sts;
mod tagging;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use callers::Callers;
use documents::Documents;
use federation::Federation;
use kms::KeyService;
use parking::Mutex;
use platform::Platform;
use sessions::Sessions;

pub use sessions::Counts;
pub use settings::{Habits, LocalConfig, LocalIdentity, LocalTarget};

/// How long a stop waits for shells to leave and clients to be told: more
/// than a polite close and a killed shell need together.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Why the stand-in does not start.
#[derive(Debug, thiserror::Error)]
pub enum LocalSsmError {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// Plain text would leave the machine.
    #[error("{0} is not a loopback address: local_ssm needs TLS there")]
    PlainText(SocketAddr),
    /// Two targets have one id, or a target's id is not one.
    #[error("the target id {0:?} is not valid or is there twice")]
    Target(String),
    /// There is nothing to seal data keys with.
    #[error("the key service or the token issuer does not start")]
    Keys,
    /// A document is none, or has a name that it cannot have.
    #[error("the document {0:?} is not valid: {1}")]
    Document(String, String),
}

/// The stand-in for AWS.
pub struct LocalSsm;

impl LocalSsm {
    /// Listens and serves until it is stopped or dropped.
    pub async fn start(config: LocalConfig) -> Result<Running, LocalSsmError> {
        if config.tls.is_none() && !config.listen.ip().is_loopback() {
            return Err(LocalSsmError::PlainText(config.listen));
        }
        let targets = targets(&config)?;
        let documents = Documents::new(&config.documents)?;
        let listen = |error| LocalSsmError::Listen(config.listen, error);
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let url = config.public_url.clone().unwrap_or_else(|| format!("{scheme}://{addr}"));
        let url = url.trim_end_matches('/').to_owned();
        let keys = KeyService::new(&config.account, &config.region, &config.kms_keys);
        let keys = keys.ok_or(LocalSsmError::Keys)?;
        let federation = Federation::new(&url, &config.account, &config.region);
        let (stop, shutdown) = watch::channel(false);
        let (alive, idle) = mpsc::channel(1);
        let service = Arc::new(Service {
            callers: Callers::new(&config, addr, &url),
            federation: federation.ok_or(LocalSsmError::Keys)?,
            account: config.account,
            region: config.region,
            keys,
            roles: config.roles.into_iter().collect(),
            external_id: config.external_id,
            habits: config.habits,
            stream_url: url.replacen("http", "ws", 1),
            sessions: Sessions::default(),
            offline: Mutex::default(),
            platform: Platform::here(),
            retagged: Mutex::default(),
            targets,
            documents,
            shutdown,
        });
        let listening = listener::run(Arc::clone(&service), listener, config.tls, alive);
        Ok(Running { addr, url, service, stop, idle, listening: tokio::spawn(listening) })
    }
}

fn targets(config: &LocalConfig) -> Result<BTreeMap<String, Arc<LocalTarget>>, LocalSsmError> {
    let mut targets = BTreeMap::new();
    for target in &config.targets {
        let known = targets.insert(target.id.clone(), Arc::new(target.clone())).is_some();
        if known || crate::session::Target::parse(&target.id).is_err() {
            return Err(LocalSsmError::Target(target.id.clone()));
        }
    }
    Ok(targets)
}

/// A stand-in that serves.
///
/// Dropping it ends every session too, but waits for nothing.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    url: String,
    service: Arc<Service>,
    stop: watch::Sender<bool>,
    idle: mpsc::Receiver<()>,
    listening: JoinHandle<()>,
}

impl Running {
    /// The endpoint URL for SSM and STS clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends every session and waits until the last process is gone.
    pub async fn stop(mut self) {
        // Nobody listens only if everything has ended already.
        let _ = self.stop.send(true);
        // A task that hangs is left to the runtime; shells are killed then.
        let _ = timeout(STOP_WAIT, async {
            let _ = (&mut self.listening).await;
            while self.idle.recv().await.is_some() {}
        })
        .await;
    }
}

/// What every call, connection and session shares.
struct Service {
    account: String,
    region: String,
    roles: BTreeSet<String>,
    external_id: Option<String>,
    targets: BTreeMap<String, Arc<LocalTarget>>,
    documents: Documents,
    /// Targets off the network, with when they were heard of last.
    offline: Mutex<BTreeMap<String, OffsetDateTime>>,
    platform: Platform,
    /// Tags of targets that a test has changed, as SSM lists them.
    retagged: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    habits: Habits,
    /// `wss://host:port`, before the path of a data channel.
    stream_url: String,
    callers: Callers,
    federation: Federation,
    keys: KeyService,
    sessions: Sessions,
    shutdown: watch::Receiver<bool>,
}

#[cfg(test)]
mod tests;
