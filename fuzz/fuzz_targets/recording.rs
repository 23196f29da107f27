//! Arbitrary bytes as a recording: plain, compressed, torn, hostile.
//!
//! The rooms are included as they stand: the whole gateway would take a
//! quarter of an hour to build for a fuzzer.

#![no_main]
#![allow(dead_code, reason = "only what reads is tried here")]

use libfuzzer_sys::fuzz_target;

use crate::asciicast::{Event, Header, encode_event, exact_output};
use crate::read::LineReader;

#[path = "../../gateway/asciicast/mod.rs"]
mod asciicast;
#[path = "../../gateway/recorder/read.rs"]
mod read;

/// Lines looked at in one input; a small one can unpack to very many.
const LINES_MAX: usize = 2000;

fuzz_target!(|data: &[u8]| {
    lines(data);
    // Most mutations break the compression; the lines inside deserve their own.
    if let Ok(packed) = zstd::bulk::compress(data, 1) {
        lines(&packed);
    }
});

fn lines(recording: &[u8]) {
    let mut reader = LineReader::new(recording);
    let mut events = Vec::new();
    let mut number = 0;
    while let Ok(Some(line)) = reader.next_line() {
        number += 1;
        if number > LINES_MAX {
            break;
        }
        if number == 1 {
            header(line);
        }
        if let Ok(event) = Event::parse(line) {
            written_again(&event);
            events.push(event);
        }
    }
    let _ = reader.torn();
    let _ = exact_output(events.iter()).count();
}

/// A header that can be read can be written, and says the same again.
fn header(line: &[u8]) {
    let Ok(header) = Header::parse(line) else { return };
    let mut again = Vec::new();
    if header.write(&mut again).is_ok() {
        let again = again.strip_suffix(b"\n").unwrap_or(&again);
        assert!(Header::parse(again).is_ok());
    }
}

/// An event that can be read can be written, and says the same again.
fn written_again(event: &Event) {
    let mut line = Vec::new();
    encode_event(&mut line, event.time_ms, event.code, &event.data);
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let again = Event::parse(line).expect("what we write can be read");
    assert_eq!((again.time_ms, again.code, &again.data), (event.time_ms, event.code, &event.data));
}
