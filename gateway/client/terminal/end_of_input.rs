//! Ending a session whose input has ended, as a pipe's user expects.

use std::time::Duration;

/// Output must rest so long before end-of-transmission is typed: a prompt
/// is there or a program waits for input.
const REST: Duration = Duration::from_millis(500);
/// Most times it is typed: one for every program that reads, one a shell.
const TRIES: u32 = 10;
/// Ctrl-D: end of transmission, as the terminal of the far side reads it.
const END_OF_TRANSMISSION: &[u8] = &[0x04];

/// When to type Ctrl-D after the last of the input.
///
/// It cannot go out right behind the input: a shell that is busy when it
/// comes reads it as an ordinary byte later.
#[derive(Debug, Default)]
pub struct EndOfInput {
    /// When input ended, or output was last seen after it.
    rests_since: Option<Duration>,
    /// Whether the line that input ended in was not complete.
    line_is_open: bool,
    tries: u32,
    /// Output came since the last try.
    is_answered: bool,
}

impl EndOfInput {
    /// Input passed by.
    pub fn saw_input(&mut self, bytes: &[u8]) {
        self.line_is_open = bytes.last().is_some_and(|byte| !matches!(byte, b'\n' | b'\r'));
    }

    /// Input has ended; an incomplete last line is completed with this.
    pub fn ended(&mut self, now: Duration) -> &'static [u8] {
        self.rests_since = Some(now);
        self.is_answered = true;
        if std::mem::take(&mut self.line_is_open) { b"\n" } else { b"" }
    }

    /// Output passed by.
    pub fn saw_output(&mut self, now: Duration) {
        if self.rests_since.is_some() {
            self.rests_since = Some(now);
            self.is_answered = true;
        }
    }

    /// When [`EndOfInput::due`] is to be asked; `None`: not yet, or enough.
    pub fn next(&self) -> Option<Duration> {
        let waits = self.is_answered && self.tries < TRIES;
        self.rests_since.filter(|_| waits).map(|since| since + REST)
    }

    /// What to type now, if anything.
    pub fn due(&mut self, now: Duration) -> Option<&'static [u8]> {
        self.next().filter(|next| *next <= now)?;
        self.tries += 1;
        self.is_answered = false;
        Some(END_OF_TRANSMISSION)
    }

    /// Whether Ctrl-D was typed often enough to see that nobody cares.
    pub fn is_ignored(&self) -> bool {
        self.tries >= TRIES && self.is_answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn it_is_typed_once_output_rests() {
        let mut end = EndOfInput::default();
        end.saw_input(b"ls\n");
        end.saw_output(ms(5));
        assert_eq!(end.next(), None, "input has not ended");
        assert_eq!(end.ended(ms(10)), b"");
        end.saw_output(ms(400));
        assert_eq!(end.due(ms(899)), None);
        assert_eq!(end.due(ms(900)), Some(&[4u8][..]));
        assert_eq!(end.next(), None, "nothing has changed since");
    }

    #[test]
    fn it_is_typed_again_when_another_prompt_comes() {
        let mut end = EndOfInput::default();
        end.ended(ms(0));
        assert!(end.due(ms(500)).is_some());
        end.saw_output(ms(60_000));
        assert_eq!(end.next(), Some(ms(60_500)));
    }

    #[test]
    fn a_last_line_without_an_end_is_completed() {
        let mut end = EndOfInput::default();
        end.saw_input(b"ls");
        assert_eq!(end.ended(ms(0)), b"\n");
    }

    #[test]
    fn a_program_that_ignores_it_is_not_fed_for_ever() {
        let mut end = EndOfInput::default();
        end.ended(ms(0));
        for round in 1..=10u64 {
            assert!(!end.is_ignored());
            assert!(end.due(ms(round * 1000)).is_some());
            end.saw_output(ms(round * 1000 + 1));
        }
        assert!(end.is_ignored());
        assert_eq!(end.next(), None);
    }
}
