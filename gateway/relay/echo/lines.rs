//! The lines that were typed and that the output has not come to the end of.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::ECHO_WITHIN;
use super::prompt;

/// Typed text of one line, bytes; a longer one is never found as a whole.
const TEXT_MAX: usize = 16 * 1024;
/// Lines that are followed; somebody who pastes more is ahead of any echo.
const LINES_MAX: usize = 256;

/// One line that is being typed, or was.
pub(super) struct Line {
    /// What was typed on it, without spaces.
    pub(super) text: Vec<u8>,
    /// When the key came that ended it.
    pub(super) ended: Option<Instant>,
    /// It was begun before the output was done with the line before.
    pub(super) ahead: bool,
    /// It began at the prompt of a program that takes commands.
    pub(super) at_shell: bool,
    /// There were keys in it that may show anything.
    pub(super) edited: bool,
    /// It was put in as a paste, whose line ends are text.
    pub(super) pasted: bool,
    pub(super) proof: Proof,
}

/// How sure it is that the line is shown as it is typed.
///
/// One letter, however often, may be other output; two different ones that
/// come each as the next output after their key are an echo.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    None,
    Letter(u8),
    Sure,
}

impl Line {
    /// So many bytes of text look like they were shown.
    pub(super) fn echoed(&mut self, text: &[u8]) {
        for byte in text {
            self.proof = match self.proof {
                Proof::None => Proof::Letter(*byte),
                Proof::Letter(letter) if letter == *byte => self.proof,
                Proof::Letter(_) | Proof::Sure => Proof::Sure,
            };
        }
        self.ahead &= text.is_empty();
    }

    pub(super) fn is_sure(&self) -> bool {
        self.proof == Proof::Sure
    }

    /// Whether it came whole before anything of it was shown, where no
    /// program is known to show it: as one types at a prompt for a secret.
    pub(super) fn is_blind(&self) -> bool {
        self.ended.is_some() && !self.ahead && !self.at_shell && self.proof == Proof::None
    }

    fn more(&mut self, text: &[u8]) {
        let room = TEXT_MAX.saturating_sub(self.text.len());
        self.text.extend(prompt::without_spaces(text).into_iter().take(room));
    }

    fn is_whole(&self) -> bool {
        self.text.len() < TEXT_MAX
    }

    /// Whether this is what was typed, all of it.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.is_whole() && prompt::without_spaces(text) == self.text
    }
}

/// The lines in the order in which they were typed; the last may be open.
#[derive(Default)]
pub(super) struct Lines {
    lines: VecDeque<Line>,
    /// The number of the first one.
    first: u64,
}

impl Lines {
    /// The line that is being typed, begun if there is none; its number, and
    /// whether the text is the first on it.
    pub(super) fn typing(&mut self, text: &[u8], last_output: &[u8], ahead: bool) -> (u64, bool) {
        let is_open = self.lines.back().is_some_and(|line| line.ended.is_none());
        if !is_open {
            let ahead = ahead || !self.lines.is_empty();
            let at_shell = !ahead && prompt::is_shell(last_output);
            let (edited, pasted, proof) = (false, false, Proof::None);
            self.lines.push_back(Line { text: vec![], ended: None, ahead, at_shell, edited, pasted, proof });
        }
        let number = self.first + self.lines.len().saturating_sub(1) as u64;
        let Some(line) = self.lines.back_mut() else { return (number, true) };
        let is_first = line.text.is_empty() && !text.is_empty();
        line.more(text);
        (number, is_first)
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Line> {
        self.lines.back_mut()
    }

    pub(super) fn front(&self) -> Option<(u64, &Line)> {
        self.lines.front().map(|line| (self.first, line))
    }

    pub(super) fn get(&self, number: u64) -> Option<&Line> {
        self.lines.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Line> {
        self.lines.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Whether that line is still being typed.
    pub(super) fn is_open(&self, number: u64) -> bool {
        self.get(number).is_some_and(|line| line.ended.is_none())
    }

    /// The first line that was typed ahead and that this output line shows.
    pub(super) fn shown_by(&self, output: &[u8]) -> Option<u64> {
        let shown = |line: &Line| {
            line.ended.is_some() && line.is_whole() && prompt::is_shell_with(output, &line.text)
        };
        let at = self.lines.iter().position(shown)?;
        Some(self.first + at as u64)
    }

    /// The output is done with the lines below that number.
    pub(super) fn done_below(&mut self, number: u64) {
        while self.first < number && self.lines.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Up to where lines ended so long ago, or are so many, that they are
    /// not waited for.
    pub(super) fn given_up(&self, now: Instant) -> u64 {
        let old = |line: &&Line| line.ended.is_some_and(|ended| ended + ECHO_WITHIN <= now);
        let many = self.lines.len().saturating_sub(LINES_MAX);
        self.first + self.lines.iter().take_while(old).count().max(many) as u64
    }
}
