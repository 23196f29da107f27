//! A recording without threads or files: a test says when it is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::lines::{Lines, OpenFile, SharedLines};
use super::links::Links;
use super::memory::Memory;
use super::writer::ToWriter;
use super::{Recording, Recovered};
use crate::asciicast::{Covered, Event, EventCode, FlowState, Handover, Marks};
use crate::session::SessionId;

/// The writer's side of one recording, for tests with simulated time.
pub(crate) struct ByHand {
    inbox: Receiver<ToWriter>,
    waiting: Vec<SharedLines>,
    session: SharedLines,
    marks: Marks,
    exact: Option<Vec<u8>>,
    /// What was written: each output event and what its mark said.
    pub(crate) output: Vec<Covered<Vec<u8>>>,
    /// What was written beside output, in order.
    pub(crate) others: Vec<Event>,
    /// Input messages that were written, with their numbers.
    pub(crate) typed: Vec<(i64, Vec<u8>)>,
    next_typed: i64,
    /// Where a port session is, as the notes about it say.
    pub(crate) flow: Option<FlowState>,
    lines: Vec<u8>,
}

impl ByHand {
    /// A recording and the hand that writes it.
    pub(crate) fn begin(id: &str) -> (Recording, Self) {
        let (writer, inbox) = channel();
        let lines = Arc::new(Lines::after(SessionId::parse(id).unwrap(), (0, Links::new()), OpenFile::new()));
        let hand = Self {
            inbox,
            waiting: Vec::new(),
            session: Arc::clone(&lines),
            marks: Marks::default(),
            exact: None,
            output: Vec::new(),
            others: Vec::new(),
            typed: Vec::new(),
            next_typed: 0,
            flow: None,
            lines: Vec::new(),
        };
        (Recording::new(lines, writer), hand)
    }

    /// The process is gone; what another one makes of what was written.
    pub(crate) fn restart(&mut self) -> (Recording, Recovered) {
        self.waiting.clear();
        let (writer, inbox) = channel();
        self.inbox = inbox;
        self.exact = None;
        let mut memory = Memory::default();
        self.lines.split_inclusive(|byte| *byte == b'\n').for_each(|line| memory.line(line));
        let (state, recovered) = memory.finish();
        let start = (self.lines.len() as u64, Links::new());
        let lines = Lines::after(SessionId::parse("alice-1").unwrap(), start, OpenFile::new());
        self.session = Arc::new(lines);
        (Recording::new(Arc::clone(&self.session), writer).going_on(state), recovered)
    }

    /// Whether there is something to write.
    pub(crate) fn has_news(&mut self) -> bool {
        while let Ok(told) = self.inbox.try_recv() {
            match told {
                ToWriter::Lines(lines) | ToWriter::Finish(lines, _) => self.waiting.push(lines),
                ToWriter::Close => {}
            }
        }
        !self.waiting.is_empty()
    }

    /// Whatever was written is stored elsewhere now.
    pub(crate) fn accept(&self) {
        self.session.accepted(u64::MAX);
    }

    /// Writes what was handed over, and tells the relay.
    pub(crate) fn write(&mut self) {
        self.has_news();
        for lines in std::mem::take(&mut self.waiting) {
            lines.queued.store(false, Ordering::Release);
            let mut buffer = lines.buffer();
            let in_journal = buffer.journal(|_, _| {});
            let fresh = buffer.take_journaled(&mut Vec::new());
            drop(buffer);
            self.lines.extend_from_slice(&fresh);
            for line in fresh.split_inclusive(|byte| *byte == b'\n') {
                self.take(Event::parse(line).unwrap());
            }
            lines.set_journaled(&in_journal);
            lines.set_on_disk(in_journal.end);
        }
    }

    fn take(&mut self, event: Event) {
        if event.code == EventCode::BYTES {
            self.exact = Some(STANDARD.decode(&event.data).unwrap());
            return;
        }
        let covered = self.marks.follow(event.code, event.data.as_bytes());
        if event.code == EventCode::SEQUENCE {
            if let Some(Handover::Input(number)) = Handover::parse(event.data.as_bytes()) {
                self.next_typed = number;
            }
            if let Some(note) = FlowState::of(&event) {
                self.flow.get_or_insert_default().then(note.unwrap());
            }
            return;
        }
        let exact = self.exact.take();
        if event.code == EventCode::Input {
            let bytes = exact.clone().unwrap_or_else(|| event.data.clone().into_bytes());
            self.typed.push((self.next_typed, bytes));
            self.next_typed += 1;
        }
        match covered {
            Some(Covered { sequence, stream, .. }) => {
                let content = exact.unwrap_or_else(|| event.data.into_bytes());
                self.output.push(Covered { sequence, stream, content });
            }
            None => self.others.push(event),
        }
    }
}
