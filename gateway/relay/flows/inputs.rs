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
    /// Whether [`Inputs::next`] can take the message.
    pub(super) fn has_room_for(&self, message: &Message) -> bool {
        message.sequence() <= self.next
            || self.early.len() < EARLY_MAX
                && self.early_bytes + message.raw().len() <= EARLY_BYTES_MAX
    }

    /// Gives the message back if it is its turn, else keeps it.
    pub(super) fn next(&mut self, message: Message) -> Option<Message> {
        if message.sequence() == self.next {
            self.next += 1;
            return Some(message);
        }
        if message.sequence() > self.next {
            self.early_bytes += message.raw().len();
            if let Some(old) = self.early.insert(message.sequence(), message) {
                self.early_bytes -= old.raw().len();
            }
        }
        None
    }

    /// The message whose turn has come, if it is held.
    pub(super) fn held(&mut self) -> Option<Message> {
        let message = self.early.remove(&self.next)?;
        self.early_bytes -= message.raw().len();
        self.next += 1;
        Some(message)
    }
}
