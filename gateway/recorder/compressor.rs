//! The compressor thread: journaled lines into each session's open file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Stand};
use super::frames::{LIVE_WHOLE, LiveEncoder, Turn};
use super::lines::{Finish, ROOM_MAX, SharedLines};
use super::sealer::ToSealer;
use super::shipment::Shipment;
use super::{House, RecorderError};
use crate::asciicast::peek;
use crate::session::SessionId;

/// A session's lines are in its file after this long.
const FLUSH: Duration = Duration::from_secs(1);
/// A second's work is spread, so that it comes in small bursts.
const SLOTS: u32 = 8;
/// A session without lines for so many flushes gives its encoder back.
const QUIET_FLUSHES: u32 = 3;
/// A session that writes has a checkpoint this often.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// Sessions with an encoder of their own at the most; 1.4 MB each.
///
/// Any further one borrows one for its turn and ends the frame with it. Its
/// file grows faster until it is sealed, but a thousand sessions that wake
/// up at once do not take 1.4 GB. Those that are free are kept: given back and
/// taken again, they would leave holes of their size in the heap.
const ENCODERS_MAX: usize = 12;

/// What the compressor is told.
pub(super) enum ToCompressor {
    /// A session has lines again.
    Active(SharedLines),
    /// A session has many lines.
    Urgent(SharedLines),
    /// A session's last lines are in the journal: end and seal it.
    Finish(SharedLines, Finish),
    /// Compress what there is and end.
    Close,
}

/// Starts the thread.
pub(super) fn spawn(
    house: Arc<House>,
    inbox: Receiver<ToCompressor>,
    sealer: Sender<ToSealer>,
) -> Result<JoinHandle<()>, RecorderError> {
    let (active, encoders) = (HashMap::new(), Encoders::default());
    let (packed, spare) = (Vec::new(), Vec::new());
    let compressor = Compressor { house, sealer, active, encoders, packed, spare, next_slot: 0, slot: 0 };
    let thread = thread::Builder::new().name("compressor".into());
    thread.spawn(move || compressor.run(&inbox)).map_err(RecorderError::io("start a thread"))
}

struct Compressor {
    house: Arc<House>,
    sealer: Sender<ToSealer>,
    active: HashMap<SessionId, Active>,
    encoders: Encoders,
    packed: Vec<u8>,
    /// Memory of lines that are packed, for lines that will come.
    spare: Vec<u8>,
    /// The slot that the next new session gets.
    next_slot: u32,
    /// The slot whose turn it is.
    slot: u32,
}

/// The encoders that sessions have, and those that wait for one.
#[derive(Default)]
struct Encoders {
    given: usize,
    spare: Vec<LiveEncoder>,
}

/// A session with lines and an open file.
struct Active {
    lines: SharedLines,
    /// None while all are given to others.
    encoder: Option<LiveEncoder>,
    file: File,
    slot: u32,
    quiet: u32,
    /// When it was last signed where the recording stands.
    signed: Option<Instant>,
    /// Where it stands, if that is not signed.
    unsigned: Option<Stand>,
}

