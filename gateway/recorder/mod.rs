//! Is it on disk, whole and unaltered?
//!
//! A [`Recording`] belongs to one relay task. It writes event lines into a
//! buffer of its own; the *writer* thread appends the new lines of all
//! sessions to one shared journal with one `write(2)` (they then survive
//! SIGKILL); the *compressor* thread moves them, about once a second, into
//! the session's `.cast.zst`; the *sealer* thread re-compresses a finished
//! recording and signs it. What a crash or a stop leaves is put together
//! again: reopened if its session goes on, sealed if not.

mod backlog;
#[cfg(test)]
mod by_hand;
mod check;
mod checkpoint;
mod compressor;
mod disk;
mod doubts;
mod evidence;
mod flusher;
mod frames;
mod journal;
mod lines;
mod links;
mod memory;
pub mod read;
mod recording;
mod recovery;
mod reopen;
mod restore;
mod seal;
mod sealed;
mod sealer;
mod seek_table;
pub mod shipment;
mod signing;
mod spool;
mod syncer;
mod trailer;
mod verify;
mod whose;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

pub use crate::asciicast::{
    Direction, FlowConnection, FlowEvent, FlowNote, FlowStage, FlowState, FramePlace, Guess, INPUT_DIGEST,
    Mode, Runes, Side, Stream,
};
pub use backlog::Backlog;
#[cfg(test)]
pub(crate) use by_hand::ByHand;
pub use checkpoint::{Checkpoint, Takeover};
pub use evidence::{Ending, Evidence, Segment};
pub use frames::has_checksum as is_sealed_frame;
pub use links::{Head, Links};
pub use recording::{Position, Recording, SealedLater};
pub use reopen::{Recorded, Recovered};
pub use restore::restore;
pub use seal::Sealed;
pub use sealed::{Frames, Packed};
pub use shipment::{Batch, Feed, Follower, Shipment};
pub use signing::{PublicKey, SigningKey};
pub use spool::{RECORDING_SUFFIX, Spool, is_sealed};
pub use verify::{Damage, Report, evidence, verify, verify_without_key};
pub use whose::{recorded_session, verify_of};

use crate::asciicast::{CastError, Header};
use crate::metrics::Metrics;
use crate::session::{Durability, SessionId};
use checkpoint::Stand;
use disk::Disk;
use lines::{Lines, OpenFile};
use recovery::Past;
use shipment::Followers;
use syncer::ToSyncer;
use writer::ToWriter;

/// Where the recorder keeps what it writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderConfig {
    /// The spool directory: open and sealed recordings, and the journal.
    pub spool: PathBuf,
}

/// How a session ended, as the evidence will say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// One word or sentence: `client left`, `terminated`, `policy`.
    pub reason: String,
}

impl End {
    /// An end for that reason; control characters are removed.
    pub fn new(reason: &str) -> Self {
        Self { reason: crate::session::printable(reason) }
    }
}

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The file system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A session of that id has a recording already.
    #[error("a recording of session {0} exists already")]
    Exists(SessionId),
    /// Another process works on the same spool.
    #[error("the spool {0} is in use by another process")]
    InUse(PathBuf),
    /// More lines wait to be written than a session may hold.
    #[error("the recorder cannot keep up with this session")]
    Backlog,
    /// An event is longer than whoever reads the recording takes.
    #[error(
        "an event would be a line of {0} bytes, and readers take {max}; it is not recorded",
        max = read::LINE_MAX
    )]
    LineTooLong(usize),
    /// This recording has failed before; nothing more is taken.
    #[error("the recording failed: {0}")]
    Failed(String),
    /// The recorder cannot write now, so no session may begin.
    #[error("the recorder cannot write: {0}")]
    Unhealthy(String),
    /// The recorder was closed.
    #[error("the recorder is closed")]
    Closed,
    /// The open file does not hold the lines that were written to it, or is
    /// gone.
    #[error("the open recording of session {0} was altered or deleted on disk")]
    Altered(SessionId),
    /// Lines are missing, so nobody can say what the session's next one is.
    #[error("lines of the recording of session {0} are lost, so it cannot go on")]
    Hole(SessionId),
    /// A signing or public key cannot be used.
    #[error("the key {0}")]
    Key(String),
    /// A header or line cannot be written.
    #[error(transparent)]
    Cast(#[from] CastError),
}

