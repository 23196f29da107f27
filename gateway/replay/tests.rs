//! Tests of reading, writing and playing recordings.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::asciicast::{Event, EventCode, Header, encode_event};

/// A recording's text: a header and these events.
fn cast(events: &[(u64, char, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    Header::new(1_700_000_000).write(&mut text).unwrap();
    for (time_ms, code, data) in events {
        encode_event(&mut text, *time_ms, EventCode::from(*code), data);
    }
    text
}

/// A folder with one file of these bytes.
fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.cast");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn all(timeline: &mut Timeline) -> Vec<Event> {
    std::iter::from_fn(|| timeline.next_event().unwrap()).collect()
}

fn events(bytes: &[u8]) -> (Vec<Event>, End) {
    let (_folder, path) = file(bytes);
    let mut timeline = Timeline::open(&path).unwrap();
    (all(&mut timeline), timeline.end())
}

fn exported(bytes: &[u8], format: Format) -> Vec<u8> {
    let (_folder, path) = file(bytes);
    let mut out = Vec::new();
    export(&mut Timeline::open(&path).unwrap(), format, &mut out).unwrap();
    out
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(exported(bytes, Format::Text)).unwrap()
}

/// Many zstd frames with skippable ones between, as a sealed recording has.
fn frames(text: &[u8], size: usize) -> Vec<u8> {
    let mut packed = Vec::new();
    for chunk in text.chunks(size.max(1)) {
        packed.extend(zstd::encode_all(chunk, 1).unwrap());
        packed.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    }
    packed
}

const THREE: &[(u64, char, &str)] = &[(100, 'o', "one\r\n"), (2100, 'o', "two\r\n"), (2200, 'x', "0")];

#[test]
fn a_recording_reads_the_same_plain_and_packed() {
    let text = cast(THREE);
    let plain = events(&text);
    assert_eq!(plain.0.len(), 3);
    assert_eq!(plain.1, End::Whole);
    for size in [1, 7, 40, 10_000] {
        assert_eq!(events(&frames(&text, size)), plain);
    }
}

#[test]
fn a_recording_that_is_still_written_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.cast.zst");
    let text = cast(THREE);
    let (now, later) = text.split_at(text.len() - 30);
    let mut writer = zstd::Encoder::new(std::fs::File::create(&path).unwrap(), 1).unwrap();
    writer.write_all(now).unwrap();
    writer.flush().unwrap();

    let mut timeline = Timeline::open(&path).unwrap();
    assert_eq!(all(&mut timeline).len(), 1);
    assert_eq!(timeline.end(), End::Open);
    for _ in 0..50 {
        assert_eq!(timeline.next_event().unwrap(), None);
    }
    writer.write_all(later).unwrap();
    writer.finish().unwrap();
    assert_eq!(all(&mut timeline).len(), 2);
    assert_eq!(timeline.end(), End::Whole);
}

#[test]
fn a_torn_recording_gives_what_is_whole() {
    let packed = zstd::encode_all(cast(THREE).as_slice(), 1).unwrap();
    let text = cast(THREE);
    assert_eq!(events(&text[..text.len() - 4]), (events(&text).0[..2].to_vec(), End::Open));
    let (_folder, path) = file(&packed[..packed.len() / 2]);
    assert!(matches!(Timeline::open(&path), Err(ReplayError::Empty)));
    // Only the line feed of the last line is missing.
    assert_eq!(events(&text[..text.len() - 1]), events(&text));
}

#[test]
fn damage_is_told_with_its_place() {
    let mut packed = frames(&cast(THREE), 10_000);
    let at = packed.len();
    packed.extend(b"garbage after the last frame");
    let (_folder, path) = file(&packed);
    let mut timeline = Timeline::open(&path).unwrap();
    let error = std::iter::repeat_with(|| timeline.next_event()).find_map(Result::err).unwrap();
    assert!(matches!(error, ReplayError::Damaged { at: found, .. } if found as usize == at), "{error}");

    let (_folder, path) = file(&[cast(THREE), b"[1.0,\"o\"]\n".to_vec()].concat());
    let mut timeline = Timeline::open(&path).unwrap();
    let error = std::iter::repeat_with(|| timeline.next_event()).find_map(Result::err).unwrap();
    assert!(matches!(error, ReplayError::Line { line: 5, .. }), "{error}");
}

