//! The sealer thread: one finished recording after the other.

use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring::digest::{Context, SHA256};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::evidence::Ending;
use super::lines::{Finish, Lines, SharedLines};
use super::read;
use super::seal::{Seal, Sealed};
use super::{House, RecorderError, recovery};

/// A recording that could not be sealed is tried again this often.
const RETRY: Duration = Duration::from_secs(30);

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
    let sealer = Sealer { house, again: Vec::new() };
    let thread = thread::Builder::new().name("sealer".into());
    thread.spawn(move || sealer.run(&inbox)).map_err(RecorderError::io("start a thread"))
}

struct Sealer {
    house: Arc<House>,
    /// Could not be sealed yet.
    again: Vec<(SharedLines, Finish)>,
}

impl Sealer {
    fn run(mut self, inbox: &Receiver<ToSealer>) {
        // Sessions that run come first. If it cannot be, it is only slower for them.
        let _ = setpriority_process(Some(gettid()), NICENESS);
        loop {
            let told = if self.again.is_empty() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(RETRY)
            };
            match told {
                Ok(ToSealer::Seal(lines, finish)) => {
                    self.house.waiting_seals.fetch_sub(1, Ordering::Relaxed);
                    self.seal(lines, finish);
                }
                Err(RecvTimeoutError::Timeout) => {
                    for (lines, finish) in std::mem::take(&mut self.again) {
                        self.seal(lines, finish);
                    }
                }
                Ok(ToSealer::Close) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

impl Sealer {
    fn seal(&mut self, lines: SharedLines, mut finish: Finish) {
        let (ending, reply) = (finish.ending.clone(), finish.reply.take());
        let house = &self.house;
        let sealed = match lines.failure() {
            None => whole(house, &lines, ending),
            Some(why) => {
                let ending =
                    Ending { reason: format!("{}; {why}", ending.reason), recovered: true, ..ending };
                recovery::salvage(house, lines.id(), ending)
            }
        };
        match &sealed {
            Ok(_) => {
                lines.set_sealed();
                house.forget(lines.id());
                house.count_recording(if lines.failure().is_none() { "sealed" } else { "recovered" });
            }
            Err(RecorderError::Altered(id)) => {
                // Not the disk's fault: other sessions can be recorded.
                house.metrics.recorder_errors.inc();
                house.count_recording("failed");
                tracing::error!(%id, "an open recording was altered on disk; it is not sealed");
            }
            Err(error) => {
                house.report(&error.to_string());
                house.count_recording("failed");
                self.again.push((lines, finish));
            }
        }
        if let Some(reply) = reply {
            let _ = reply.send(sealed);
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
fn whole(house: &House, lines: &Lines, ending: Ending) -> Result<Sealed, RecorderError> {
    let sealed = sealed(house, lines, ending);
    if sealed.is_err() {
        // Half of one is of no use, and takes the room that another try needs.
        let _ = fs::remove_file(house.spool.draft_path(lines.id()));
    }
    sealed
}

fn sealed(house: &House, lines: &Lines, ending: Ending) -> Result<Sealed, RecorderError> {
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