impl RecorderError {
    /// Names what was being done when the file system said no.
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Records sessions; one per process and spool.
///
/// Dropping it writes what was handed over and ends its threads; recordings
/// that are not sealed then take no more events.
pub struct Recorder {
    house: Arc<House>,
    writer: Sender<ToWriter>,
    syncer: Sender<ToSyncer>,
    #[cfg(test)]
    flusher: Sender<flusher::ToFlusher>,
    threads: Vec<JoinHandle<()>>,
}

/// What the recorder's threads share.
pub(crate) struct House {
    spool: Spool,
    key: SigningKey,
    /// Every key that may have signed what is in the spool.
    known_keys: Vec<PublicKey>,
    metrics: Arc<Metrics>,
    /// Why nothing can be written now.
    trouble: Mutex<Option<String>>,
    /// The recordings that are not sealed.
    open: Mutex<HashMap<SessionId, Weak<Lines>>>,
    /// What an earlier process left.
    past: Mutex<Past>,
    /// Who is given what is recorded.
    followers: Followers,
    disk: Disk,
    /// The last journal segment that could not be flushed; 0 if none.
    broken_segment: AtomicU64,
    /// Recordings that wait for their seal while another one gets it.
    waiting_seals: AtomicUsize,
}

impl House {
    /// Counts an error and remembers why nothing can be written.
    fn report(&self, why: &str) {
        self.metrics.recorder_errors.inc();
        tracing::error!(why, "recorder error");
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// The names in the spool survive the machine.
    fn keep_names(&self) -> io::Result<()> {
        self.disk.flush_names(&File::open(self.spool.directory())?)
    }

    fn recovered(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, Weak<Lines>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: &SessionId) {
        self.open().remove(id);
    }

    fn count_bytes(&self, stage: &str, bytes: usize) {
        self.metrics.recorder_bytes.with_label_values(&[stage]).inc_by(bytes as u64);
    }

    fn count_recording(&self, result: &str) {
        self.metrics.recordings.with_label_values(&[result]).inc();
    }
}

impl Recorder {
    /// Looks at what an earlier process left, then starts the threads.
    ///
    /// What it left stays as it is until it is reopened or sealed.
    pub fn open(
        config: RecorderConfig,
        key: SigningKey,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RecorderError> {
        let spool = Spool::open(&config.spool)?;
        let lock = spool.lock()?;
        let (past, first_journal) = recovery::look(&spool)?;
        let (trouble, open, past) = (Mutex::new(None), Mutex::default(), Mutex::new(past));
        let (followers, disk, broken_segment) = (Followers::default(), Disk::default(), AtomicU64::new(0));
        let (known_keys, waiting_seals) = (key.known(), AtomicUsize::new(0));
        let house = Arc::new(House {
            spool,
            key,
            known_keys,
            metrics,
            trouble,
            open,
            past,
            followers,
            disk,
            broken_segment,
            waiting_seals,
        });
        house.tidy_past();
        let journal = journal::Journal::open(house.spool.clone(), first_journal, lock)?;
        let (to_sealer, sealing) = channel();
        let (to_compressor, compressing) = channel();
        let (syncer, syncing) = channel();
        let (flusher, flushing) = channel();
        let (writer, writing) = channel();
        let threads = vec![
            writer::spawn(house.clone(), journal, writing, (to_compressor, syncer.clone(), flusher.clone()))?,
            syncer::spawn(house.clone(), syncing)?,
            flusher::spawn(house.clone(), flushing)?,
            compressor::spawn(house.clone(), compressing, to_sealer)?,
            sealer::spawn(house.clone(), sealing)?,
        ];
        Ok(Self {
            house,
            writer,
            syncer,
            #[cfg(test)]
            flusher,
            threads,
        })
    }

    /// Begins the recording of a session, or says why there can be none.
    ///
    /// The header is in the session's file when this returns (one `write(2)`).
    pub fn begin(
        &self,
        id: &SessionId,
        header: Header,
        durability: Durability,
    ) -> Result<Recording, RecorderError> {
        if let Some(why) = self.house.trouble() {
            return Err(RecorderError::Unhealthy(why));
        }
        let mut line = Vec::with_capacity(512);
        header.write(&mut line)?;
        if line.len() > read::LINE_MAX {
            return Err(RecorderError::LineTooLong(line.len()));
        }
        let frame = frames::header_frame(&line).map_err(RecorderError::io("compress a header"))?;
        self.house.spool.create(id, &frame)?;
        let (mut file, mut links) = (OpenFile::new(), Links::new());
        file.wrote(&frame);
        links.line(&line);
        self.sign_begun(id, line.len(), &links)?;
        let lines = Arc::new(Lines::after(id.clone(), (line.len() as u64, links), file));
        lines.require(durability);
        if durability.on_disk() {
            lines.is_unflushed();
            let _ = self.syncer.send(ToSyncer::Begun(lines.clone()));
        }
        Ok(self.opened(id, lines, header))
    }

    /// Signs that the recording was begun here; what nobody began is not sealed.
    fn sign_begun(&self, id: &SessionId, header: usize, links: &Links) -> Result<(), RecorderError> {
        let path = self.house.spool.path(id);
        let stand = Stand { lines: links.lines(), bytes: header as u64, until_ms: 0, head: links.head() };
        let begun = Checkpoint::sign(id, stand, &[], &self.house.key);
        let written = begun.and_then(|begun| begun.write_begun(&path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&path);
            RecorderError::io(format!("sign the beginning of {}", path.display()))(error)
        })
    }

