//! Which typed text the terminal showed: only that is kept in the record.
//!
//! Whether a terminal echoes is known on the machine alone. So typed text is
//! held until the output shows it, for [`ECHO_WITHIN`] at the most; what is
//! not shown is hidden, and so is all that is typed at a prompt for a secret
//! and, once something on a line was not shown, the rest of that line. Keys
//! that are no text are never hidden.
//!
//! An echo is the next output, in order, where the cursor is. Of a line that
//! was ended before anything of it was shown, it is all of the line and then
//! a line end, at the prompt of a shell; what comes after the first line end
//! is other output. Letters count only once two different ones were shown,
//! each after its key. In doubt text is hidden.

mod glyph;
mod held;
mod lines;
mod prompt;
mod secret;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use self::glyph::{Glyph, starts};
use self::held::{Held, Is, Piece};
use self::lines::Lines;
use self::secret::{Secret, not_shown};
use super::screen_text::{self, Scanner, Token};

/// How long typed text waits for its echo.
pub(super) const ECHO_WITHIN: Duration = Duration::from_secs(1);
/// Typed bytes that may wait; then the first is hidden at once.
const HELD_MAX: usize = 64 * 1024;
/// Output since a line was begun, bytes of text.
const SHOWN_MAX: usize = 16 * 1024;
/// Hidden text of so many bytes is shown after all if it is shown as a whole.
const LONG: usize = 4;
/// Text of the line being typed that is known to be shown, bytes.
const LINE_MAX: usize = 64;
/// Text of the last line of output that is looked at, bytes.
const PROMPT_MAX: usize = 4096;
/// Output lines of an earlier process in which an echo may stand.
const HISTORY_MAX: usize = 64;
/// What a terminal puts around a paste.
const PASTE: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// One input message as it may be recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// Its number.
    pub(super) sequence: i64,
    /// When it came, milliseconds since the recording began.
    pub(super) at_ms: u64,
    /// Its bytes; text that was not shown is one `*`.
    pub(super) bytes: Vec<u8>,
    /// Whether something is hidden.
    pub(super) hidden: bool,
}

/// What was typed and is not recorded yet, and what was shown since.
#[derive(Default)]
pub(super) struct Echo {
    held: VecDeque<Held>,
    held_bytes: usize,
    /// How many messages were held so far, and how many of them are no more.
    taken: u64,
    released: u64,
    lines: Lines,
    output: Scanner,
    /// Text of the output since the first line was begun, up to a line feed.
    after: Vec<u8>,
    /// The last lines of an earlier process's output, until then.
    history: VecDeque<Vec<u8>>,
    history_until: Option<Instant>,
    /// The last line of the output.
    prompt: Vec<u8>,
    /// The next text on that line overwrites it.
    returned: bool,
    /// What of the line being typed was shown.
    line: Vec<u8>,
    /// Why the rest of the line is hidden.
    secret: Option<Secret>,
    /// Inside a paste.
    pasting: bool,
}

