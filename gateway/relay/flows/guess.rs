//! What the first bytes of a connection look like; only what is certain.

mod client;
mod target;

use crate::recorder::{Direction, Guess};
use crate::session::printable;

/// First bytes kept of the client: a large TLS hello; then they go.
const CLIENT_MAX: usize = 4096;
/// First bytes kept of the target: a banner.
const TARGET_MAX: usize = 256;
/// With fewer bytes than this nothing is certain.
const LEAST: usize = 8;
/// Longest text taken from a connection, in characters.
const TEXT_MAX: usize = 255;

/// What first bytes say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// This, and more bytes would tell no more.
    Known(Guess),
    /// This, and more bytes may tell more.
    AtLeast(Guess),
    /// Nothing yet.
    More,
    /// Nothing that is known here.
    Nothing,
}

/// Looks at the first bytes of one direction, however they are cut.
pub(super) struct Look {
    direction: Direction,
    /// The first bytes; `None` once nothing more can be learnt.
    first: Option<Vec<u8>>,
    at_least: Option<Guess>,
}

impl Look {
    pub(super) fn at(direction: Direction) -> Self {
        Self { direction, first: Some(Vec::new()), at_least: None }
    }

    /// Goes on after an earlier process, which kept no bytes.
    pub(super) fn after(direction: Direction, at_least: Option<Guess>) -> Self {
        Self { direction, first: None, at_least }
    }

    /// What is known and was not told yet.
    pub(super) fn untold(&self) -> Option<&Guess> {
        self.at_least.as_ref()
    }

    /// Takes more bytes; a guess comes once.
    pub(super) fn more(&mut self, bytes: &[u8]) -> Option<Guess> {
        let first = self.first.as_mut()?;
        let max = if self.direction == Direction::Up { CLIENT_MAX } else { TARGET_MAX };
        let room = max - first.len().min(max);
        first.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let is_full = first.len() >= max;
        let verdict = match self.direction {
            _ if first.len() < LEAST => Verdict::More,
            Direction::Up => client::verdict(first),
            Direction::Down => target::verdict(first),
        };
        match verdict {
            Verdict::Known(guess) => {
                (self.first, self.at_least) = (None, None);
                return Some(guess);
            }
            Verdict::AtLeast(guess) => self.at_least = Some(guess),
            Verdict::More => {}
            Verdict::Nothing => self.first = None,
        }
        if is_full { self.last() } else { None }
    }

    /// No more bytes come; what was learnt so far, if not told yet.
    pub(super) fn last(&mut self) -> Option<Guess> {
        self.first = None;
        self.at_least.take()
    }
}

fn guess(protocol: &str) -> Guess {
    Guess { protocol: protocol.to_owned(), ..Guess::default() }
}

/// Text of a stranger, safe to show and short.
fn text(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes)).chars().take(TEXT_MAX).collect()
}

/// The identification line of an SSH program (RFC 4253, 4.2).
fn ssh(bytes: &[u8]) -> Verdict {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end < TEXT_MAX => {
            let version = Some(text(bytes.get(..end).unwrap_or_default()));
            Verdict::Known(Guess { version, ..guess("ssh") })
        }
        None if bytes.len() < TEXT_MAX => Verdict::AtLeast(guess("ssh")),
        _ => Verdict::Nothing,
    }
}
