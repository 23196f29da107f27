//! Which typed text the terminal showed: only that is kept in the record.
//!
//! Whether a terminal echoes is known on the machine alone. So typed text is
//! held until the output shows it, for [`ECHO_WITHIN`] at the most; what is
//! not shown is hidden, and so is all that is typed at a prompt for a secret
//! and, once something on a line was not shown, the rest of that line. Keys
//! that are no text are never hidden. Text of some length that the output has
//! as a whole is no secret of the input any more, wherever it stands; a few
//! letters count only where an echo stands, at the start of an output message.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::screen_text::{self, Scanner, Token};

/// How long typed text waits for its echo.
pub(super) const ECHO_WITHIN: Duration = Duration::from_secs(1);
/// Typed bytes that may wait; then the first is hidden at once.
const HELD_MAX: usize = 64 * 1024;
/// Output that is searched for an echo, bytes of text.
const SHOWN_MAX: usize = 16 * 1024;
/// Texts that are searched for in one output message; they are shown in order.
const LOOKED_FOR: usize = 64;
/// Text of so many bytes is searched for anywhere in the output.
const LONG: usize = 4;
/// Text of the line being typed that is known to be shown, bytes.
const LINE_MAX: usize = 64;
/// Text of the last line of output that is looked at for a prompt, bytes.
const PROMPT_MAX: usize = 256;
/// What a prompt for a secret says.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passphrase",
    "passcode",
    "passwd",
    "passwort",
    "kennwort",
    "mot de passe",
    "contrase",
    "senha",
    "secret",
    "token",
    "verification code",
    "security code",
    "one-time",
    "api key",
    "private key",
];
/// The same, if they stand as a word.
const SECRET_SHORT: &[&str] = &["pin", "otp", "mfa", "2fa", "pw", "code"];

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
    output: Scanner,
    /// Text of the output since the first held message, without spaces.
    shown: Vec<u8>,
    /// Until then the output that an earlier process had counts too.
    history_until: Option<Instant>,
    /// The last line of the output.
    prompt: Vec<u8>,
    /// The next text on that line overwrites it.
    returned: bool,
    /// What of the line being typed was shown.
    line: Vec<u8>,
    /// Nothing was typed on the line yet.
    fresh: Fresh,
    /// Why the rest of the line is hidden.
    secret: Option<Secret>,
}

/// Whether the next text is the first on its line.
#[derive(Default, PartialEq, Eq)]
enum Fresh {
    #[default]
    Yes,
    No,
}

enum Secret {
    /// A prompt asked for it.
    Prompt,
    /// This, or more before it, was not shown.
    NotShown(Vec<u8>),
}

struct Held {
    sequence: i64,
    at_ms: u64,
    due: Instant,
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
}

struct Piece {
    end: usize,
    is: Is,
    /// How much of the text was shown so far.
    shown: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Key,
    Waiting,
    Shown,
    Hidden,
}

/// A byte of text in an output message, and what follows it.
struct Glyph {
    byte: u8,
    /// Anything but text.
    broken: bool,
    /// The cursor goes back.
    back: bool,
}

