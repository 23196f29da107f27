//! The writer thread: new lines of all sessions into the journal.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::compressor::ToCompressor;
use super::flusher::ToFlusher;
use super::frames::LIVE_WHOLE;
use super::journal::{self, Journal};
use super::lines::{Finish, Fresh, SharedLines};
use super::shipment::{Batch, Shipment};
use super::syncer::ToSyncer;
use super::{House, RecorderError};

/// Sessions are swept at most this often; a lone event is written at once.
const SWEEP: Duration = Duration::from_millis(4);
/// How often the journal is tidied, and a broken one tried again.
const TIDY: Duration = Duration::from_secs(1);
/// Records are written once they are this many bytes.
const WRITE_MAX: usize = 1 << 20;

/// What the writer is told.
pub(super) enum ToWriter {
    /// A session has new lines.
    Lines(SharedLines),
    /// A session has its last lines.
    Finish(SharedLines, Finish),
    /// Write what there is and end.
    Close,
}

/// Starts the thread.
pub(super) fn spawn(
    house: Arc<House>,
    journal: Journal,
    inbox: Receiver<ToWriter>,
    (compressor, syncer, flusher): (Sender<ToCompressor>, Sender<ToSyncer>, Sender<ToFlusher>),
) -> Result<JoinHandle<()>, RecorderError> {
    let writer = Writer {
        house,
        journal,
        compressor,
        syncer,
        flusher,
        batch: Vec::new(),
        finishing: Vec::new(),
        records: Vec::new(),
        prepared: Ok(()),
    };
    let thread = thread::Builder::new().name("recorder".into());
    thread.spawn(move || writer.run(&inbox)).map_err(RecorderError::io("start a thread"))
}

struct Writer {
    house: Arc<House>,
    journal: Journal,
    compressor: Sender<ToCompressor>,
    syncer: Sender<ToSyncer>,
    flusher: Sender<ToFlusher>,
    batch: Vec<Swept>,
    finishing: Vec<(SharedLines, Finish)>,
    records: Vec<u8>,
    /// Whether the journal can take the records.
    prepared: io::Result<()>,
}

