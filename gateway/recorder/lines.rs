//! The lines of one session on their way from its relay to the files.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use ring::digest::{self, SHA256};
use tokio::sync::oneshot;

use super::checkpoint::Takeover;
use super::evidence::Ending;
use super::frames::LIVE_WHOLE;
use super::links::{Head, Links};
use super::{Durability, RecorderError, Sealed};
use crate::session::SessionId;

/// Room that a session's lines get at the most before they grow, bytes.
///
/// On a busy machine several times [`LIVE_WHOLE`] waits when the compressor
/// comes by. Only what is written to takes memory.
pub(super) const ROOM_MAX: usize = 1024 * 1024;
/// Lines of one session that may wait, bytes: seconds of a stuck disk.
pub(super) const BACKLOG_MAX: usize = 4 << 20;
/// Sweeps of which it is known which lines they ended with, for one session.
const MARKS_MAX: usize = 1024;

/// One session's lines; shared by its relay task and the threads.
///
/// Only the session's own relay task and, a few times a second, a recorder
/// thread take its locks; no session waits for another.
pub(super) struct Lines {
    id: SessionId,
    buffer: Mutex<Buffer>,
    /// In the writer's queue, so it need not be told again.
    pub(super) queued: AtomicBool,
    /// Known to the compressor, so it need not be told again.
    pub(super) active: AtomicBool,
    /// The compressor was told that much is waiting.
    pub(super) urgent: AtomicBool,
    /// Set before the first event is taken.
    durability: OnceLock<Durability>,
    journaled: AtomicU64,
    recorded: AtomicU64,
    /// Up to where the journal is on disk, and up to where lines are stored
    /// elsewhere; only sessions that need both look.
    on_disk: AtomicU64,
    elsewhere: AtomicU64,
    compressed: AtomicU64,
    flushed: AtomicU64,
    /// The syncer was told to flush the file, so it need not be told again.
    pub(super) flushing: AtomicBool,
    marks: Mutex<VecDeque<Mark>>,
    failure: OnceLock<String>,
    waker: AtomicWaker,
    open_file: Mutex<OpenFile>,
    /// When processes went on with the recording.
    takeovers: Vec<Takeover>,
}

/// Lines that are not in the compressed file yet.
pub(super) struct Buffer {
    /// The lines.
    pub(super) bytes: Vec<u8>,
    /// Position of the first of them in the stream of lines.
    pub(super) start: u64,
    /// How many of them are in the journal.
    pub(super) journaled: usize,
    /// When the first line that is not in the journal came.
    pub(super) waiting_since: Option<Instant>,
    /// Lines before `start` that are on their way into the file.
    packing: Option<Arc<Vec<u8>>>,
    /// How much was taken at once of late, bytes.
    usual: usize,
    /// The chain up to the last line that is in the journal.
    links: Links,
}

/// Lines that may not be in the compressed file.
pub(super) struct Tail {
    /// Position of the first of them.
    pub(super) start: u64,
    /// The lines.
    pub(super) lines: Vec<u8>,
}

/// Up to where a number of lines goes.
#[derive(Clone, Copy)]
struct Mark {
    lines: u64,
    position: u64,
}

/// What the journal takes from a session at once.
pub(super) struct Fresh {
    /// The number of the first line.
    pub(super) first_line: u64,
    /// The number of the line after the last.
    pub(super) next_line: u64,
    /// Position after the last line.
    pub(super) end: u64,
    /// The chain after the last line.
    pub(super) head: Head,
}

/// How to finish a recording, and whom to tell; travels with the queues,
/// so that whoever waits hears of it when a thread is gone.
pub(super) struct Finish {
    /// What the evidence will say.
    pub(super) ending: Ending,
    /// Who waits for it; nobody, if the relay just went away.
    pub(super) reply: Option<Reply>,
}

/// Where it is told what became of a seal.
pub(super) struct Reply {
    /// The first try is answered here.
    pub(super) tried: oneshot::Sender<Result<Sealed, RecorderError>>,
    /// If it failed, the one that goes well is told here.
    pub(super) later: oneshot::Sender<Sealed>,
}

/// What the open file holds; only the compressor and the sealer look.
pub(super) struct OpenFile {
    /// Its length, all of it decodable, bytes.
    pub(super) length: u64,
    /// SHA-256 of the file; of its lines it would cost six times as much.
    pub(super) digest: digest::Context,
}

impl OpenFile {
    /// An empty file.
    pub(super) fn new() -> Self {
        Self { length: 0, digest: digest::Context::new(&SHA256) }
    }

    /// Says that the file now ends with these bytes.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.digest.update(bytes);
    }
}