impl Compressor {
    fn run(mut self, inbox: &Receiver<ToCompressor>) {
        let mut due = Instant::now() + FLUSH / SLOTS;
        loop {
            match self.wait(inbox, due) {
                Ok(ToCompressor::Active(lines)) => self.welcome(lines),
                Ok(ToCompressor::Urgent(lines)) => self.hurry(lines),
                Ok(ToCompressor::Finish(lines, finish)) => self.finish(lines, finish),
                Err(RecvTimeoutError::Timeout) => {
                    self.flush_slot();
                    // Late is late: never a burst to catch up.
                    due = Instant::now() + FLUSH / SLOTS;
                }
                Ok(ToCompressor::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let ids: Vec<_> = self.active.keys().cloned().collect();
        for id in ids {
            self.turn(&id, Turn::End);
        }
        let _ = self.sealer.send(ToSealer::Close);
    }

    /// The next thing to do; the time-out comes only while there is work.
    fn wait(&self, inbox: &Receiver<ToCompressor>, due: Instant) -> Result<ToCompressor, RecvTimeoutError> {
        if self.active.is_empty() {
            return inbox.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let now = Instant::now();
        if now >= due {
            return Err(RecvTimeoutError::Timeout);
        }
        inbox.recv_timeout(due - now)
    }

    fn welcome(&mut self, lines: SharedLines) {
        if let Err(error) = self.open(&lines) {
            self.give_up(&lines, &error);
        }
    }

    fn hurry(&mut self, lines: SharedLines) {
        lines.urgent.store(false, Ordering::Release);
        lines.active.store(true, Ordering::Release);
        match self.open(&lines) {
            Ok(()) => self.turn(lines.id(), Turn::Flush),
            Err(error) => self.give_up(&lines, &error),
        }
    }

    fn finish(&mut self, lines: SharedLines, finish: Finish) {
        if lines.failure().is_none() {
            match self.open(&lines) {
                Ok(()) => self.turn(lines.id(), Turn::End),
                Err(error) => self.give_up(&lines, &error),
            }
        }
        self.leave(lines.id());
        self.house.waiting_seals.fetch_add(1, Ordering::Relaxed);
        let _ = self.sealer.send(ToSealer::Seal(lines, finish));
    }

    /// Gives every session of the slot its turn.
    fn flush_slot(&mut self) {
        self.slot = (self.slot + 1) % SLOTS;
        let slot = self.slot;
        let due = self.active.iter().filter(|(_, active)| active.slot == slot);
        let due: Vec<_> = due.map(|(id, active)| (id.clone(), active.quiet >= QUIET_FLUSHES)).collect();
        for (id, quiet) in due {
            self.turn(&id, if quiet { Turn::End } else { Turn::Flush });
            if quiet {
                self.part(&id);
            }
        }
    }

    /// Compresses what a session has in the journal.
    fn turn(&mut self, id: &SessionId, turn: Turn) {
        let Some(active) = self.active.get_mut(id) else { return };
        match active.turn(turn, &mut self.encoders, (&mut self.packed, &mut self.spare)) {
            Ok(lines) => {
                self.house.count_bytes("compressed", self.packed.len());
                active.quiet = if lines == 0 { active.quiet + 1 } else { 0 };
                active.checkpoint(&self.house, turn == Turn::End);
            }
            Err(error) => {
                let lines = active.lines.clone();
                self.give_up(&lines, &error);
            }
        }
    }

    /// Takes the encoder and the file from a session that went quiet.
    fn part(&mut self, id: &SessionId) {
        let Some(lines) = self.leave(id) else { return };
        lines.active.store(false, Ordering::Release);
        // Lines that came meanwhile found the session still active.
        let missed = lines.buffer().journaled > 0;
        if missed && !lines.active.swap(true, Ordering::AcqRel) {
            self.welcome(lines);
        }
    }

    fn leave(&mut self, id: &SessionId) -> Option<SharedLines> {
        let active = self.active.remove(id)?;
        self.encoders.take_back(active.encoder);
        Some(active.lines)
    }

    fn open(&mut self, lines: &SharedLines) -> io::Result<()> {
        if self.active.contains_key(lines.id()) {
            return Ok(());
        }
        let file = OpenOptions::new().append(true).open(self.house.spool.path(lines.id()))?;
        self.next_slot = (self.next_slot + 1) % SLOTS;
        let active = Active {
            lines: lines.clone(),
            encoder: None,
            file,
            slot: self.next_slot,
            quiet: 0,
            signed: None,
            unsigned: None,
        };
        self.active.insert(lines.id().clone(), active);
        Ok(())
    }

    fn give_up(&mut self, lines: &SharedLines, error: &io::Error) {
        let why = format!("{} cannot be written: {error}", self.house.spool.path(lines.id()).display());
        self.house.report(&why);
        lines.fail(&why);
        self.leave(lines.id());
    }
}

impl Encoders {
    /// One at the start of a frame.
    fn fresh(&mut self) -> io::Result<LiveEncoder> {
        let mut encoder = self.spare.pop().map_or_else(LiveEncoder::new, Ok)?;
        encoder.reset()?;
        Ok(encoder)
    }

    /// One to keep, if there is one left.
    fn give(&mut self) -> io::Result<Option<LiveEncoder>> {
        if self.given >= ENCODERS_MAX {
            return Ok(None);
        }
        let encoder = self.fresh()?;
        self.given += 1;
        Ok(Some(encoder))
    }

    fn take_back(&mut self, encoder: Option<LiveEncoder>) {
        let Some(encoder) = encoder else { return };
        self.given -= 1;
        self.put_away(encoder);
    }

    fn put_away(&mut self, encoder: LiveEncoder) {
        if self.spare.len() < ENCODERS_MAX {
            self.spare.push(encoder);
        }
    }
}

impl Active {
    /// Appends the lines to the file; says how many bytes of lines.
    fn turn(
        &mut self,
        turn: Turn,
        encoders: &mut Encoders,
        (packed, spare): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> io::Result<usize> {
        packed.clear();
        let mut buffer = self.lines.buffer();
        let (taken, bytes, (lines, head)) = (buffer.take_journaled(spare), buffer.start, buffer.chain());
        drop(buffer);
        if taken.is_empty() && (turn == Turn::Flush || self.encoder.is_none()) {
            return Ok(0);
        }
        let whole = taken.len() >= LIVE_WHOLE;
        if self.encoder.is_none() && !whole {
            self.encoder = encoders.give()?;
        }
        match &mut self.encoder {
            Some(encoder) => encoder.compress(&taken, if whole { Turn::End } else { turn }, packed)?,
            None => {
                let mut borrowed = encoders.fresh()?;
                borrowed.compress(&taken, Turn::End, packed)?;
                encoders.put_away(borrowed);
            }
        }
        if whole {
            encoders.take_back(self.encoder.take());
        }
        self.append(packed, bytes)?;
        self.lines.buffer().packed();
        if !taken.is_empty() {
            let last = taken.split_inclusive(|byte| *byte == b'\n').next_back().and_then(peek);
            let until_ms = last.map_or(0, |peeked| peeked.time_ms);
            self.unsigned = Some(Stand { lines, bytes, until_ms, head });
        }
        let length = taken.len();
        let wanted = spare.capacity() + 1..=ROOM_MAX;
        if let Some(mut taken) = Arc::into_inner(taken).filter(|taken| wanted.contains(&taken.capacity())) {
            taken.clear();
            *spare = taken;
        }
        Ok(length)
    }

    /// Signs where the recording stands, if it is time to.
    fn checkpoint(&mut self, house: &House, last: bool) {
        let due = last || self.signed.is_none_or(|signed| signed.elapsed() >= CHECKPOINT);
        let Some(stand) = self.unsigned.take_if(|_| due) else { return };
        self.signed = Some(Instant::now());
        let (id, path) = (self.lines.id(), house.spool.path(self.lines.id()));
        let signed = Checkpoint::sign(id, stand, self.lines.takeovers(), &house.key);
        let disk = self.lines.durability().on_disk();
        match signed.and_then(|checkpoint| checkpoint.write(&path, disk).map(|()| checkpoint)) {
            Ok(checkpoint) => {
                let (session, checkpoint) = (id.clone(), Arc::new(checkpoint));
                house.followers.offer(&Shipment::Checkpoint { session, checkpoint });
            }
            Err(error) => house.report(&format!("{} cannot be given a checkpoint: {error}", path.display())),
        }
    }

    fn append(&mut self, packed: &[u8], end: u64) -> io::Result<()> {
        let mut open = self.lines.open_file();
        if let Err(error) = self.file.write_all(packed) {
            // What is there must stay decodable; the lines are in the journal.
            let _ = self.file.set_len(open.length);
            return Err(error);
        }
        open.wrote(packed);
        self.lines.set_compressed(end);
        Ok(())
    }
}
