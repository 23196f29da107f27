//! Text apart from what only moves and colours it, in both directions.

/// Parameters of a key's sequence, bytes; real keys have fewer.
const KEY_MAX: usize = 16;
const ESCAPE: u8 = 0x1b;

/// A piece of what a terminal is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A byte of text; all bytes of what is not ASCII are.
    Text(u8),
    /// A line feed.
    Feed,
    /// A carriage return.
    Return,
    /// The cursor goes one to the left.
    Back,
    /// The cursor goes to a place on the screen.
    Place,
    /// Any other control character or sequence.
    Other,
}

/// Reads output byte by byte; sequences may go over messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Scanner {
    #[default]
    Ground,
    Escape,
    /// Inside `ESC [`.
    Control,
    /// Inside a title or the like; the flag: after an escape.
    Text(bool),
}

impl Scanner {
    /// Takes a byte; gives what it completes.
    pub(super) fn take(&mut self, byte: u8) -> Option<Token> {
        match *self {
            Self::Ground => match byte {
                ESCAPE => *self = Self::Escape,
                b'\n' => return Some(Token::Feed),
                b'\r' => return Some(Token::Return),
                0x08 => return Some(Token::Back),
                0..=0x1f | 0x7f => return Some(Token::Other),
                _ => return Some(Token::Text(byte)),
            },
            Self::Escape => match byte {
                b'[' => *self = Self::Control,
                b']' | b'P' | b'X' | b'^' | b'_' => *self = Self::Text(false),
                0x20..=0x2f | ESCAPE => {}
                _ => return self.done(Token::Other),
            },
            Self::Control => match byte {
                b'D' => return self.done(Token::Back),
                b'H' | b'f' | b'd' | b'G' => return self.done(Token::Place),
                0x40..=0x7e => return self.done(Token::Other),
                ESCAPE => *self = Self::Escape,
                _ => {}
            },
            Self::Text(escaped) => match byte {
                0x07 | 0x18 | 0x1a => return self.done(Token::Other),
                b'\\' if escaped => return self.done(Token::Other),
                _ => *self = Self::Text(byte == ESCAPE),
            },
        }
        None
    }

    fn done(&mut self, token: Token) -> Option<Token> {
        *self = Self::Ground;
        Some(token)
    }
}

/// The length of the key that typed bytes begin with; `None` if it is text.
///
/// Only what terminals send for keys counts: control characters, `ESC [` and
/// `ESC O` with what belongs to them, whole. All else may be a secret.
pub(super) fn key(typed: &[u8]) -> Option<usize> {
    match typed {
        [ESCAPE, b'O', last, ..] if last.is_ascii_alphabetic() => Some(3),
        [ESCAPE, b'[', rest @ ..] => {
            let end = rest.iter().take(KEY_MAX).position(|byte| !matches!(byte, 0x20..=0x3f));
            let whole = end.and_then(|end| Some((end, rest.get(end)?)));
            match whole {
                Some((end, 0x40..=0x7e)) => Some(2 + end + 1),
                _ => Some(1),
            }
        }
        [0..=0x1f | 0x7f, ..] => Some(1),
        _ => None,
    }
}

/// Whether a key ends the line that is being typed.
pub(super) fn ends_line(key: &[u8]) -> bool {
    matches!(key, [b'\r' | b'\n' | 0x03 | 0x04])
}
