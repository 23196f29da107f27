//! What a follower of the recordings gets: a shipper, an alarm, a viewer.
//!
//! A follower keeps one number per session: how many lines it is done with,
//! the header counted. Lines are numbered from 0, which is the header, so the
//! number is also that of the next line. Everything here is about it:
//!
//! ```text
//! let feed = recorder.feed();
//! let mut follower = feed.follow_and_store();      // or follow(): stores nothing
//! while let Some(shipment) = follower.next().await {
//!     // Begun:  a recording is open; it may be one that goes on after a restart.
//!     // Lines:  `batch.after(done)`: the lines that are new. If `batch.first_line`
//!     //         is beyond `done`, lines are missing: pull.
//!     // Behind: lines were not offered, because the follower was slow: pull.
//!     // Checkpoint: the chain's head after so many lines, signed.
//!     // Sealed: no more lines; pull what is missing, then the evidence is all.
//! }
//! feed.accepted(&session, done);                   // they are stored remotely
//! ```
//!
//! `accepted` is said again when a recording begins anew after a restart: the
//! new process does not know what the last one's follower was done with.
//!
//! To pull is [`Feed::lines_from`]: it reads an open or sealed recording in
//! the spool from a line on, and goes on with what comes. The queue of a
//! follower is bounded ([`QUEUE_MAX`], [`QUEUE_BYTES_MAX`]); what has no room
//! is not kept but told as one `Behind`, so the recorder never waits and an
//! outage of hours costs no memory: the backlog is the spool. At its start a
//! follower pulls every recording of [`Feed::recordings`] that it is not done
//! with. Lines are offered once the journal has them; a crash of the machine
//! (not of the process) can lose lines that were offered and whose session
//! is not obliged to `disk`.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::checkpoint::Checkpoint;
use super::evidence::Evidence;
use super::links::Head;
use super::sealed::Frames;
use super::trailer::Trailer;
use super::verify::Bytes as FileBytes;
use super::{Durability, House, RecorderError, is_sealed};
use crate::asciicast::Header;
use crate::session::SessionId;

/// Shipments that wait for one follower at the most.
pub const QUEUE_MAX: usize = 4096;
/// Bytes of lines that wait for one follower at the most.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;

/// Something that a recording came to.
#[derive(Debug, Clone)]
pub enum Shipment {
    /// A recording was begun, or goes on after a restart.
    Begun {
        /// Whose.
        session: SessionId,
        /// Its first line.
        header: Arc<Header>,
    },
    /// It grew.
    Lines {
        /// Whose.
        session: SessionId,
        /// The new lines.
        batch: Batch,
    },
    /// It grew or was sealed while the follower had no room: pull.
    Behind {
        /// Whose.
        session: SessionId,
    },
    /// It was signed where it stands.
    Checkpoint {
        /// Whose.
        session: SessionId,
        /// What was signed.
        checkpoint: Arc<Checkpoint>,
    },
    /// It is final and signed.
    Sealed {
        /// Whose.
        session: SessionId,
        /// The evidence; its `totals.lines` counts the header too.
        evidence: Arc<Evidence>,
    },
}

impl Shipment {
    /// The session that it is about.
    pub fn session(&self) -> &SessionId {
        match self {
            Self::Begun { session, .. }
            | Self::Lines { session, .. }
            | Self::Behind { session }
            | Self::Checkpoint { session, .. }
            | Self::Sealed { session, .. } => session,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Lines { batch, .. } => batch.lines.len(),
            _ => 0,
        }
    }
}

/// Whole lines of one recording, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The number of the first; the header is line 0.
    pub first_line: u64,
    /// How many.
    pub count: u64,
    /// The lines, each with its line feed.
    pub lines: Bytes,
    /// The hash chain's head after the last of them.
    pub chain: Head,
}

impl Batch {
    /// The number of the line after the last.
    pub fn next_line(&self) -> u64 {
        self.first_line + self.count
    }

    /// What is left without the lines before `line`; `None` if nothing is.
    pub fn after(self, line: u64) -> Option<Self> {
        let skip = line.saturating_sub(self.first_line);
        if skip == 0 {
            return Some(self);
        }
        let count = self.count.checked_sub(skip).filter(|count| *count > 0)?;
        let skipped = self.lines.split_inclusive(|byte| *byte == b'\n').take(usize::try_from(skip).ok()?);
        let from: usize = skipped.map(<[u8]>::len).sum();
        Some(Self { first_line: line, count, lines: self.lines.slice(from..), chain: self.chain })
    }
}

/// Where followers come from and what they ask; cheap to clone.
#[derive(Clone)]
pub struct Feed {
    house: Arc<House>,
}

impl Feed {
    pub(super) fn of(house: &Arc<House>) -> Self {
        Self { house: Arc::clone(house) }
    }

    /// Follows all recordings from now on.
    pub fn follow(&self) -> Follower {
        Follower::new(&self.house, false)
    }

    /// The same, by one who stores lines elsewhere and says so.
    ///
    /// While there is one, sessions may be obliged to `remote`.
    pub fn follow_and_store(&self) -> Follower {
        Follower::new(&self.house, true)
    }

    /// Every recording in the spool, open or sealed, unordered.
    pub fn recordings(&self) -> io::Result<Vec<SessionId>> {
        self.house.spool.ids()
    }

    /// Reads a recording from line `line` on; `None` if there is none.
    ///
    /// Blocks, as does reading from it: the lines before are read, too, as
    /// the chain goes through them (about 200 MB of lines a second).
    pub fn lines_from(&self, session: &SessionId, line: u64) -> Result<Option<Backlog>, RecorderError> {
        Backlog::open(&self.house, session, line)
    }

