//! What a client types to tell a scripted agent what to do.

use std::time::Duration;

/// Typed to end the session as a shell would.
pub const EXIT: &[u8] = b"exit";

/// An order for output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Messages to send.
    pub count: u64,
    /// Messages without acknowledge at the most.
    pub window: u64,
    /// Time between two messages; none: as fast as the window lets.
    pub every: Option<Duration>,
}

impl Run {
    /// The line to type.
    pub fn line(&self) -> String {
        let every = self.every.map_or(0, |every| every.as_micros());
        format!("run {} {} {every}", self.count, self.window)
    }

    /// Reads the line; anything else is a keystroke.
    pub fn parse(input: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(input).ok()?.strip_prefix("run ")?;
        let mut words = text.split(' ').map(str::parse::<u64>);
        let (count, window, every) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
        Some(Self { count, window, every: (every > 0).then(|| Duration::from_micros(every)) })
    }
}
