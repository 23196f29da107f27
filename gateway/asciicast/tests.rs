//! Tests.

use proptest::prelude::*;

use super::*;

fn lines(bytes: &[u8]) -> Vec<Event> {
    bytes.split_inclusive(|b| *b == b'\n').map(|line| Event::parse(line).unwrap()).collect()
}

/// Records the messages as the recorder does, reads the exact bytes back.
fn through(messages: &[&[u8]]) -> Vec<u8> {
    let (mut runes, mut scratch, mut cast) = (Runes::default(), Vec::new(), Vec::new());
    for message in messages {
        encode_piece(&mut cast, 0, EventCode::Output, &runes.take(message, &mut scratch));
    }
    if let Some(piece) = runes.finish() {
        encode_piece(&mut cast, 0, EventCode::Output, &piece);
    }
    exact_output(&lines(&cast)).flat_map(|covered| covered.content.into_owned()).collect()
}

#[test]
fn an_event_line_is_what_asciinema_writes() {
    let mut line = Vec::new();
    encode_event(&mut line, 12_045, EventCode::Output, "\u{1b}[1mhi \"you\"\\\r\n\u{7f}é");
    let text = String::from_utf8(line).unwrap();
    assert_eq!(text, "[12.045,\"o\",\"\\u001b[1mhi \\\"you\\\"\\\\\\r\\n\u{7f}é\"]\n");
}

