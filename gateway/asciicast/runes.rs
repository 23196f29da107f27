//! Makes text of output bytes that may split runes between messages.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::encode::begin;
use super::{EventCode, encode_event};

/// The bytes of one stream that do not make a whole rune yet.
#[derive(Debug, Default, Clone, Copy)]
pub struct Runes {
    tail: [u8; 3],
    len: u8,
}

/// What one message gives: its exact bytes and their text.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The message's own bytes.
    pub exact: &'a [u8],
    /// What is shown: a rune split between messages is in the later one,
    /// and U+FFFD stands for every byte sequence that is not UTF-8.
    pub text: Cow<'a, str>,
}

impl Runes {
    /// Takes a message's bytes; an incomplete last rune is kept back.
    ///
    /// `scratch` is used only when a rune was kept back before.
    pub fn take<'a>(&mut self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Piece<'a> {
        let whole = if self.len == 0 {
            bytes
        } else {
            scratch.clear();
            scratch.extend_from_slice(self.tail.get(..usize::from(self.len)).unwrap_or_default());
            scratch.extend_from_slice(bytes);
            scratch.as_slice()
        };
        let kept = incomplete_tail(whole);
        let (shown, tail) = whole.split_at_checked(whole.len() - kept).unwrap_or((whole, &[]));
        self.len = tail.len() as u8;
        for (place, byte) in self.tail.iter_mut().zip(tail) {
            *place = *byte;
        }
        // Each event has all of its message, so that a crash after it loses nothing.
        Piece { exact: bytes, text: text_of(shown) }
    }

    /// Gives up waiting: what is shown of the bytes kept back, at the end.
    pub fn finish(&mut self) -> Option<Piece<'_>> {
        let tail = self.tail.get(..usize::from(self.len)).filter(|tail| !tail.is_empty())?;
        self.len = 0;
        Some(Piece { exact: &[], text: text_of(tail) })
    }
}

/// The text of the bytes; what is UTF-8 already is only looked at, by words.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// How many bytes at the end may become a rune with the next message.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let near_end = bytes.len().saturating_sub(3);
    let last = bytes.get(near_end..).unwrap_or_default();
    let Some(lead) = last.iter().rposition(|b| *b >= 0xc0) else { return 0 };
    match std::str::from_utf8(last.get(lead..).unwrap_or_default()) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => last.len() - lead,
        _ => 0,
    }
}

/// Appends a piece as one event, after its exact bytes if it has to.
pub fn encode_piece(into: &mut Vec<u8>, time_ms: u64, code: EventCode, piece: &Piece<'_>) {
    if piece.text.as_bytes() != piece.exact {
        begin(into, time_ms, EventCode::BYTES);
        into.extend_from_slice(STANDARD.encode(piece.exact).as_bytes());
        into.extend_from_slice(b"\"]\n");
    }
    encode_event(into, time_ms, code, &piece.text);
}
