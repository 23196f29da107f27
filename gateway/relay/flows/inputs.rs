//! Input messages in the order of their numbers.

use std::collections::BTreeMap;

use data_channel::message::Message;

/// Messages held that came before their turn, and their bytes.
///
/// The client sends again what is dropped beyond it.
const EARLY_MAX: usize = 4096;
const EARLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is next from the client, and what came before its turn.
#[derive(Default)]
pub(super) struct Inputs {
    next: i64,
    early: BTreeMap<i64, Message>,
    early_bytes: usize,
}

impl Inputs {
    /// Goes on with that number.
    pub(super) fn after(next: i64) -> Self {
        Self { next, ..Self::default() }
    }

    /// The number that is awaited.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Whether it is the message's turn, or there is room to hold it.
    pub(super) fn has_room_for(&self, message: &Message) -> bool {
        message.sequence() <= self.next
            || self.early.contains_key(&message.sequence())
            || self.early.len() < EARLY_MAX && self.early_bytes + message.raw().len() <= EARLY_BYTES_MAX
    }

    /// Whether it is the message's turn; if so, the next one is awaited.
    pub(super) fn takes(&mut self, message: &Message) -> bool {
        let is_next = message.sequence() == self.next;
        self.next += i64::from(is_next);
        is_next
    }

    /// Keeps a message until its turn.
    pub(super) fn hold(&mut self, message: Message) {
        if message.sequence() > self.next {
            self.early_bytes += message.raw().len();
            if let Some(old) = self.early.insert(message.sequence(), message) {
                self.early_bytes -= old.raw().len();
            }
        }
    }

    /// Whether a message of that number waits for its turn.
    pub(super) fn holds(&self, sequence: i64) -> bool {
        self.early.contains_key(&sequence)
    }

    /// The message whose turn has come, if it is held.
    pub(super) fn held(&mut self) -> Option<Message> {
        let message = self.early.remove(&self.next)?;
        self.early_bytes -= message.raw().len();
        Some(message)
    }
}
