//! Output is cut where a character ends, as the real agent cuts it.

use data_channel::message::CHUNK;

/// Most bytes of one character that are there before its last one.
const HELD_MAX: usize = 3;

/// Holds back the bytes of a character that is not there in full yet.
#[derive(Debug, Default)]
pub(super) struct Runes {
    held: Vec<u8>,
}

impl Runes {
    /// What may be sent now that these bytes have come.
    ///
    /// Bytes that are no UTF-8 pass unchanged: only the start of a character
    /// at the very end is kept for the next call.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.held);
        whole.extend_from_slice(bytes);
        self.held = whole.split_off(whole.len() - open_end(&whole));
        whole
    }

    /// What is left when the output ends.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Cuts output into payloads of at most 1024 bytes.
pub(super) fn payloads(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let most = bytes.get(..CHUNK).unwrap_or(bytes);
        let end = if most.len() < bytes.len() { most.len() - open_end(most) } else { most.len() };
        let (payload, rest) = bytes.split_at_checked(end)?;
        bytes = rest;
        Some(payload)
    })
}

/// How many bytes at the end are the start of an unfinished character.
fn open_end(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(HELD_MAX);
    let Some((behind, lead)) = tail.enumerate().find(|(_, b)| !is_continuation(**b)) else { return 0 };
    let length = match lead {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return 0,
    };
    if behind + 1 < length { behind + 1 } else { 0 }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut_in_two() {
        let text = "aé€😀z".repeat(500);
        for step in [1, 2, 3, 5, 7, 4_000] {
            let mut runes = Runes::default();
            let mut all = Vec::new();
            for piece in text.as_bytes().chunks(step) {
                for payload in payloads(&runes.take(piece)) {
                    assert!(std::str::from_utf8(payload).is_ok());
                    assert!((1..=CHUNK).contains(&payload.len()));
                    all.extend(payload);
                }
            }
            all.extend(runes.rest());
            assert_eq!(all, text.as_bytes());
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass_unchanged() {
        let mut runes = Runes::default();
        assert_eq!(runes.take(b"\xff\xfe\x80\x80\x80\x80"), b"\xff\xfe\x80\x80\x80\x80");
        assert_eq!(runes.take(b"ok\xe2\x82"), b"ok");
        assert_eq!(runes.take(b"A"), b"\xe2\x82A");
        assert_eq!(runes.take(b"\xf0"), b"");
        assert_eq!(runes.rest(), b"\xf0");
    }
}