impl Echo {
    /// Goes on after an earlier process that recorded this output.
    pub(super) fn go_on<'a>(&mut self, output: impl Iterator<Item = &'a [u8]>, now: Instant) {
        self.history_until = Some(now + ECHO_WITHIN.saturating_mul(5));
        output.for_each(|payload| self.shows(payload));
    }

    /// Takes an input message.
    pub(super) fn typed(&mut self, (sequence, at_ms): (i64, u64), bytes: &[u8], now: Instant) {
        if self.history_until.is_some_and(|until| now >= until) {
            self.history_until = None;
            self.history = VecDeque::new();
        }
        let given_up = self.lines.given_up(now);
        self.done_below(given_up);
        let pieces = self.pieces(bytes, now);
        self.taken += 1;
        self.held_bytes += bytes.len();
        let due = now + ECHO_WITHIN;
        self.held.push_back(Held { sequence, at_ms, due, bytes: bytes.to_vec(), pieces });
        self.hide_blind();
        self.find_in_history();
        while self.held_bytes > HELD_MAX && self.give_up_first() {}
    }

    /// Takes an output message; call it before the message is recorded.
    pub(super) fn shows(&mut self, payload: &[u8]) {
        let (mut glyphs, mut is_first) = (Vec::new(), true);
        for byte in payload {
            let Some(token) = self.output.take(*byte) else { continue };
            if token == Token::Feed {
                self.segment(&glyphs, is_first, true);
                glyphs.clear();
                is_first = false;
                self.feed();
            } else {
                self.look(token, &mut glyphs);
            }
        }
        self.segment(&glyphs, is_first, false);
        self.find_paste();
    }

    /// The next message that may be recorded, in the order of their coming.
    pub(super) fn next(&mut self, now: Instant) -> Option<Typed> {
        let first = self.held.front()?;
        if first.is_open() {
            if first.due > now {
                return None;
            }
            self.give_up_first();
        }
        let held = self.held.pop_front()?;
        self.held_bytes -= held.bytes.len();
        self.released += 1;
        Some(held.typed())
    }

    /// When the first message that waits is given up.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.front().map(|held| held.due)
    }

    /// How many messages came, and how many of them may be recorded.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.taken, self.released)
    }

    /// Nothing more will be shown: what waits is hidden.
    pub(super) fn give_up(&mut self) {
        while self.give_up_first() {}
    }

    /// Keys and text of an input message.
    fn pieces(&mut self, bytes: &[u8], now: Instant) -> Vec<Piece> {
        let (mut pieces, mut at): (Vec<Piece>, usize) = (Vec::new(), 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (line, is) = if let Some(length) = screen_text::key(rest) {
                at += length;
                (self.key(rest.get(..length).unwrap_or_default(), now), Is::Key)
            } else {
                let is_key = |from: &usize| rest.get(*from..).and_then(screen_text::key).is_some();
                let text = rest.get(..(1..rest.len()).find(is_key).unwrap_or(rest.len())).unwrap_or_default();
                at += text.len();
                self.text(text)
            };
            pieces.push(Piece { end: at, is, shown: 0, line });
        }
        pieces
    }

    /// Takes a key that is no text; gives its line.
    fn key(&mut self, key: &[u8], now: Instant) -> u64 {
        let (number, _) = self.lines.typing(&[], &self.prompt, self.history_until.is_some());
        let Some(line) = self.lines.last_mut() else { return number };
        if screen_text::ends_line(key) && !self.pasting {
            line.ended = Some(now);
            self.secret = None;
            self.line.clear();
            return number;
        }
        match key {
            PASTE => (self.pasting, line.pasted) = (true, true),
            PASTE_END => self.pasting = false,
            _ => line.edited = true,
        }
        number
    }

    /// Takes text; gives its line and whether it may be kept.
    fn text(&mut self, text: &[u8]) -> (u64, Is) {
        let (number, is_first) = self.lines.typing(text, &self.prompt, self.history_until.is_some());
        if is_first && !self.lines.get(number).is_some_and(|line| line.ahead) {
            self.after.clear();
        }
        if is_first && prompt::is_secret(&self.prompt) {
            self.secret = Some(Secret::Prompt);
        }
        match &mut self.secret {
            None => return (number, Is::Waiting),
            Some(Secret::Prompt) => {}
            Some(Secret::NotShown { text: all, last }) => not_shown(all, last, text),
        }
        (number, Is::Hidden)
    }

    /// Follows the output, up to a line feed.
    fn look(&mut self, token: Token, glyphs: &mut Vec<Glyph>) {
        match token {
            Token::Text(byte) => {
                if std::mem::take(&mut self.returned) || self.prompt.len() >= PROMPT_MAX {
                    self.prompt.clear();
                }
                self.prompt.push(byte);
                if self.after.len() < SHOWN_MAX {
                    self.after.push(byte);
                }
                return glyphs.push(Glyph::of(byte));
            }
            Token::Return => self.returned = true,
            Token::Back => {
                self.prompt.pop();
                self.after.pop();
            }
            Token::Feed | Token::Place | Token::Other => {}
        }
        if glyphs.is_empty() {
            // A message that does not begin with text.
            glyphs.push(Glyph::of(0));
        }
        if let Some(last) = glyphs.last_mut() {
            last.broken = true;
            last.edited |= token != Token::Return;
            last.back |= token == Token::Back;
            last.placed |= token == Token::Place;
        }
    }

    /// Looks at the text of a message up to a line feed, or its end.
    fn segment(&mut self, glyphs: &[Glyph], is_first: bool, fed: bool) {
        let is_echo = is_first && !glyphs.is_empty() && self.find_echo(glyphs, fed);
        if !is_echo {
            self.doubt(glyphs, fed);
        }
    }

    /// The output is at the end of a line.
    fn feed(&mut self) {
        let output = std::mem::take(&mut self.prompt);
        self.returned = false;
        if let Some(number) = self.lines.shown_by(&output).filter(|number| self.is_ahead(*number)) {
            self.show_line(number);
            return self.done_below(number + 1);
        }
        let Some((number, line)) = self.lines.front() else { return self.remember(output) };
        if line.pasted {
            return;
        }
        if line.ended.is_some() && !line.ahead {
            if !line.is_blind() && line.is(&self.after) {
                self.show_line(number);
            }
            self.done_below(number + 1);
        }
        self.after.clear();
    }

    fn is_ahead(&self, number: u64) -> bool {
        self.lines.get(number).is_some_and(|line| line.ahead)
    }

    fn remember(&mut self, output: Vec<u8>) {
        self.after.clear();
        if self.history_until.is_some() {
            self.history.push_back(output);
            let past = self.history.len().saturating_sub(HISTORY_MAX);
            self.history.drain(..past);
        }
    }

    /// Looks for what the client sends again in what was shown before.
    fn find_in_history(&mut self) {
        let Some((number, _)) = self.lines.front() else { return };
        let found = |output: &Vec<u8>| self.lines.shown_by(output) == Some(number);
        if let Some(at) = self.history.iter().position(found) {
            self.history.drain(..=at);
            self.show_line(number);
            self.done_below(number + 1);
        }
    }

    /// A paste is shown over several lines, all of it where the cursor is.
    fn find_paste(&mut self) {
        let Some((number, line)) = self.lines.front() else { return };
        let shown = prompt::without_spaces(&self.after);
        if line.pasted && !self.pasting && line.text.len() >= LONG && shown.starts_with(&line.text) {
            self.show_line(number);
            if !self.lines.is_open(number) {
                self.done_below(number + 1);
            }
        }
    }

    /// Looks for an echo where one stands: at the start of the message.
    fn find_echo(&mut self, glyphs: &[Glyph], fed: bool) -> bool {
        let (moved, text) = match glyphs.split_first() {
            Some((first, rest)) if first.byte == 0 => (true, rest),
            _ => (false, glyphs),
        };
        if self.is_shown_after_all(glyphs, text, moved) {
            self.secret = None;
        }
        let Some(number) = self.current() else { return false };
        let Some(line) = self.lines.get(number) else { return false };
        // All of a line is known at its end; and no key but that one feeds.
        let ended = line.ended.is_some();
        if ended && !line.is_sure() && !line.edited || fed && !ended {
            return false;
        }
        let (mut at, mut found) = (0, 0);
        for run in self.held.iter().flat_map(|held| held.waiting(number)) {
            let rest = text.get(at..).unwrap_or_default();
            let again = if at == 0 { self.shown_again(rest, moved, run) } else { 0 };
            let rest = rest.get(again..).unwrap_or_default();
            let common = rest.iter().zip(run).take_while(|(glyph, byte)| glyph.byte == **byte).count();
            if common < run.len() && common < rest.len() {
                break;
            }
            at += again + common;
            found += common;
            if common < run.len() {
                break;
            }
        }
        let after = text.get(at..).unwrap_or_default();
        let stands = after.is_empty()
            || at.checked_sub(1).and_then(|last| text.get(last)).is_some_and(|last| last.broken);
        // Text that was put in pushes the rest of its line along.
        let put_in = after.last().is_some_and(|last| last.back) && after.len() <= PROMPT_MAX;
        if stands || put_in {
            self.show(number, found);
        }
        found > 0 && (stands || put_in)
    }

    /// Whether what was hidden on the line is shown, so that more may be.
    ///
    /// Of plain output it has to be all of that, and more than a few letters;
    /// an editor puts each key in its place.
    fn is_shown_after_all(&self, glyphs: &[Glyph], text: &[Glyph], moved: bool) -> bool {
        let Some(Secret::NotShown { text: all, last }) = &self.secret else { return false };
        let from = |run: &[u8]| text.get(self.shown_again(text, moved, run)..).unwrap_or_default();
        let is_placed = glyphs.iter().any(|glyph| glyph.placed);
        is_placed && !last.is_empty() && starts(from(last), last.iter())
            || all.len() >= LONG && starts(from(all), all.iter())
    }

    /// How much of the line the text shows again before the run.
    fn shown_again(&self, text: &[Glyph], moved: bool, run: &[u8]) -> usize {
        if !moved || starts(text, run.iter()) {
            return 0;
        }
        let ends = (0..self.line.len()).filter_map(|from| self.line.get(from..));
        let mut again = ends.filter(|end| starts(text, end.iter().chain(run)));
        again.next().map_or(0, <[u8]>::len)
    }

    /// Output that is no echo, on a line that is not known to be shown.
    ///
    /// Other output that looks like a key would be taken for its echo.
    fn doubt(&mut self, glyphs: &[Glyph], fed: bool) {
        let is_text = glyphs.iter().any(|glyph| glyph.byte != 0);
        let is_plain = fed || glyphs.iter().all(|glyph| !glyph.edited);
        let Some(number) = self.current().or(self.lines.front().map(|(number, _)| number)) else { return };
        let Some(line) = self.lines.get(number) else { return };
        let may_be_secret =
            line.ended.is_none() && !line.text.is_empty() && !line.edited && !line.pasted && !line.is_sure();
        if is_text && is_plain && may_be_secret && !prompt::is_shell(&self.prompt) {
            self.hide_line(number);
        }
    }

    /// The line of the first text that waits.
    fn current(&self) -> Option<u64> {
        let mut pieces = self.held.iter().flat_map(|held| &held.pieces);
        pieces.find(|piece| piece.is.is_open()).map(|piece| piece.line)
    }

    /// The first `count` bytes of text that wait on the line were shown.
    fn show(&mut self, number: u64, mut count: usize) {
        let Some(line) = self.lines.get_mut(number).filter(|_| count > 0) else { return };
        for (piece, run) in self.held.iter_mut().flat_map(|held| held.waiting_mut(number)) {
            let shown = run.len().min(count);
            count -= shown;
            piece.shown += shown;
            if shown == run.len() {
                piece.is = Is::Echoed;
            }
            let shown = run.get(..shown).unwrap_or_default();
            line.echoed(shown);
            self.line.extend(shown);
        }
        let past = self.line.len().saturating_sub(LINE_MAX);
        self.line.drain(..past);
        let is_sure = line.is_sure();
        // What came before is not waited for any more.
        self.done_below(number);
        if is_sure {
            self.settle(number, Is::Echoed, Is::Shown);
        }
    }

    /// All of the line was shown.
    fn show_line(&mut self, number: u64) {
        self.settle(number, Is::Waiting, Is::Shown);
        self.settle(number, Is::Echoed, Is::Shown);
    }

    fn settle(&mut self, number: u64, from: Is, to: Is) {
        let pieces = self.held.iter_mut().flat_map(|held| &mut held.pieces);
        let settled = pieces.filter(|piece| piece.line == number && piece.is == from);
        settled.for_each(|piece| piece.is = to);
    }

    /// The output is past these lines: what of them was not shown is hidden.
    fn done_below(&mut self, number: u64) {
        while let Some((first, _)) = self.lines.front().filter(|(first, _)| *first < number) {
            let all_shown = !self.held.iter().any(|held| held.waiting(first).next().is_some());
            if all_shown {
                self.show_line(first);
            } else {
                self.hide_line(first);
            }
            self.lines.done_below(first + 1);
        }
    }

    /// Hides lines that were ended unseen, not at a shell.
    fn hide_blind(&mut self) {
        while let Some(number) = self.current()
            && self.lines.get(number).is_some_and(lines::Line::is_blind)
        {
            self.hide_line(number);
        }
    }

    /// Hides what of the line is not known to be shown, and what will follow.
    fn hide_line(&mut self, number: u64) {
        let (mut all, mut last) = (Vec::new(), Vec::new());
        for held in &mut self.held {
            let mut start = 0;
            for piece in &mut held.pieces {
                let run = held.bytes.get(start..piece.end).unwrap_or_default();
                start = piece.end;
                if piece.line == number && piece.is.is_open() {
                    piece.is = Is::Hidden;
                    not_shown(&mut all, &mut last, run);
                }
            }
        }
        if self.lines.is_open(number) {
            self.secret.get_or_insert(Secret::NotShown { text: all, last });
        }
    }

    /// Waits no longer for the first message that is not judged; false if
    /// there is none.
    fn give_up_first(&mut self) -> bool {
        let Some(first) = self.held.iter_mut().find(|held| held.is_open()) else { return false };
        let waits = first.pieces.iter().find(|piece| piece.is == Is::Waiting).map(|piece| piece.line);
        match waits {
            Some(number) => self.hide_line(number),
            None => first.pieces.iter_mut().filter(|piece| piece.is.is_open()).for_each(|p| p.is = Is::Shown),
        }
        true
    }
}
