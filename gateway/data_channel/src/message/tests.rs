//! Messages against the known bytes, the peers' checks and arbitrary input.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Draft, HEADER_LEN, Message, MessageError, MessageType, SYN_FIN};
use crate::acknowledge::Acknowledge;
use crate::payload::PayloadType;

/// An input message as a real plugin writes it, 123 bytes.
const INPUT: &str = "
    00 00 00 74 69 6e 70 75 74 5f 73 74 72 65 61 6d
    5f 64 61 74 61 20 20 20 20 20 20 20 20 20 20 20
    20 20 20 20 00 00 00 01 00 00 01 5e 0b aa 78 84
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    a5 08 b5 f0 73 f3 1b 16 dd 01 e5 6b ff 48 48 3e
    1d 88 7c e0 f8 67 2e 49 14 d9 00 0e 80 1c d7 4e
    cd 80 5d d9 36 6c 0b c4 2d c1 6a dc 01 97 dc 2f
    00 00 00 01 00 00 00 03 6c 73 0d";
/// The header of its acknowledge, up to the digest's first eight bytes.
const ACKNOWLEDGE_START: &str = "
    00 00 00 74 61 63 6b 6e 6f 77 6c 65 64 67 65 20
    20 20 20 20 20 20 20 20 20 20 20 20 20 20 20 20
    20 20 20 20 00 00 00 01 00 00 01 5e 0b aa 78 84
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03
    88 99 aa bb cc dd ee ff 00 11 22 33 44 55 66 77
    77 da 25 ed 45 7f 36 d5";
/// The last eight bytes of that header: PayloadType and PayloadLength.
const ACKNOWLEDGE_TAIL: &str = "00 00 00 00 00 00 00 af";
const ACKNOWLEDGE_JSON: &[u8] = br#"{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"dd01e56b-ff48-483e-a508-b5f073f31b16","AcknowledgedMessageSequenceNumber":0,"IsSequentialMessage":true}"#;
const CREATED: u64 = 1_503_434_274_948;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn id(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap()
}

fn input() -> Draft<'static> {
    Draft {
        message_type: MessageType::InputStreamData,
        created_ms: CREATED,
        sequence: 0,
        flags: 0,
        id: id("dd01e56b-ff48-483e-a508-b5f073f31b16"),
        payload_type: PayloadType::Output,
        payload: b"ls\r",
    }
}

/// The input message with some bytes replaced.
fn with(offset: usize, bytes: &[u8]) -> Result<Message, MessageError> {
    let mut raw = hex(INPUT);
    raw[offset..offset + bytes.len()].copy_from_slice(bytes);
    Message::parse(raw.into())
}

/// The input message with another type field.
fn with_type(name: &[u8]) -> Result<Message, MessageError> {
    let mut field = [0; 32];
    field[..name.len()].copy_from_slice(name);
    with(4, &field)
}

#[test]
fn an_input_message_is_written_byte_for_byte() {
    assert_eq!(input().encode(), hex(INPUT));
}

#[test]
fn an_input_message_is_read_byte_for_byte() {
    let message = Message::parse(hex(INPUT).into()).unwrap();
    assert_eq!(message.message_type(), MessageType::InputStreamData);
    assert_eq!((message.created_ms(), message.sequence(), message.flags()), (CREATED, 0, 0));
    assert_eq!(message.id(), id("dd01e56b-ff48-483e-a508-b5f073f31b16"));
    assert_eq!(message.payload_type(), PayloadType::Output);
    assert_eq!(message.payload(), b"ls\r");
    assert_eq!(message.payload_bytes(), &b"ls\r"[..]);
    assert_eq!(message.raw(), &hex(INPUT));
    assert!(message.digest_matches());
}