impl Lines {
    /// The lines of a session whose file holds `start` bytes of them.
    pub(super) fn after(id: SessionId, (start, links): (u64, Links), file: OpenFile) -> Self {
        let mark = Mark { lines: links.lines(), position: start };
        let (bytes, journaled, waiting_since, packing, usual) = (Vec::new(), 0, None, None, 0);
        let buffer = Buffer { bytes, start, journaled, waiting_since, packing, usual, links };
        Self {
            id,
            buffer: Mutex::new(buffer),
            queued: AtomicBool::new(false),
            active: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            durability: OnceLock::new(),
            journaled: AtomicU64::new(start),
            recorded: AtomicU64::new(start),
            on_disk: AtomicU64::new(start),
            elsewhere: AtomicU64::new(0),
            compressed: AtomicU64::new(start),
            flushed: AtomicU64::new(start),
            flushing: AtomicBool::new(false),
            marks: Mutex::new(VecDeque::from([mark])),
            failure: OnceLock::new(),
            waker: AtomicWaker::new(),
            open_file: Mutex::new(file),
            takeovers: Vec::new(),
        }
    }

    /// The same, of a recording that earlier processes began.
    pub(super) fn taken_over(self, takeovers: Vec<Takeover>) -> Self {
        Self { takeovers, ..self }
    }

    /// When processes went on with the recording, and from where.
    pub(super) fn takeovers(&self) -> &[Takeover] {
        &self.takeovers
    }

    /// The session.
    pub(super) fn id(&self) -> &SessionId {
        &self.id
    }

    /// The lines that are not compressed yet.
    pub(super) fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the open file holds.
    pub(super) fn open_file(&self) -> MutexGuard<'_, OpenFile> {
        self.open_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How durable lines must be to count as recorded.
    pub(super) fn durability(&self) -> Durability {
        self.durability.get().copied().unwrap_or_default()
    }

    /// Says it, once and before anything is recorded.
    pub(super) fn require(&self, durability: Durability) {
        if self.durability.set(durability).is_ok() && durability == Durability::Remote {
            // What an earlier process recorded has to be elsewhere, too.
            self.recorded.store(0, Ordering::Release);
        }
    }

    /// Says that not even the file's first bytes are on disk.
    pub(super) fn is_unflushed(&self) {
        self.flushed.store(0, Ordering::Release);
    }

    /// Up to where the lines are in the journal.
    pub(super) fn journaled(&self) -> u64 {
        self.journaled.load(Ordering::Acquire)
    }

