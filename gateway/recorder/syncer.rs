//! The syncer thread: one `fdatasync` for what many sessions wrote.
//!
//! Sessions that are obliged to `disk` count as recorded once it was done,
//! those that are obliged to `remote` once CloudWatch has it, too.
//! A disk that failed to flush may have forgotten what it was given, and says
//! so only once: the segment is given up and the sessions in it fail.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::flusher::Files;
use super::lines::SharedLines;
use super::{House, RecorderError};

/// At most so often: what comes meanwhile is flushed together.
const EACH: Duration = Duration::from_millis(20);

/// What the syncer is told.
pub(super) enum ToSyncer {
    /// A recording has its first bytes.
    Begun(SharedLines),
    /// Sessions have lines in a journal segment, up to these positions.
    Lines(Segment, Vec<(SharedLines, u64)>),
    /// Flush what there is and end.
    Close,
}

/// A segment of the journal that is being written.
#[derive(Clone)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u64,
    /// Its file.
    pub(super) file: Arc<File>,
}

/// Starts the thread.
pub(super) fn spawn(house: Arc<House>, inbox: Receiver<ToSyncer>) -> Result<JoinHandle<()>, RecorderError> {
    let files = Files::new(&house)?;
    let syncer = Syncer { house, files, named: 0, broken: 0, segments: Vec::new(), begun: Vec::new() };
    let thread = thread::Builder::new().name("syncer".into());
    thread.spawn(move || syncer.run(&inbox)).map_err(RecorderError::io("start a thread"))
}

struct Syncer {
    house: Arc<House>,
    files: Files,
    /// The last segment whose name is on disk.
    named: u64,
    /// The last segment that could not be flushed.
    broken: u64,
    /// What waits for the next flush.
    segments: Vec<(Segment, Vec<(SharedLines, u64)>)>,
    begun: Vec<SharedLines>,
}

impl Syncer {
    fn run(mut self, inbox: &Receiver<ToSyncer>) {
        let mut last = Instant::now().checked_sub(EACH);
        while let Ok(told) = inbox.recv() {
            let mut open = self.take(told);
            if let Some(early) = last.and_then(|last| EACH.checked_sub(last.elapsed())) {
                thread::sleep(early);
            }
            while open {
                match inbox.try_recv() {
                    Ok(told) => open = self.take(told),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => open = false,
                }
            }
            last = Some(Instant::now());
            self.flush();
            if !open {
                return;
            }
        }
    }

    /// Notes what is to be flushed; false if it is the last.
    fn take(&mut self, told: ToSyncer) -> bool {
        match told {
            ToSyncer::Begun(lines) => self.begun.push(lines),
            ToSyncer::Lines(segment, ends) => match self.segments.last_mut() {
                Some((last, known)) if last.number == segment.number => known.extend(ends),
                _ => self.segments.push((segment, ends)),
            },
            ToSyncer::Close => return false,
        }
        true
    }

    fn flush(&mut self) {
        // Lines are of no use without the header that they follow.
        self.files.flush(std::mem::take(&mut self.begun));
        for (segment, ends) in std::mem::take(&mut self.segments) {
            match self.flush_segment(&segment) {
                Ok(()) => {
                    let well = ends.iter().filter(|(lines, _)| lines.failure().is_none());
                    well.for_each(|(lines, end)| lines.set_on_disk(*end));
                }
                Err(error) => {
                    self.broken = segment.number;
                    self.house.broken_segment.store(segment.number, Ordering::Release);
                    let why = format!("the journal cannot be flushed to disk: {error}");
                    self.house.report(&why);
                    ends.iter().for_each(|(lines, _)| lines.fail(&why));
                }
            }
        }
    }

    fn flush_segment(&mut self, segment: &Segment) -> io::Result<()> {
        if segment.number == self.broken {
            return Err(io::Error::other("an earlier flush failed"));
        }
        let timer = self.house.metrics.recorder_flush_seconds.start_timer();
        self.house.disk.flush(&segment.file)?;
        timer.observe_duration();
        if segment.number > self.named {
            self.house.disk.flush_names(&File::open(self.house.spool.journal_directory())?)?;
            self.named = segment.number;
        }
        Ok(())
    }
}
