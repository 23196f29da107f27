//! What a client typed and the terminal has not read yet.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::process::Signal;

use super::process::Process;

/// Most bytes that wait for the terminal: then input is not acknowledged.
const WAITING_MAX: usize = 1 << 20;
/// What Ctrl-C is.
const INTERRUPT: u8 = 0x03;
/// What Ctrl-\ is.
const QUIT: u8 = 0x1C;

/// Typed bytes in order, bounded.
#[derive(Debug, Default)]
pub(super) struct Input {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

impl Input {
    /// Whether more may be typed.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < WAITING_MAX
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a message's payload.
    pub(super) fn push(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.bytes += payload.len();
            self.waiting.push_back(payload);
        }
    }

    /// Types what waits, until the terminal takes no more.
    pub(super) fn poll_type(&mut self, cx: &mut Context<'_>, process: &mut Process) -> Poll<io::Result<()>> {
        while let Some(front) = self.waiting.front_mut() {
            let typed = ready!(process.poll_input(cx, front))?;
            front.advance(typed);
            self.bytes -= typed;
            if front.is_empty() {
                self.waiting.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Forgets what waits: nobody reads it any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Finds the first interrupt for a command that has no terminal.
    pub(super) fn interrupt(&self, process: &Process, payload: &[u8]) {
        match payload.iter().find(|b| matches!(**b, INTERRUPT | QUIT)) {
            Some(&INTERRUPT) => process.interrupt(Signal::INT),
            Some(_) => process.interrupt(Signal::QUIT),
            None => {}
        }
    }
}