impl Echo {
    /// Goes on after an earlier process that recorded this output.
    pub(super) fn go_on<'a>(&mut self, output: impl Iterator<Item = &'a [u8]>, now: Instant) {
        self.history_until = Some(now + ECHO_WITHIN.saturating_mul(5));
        for payload in output {
            self.look(payload);
            self.forget_shown();
        }
    }

    /// Takes an input message.
    pub(super) fn typed(&mut self, (sequence, at_ms): (i64, u64), bytes: &[u8], now: Instant) {
        let history = self.history_until.is_some_and(|until| now < until);
        if self.held.is_empty() && !history {
            self.history_until = None;
            self.shown.clear();
        }
        let pieces = self.pieces(bytes);
        self.taken += 1;
        self.held_bytes += bytes.len();
        let due = now + ECHO_WITHIN;
        self.held.push_back(Held { sequence, at_ms, due, bytes: bytes.to_vec(), pieces });
        if history {
            self.find_long(0);
        }
        while self.held_bytes > HELD_MAX && self.hide_first() {}
    }

    /// Takes an output message; call it before the message is recorded.
    pub(super) fn shows(&mut self, payload: &[u8]) {
        let before = self.shown.len();
        let glyphs = self.look(payload);
        // What is older was looked through already.
        let before = before.saturating_sub(self.forget_shown());
        if self.held.is_empty() && self.secret.is_none() {
            return;
        }
        self.find_echo(&glyphs);
        self.find_long(before);
    }

    /// The next message that may be recorded, in the order of their coming.
    pub(super) fn next(&mut self, now: Instant) -> Option<Typed> {
        let first = self.held.front()?;
        if first.is_waiting() {
            if first.due > now {
                return None;
            }
            self.hide_first();
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
        while self.hide_first() {}
    }

    /// Keys and text of an input message.
    fn pieces(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let (mut pieces, mut at): (Vec<Piece>, usize) = (Vec::new(), 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(length) = screen_text::key(rest) {
                at += length;
                if rest.get(..length).is_some_and(screen_text::ends_line) {
                    (self.fresh, self.secret) = (Fresh::Yes, None);
                    self.line.clear();
                }
                pieces.push(Piece { end: at, is: Is::Key, shown: 0 });
                continue;
            }
            let is_key = |from: &usize| rest.get(*from..).and_then(screen_text::key).is_some();
            let text = rest.get(..(1..rest.len()).find(is_key).unwrap_or(rest.len())).unwrap_or_default();
            at += text.len();
            if self.fresh == Fresh::Yes && self.is_secret_prompt() {
                self.secret = Some(Secret::Prompt);
            }
            self.fresh = Fresh::No;
            let is = match &mut self.secret {
                None => Is::Waiting,
                Some(Secret::Prompt) => Is::Hidden,
                Some(Secret::NotShown(last)) => {
                    text.clone_into(last);
                    Is::Hidden
                }
            };
            pieces.push(Piece { end: at, is, shown: 0 });
        }
        pieces
    }

    /// Follows the output: its last line, and what it shows.
    fn look(&mut self, payload: &[u8]) -> Vec<Glyph> {
        let mut glyphs: Vec<Glyph> = Vec::new();
        for byte in payload {
            let Some(token) = self.output.take(*byte) else { continue };
            match token {
                Token::Text(byte) => {
                    if std::mem::take(&mut self.returned) || self.prompt.len() >= PROMPT_MAX {
                        self.prompt.clear();
                    }
                    self.prompt.push(byte);
                    if byte != b' ' {
                        self.shown.push(byte);
                    }
                    glyphs.push(Glyph { byte, broken: false, back: false });
                    continue;
                }
                Token::Feed => self.prompt.clear(),
                Token::Return => self.returned = true,
                Token::Back => drop(self.prompt.pop()),
                Token::Other => {}
            }
            if glyphs.is_empty() {
                // A message that does not begin with text.
                glyphs.push(Glyph { byte: 0, broken: false, back: false });
            }
            if let Some(last) = glyphs.last_mut() {
                last.broken = true;
                last.back |= token == Token::Back;
            }
        }
        glyphs
    }

    /// Keeps no more of the output than is looked through; says how much less.
    fn forget_shown(&mut self) -> usize {
        let past = self.shown.len().saturating_sub(SHOWN_MAX);
        self.shown.drain(..past);
        past
    }

    /// Looks for an echo where one stands: at the start of the message.
    fn find_echo(&mut self, glyphs: &[Glyph]) {
        let (moved, text) = match glyphs.split_first() {
            Some((first, rest)) if first.byte == 0 => (true, rest),
            _ => (false, glyphs),
        };
        if let Some(Secret::NotShown(last)) = &self.secret
            && starts(text.get(self.shown_again(text, moved, last)..).unwrap_or_default(), last.iter())
        {
            // The line is shown, after all.
            self.secret = None;
        }
        let (mut at, mut found) = (0, 0);
        for run in self.waiting() {
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
            self.show(found);
        }
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

    /// The texts that wait, in order.
    fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        self.held.iter().flat_map(Held::waiting)
    }

    /// The first `count` bytes of text that wait were shown.
    fn show(&mut self, mut count: usize) {
        for (piece, run) in self.held.iter_mut().flat_map(Held::waiting_mut) {
            let shown = run.len().min(count);
            count -= shown;
            piece.shown += shown;
            if shown == run.len() {
                piece.is = Is::Shown;
            }
            self.line.extend(run.iter().take(shown));
        }
        let past = self.line.len().saturating_sub(LINE_MAX);
        self.line.drain(..past);
    }

    /// Looks for longer texts anywhere in what was shown, if they end after
    /// `from`.
    fn find_long(&mut self, from: usize) {
        for (piece, run) in self.held.iter_mut().flat_map(Held::waiting_mut).take(LOOKED_FOR) {
            let run: Vec<u8> = run.iter().copied().filter(|byte| *byte != b' ').collect();
            let shown = self.shown.get(from.saturating_sub(run.len())..).unwrap_or_default();
            if run.len() >= LONG && shown.windows(run.len()).any(|window| window == run) {
                piece.is = Is::Shown;
            }
        }
    }

    /// Hides what of the first message was not shown, and what follows on
    /// its line; false if there is no message.
    fn hide_first(&mut self) -> bool {
        let Some(at) = self.held.iter().position(Held::is_waiting) else { return false };
        let (mut line_goes_on, mut last) = (false, Vec::new());
        for held in self.held.iter_mut().skip(at) {
            let mut start = 0;
            for piece in &mut held.pieces {
                let run = held.bytes.get(start..piece.end).unwrap_or_default();
                start = piece.end;
                match piece.is {
                    Is::Key if line_goes_on && screen_text::ends_line(run) => return true,
                    Is::Waiting => {
                        piece.is = Is::Hidden;
                        line_goes_on = true;
                        run.clone_into(&mut last);
                    }
                    _ => {}
                }
            }
        }
        self.secret.get_or_insert(Secret::NotShown(last));
        true
    }

    fn is_secret_prompt(&self) -> bool {
        let prompt = String::from_utf8_lossy(&self.prompt).to_lowercase();
        if !prompt.trim_end().ends_with([':', '?']) {
            return false;
        }
        let mut words = prompt.split(|c: char| !c.is_alphanumeric());
        SECRET_WORDS.iter().any(|word| prompt.contains(word))
            || words.any(|word| SECRET_SHORT.contains(&word))
    }
}