#[test]
fn its_acknowledge_is_written_and_read_byte_for_byte() {
    let expected = [hex(ACKNOWLEDGE_START), hex(ACKNOWLEDGE_TAIL), ACKNOWLEDGE_JSON.to_vec()];
    let of = Acknowledge::of(&Message::parse(hex(INPUT).into()).unwrap());
    let raw = of.encode_as(id("00112233-4455-6677-8899-aabbccddeeff"), CREATED);
    assert_eq!(raw.len(), 295);
    assert_eq!([&raw[..88], &raw[112..120], &raw[120..]], [&expected[0][..], &expected[1], &expected[2]]);

    let message = Message::parse(raw).unwrap();
    assert_eq!(message.message_type(), MessageType::Acknowledge);
    assert_eq!((message.flags(), message.payload_type()), (SYN_FIN, PayloadType::Unset));
    assert_eq!(message.id(), id("00112233-4455-6677-8899-aabbccddeeff"));
    assert!(message.digest_matches());
    assert_eq!(Acknowledge::parse(message.payload()), Ok(of));
}

#[test]
fn the_payload_shares_the_memory_of_the_message() {
    let raw = Bytes::from(hex(INPUT));
    let start = raw.as_ptr();
    let message = Message::parse(raw).unwrap();
    assert_eq!(message.raw().as_ptr(), start);
    assert_eq!(message.payload_bytes().as_ptr(), start.wrapping_add(HEADER_LEN));
    assert_eq!(message.clone().payload().as_ptr(), start.wrapping_add(HEADER_LEN));
}

// The rows of what real receivers check, and what they do.

#[test]
fn a_message_shorter_than_its_header_is_refused() {
    for len in 0..HEADER_LEN {
        let cut = Bytes::from(hex(INPUT)).slice(..len);
        assert_eq!(Message::parse(cut), Err(MessageError::TooShort(len)));
    }
}

#[test]
fn a_message_with_an_empty_payload_is_accepted() {
    let message = Message::parse(Bytes::from(hex(INPUT)).slice(..HEADER_LEN)).unwrap();
    assert_eq!(message.payload(), b"");
    assert_eq!(message.payload_bytes(), Bytes::new());
    assert!(message.digest_matches());
}

#[test]
fn a_header_length_past_the_end_is_refused() {
    for header_length in [120u32, 0x7b22_4d65, u32::MAX] {
        let expected = Err(MessageError::PastEnd { header_length, len: 123 });
        assert_eq!(with(0, &header_length.to_be_bytes()), expected);
    }
    let at_the_end = with(0, &119u32.to_be_bytes()).unwrap();
    assert_eq!(at_the_end.payload(), b"");
}

