//! Reads a session back from its log stream alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::client::Logs;
use super::pace::Backoff;
use super::rebuild::Rebuild;
use super::{ShipperConfig, ShipperError, Trouble, chosen, copies};
use crate::broker::BrokerConfig;
use crate::recorder::{Checkpoint, PublicKey, RECORDING_SUFFIX};
use crate::session::SessionId;

/// Attempts to read a page: some ten seconds.
const ATTEMPTS: u32 = 6;
/// Copies written by this process, so that no two have one name.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// Reads sessions back; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    logs: Arc<Logs>,
    dir: PathBuf,
}

/// The log stream of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStream {
    /// The log group.
    pub group: String,
    /// The stream in it.
    pub stream: String,
    /// The region of both.
    pub region: String,
    /// CloudWatch Logs, if not at AWS's usual address.
    pub endpoint_url: Option<String>,
}

/// A recording that was read back; removed when this is dropped.
#[derive(Debug)]
pub struct Copy {
    /// The file: sealed, or as an open recording is.
    pub path: PathBuf,
    /// Whether it is complete and signed.
    pub sealed: bool,
    /// How many lines it holds, the header counted.
    pub lines: u64,
    /// What is proved of one that is not sealed; none: nothing is.
    pub proved: Option<Checkpoint>,
    /// What else is in the log stream that no gateway put there, in words.
    pub others: Vec<String>,
}

impl Copy {
    /// Whether a key that is trusted signed any of it.
    pub fn is_proved(&self) -> bool {
        self.sealed || self.proved.is_some()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What somebody else removed need not be removed.
        let _ = fs::remove_file(&self.path);
        Checkpoint::remove(&self.path);
    }
}

impl Reader {
    /// A reader of a log group with the standard AWS configuration.
    pub async fn open(log_group: &str, dir: &Path) -> Result<Self, ShipperError> {
        let config = ShipperConfig { log_group: log_group.to_owned(), ..ShipperConfig::default() };
        super::group::check_settings(&config)?;
        Ok(Self::new(Logs::connect(&config, &BrokerConfig::default()).await?, dir))
    }

    /// Where a session's events are, or will be.
    pub fn stream_of(&self, session: &SessionId) -> LogStream {
        LogStream {
            group: self.logs.group.clone(),
            stream: session.to_string(),
            region: self.logs.region.clone(),
            endpoint_url: self.logs.endpoint_url.clone(),
        }
    }

    pub(super) fn new(logs: Arc<Logs>, own: &Path) -> Self {
        Self { logs, dir: copies(own) }
    }

    /// Makes the recording of a session again, as far as it was shipped.
    ///
    /// Every line is checked against the hash chain; a sealed recording is
    /// the same file, byte for byte, that the gateway sealed. What one of
    /// these keys signed of this session is found among whatever else is in
    /// the log stream. Nothing but that a checkpoint says, or nothing at
    /// all, is proved of a copy that is not sealed.
    pub async fn recording(&self, id: &SessionId, trusted: &[PublicKey]) -> Result<Copy, ShipperError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(ShipperError::io(format!("make {}", self.dir.display())))?;
        let dir = self.dir.clone();
        let mut rebuild = Rebuild::new(id.as_str(), move || nameless(&dir));
        let mut token = None;
        loop {
            let (messages, next) = self.page(id, token.as_ref()).await?;
            // Empty pages are normal: the end is where the token stays.
            for message in &messages {
                rebuild.event(message)?;
            }
            if next.is_none() || next == token {
                break;
            }
            token = next;
        }
        let (all, dir, id, trusted) = (rebuild.finish(), self.dir.clone(), id.clone(), trusted.to_vec());
        let chosen = tokio::task::spawn_blocking(move || {
            let write =
                |rebuilt, checkpoint| chosen::write(rebuilt, checkpoint, create(&dir, &file_name(&id)));
            chosen::choose(all, write, (&id, &trusted))
        });
        chosen.await.map_err(|_| ShipperError::Config("the thread that wrote the copy ended".to_owned()))?
    }

    /// A page; AWS gives ten a second to all readers of an account.
    async fn page(
        &self,
        id: &SessionId,
        token: Option<&String>,
    ) -> Result<(Vec<String>, Option<String>), ShipperError> {
        let mut backoff = Backoff::default();
        loop {
            match self.logs.page(id.as_str(), token.cloned()).await {
                Err(error)
                    if backoff.failures() < ATTEMPTS && error.trouble().is_some_and(Trouble::passes) =>
                {
                    if error.trouble() == Some(Trouble::Credentials) {
                        self.logs.renew().await?;
                    }
                    tokio::time::sleep_until(backoff.failed(Instant::now()).into()).await;
                }
                other => return other,
            }
        }
    }
}

fn file_name(id: &SessionId) -> String {
    format!("{id}{RECORDING_SUFFIX}")
}

/// A file for lines on their way, which is gone with its last handle.
fn nameless(dir: &Path) -> io::Result<File> {
    let (file, path) = create(dir, "lines")?;
    fs::remove_file(path)?;
    Ok(file)
}

/// A file of its own in a folder of its own name.
fn create(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("{}-{number}-{name}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((file, path))
}