/// What one sweep took from one session.
struct Swept {
    lines: SharedLines,
    fresh: Fresh,
    /// Where the lines are among the records.
    place: Range<usize>,
    waiting: usize,
    since: Option<Instant>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<ToWriter>) {
        let mut tidied = Instant::now();
        loop {
            match self.wait(inbox) {
                Ok(Some(ToWriter::Lines(lines))) => self.gather(lines),
                Ok(Some(ToWriter::Finish(lines, finish))) => self.gather_last(lines, finish),
                Ok(Some(ToWriter::Close)) | Err(()) => break,
                Ok(None) => {}
            }
            let closing = self.drain(inbox);
            let busy = !self.batch.is_empty();
            self.sweep();
            if tidied.elapsed() >= TIDY {
                tidied = Instant::now();
                self.tidy(tidied);
            }
            if closing {
                break;
            }
            if busy {
                thread::sleep(SWEEP);
            }
        }
        let _ = self.drain(inbox);
        self.sweep();
        let _ = self.compressor.send(ToCompressor::Close);
        let _ = self.syncer.send(ToSyncer::Close);
        let _ = self.flusher.send(ToFlusher::Close);
    }

    /// Waits for the first event; with nothing to tidy, for as long as it takes.
    fn wait(&self, inbox: &Receiver<ToWriter>) -> Result<Option<ToWriter>, ()> {
        if !self.journal.untidy() && self.house.trouble().is_none() {
            return inbox.recv().map(Some).map_err(drop);
        }
        match inbox.recv_timeout(TIDY) {
            Ok(told) => Ok(Some(told)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    /// Takes in everybody who is queued; says whether to close.
    fn drain(&mut self, inbox: &Receiver<ToWriter>) -> bool {
        while let Ok(told) = inbox.try_recv() {
            match told {
                ToWriter::Lines(lines) => self.gather(lines),
                ToWriter::Finish(lines, finish) => self.gather_last(lines, finish),
                ToWriter::Close => return true,
            }
        }
        false
    }

    /// Copies a session's new lines into the next write.
    fn gather(&mut self, lines: SharedLines) {
        lines.queued.store(false, Ordering::Release);
        if self.records.is_empty() {
            // Nobody can say what of a segment is on disk that failed to be flushed.
            let broken = self.house.broken_segment.load(Ordering::Acquire);
            self.prepared = self.journal.prepare(broken);
        }
        let segment = self.journal.segment().number;
        let mut buffer = lines.buffer();
        let (failed, records) = (lines.failure().is_some(), &mut self.records);
        let mut size = 0;
        let fresh = buffer.journal(|position, fresh| {
            if !failed {
                journal::encode(segment, lines.id(), position, fresh, records);
                size = fresh.len();
            }
        });
        let (waiting, since) = (buffer.journaled, buffer.waiting_since.take());
        drop(buffer);
        let place = self.records.len() - size..self.records.len();
        self.house.count_bytes("lines", size);
        self.batch.push(Swept { lines, fresh, place, waiting, since });
        if self.records.len() >= WRITE_MAX {
            self.sweep();
        }
    }

    fn gather_last(&mut self, lines: SharedLines, finish: Finish) {
        self.finishing.push((lines.clone(), finish));
        self.gather(lines);
    }

    /// Writes the records, then tells the relays and the compressor.
    fn sweep(&mut self) {
        match self.write() {
            Ok(()) => self.publish(),
            Err(error) => self.give_up(&error),
        }
        self.batch.clear();
        self.records.clear();
        for (lines, finish) in self.finishing.drain(..) {
            let _ = self.compressor.send(ToCompressor::Finish(lines, finish));
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        std::mem::replace(&mut self.prepared, Ok(()))?;
        self.journal.append(&self.records)
    }

    fn publish(&mut self) {
        let mut to_flush = Vec::new();
        for swept in &self.batch {
            let lines = &swept.lines;
            if lines.failure().is_some() {
                continue;
            }
            if swept.fresh.end > lines.journaled() {
                self.journal.holds(lines, swept.fresh.end);
                lines.set_journaled(&swept.fresh);
                if lines.durability().on_disk() {
                    to_flush.push((lines.clone(), swept.fresh.end));
                }
                self.offer(swept);
            }
            if let Some(since) = swept.since {
                self.house.metrics.recorder_write_seconds.observe(since.elapsed().as_secs_f64());
            }
            if swept.waiting >= LIVE_WHOLE && !lines.urgent.swap(true, Ordering::AcqRel) {
                let _ = self.compressor.send(ToCompressor::Urgent(lines.clone()));
            } else if !lines.active.swap(true, Ordering::AcqRel) {
                let _ = self.compressor.send(ToCompressor::Active(lines.clone()));
            }
        }
        if !to_flush.is_empty() {
            let _ = self.syncer.send(ToSyncer::Lines(self.journal.segment().clone(), to_flush));
        }
    }

    /// Gives new lines to whoever follows.
    fn offer(&self, Swept { lines, fresh, place, .. }: &Swept) {
        if !self.house.followers.any() {
            return;
        }
        let batch = Batch {
            first_line: fresh.first_line,
            count: fresh.next_line - fresh.first_line,
            lines: Bytes::copy_from_slice(self.records.get(place.clone()).unwrap_or_default()),
            chain: fresh.head,
        };
        self.house.followers.offer(&Shipment::Lines { session: lines.id().clone(), batch });
    }

    /// The lines of this sweep are not safe: their recordings have failed.
    fn give_up(&mut self, error: &io::Error) {
        let why = format!("the journal cannot be written: {error}");
        self.house.report(&why);
        for swept in &self.batch {
            swept.lines.fail(&why);
        }
    }

    /// Closes and deletes segments; sees whether a broken disk is back.
    fn tidy(&mut self, now: Instant) {
        let flusher = &self.flusher;
        let flush = |lines: &SharedLines| {
            if !lines.flushing.swap(true, Ordering::AcqRel) {
                let _ = flusher.send(ToFlusher::File(lines.clone()));
            }
        };
        if let Err(error) = self.journal.tidy(now, flush) {
            self.house.report(&format!("the journal cannot be changed: {error}"));
        } else if self.house.trouble().is_some() && self.journal.probe(&self.house.disk).is_ok() {
            tracing::info!("the recorder can write again");
            self.house.recovered();
        }
    }
}
