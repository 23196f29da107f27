//! Acknowledges: the usual shape, other JSON, and that both readers agree.

use proptest::prelude::*;
use uuid::Uuid;

use super::Acknowledge;
use crate::message::{Message, MessageError, MessageType};

const ID: &str = "dd01e56b-ff48-483e-a508-b5f073f31b16";

fn expected() -> Acknowledge {
    Acknowledge {
        message_type: MessageType::OutputStreamData,
        message_id: Uuid::try_parse(ID).unwrap(),
        sequence: 42,
    }
}

#[test]
fn the_usual_shape_needs_no_json_parser() {
    let message = Message::parse(expected().encode(1)).unwrap();
    assert_eq!(Acknowledge::parse_usual(message.payload()), Some(expected()));
    assert_eq!(Acknowledge::parse(message.payload()), Ok(expected()));
}

#[test]
fn other_json_is_read_by_key() {
    let shapes = [
        format!(
            r#"{{ "AcknowledgedMessageSequenceNumber": 42, "AcknowledgedMessageId":"{ID}", "AcknowledgedMessageType":"output_stream_data" }}"#
        ),
        format!(
            r#"{{"AcknowledgedMessageType":"output\u005fstream_data","AcknowledgedMessageId":"{ID}","AcknowledgedMessageSequenceNumber":42,"IsSequentialMessage":true}}"#
        ),
        format!(
            r#"{{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"{ID}","AcknowledgedMessageSequenceNumber":42,"IsSequentialMessage":false,"More":[1]}}"#
        ),
    ];
    for shape in shapes {
        assert_eq!(Acknowledge::parse_usual(shape.as_bytes()), None, "{shape}");
        assert_eq!(Acknowledge::parse(shape.as_bytes()), Ok(expected()), "{shape}");
    }
}

#[test]
fn the_sequence_number_alone_is_enough() {
    let read = Acknowledge::parse(br#"{"AcknowledgedMessageSequenceNumber":7,"AcknowledgedMessageId":"x"}"#);
    let unknown = Acknowledge { message_type: MessageType::Unknown, message_id: Uuid::nil(), sequence: 7 };
    assert_eq!(read, Ok(unknown));
}

#[test]
fn what_is_not_an_acknowledge_is_refused() {
    let number = |digits: &str| {
        format!(
            r#"{{"AcknowledgedMessageType":"acknowledge","AcknowledgedMessageId":"{ID}","AcknowledgedMessageSequenceNumber":{digits},"IsSequentialMessage":true}}"#
        )
    };
    let numbers = ["", "+1", "01", "1.5", "9223372036854775808", "\"1\"", "null"].map(number);
    for bad in ["", "{}", "[]x", "null"].map(str::to_owned).into_iter().chain(numbers) {
        assert_eq!(Acknowledge::parse(bad.as_bytes()), Err(MessageError::Payload("acknowledge")), "{bad}");
    }
}

#[test]
fn each_acknowledge_has_an_id_of_its_own() {
    let ids = [expected().encode(1), expected().encode(1)].map(|raw| Message::parse(raw).unwrap().id());
    assert_ne!(ids[0], ids[1]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(sequence in any::<i64>(), id in any::<u128>()) {
        let written = Acknowledge { sequence, message_id: Uuid::from_u128(id), ..expected() };
        let message = Message::parse(written.encode(1)).unwrap();
        prop_assert_eq!(Acknowledge::parse(message.payload()), Ok(written));
        prop_assert_eq!(Acknowledge::parse_any(message.payload()), Ok(written));
    }

    #[test]
    fn both_readers_agree_on_damaged_input(at in 0usize..176, byte in any::<u8>(), cut in 0usize..200) {
        let mut payload = Message::parse(expected().encode(1)).unwrap().payload().to_vec();
        let at = at % payload.len();
        payload[at] = byte;
        payload.truncate(cut);
        if let Some(usual) = Acknowledge::parse_usual(&payload) {
            prop_assert_eq!(Acknowledge::parse_any(&payload), Ok(usual));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Acknowledge::parse(&payload);
    }
}