#[test]
fn what_is_no_recording_is_refused() {
    for bad in
        ["hello\n", "{}\n", "{\"version\":1,\"width\":1,\"height\":1}\n", "[1.0,\"o\",\"\"]\n", "\u{1b}[2J"]
    {
        let (_folder, path) = file(bad.as_bytes());
        assert!(matches!(Timeline::open(&path), Err(ReplayError::NotARecording(_))), "{bad:?}");
    }
    let (_folder, path) = file(b"");
    assert!(matches!(Timeline::open(&path), Err(ReplayError::Empty)));
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let huge = [cast(&[]), b"[1.0,\"o\",\"".to_vec(), vec![b'x'; 20 << 20]].concat();
    let (_folder, path) = file(&zstd::encode_all(huge.as_slice(), 1).unwrap());
    let error = Timeline::open(&path).unwrap().next_event().unwrap_err();
    assert!(matches!(error, ReplayError::LongLine { line: 2, .. }), "{error}");
}

#[test]
fn version_3_is_read_with_comments_and_exact_times() {
    let text = concat!(
        "{\"version\":3,\"term\":{\"cols\":100,\"rows\":50,\"type\":\"xterm\"},\"idle_time_limit\":2}\n",
        "# a comment\n",
        "[0.0004, \"o\", \"a\"]\n[0.0004, \"o\", \"b\"]\r\n[0.0004, \"o\", \"c\"]\n[1.5, \"m\", \"here\"]\n",
    );
    let (_folder, path) = file(text.as_bytes());
    let mut timeline = Timeline::open(&path).unwrap();
    assert_eq!((timeline.header().width, timeline.header().height), (100, 50));
    assert_eq!(timeline.header().env.get("TERM").map(String::as_str), Some("xterm"));
    let times: Vec<u64> = all(&mut timeline).iter().map(|event| event.time_ms).collect();
    assert_eq!(times, [0, 1, 1, 1501]);
}

#[test]
fn text_has_no_control_characters_and_what_was_seen() {
    let events = [
        (0, 'o', "\u{1b}]0;title\u{7}$ lss\u{8} \u{8}\r\n\u{1b}[1;32mbin\u{1b}[0m  \u{1b}[34m\u{9b}1mlib"),
        (1, 'o', "\r\n\u{1b}[?1049h\u{1b}[2Jvim\u{1b}[?1049l"),
        (2, 'i', "typed"),
        (3, 'o', "50%\r100%\r\n"),
        (4, 'r', "40x10"),
        (5, 'o', "bye\r\n\r\n"),
    ];
    assert_eq!(text_of(&cast(&events)), "$ ls\nbin  lib\n100%\nbye\n");
}

#[test]
fn text_keeps_long_lines_and_what_scrolled_away() {
    let long = "x".repeat(200);
    let lines: String = (0..100).map(|n| format!("line {n}\r\n")).collect();
    let text = text_of(&cast(&[(0, 'o', &format!("{long}\r\n{lines}")), (1, 'o', "\u{1b}cafter")]));
    assert!(text.starts_with(&format!("{long}\nline 0\nline 1\n")));
    assert!(text.ends_with("line 99\nafter\n"));
    assert_eq!(text.lines().count(), 102);
}

#[test]
fn a_hostile_size_takes_little_memory() {
    let text =
        "{\"version\":2,\"width\":65535,\"height\":65535}\n[0,\"r\",\"65535x65535\"]\n[0,\"o\",\"hi\"]\n";
    assert_eq!(text_of(text.as_bytes()), "hi\n");
    assert_eq!(
        text_of(b"{\"version\":2,\"width\":0,\"height\":0}\n[0,\"o\",\"hi\"]\n"),
        "h\ni\n".replace("h\ni", "hi")
    );
}