#[test]
fn a_text_of_json_is_refused() {
    let text = format!(r#"{{"MessageSchemaVersion":"1.0","TokenValue":"{}"}}"#, "x".repeat(200));
    assert!(matches!(Message::parse(text.into()), Err(MessageError::PastEnd { .. })));
}

#[test]
fn a_header_length_of_zero_or_into_the_header_is_refused() {
    for header_length in [0u32, 1, 112, 115] {
        let expected = Err(MessageError::HeaderLength(header_length));
        assert_eq!(with(0, &header_length.to_be_bytes()), expected);
    }
}

#[test]
fn a_longer_header_moves_the_payload_as_it_does_for_the_peers() {
    let message = with(0, &118u32.to_be_bytes()).unwrap();
    assert_eq!(message.payload(), b"\r");
    assert!(!message.digest_matches());
}

#[test]
fn a_message_without_type_or_date_is_refused() {
    for blank in [&b""[..], b"                                ", b"\0\0 \t\r\n \0"] {
        assert_eq!(with_type(blank), Err(MessageError::NoType), "{blank:?}");
    }
    assert_eq!(with(40, &[0; 8]), Err(MessageError::NoDate));
}

#[test]
fn a_digest_that_does_not_match_is_told() {
    assert!(!with(80, &[0]).unwrap().digest_matches());
    assert!(!with(111, &[0]).unwrap().digest_matches());
    assert!(!with(120, b"rm\r").unwrap().digest_matches());
}

#[test]
fn a_publication_passes_every_check_as_in_the_plugin() {
    for name in ["start_publication", "pause_publication"] {
        let mut raw = hex(INPUT);
        raw[4..36].fill(b' ');
        raw[4..4 + name.len()].copy_from_slice(name.as_bytes());
        raw[..4].fill(0);
        raw[40..48].fill(0);
        raw[80..112].fill(0);
        let message = Message::parse(raw.into()).unwrap();
        assert_eq!(message.message_type().as_str(), name);
        assert!(message.message_type().is_publication() && message.digest_matches());
    }
}

#[test]
fn the_payload_is_what_is_there_whatever_its_length_says() {
    for length in [0u32, 1, 4, u32::MAX] {
        let message = with(116, &length.to_be_bytes()).unwrap();
        assert_eq!(message.payload(), b"ls\r");
        assert!(message.digest_matches());
    }
}

#[test]
fn an_unknown_type_is_read_as_unknown() {
    for name in [&b"Input_stream_data"[..], b"agent_job", b"xinput_stream_data", b"\xff\xfe", b"unknown"] {
        assert_eq!(with_type(name).unwrap().message_type(), MessageType::Unknown);
    }
}

#[test]
fn nuls_and_then_white_space_around_a_type_are_trimmed() {
    for name in ["acknowledge", "\0\0acknowledge", " \t acknowledge", "\0 acknowledge \u{a0}\u{3000}"] {
        assert_eq!(with_type(name.as_bytes()).unwrap().message_type(), MessageType::Acknowledge, "{name:?}");
    }
    let nul_within_space = with_type(b" \0acknowledge").unwrap();
    assert_eq!(nul_within_space.message_type(), MessageType::Unknown);
}

#[test]
fn version_id_and_flags_are_not_checked() {
    for offset in [36, 56, 64] {
        assert!(with(offset, &[0xff; 4]).unwrap().digest_matches());
    }
    assert_eq!(with(48, &(-5i64).to_be_bytes()).unwrap().sequence(), -5);
}

fn known_type() -> impl Strategy<Value = MessageType> {
    prop::sample::select(vec![
        MessageType::InputStreamData,
        MessageType::OutputStreamData,
        MessageType::Acknowledge,
        MessageType::ChannelClosed,
        MessageType::StartPublication,
        MessageType::PausePublication,
        MessageType::AgentSessionState,
        MessageType::InteractiveShell,
        MessageType::AgentTaskComplete,
        MessageType::AgentTaskAcknowledge,
    ])
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        message_type in known_type(), created_ms in 1u64.., sequence in any::<i64>(), flags in any::<u64>(),
        id in any::<u128>(), payload_type in any::<u32>(),
        payload in prop::collection::vec(any::<u8>(), 0..1100),
    ) {
        let (id, payload_type) = (Uuid::from_u128(id), PayloadType::from(payload_type));
        let draft =
            Draft { message_type, created_ms, sequence, flags, id, payload_type, payload: &payload };
        let raw = draft.encode();
        let read = Message::parse(raw.clone()).unwrap();
        prop_assert_eq!(
            (read.message_type(), read.created_ms(), read.sequence(), read.flags(), read.id()),
            (message_type, created_ms, sequence, flags, id)
        );
        prop_assert_eq!((read.payload_type(), read.payload()), (payload_type, &payload[..]));
        prop_assert!(read.digest_matches());
        let again = Draft { payload: read.payload(), ..draft };
        prop_assert_eq!(again.encode(), raw);
    }

    #[test]
    fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::parse(raw.into()) {
            let _ = (message.digest_matches(), message.payload_bytes());
        }
    }

    #[test]
    fn a_damaged_message_never_panics(offset in 0usize..120, byte in any::<u8>(), len in 0usize..130) {
        let mut raw = hex(INPUT);
        raw[offset] = byte;
        raw.resize(len, byte);
        if let Ok(message) = Message::parse(raw.into()) {
            let _ = (message.digest_matches(), message.payload_bytes());
        }
    }
}
