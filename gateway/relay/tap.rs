//! The tap: each message into the recording, once, before it is forwarded.

use std::task::Context;

use data_channel::message::Message;
use data_channel::payload::{PayloadType, Size};
use tokio::time::Instant;

use crate::recorder::{Position, RecorderError, Recording, Stream};

/// The recording of one session and what it has taken so far.
pub(super) struct Tap {
    recording: Recording,
    started: Instant,
    record_input: bool,
    position: Position,
    next_input: i64,
}

impl Tap {
    pub(super) fn new(recording: Recording, record_input: bool, now: Instant) -> Self {
        Self { recording, started: now, record_input, position: Position::default(), next_input: 0 }
    }

    /// Whether the recording takes more; wakes the task when it will.
    pub(super) fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        self.recording.has_room() || self.recording.poll_recorded(cx, self.position).is_ready()
    }

    /// Records an output message; its acknowledge waits for the position.
    pub(super) fn output(&mut self, message: &Message, now: Instant) -> Result<Position, RecorderError> {
        let stream = match message.payload_type() {
            PayloadType::Output => Stream::Output,
            PayloadType::StdErr => Stream::StdErr,
            PayloadType::ExitCode => Stream::ExitCode,
            // Handshakes and flags are not what the user saw.
            _ => return Ok(self.position),
        };
        let at = self.elapsed_ms(now);
        self.position = self.recording.output(at, message.sequence(), stream, message.payload())?;
        Ok(self.position)
    }

    /// Records an input message: window sizes always, keys when asked.
    pub(super) fn input(&mut self, message: &Message, now: Instant) -> Result<(), RecorderError> {
        // A number seen before is a retransmission, and is in the record.
        if message.sequence() < self.next_input {
            return Ok(());
        }
        self.next_input = message.sequence().saturating_add(1);
        let at = self.elapsed_ms(now);
        match message.payload_type() {
            PayloadType::Size => {
                if let Ok(size) = Size::parse(message.payload()) {
                    self.position = self.recording.resize(at, size.cols, size.rows)?;
                }
            }
            PayloadType::Output if self.record_input => {
                self.position = self.recording.input(at, message.payload())?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    pub(super) fn into_recording(self, now: Instant) -> (Recording, u64) {
        let at = self.elapsed_ms(now);
        (self.recording, at)
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}