    fn opened(&self, id: &SessionId, lines: Arc<Lines>, header: Header) -> Recording {
        self.house.open().insert(id.clone(), Arc::downgrade(&lines));
        let (session, header) = (id.clone(), Arc::new(header));
        self.house.followers.offer(&Shipment::Begun { session, header });
        Recording::new(lines, self.writer.clone())
    }

    /// Open recordings of an earlier process that nobody took up yet.
    pub fn left(&self) -> Vec<SessionId> {
        self.house.left()
    }

    /// Goes on with the recording of a session; `None` if there is none.
    ///
    /// Blocks (about 100 MB of lines a second). It fails if lines are known
    /// to be missing; what is there is then still to be sealed.
    pub fn reopen(&self, id: &SessionId) -> Result<Option<(Recording, Recovered)>, RecorderError> {
        if let Some(why) = self.house.trouble() {
            return Err(RecorderError::Unhealthy(why));
        }
        let Some(reopened) = reopen::reopen(&self.house, id)? else { return Ok(None) };
        let recording = self.opened(id, Arc::new(reopened.lines), reopened.header).going_on(reopened.state);
        Ok(Some((recording, reopened.recovered)))
    }

    /// Seals a recording of an earlier process that nobody goes on with.
    ///
    /// Blocks (about 50 MB of lines a second). `None`: there is none, or it
    /// could not be sealed; the log and the metrics say why.
    pub fn seal_left(&self, id: &SessionId) -> Option<Sealed> {
        recovery::seal_left(&self.house, id)
    }

    /// Sets aside what the spool has of a session whose recording is sealed.
    ///
    /// Whoever can write to the spool may have put it there; it is not signed.
    pub fn refuse_left(&self, id: &SessionId) {
        recovery::refuse(&self.house, id, "the registry says that the session's recording is sealed");
    }

    /// From now on seals are made as if others waited for theirs.
    pub fn hurry(&self) {
        self.house.waiting_seals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether sessions can be recorded now; if not, why.
    pub fn healthy(&self) -> Result<(), String> {
        self.house.trouble().map_or(Ok(()), Err)
    }

    /// The key that seals; verifiers need its public half.
    pub fn public_key(&self) -> PublicKey {
        self.house.key.public()
    }

    /// The key that seals and those that did before; the first one seals now.
    pub fn known_keys(&self) -> Vec<PublicKey> {
        self.house.key.known()
    }

    /// The signature of the key that seals, for what is said of recordings.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.house.key.sign(message)
    }

    /// For those who follow what is recorded.
    pub fn feed(&self) -> Feed {
        Feed::of(&self.house)
    }

    /// Whether recordings can be as durable as that.
    pub fn keeps(&self, durability: Durability) -> bool {
        self.house.followers.keep(durability)
    }

    /// The spool it writes to.
    pub fn spool(&self) -> &Spool {
        &self.house.spool
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hurry();
        let _ = self.writer.send(ToWriter::Close);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.house.followers.close();
        for lines in self.house.open().values().filter_map(Weak::upgrade) {
            lines.fail("the recorder was closed");
        }
    }
}

#[cfg(test)]
mod tests;