impl Held {
    fn is_waiting(&self) -> bool {
        self.pieces.iter().any(|piece| piece.is == Is::Waiting)
    }

    /// What of its texts waits still.
    fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.pieces.iter().map(|piece| piece.end));
        let waiting = starts.zip(&self.pieces).filter(|(_, piece)| piece.is == Is::Waiting);
        waiting.filter_map(|(start, piece)| self.bytes.get(start + piece.shown..piece.end))
    }

    fn waiting_mut(&mut self) -> impl Iterator<Item = (&mut Piece, &[u8])> {
        let (bytes, mut start) = (&self.bytes, 0);
        self.pieces.iter_mut().filter_map(move |piece| {
            let run = bytes.get(start + piece.shown..piece.end)?;
            start = piece.end;
            (piece.is == Is::Waiting).then_some((piece, run))
        })
    }

    fn typed(self) -> Typed {
        let (mut bytes, mut start, mut hidden) = (Vec::with_capacity(self.bytes.len()), 0, false);
        for piece in &self.pieces {
            match piece.is {
                Is::Hidden | Is::Waiting => {
                    bytes.push(b'*');
                    hidden = true;
                }
                Is::Key | Is::Shown => {
                    bytes.extend_from_slice(self.bytes.get(start..piece.end).unwrap_or_default());
                }
            }
            start = piece.end;
        }
        Typed { sequence: self.sequence, at_ms: self.at_ms, bytes, hidden }
    }
}

fn starts<'a>(text: &[Glyph], mut run: impl Iterator<Item = &'a u8>) -> bool {
    let mut text = text.iter();
    run.all(|byte| text.next().is_some_and(|glyph| glyph.byte == *byte))
}