    /// Up to where the lines are as durable as they must be.
    pub(super) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Acquire)
    }

    /// Up to where the lines are in the compressed file.
    pub(super) fn compressed(&self) -> u64 {
        self.compressed.load(Ordering::Acquire)
    }

    /// Up to where the file is on disk.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Says that the file is on disk up to `position`.
    pub(super) fn set_flushed(&self, position: u64) {
        self.flushed.fetch_max(position, Ordering::AcqRel);
        self.flushing.store(false, Ordering::Release);
    }

    /// Up to where no journal is needed any more.
    pub(super) fn safe(&self) -> u64 {
        if self.durability().on_disk() { self.compressed().min(self.flushed()) } else { self.compressed() }
    }

    /// Says that the file is final, on disk, and the only one needed.
    pub(super) fn set_sealed(&self) {
        self.set_compressed(u64::MAX);
        self.set_flushed(u64::MAX);
    }

    /// Says that lines up to there are in the journal.
    pub(super) fn set_journaled(&self, fresh: &Fresh) {
        self.journaled.store(fresh.end, Ordering::Release);
        match self.durability() {
            Durability::Process => self.recorded.store(fresh.end, Ordering::Release),
            Durability::Disk => {}
            Durability::Remote => self.mark(Mark { lines: fresh.next_line, position: fresh.end }),
        }
        self.waker.wake();
    }

    /// Says that lines up to `position` are on disk.
    pub(super) fn set_on_disk(&self, position: u64) {
        self.on_disk.fetch_max(position, Ordering::AcqRel);
        self.settle();
    }

    /// Says how far lines are as durable as they must be, if that is `disk` or more.
    fn settle(&self) {
        let on_disk = self.on_disk.load(Ordering::Acquire);
        let position = match self.durability() {
            Durability::Process => return,
            Durability::Disk => on_disk,
            Durability::Remote => on_disk.min(self.elsewhere.load(Ordering::Acquire)),
        };
        self.recorded.fetch_max(position, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Says that so many lines are stored elsewhere.
    pub(super) fn accepted(&self, lines: u64) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reached = None;
        while let Some(mark) = marks.pop_front_if(|mark| mark.lines <= lines) {
            reached = Some(mark.position);
        }
        drop(marks);
        if let Some(position) = reached {
            self.elsewhere.fetch_max(position, Ordering::AcqRel);
            self.settle();
        }
    }

    fn mark(&self, mark: Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= MARKS_MAX {
            // Of two sweeps the later one answers for both.
            marks.pop_back();
        }
        marks.push_back(mark);
    }

    /// The lines in the journal that may not be in the file.
    pub(super) fn tail(&self) -> Tail {
        let buffer = self.buffer();
        let packing = buffer.packing.as_deref().map_or(&[][..], Vec::as_slice);
        let start = buffer.start - packing.len() as u64;
        let waiting = buffer.bytes.get(..buffer.journaled).unwrap_or_default();
        let mut lines = [packing, waiting].concat();
        // The writer may be at it: what the journal has not yet is not there.
        lines.truncate(self.journaled().saturating_sub(start) as usize);
        Tail { start, lines }
    }

    /// Says that lines up to `position` are in the compressed file.
    pub(super) fn set_compressed(&self, position: u64) {
        self.compressed.store(position, Ordering::Release);
    }

    /// Ends the recording; the first reason stays.
    pub(super) fn fail(&self, why: &str) {
        let _ = self.failure.set(why.to_owned());
        self.waker.wake();
    }

    /// Why the recording failed, if it did.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The failure as an error.
    pub(super) fn check(&self) -> Result<(), RecorderError> {
        self.failure().map_or(Ok(()), |why| Err(RecorderError::Failed(why.to_owned())))
    }

    /// Ready once lines up to `position` are as durable as they must be.
    pub(super) fn poll_recorded(
        &self,
        context: &mut Context<'_>,
        position: u64,
    ) -> Poll<Result<(), RecorderError>> {
        self.poll_until(context, || self.recorded() >= position)
    }

    /// Ready once lines up to `position` are in the journal.
    pub(super) fn poll_journaled(
        &self,
        context: &mut Context<'_>,
        position: u64,
    ) -> Poll<Result<(), RecorderError>> {
        self.poll_until(context, || self.journaled() >= position)
    }

    fn poll_until(
        &self,
        context: &mut Context<'_>,
        reached: impl Fn() -> bool,
    ) -> Poll<Result<(), RecorderError>> {
        if reached() {
            return Poll::Ready(Ok(()));
        }
        self.waker.register(context.waker());
        if reached() {
            return Poll::Ready(Ok(()));
        }
        match self.check() {
            Ok(()) => Poll::Pending,
            failed => Poll::Ready(failed),
        }
    }
}

impl Buffer {
    /// Position after the last line.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Gives what the journal does not have yet to `write`, with its position.
    pub(super) fn journal(&mut self, write: impl FnOnce(u64, &[u8])) -> Fresh {
        let (first_line, fresh) = (self.links.lines(), self.bytes.get(self.journaled..).unwrap_or_default());
        if !fresh.is_empty() {
            write(self.start + self.journaled as u64, fresh);
            self.links.extend(fresh);
            self.journaled = self.bytes.len();
        }
        Fresh { first_line, next_line: self.links.lines(), end: self.end(), head: self.links.head() }
    }

    /// Takes the lines that are in the journal; the rest stays.
    ///
    /// `spare` is memory that the next lines may go to.
    pub(super) fn take_journaled(&mut self, spare: &mut Vec<u8>) -> Arc<Vec<u8>> {
        let rest = self.bytes.get(self.journaled..).unwrap_or_default();
        // A session that goes on writing needs room, and what grows is copied. A quiet one keeps
        // none, but only after some turns: one may come right after another.
        self.usual = self.bytes.len().max(self.usual / 2).min(ROOM_MAX / 2);
        let room = match self.usual {
            few if few < LIVE_WHOLE / 2 => 0,
            some if some < LIVE_WHOLE => some + some / 4,
            // When that much waits, the compressor is late.
            much => much * 2,
        };
        let mut left = if room == 0 { Vec::new() } else { std::mem::take(spare) };
        left.reserve_exact(room.max(rest.len()));
        left.extend_from_slice(rest);
        let mut taken = std::mem::replace(&mut self.bytes, left);
        taken.truncate(self.journaled);
        self.start += self.journaled as u64;
        self.journaled = 0;
        let taken = Arc::new(taken);
        self.packing = Some(Arc::clone(&taken));
        taken
    }

    /// The chain up to what was taken last, and how many lines it is.
    pub(super) fn chain(&self) -> (u64, Head) {
        (self.links.lines(), self.links.head())
    }

    /// What was taken is in the file.
    pub(super) fn packed(&mut self) {
        self.packing = None;
    }
}

/// A reference that the queues carry.
pub(super) type SharedLines = Arc<Lines>;