#[test]
fn a_header_round_trips_and_other_versions_are_refused() {
    let mut header = Header::new(1_700_000_000);
    header.env.insert("TERM".into(), "xterm".into());
    header.postern = serde_json::from_str(r#"{"session":"a-1"}"#).ok();
    let mut line = Vec::new();
    header.write(&mut line).unwrap();
    assert!(line.ends_with(b"}\n"));
    assert_eq!(Header::parse(&line).unwrap(), header);
    assert!(Header::parse(br#"{"version":1,"width":80,"height":24}"#).is_err());
    assert!(Header::parse(b"[1.0,\"o\",\"\"]").is_err());
}

#[test]
fn lines_of_other_programs_are_read() {
    let event = Event::parse(b"[1.2345678, \"o\", \"x\\ud83d\\ude00\"]").unwrap();
    assert_eq!(event, Event { time_ms: 1235, code: EventCode::Output, data: "x😀".into() });
    assert_eq!(Event::parse(b"[0,\"z\",\"\"]").unwrap().code, EventCode::Other('z'));
}

#[test]
fn what_is_no_event_is_refused() {
    let bad: [&[u8]; 8] = [
        b"",
        b"[1.0,\"o\"]",
        b"[-1,\"o\",\"\"]",
        b"[1e300,\"o\",\"\"]",
        b"[1.0,\"oo\",\"\"]",
        b"[1.0,\"o\",\"\",1]",
        b"[1.0,\"o\",\"\"",
        b"{}",
    ];
    for line in bad {
        assert!(Event::parse(line).is_err(), "{} was read", String::from_utf8_lossy(line));
    }
}

#[test]
fn a_rune_split_between_messages_stays_whole() {
    let (mut runes, mut scratch) = (Runes::default(), Vec::new());
    assert_eq!(runes.take(b"a\xf0\x9f", &mut scratch).text, "a");
    assert_eq!(runes.take(b"\x98", &mut scratch).text, "");
    assert_eq!(runes.take(b"\x80b", &mut scratch).text, "😀b");
    assert_eq!(runes.finish(), None);
}

#[test]
fn bytes_that_are_not_utf8_come_back_exactly() {
    let messages: [&[u8]; 5] = [b"a\xffb", b"\xe2\x82", b"x\xc3", b"", b"\xed\xa0\x80\xe2\x82"];
    assert_eq!(through(&messages), messages.concat());
}

#[test]
fn a_line_says_which_message_it_is() {
    let mut cast = Vec::new();
    encode_mark(&mut cast, 1, Stream::Output, Some(7));
    encode_event(&mut cast, 1, EventCode::Output, "a");
    encode_event(&mut cast, 2, EventCode::Output, "b");
    encode_mark(&mut cast, 3, Stream::StdErr, Some(9));
    encode_event(&mut cast, 3, EventCode::Output, "e");
    encode_event(&mut cast, 4, EventCode::Exit, "0");
    encode_mark(&mut cast, 5, Stream::StdErr, None);
    encode_event(&mut cast, 5, EventCode::Output, "\u{fffd}");
    let events = lines(&cast);
    let seen: Vec<_> = exact_output(&events).map(|c| (c.sequence, c.stream)).collect();
    let expected = [
        (Some(7), Stream::Output),
        (Some(8), Stream::Output),
        (Some(9), Stream::StdErr),
        (Some(10), Stream::ExitCode),
        (None, Stream::StdErr),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn what_is_for_a_later_gateway_disturbs_no_reader() {
    let mut cast = Vec::new();
    encode_mark(&mut cast, 1, Stream::Output, Some(7));
    encode_event(&mut cast, 1, EventCode::Output, "a");
    let said = [Handover::Owed(Some(3)), Handover::Owed(None), Handover::Input(12), Handover::Settled];
    said.iter().for_each(|said| said.encode(&mut cast, 2));
    encode_event(&mut cast, 2, EventCode::Output, "b");
    let events = lines(&cast);
    let seen: Vec<_> = exact_output(&events).map(|covered| covered.sequence).collect();
    assert_eq!(seen, [Some(7), Some(8)]);
    let marks = events.iter().filter(|event| event.code == EventCode::SEQUENCE);
    let read: Vec<_> = marks.filter_map(|event| Handover::parse(event.data.as_bytes())).collect();
    assert_eq!(read, said);
}

#[test]
fn every_event_has_all_bytes_of_its_own_message() {
    let (mut runes, mut scratch, mut cast) = (Runes::default(), Vec::new(), Vec::new());
    let messages: [&[u8]; 3] = [b"caf\xc3", b"\xa9\r\n", b"x"];
    for message in messages {
        encode_piece(&mut cast, 0, EventCode::Output, &runes.take(message, &mut scratch));
    }
    let events = lines(&cast);
    let exact: Vec<_> = exact_output(&events).map(|covered| covered.content.into_owned()).collect();
    assert_eq!(exact, messages);
    let shown: String =
        events.iter().filter(|e| e.code == EventCode::Output).map(|e| e.data.as_str()).collect();
    assert_eq!(shown, "café\r\nx");
}

proptest! {
    #[test]
    fn every_text_round_trips(ms in 0u64..100_000_000_000, text in any::<String>(), code in any::<char>()) {
        let mut line = Vec::new();
        encode_event(&mut line, ms, code.into(), &text);
        prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let event = Event::parse(&line).unwrap();
        prop_assert_eq!(&event, &Event { time_ms: ms, code: code.into(), data: text });
        if code.is_ascii_alphabetic() {
            let peeked = peek(&line).unwrap();
            prop_assert_eq!((peeked.time_ms, peeked.code), (ms, event.code));
        }
    }

    #[test]
    fn terminal_bytes_round_trip(text in "[ -~\u{0}-\u{1f}\"\\\\é😀]{0,200}") {
        let mut line = Vec::new();
        encode_event(&mut line, 0, EventCode::Output, &text);
        prop_assert_eq!(serde_json::from_slice::<(f64, String, String)>(&line).unwrap().2, text);
    }

    #[test]
    fn any_bytes_cut_anywhere_come_back_exactly(messages in proptest::collection::vec(
        proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac)], 0..12), 0..12)
    ) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(through(&messages), messages.concat());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = (Event::parse(&bytes), Header::parse(&bytes), peek(&bytes));
    }
}
