//! The sealer thread: one finished recording after the other.

use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::sync::oneshot;

use super::evidence::Ending;
use super::lines::{Finish, Lines, Reply, SharedLines};
use super::read;
use super::seal::{Placed, Seal, Sealed};
use super::{House, RecorderError, recovery};

/// A recording that could not be sealed is tried again after this, which
/// doubles from the first to the last: to read a long one takes a while.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A tenth of a core where others want all of it.
const NICENESS: i32 = 10;

/// What the sealer is told.
pub(super) enum ToSealer {
    /// All lines of a session are in its file, or it has failed.
    Seal(SharedLines, Finish),
    /// Seal what is queued and end.
    Close,
}

/// Starts the thread.
pub(super) fn spawn(house: Arc<House>, inbox: Receiver<ToSealer>) -> Result<JoinHandle<()>, RecorderError> {
    let sealer = Sealer { house, again: Vec::new(), pause: RETRY.0, due: None };
    let thread = thread::Builder::new().name("sealer".into());
    thread.spawn(move || sealer.run(&inbox)).map_err(RecorderError::io("start a thread"))
}

struct Sealer {
    house: Arc<House>,
    /// Could not be sealed yet.
    again: Vec<Task>,
    /// How long those wait for their next try.
    pause: Duration,
    /// When that is.
    due: Option<Instant>,
}

/// A recording that is to be sealed.
struct Task {
    lines: SharedLines,
    ending: Ending,
    /// Hears of the first try.
    tried: Option<oneshot::Sender<Result<Sealed, RecorderError>>>,
    /// Hears of the one that goes well, if it is not the first.
    later: Option<oneshot::Sender<Sealed>>,
    /// It is in place, and its name was not on disk.
    placed: Option<Placed>,
}

impl Sealer {
    fn run(mut self, inbox: &Receiver<ToSealer>) {
        // Sessions that run come first. If it cannot be, it is only slower for them.
        let _ = setpriority_process(Some(gettid()), NICENESS);
        loop {
            let told = match self.due {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match told {
                Ok(ToSealer::Seal(lines, finish)) => {
                    self.house.waiting_seals.fetch_sub(1, Ordering::Relaxed);
                    self.seal(Task::new(lines, finish));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ToSealer::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
            // Not only when nothing new comes: there may always be something.
            if self.due.is_some_and(|due| due <= Instant::now()) {
                self.try_again();
            }
        }
    }

    fn try_again(&mut self) {
        (self.due, self.pause) = (None, (self.pause * 2).min(RETRY.1));
        for task in std::mem::take(&mut self.again) {
            self.seal(task);
        }
        if self.again.is_empty() {
            self.pause = RETRY.0;
        }
    }

    fn seal(&mut self, mut task: Task) {
        let house = &self.house;
        let sealed = task.seal(house);
        match &sealed {
            Ok(_) => {
                task.lines.set_sealed();
                house.forget(task.lines.id());
                house.count_recording(if task.lines.failure().is_none() { "sealed" } else { "recovered" });
            }
            Err(RecorderError::Altered(id)) => {
                // Not the disk's fault: other sessions can be recorded.
                house.metrics.recorder_errors.inc();
                house.count_recording("failed");
                tracing::error!(%id, "an open recording was altered or deleted on disk; it is not sealed");
            }
            Err(error) => {
                house.report(&error.to_string());
                if task.tried.is_some() {
                    house.count_recording("failed");
                }
            }
        }
        let again = matches!(&sealed, Err(error) if !matches!(error, RecorderError::Altered(_)));
        match (task.tried.take(), sealed) {
            (Some(tried), sealed) => drop(tried.send(sealed)),
            (None, Ok(sealed)) => drop(task.later.take().map(|later| later.send(sealed))),
            (None, Err(_)) => {}
        }
        if again {
            self.again.push(task);
            self.due.get_or_insert(Instant::now() + self.pause);
        }
    }
}

impl Task {
    fn new(lines: SharedLines, Finish { ending, reply }: Finish) -> Self {
        let (tried, later) = reply.map(|Reply { tried, later }| (tried, later)).unzip();
        Self { lines, ending, tried, later, placed: None }
    }

    fn seal(&mut self, house: &House) -> Result<Sealed, RecorderError> {
        let placed = match self.placed.take() {
            Some(placed) => placed,
            None => self.place(house)?,
        };
        self.placed.insert(placed).settle(house)
    }

    fn place(&self, house: &House) -> Result<Placed, RecorderError> {
        let (id, ending) = (self.lines.id(), self.ending.clone());
        // Its first lines were on disk before the session began.
        if house.spool.path(id).try_exists().is_ok_and(|exists| !exists) {
            return Err(RecorderError::Altered(id.clone()));
        }
        match self.lines.failure() {
            None => whole(house, &self.lines, ending),
            Some(why) => {
                let ending =
                    Ending { reason: format!("{}; {why}", ending.reason), recovered: true, ..ending };
                recovery::salvage(house, id, ending)
            }
        }
    }
}

/// A file whose bytes are hashed as they are read.
struct Hashing {
    file: File,
    digest: Context,
}

impl Read for Hashing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.digest.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Seals the open file, which must be exactly as it was written.
fn whole(house: &House, lines: &Lines, ending: Ending) -> Result<Placed, RecorderError> {
    let placed = placed(house, lines, ending);
    if placed.is_err() {
        // Half of one is of no use, and takes the room that another try needs.
        let _ = fs::remove_file(house.spool.draft_path(lines.id()));
    }
    placed
}

fn placed(house: &House, lines: &Lines, ending: Ending) -> Result<Placed, RecorderError> {
    let path = house.spool.path(lines.id());
    let file = File::open(&path).map_err(RecorderError::io(format!("open {}", path.display())))?;
    let mut file = Hashing { file, digest: Context::new(&SHA256) };
    let mut reader = read::LineReader::new(&mut file);
    let mut seal = Seal::begin(house, lines.id(), ending)?.unhurried();
    seal.taken_over(lines.takeovers());
    let altered = || RecorderError::Altered(lines.id().clone());
    while let Some(line) = reader.next_line().map_err(|_| altered())? {
        seal.line(line)?;
    }
    let torn = reader.torn();
    let written = lines.open_file().digest.clone().finish();
    if torn || file.digest.finish().as_ref() != written.as_ref() {
        return Err(altered());
    }
    seal.finish()
}
