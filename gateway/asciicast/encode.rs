//! Writes an event line quickly: no serde, nothing allocated but the line.

use super::EventCode;

/// Lower case, as in `\u001b`.
const HEX: [u8; 16] = *b"0123456789abcdef";
/// One bit in each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The top bit of each byte of a word.
const TOPS: u64 = 0x8080_8080_8080_8080;
/// Room for `[seconds.mmm,"c",""]` and a line feed.
const FRAME_MAX: usize = 40;

/// Appends one event line; it ends with a line feed.
///
/// Time is written as seconds with three decimals. Control characters,
/// `"` and `\` are escaped, everything else is copied in runs.
pub fn encode_event(into: &mut Vec<u8>, time_ms: u64, code: EventCode, data: &str) {
    into.reserve(data.len() + data.len() / 8 + FRAME_MAX);
    begin(into, time_ms, code);
    escape(into, data.as_bytes());
    into.extend_from_slice(b"\"]\n");
}

/// Appends `[12.345,"o","`, up to the first byte of the data.
pub(super) fn begin(into: &mut Vec<u8>, time_ms: u64, code: EventCode) {
    into.push(b'[');
    decimal(into, time_ms / 1000);
    let [hundreds, tens, ones] = [time_ms / 100 % 10, time_ms / 10 % 10, time_ms % 10].map(digit);
    into.extend_from_slice(&[b'.', hundreds, tens, ones, b',', b'"']);
    let mut utf8 = [0; 4];
    escape(into, code.as_char().encode_utf8(&mut utf8).as_bytes());
    into.extend_from_slice(b"\",\"");
}

/// Appends a number in decimal digits.
pub(super) fn decimal(into: &mut Vec<u8>, number: u64) {
    if number >= 10 {
        decimal(into, number / 10);
    }
    into.push(digit(number % 10));
}

fn digit(value: u64) -> u8 {
    b'0'.wrapping_add(value as u8)
}

/// Appends UTF-8 text with JSON's escapes.
fn escape(into: &mut Vec<u8>, mut rest: &[u8]) {
    while let Some((plain, special, after)) = first_special(rest) {
        into.extend_from_slice(plain);
        push_escaped(into, special);
        rest = after;
    }
    into.extend_from_slice(rest);
}

/// Splits at the first byte that JSON wants escaped.
fn first_special(text: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = special_bytes(u64::from_le_bytes(*word));
        if marks != 0 {
            return split(text, index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let found = tail.iter().position(|b| *b < 0x20 || matches!(b, b'"' | b'\\'))?;
    split(text, words.len() * 8 + found)
}

fn split(text: &[u8], at: usize) -> Option<(&[u8], u8, &[u8])> {
    let (plain, from) = text.split_at_checked(at)?;
    let (special, after) = from.split_first()?;
    Some((plain, *special, after))
}

/// The top bit of the lowest byte that is below 0x20, `"` or `\`.
///
/// Bits above the lowest one may be false (a borrow runs upwards).
fn special_bytes(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    (below_space | zero(quote) | zero(backslash)) & TOPS
}

fn push_escaped(into: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            into.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            return;
        }
    };
    into.extend_from_slice(&[b'\\', short]);
}