    /// The evidence of a sealed recording; `None` while it is open. Blocks.
    pub fn evidence(&self, session: &SessionId) -> Result<Option<Evidence>, RecorderError> {
        let path = self.house.spool.path(session);
        let damaged = |damage: super::Damage| RecorderError::Failed(format!("{}: {damage}", path.display()));
        let found = FileBytes::open(&path).and_then(|bytes| Trailer::find(&bytes)).map_err(damaged)?;
        Ok(found.map(|trailer| trailer.evidence))
    }

    /// Whether a recording is sealed; one that is gone is not.
    pub fn is_sealed(&self, session: &SessionId) -> Result<bool, RecorderError> {
        let path = self.house.spool.path(session);
        match is_sealed(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map_err(RecorderError::io(format!("read {}", path.display()))),
        }
    }

    /// The frames of a sealed recording, to be passed on as they are.
    ///
    /// `None`: it is open, older than that its evidence says where frames
    /// are in the chain, or its evidence cannot be believed. Blocks.
    pub fn frames(&self, session: &SessionId) -> Option<Frames> {
        Frames::of(&self.house, session)
    }

    /// SHA-256 of a recording's file, hex, as `sha256sum` prints it. Blocks.
    pub fn sha256(&self, session: &SessionId) -> Result<String, RecorderError> {
        let path = self.house.spool.path(session);
        let mut digest = Context::new(&SHA256);
        let read = File::open(&path).and_then(|mut file| {
            let mut piece = vec![0; 64 * 1024];
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok(()),
                    read => digest.update(piece.get(..read).unwrap_or_default()),
                }
            }
        });
        read.map_err(RecorderError::io(format!("read {}", path.display())))?;
        Ok(HEXLOWER.encode(digest.finish().as_ref()))
    }

    /// The first `lines` lines of a recording are stored elsewhere.
    ///
    /// Counts for sessions that are obliged to `remote`.
    pub fn accepted(&self, session: &SessionId, lines: u64) {
        let open = self.house.open().get(session).and_then(std::sync::Weak::upgrade);
        if let Some(open) = open {
            open.accepted(lines);
        }
    }
}

/// The followers of one recorder.
#[derive(Default)]
pub(super) struct Followers {
    queues: Mutex<Vec<Arc<Queue>>>,
    count: AtomicUsize,
    storing: AtomicUsize,
}

impl Followers {
    /// Whether it is worth making a shipment.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether recordings can be as durable as that.
    pub(super) fn keep(&self, durability: Durability) -> bool {
        durability != Durability::Remote || self.storing.load(Ordering::Acquire) > 0
    }

    /// Gives everybody the shipment; never waits for anybody.
    pub(super) fn offer(&self, shipment: &Shipment) {
        self.queues().iter().for_each(|queue| queue.offer(shipment));
    }

    /// There is no more; who waits hears of it.
    pub(super) fn close(&self) {
        for queue in self.queues().iter() {
            queue.state().closed = true;
            queue.news.notify_one();
        }
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who follows; what is offered waits here for it.
pub struct Follower {
    house: Arc<House>,
    queue: Arc<Queue>,
    stores: bool,
}

impl Follower {
    fn new(house: &Arc<House>, stores: bool) -> Self {
        let queue = Arc::new(Queue::default());
        let followers = &house.followers;
        followers.queues().push(Arc::clone(&queue));
        followers.count.fetch_add(1, Ordering::AcqRel);
        followers.storing.fetch_add(usize::from(stores), Ordering::AcqRel);
        Self { house: Arc::clone(house), queue, stores }
    }

    /// The next shipment; `None` once the recorder is closed.
    ///
    /// It may be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Shipment> {
        loop {
            match self.queue.take() {
                Ok(taken) => return taken,
                Err(Empty) => self.queue.news.notified().await,
            }
        }
    }
}

impl Follower {
    /// A shipment that waits now, if there is one.
    pub fn waiting(&mut self) -> Option<Shipment> {
        self.queue.take().ok().flatten()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let followers = &self.house.followers;
        followers.queues().retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        followers.count.fetch_sub(1, Ordering::AcqRel);
        followers.storing.fetch_sub(usize::from(self.stores), Ordering::AcqRel);
    }
}

/// Nothing waits now.
struct Empty;

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    shipments: VecDeque<Shipment>,
    bytes: usize,
    /// Sessions of which something was not kept.
    behind: BTreeSet<SessionId>,
    closed: bool,
}

impl Queue {
    fn offer(&self, shipment: &Shipment) {
        let mut state = self.state();
        if state.behind.contains(shipment.session()) {
            return;
        }
        let full = state.shipments.len() >= QUEUE_MAX || state.bytes + shipment.bytes() > QUEUE_BYTES_MAX;
        if full {
            state.behind.insert(shipment.session().clone());
        } else {
            state.bytes += shipment.bytes();
            state.shipments.push_back(shipment.clone());
        }
        drop(state);
        self.news.notify_one();
    }

    fn take(&self) -> Result<Option<Shipment>, Empty> {
        let mut state = self.state();
        if let Some(shipment) = state.shipments.pop_front() {
            state.bytes -= shipment.bytes();
            return Ok(Some(shipment));
        }
        if let Some(session) = state.behind.pop_first() {
            return Ok(Some(Shipment::Behind { session }));
        }
        if state.closed { Ok(None) } else { Err(Empty) }
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
