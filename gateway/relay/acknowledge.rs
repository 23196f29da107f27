//! Acknowledges that wait for the recording before they go upstream.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::recorder::Position;

/// Acknowledges that may wait; then nothing more is read from upstream.
///
/// 2.5 MB: what the client has acknowledged is not in its window any more,
/// so an upstream that sends and does not read would fill the memory.
const HELD_MAX: usize = 8192;

/// Places that stay when nothing waits.
const KEPT: usize = 16;

/// One acknowledge that may not pass yet.
struct Held {
    sequence: i64,
    position: Position,
    since: Instant,
    due: Instant,
    raw: Bytes,
}

/// Acknowledges in the order in which they came.
#[derive(Default)]
pub(super) struct HeldAcknowledges {
    queue: VecDeque<Held>,
}

impl HeldAcknowledges {
    /// Keeps the acknowledge of one of the agent's numbers until `position`
    /// is recorded and `due` is past.
    pub(super) fn hold(&mut self, sequence: i64, position: Position, times: (Instant, Instant), raw: Bytes) {
        let (since, due) = times;
        self.queue.push_back(Held { sequence, position, since, due, raw });
    }

    /// Whether more may come to wait.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < HELD_MAX
    }

    /// Whether an acknowledge of this number is still waiting.
    pub(super) fn holds(&self, sequence: i64) -> bool {
        self.queue.iter().any(|held| held.sequence == sequence)
    }

    /// The next acknowledge that may pass, and since when it waited.
    pub(super) fn release(&mut self, recorded: Position, now: Instant) -> Option<(Bytes, Instant)> {
        let front = self.queue.front()?;
        if front.position > recorded || front.due > now {
            return None;
        }
        let held = self.queue.pop_front()?;
        // A burst's memory goes back once it is over.
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
        Some((held.raw, held.since))
    }

    /// The position that the first one waits for, and since when.
    pub(super) fn waits_since(&self) -> Option<(Position, Instant)> {
        self.queue.front().map(|held| (held.position, held.since))
    }

    /// The position and the time that the first one waits for.
    pub(super) fn waiting_for(&self) -> Option<(Position, Instant)> {
        self.queue.front().map(|held| (held.position, held.due))
    }
}