#[test]
fn plain_output_is_byte_for_byte_what_came() {
    let (_folder, path) = file(&cast(&[
        (0, 'o', "caf"),
        (1, 'b', "6Q=="),
        (1, 'o', "\u{fffd}"),
        (2, 'i', "x"),
        (9, 'o', "\u{1b}[m\r\n"),
    ]));
    let written = |from_ms| {
        let mut out = Vec::new();
        plain(&mut Timeline::open(&path).unwrap(), from_ms, &mut out).unwrap();
        out
    };
    assert_eq!(written(0), b"caf\xe9\x1b[m\r\n");
    assert_eq!(written(9), b"\x1b[m\r\n");
}

fn any_events() -> impl Strategy<Value = Vec<(u64, char, String)>> {
    let code = proptest::sample::select(vec!['o', 'i', 'r', 'm', 'x', 's', 'b']);
    proptest::collection::vec((0u64..100_000_000, code, any::<String>()), 0..30).prop_map(|mut events| {
        events.sort_by_key(|event| event.0);
        events
    })
}

fn borrowed(events: &[(u64, char, String)]) -> Vec<(u64, char, &str)> {
    events.iter().map(|(time, code, data)| (*time, *code, data.as_str())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn v2_to_v3_to_v2_keeps_every_byte(recorded in any_events()) {
        let v2 = cast(&borrowed(&recorded));
        let v3 = exported(&v2, Format::V3);
        prop_assert_eq!(&exported(&v3, Format::V2), &v2);
        prop_assert_eq!(events(&v3), events(&v2));
        prop_assert_eq!(exported(&v3, Format::V3), v3);
    }

    #[test]
    fn any_place_can_be_come_back_to(recorded in any_events(), size in 1usize..300, at in any::<proptest::sample::Index>()) {
        let (_folder, path) = file(&frames(&cast(&borrowed(&recorded)), size));
        let mut timeline = Timeline::open(&path).unwrap();
        let at = at.index(recorded.len() + 1);
        for _ in 0..at {
            timeline.next_event().unwrap();
        }
        let place = timeline.place();
        let rest = all(&mut timeline);
        timeline.go(place).unwrap();
        prop_assert_eq!(all(&mut timeline), rest);
        timeline.go(timeline.first()).unwrap();
        prop_assert_eq!(all(&mut timeline).len(), recorded.len());
    }

    #[test]
    fn a_cut_anywhere_gives_a_beginning(recorded in any_events(), cut in any::<proptest::sample::Index>(), packed in any::<bool>()) {
        let text = cast(&borrowed(&recorded));
        let whole = events(&text).0;
        let bytes = if packed { frames(&text, 50) } else { text };
        let (_folder, path) = file(&bytes[..cut.index(bytes.len())]);
        let Ok(mut timeline) = Timeline::open(&path) else { return Ok(()) };
        let read = all(&mut timeline);
        prop_assert_eq!(&whole[..read.len()], read.as_slice());
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
        let head = if header { cast(&[]) } else { Vec::new() };
        let (_folder, path) = file(&[head, bytes].concat());
        if let Ok(mut timeline) = Timeline::open(&path) {
            while let Ok(Some(_)) = timeline.next_event() {}
            timeline.last_ms();
        }
    }
}

#[test]
fn the_length_is_that_of_the_last_event() {
    for format in [Format::V2, Format::V3] {
        let (_folder, path) = file(&exported(&cast(THREE), format));
        assert_eq!(Timeline::open(&path).unwrap().last_ms(), 2200);
    }
}

#[test]
fn seeking_in_a_long_packed_recording_is_exact() {
    let line = "the quick brown fox jumps over the lazy dog ".repeat(20);
    let events: Vec<(u64, char, &str)> = (0..20_000).map(|n| (n * 10, 'o', line.as_str())).collect();
    let (_folder, path) = file(&frames(&cast(&events), 100_000));
    let mut timeline = Timeline::open(&path).unwrap();
    let mut places = Vec::new();
    while let Some(event) = timeline.next_event().unwrap() {
        if event.time_ms % 30_000 == 0 {
            places.push(timeline.place());
        }
    }
    for place in places.iter().rev() {
        timeline.go(*place).unwrap();
        assert_eq!(timeline.next_event().unwrap().unwrap().time_ms, place.time_ms + 10);
    }
}

/// Milliseconds as the player's clock.
fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

mod flows;
mod player;

/// Two commands at a prompt, as the gateway records them.
const COMMANDS: &[(u64, char, &str)] = &[
    (0, 'o', "$ "),
    (1000, 'o', "id"),
    (2000, 'o', "\r\nuid=0\r\n$ "),
    (60_000, 'o', "pwd"),
    (61_000, 'o', "\r\n/\r\n$ "),
];

#[test]
fn an_export_of_our_recordings_marks_commands_once() {
    let plain = cast(COMMANDS);
    assert_eq!(exported(&plain, Format::V2), plain, "recordings of others stay as they are");
    let ours = String::from_utf8(plain).unwrap().replacen("{", "{\"postern\":{\"session\":\"a-1\"},", 1);
    for format in [Format::V2, Format::V3] {
        let once = exported(ours.as_bytes(), format);
        let (marked, _) = events(&once);
        let markers: Vec<(u64, &str)> = marked
            .iter()
            .filter(|event| event.code == EventCode::Marker)
            .map(|event| (event.time_ms, event.data.as_str()))
            .collect();
        assert_eq!(markers, [(2000, "id [guess]"), (61_000, "pwd [guess]")]);
        assert_eq!(exported(&once, format), once, "a second time adds nothing");
    }
}

#[test]
fn what_is_marked_in_a_recording_is_not_marked_again_by_an_export() {
    let mut events = COMMANDS.to_vec();
    events.insert(3, (2005, 'm', "id [guess]"));
    events.insert(4, (2006, 'm', "alert id: id"));
    events.push((61_004, 'm', "pwd [guess]"));
    let ours =
        String::from_utf8(cast(&events)).unwrap().replacen("{", "{\"postern\":{\"session\":\"a-1\"},", 1);
    for format in [Format::V2, Format::V3] {
        let (marked, _) = self::events(&exported(ours.as_bytes(), format));
        let markers: Vec<(u64, &str)> = marked
            .iter()
            .filter(|event| event.code == EventCode::Marker)
            .map(|event| (event.time_ms, event.data.as_str()))
            .collect();
        assert_eq!(markers, [(2000, "id [guess]"), (2006, "alert id: id"), (61_000, "pwd [guess]")]);
    }
    let (_folder, path) = file(ours.as_bytes());
    assert_eq!(super::places::places(&path).unwrap(), [2000, 2006, 61_000]);
}

#[test]
fn the_player_jumps_between_commands() {
    let (_folder, path) = file(&cast(COMMANDS));
    let found = commands(&mut Timeline::open(&path).unwrap()).unwrap();
    assert_eq!(found.iter().map(|command| command.text.as_str()).collect::<Vec<_>>(), ["id", "pwd"]);
    let settings = Settings { speed: 1.0, idle_limit: None, from_ms: 0 };
    let timeline = Timeline::open(&path).unwrap();
    let mut player = Player::new(timeline, (80, 24), settings, Duration::ZERO).unwrap();
    let mut out = Vec::new();
    player.press(Key::Pause, Duration::ZERO, &mut out).unwrap();
    player.know_places(super::places::places(&path).unwrap());
    for (key, expected) in [
        (Key::NextMarker, 2000),
        (Key::NextMarker, 61_000),
        (Key::NextMarker, 61_000),
        (Key::PreviousMarker, 2000),
    ] {
        player.press(key, Duration::ZERO, &mut out).unwrap();
        assert_eq!(player.position_ms(), expected);
    }
}
