//! How a session ended, and what a script is told of it.

use crate::client::channel::End;

/// How a session ended on this side.
#[derive(Debug)]
pub enum Ending {
    /// The far side closed it, with a text or without.
    Closed {
        /// What it said, safe to show.
        text: String,
        /// The exit code that it reported.
        exit_code: Option<i32>,
    },
    /// The gateway says that the session is over.
    TimedOut,
    /// The person left, or nobody takes the far side's bytes any more.
    Left,
    /// The person left, and the session could not be ended: it goes on.
    Open,
    /// This program was told to end by a signal.
    Signal(i32),
    /// The session cannot be carried by this client; safe to show.
    Unsupported(String),
}

impl Ending {
    /// The far side's end, without a word or a code.
    pub fn of(end: &End) -> Self {
        match end {
            End::TimedOut => Self::TimedOut,
            End::Closed | End::Left => Self::Closed { text: String::new(), exit_code: None },
        }
    }

    /// Whether the session is over, so that nobody need end it.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::TimedOut)
    }
}

/// The exit code that tells a script how a session ended.
pub fn exit_code(ending: &Ending) -> u8 {
    const FAILED: u8 = 255;
    match ending {
        Ending::Closed { exit_code: Some(code), .. } => u8::try_from(*code).unwrap_or(FAILED),
        Ending::Closed { text, .. } if text.is_empty() => 0,
        Ending::Left => 0,
        Ending::Signal(number) => u8::try_from(128 + number).unwrap_or(FAILED),
        Ending::Closed { .. } | Ending::TimedOut | Ending::Open | Ending::Unsupported(_) => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str, exit_code: Option<i32>) -> Ending {
        Ending::Closed { text: text.to_owned(), exit_code }
    }

    #[test]
    fn the_exit_code_tells_scripts_how_it_ended() {
        for (ending, code) in [
            (closed("", None), 0),
            (closed("", Some(3)), 3),
            (closed("", Some(-1)), 255),
            (closed("ended by policy", None), 255),
            (Ending::Left, 0),
            (Ending::Open, 255),
            (Ending::TimedOut, 255),
            (Ending::Signal(15), 143),
            (Ending::Unsupported("ports".to_owned()), 255),
        ] {
            assert_eq!(exit_code(&ending), code, "{ending:?}");
        }
    }
}
