//! Arbitrary bytes as a message, its payload, and the opening text.

#![no_main]

use bytes::Bytes;
use data_channel::payload::exit_code;
use data_channel::{
    Acknowledge, AgentSessionState, Arrival, ChannelClosed, Draft, EncChallenge, Flag, HandshakeComplete,
    HandshakeRequest, HandshakeResponse, Incoming, Message, MessageType, OpenDataChannel, Size,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        opening(text);
    }
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    read_back(&message);
    payloads(message.payload());
    numbered(message);
});

/// What can be read can be written, and says the same again.
fn opening(text: &str) {
    let Ok(open) = OpenDataChannel::parse(text) else { return };
    assert_eq!(OpenDataChannel::parse(&open.to_text()), Ok(open));
}

/// A message written anew from what was read is the same message.
fn read_back(message: &Message) {
    let _ = message.digest_matches();
    assert_eq!(message.payload_bytes(), message.payload());
    let again = Draft {
        message_type: message.message_type(),
        created_ms: message.created_ms().max(1),
        sequence: message.sequence(),
        flags: message.flags(),
        id: message.id(),
        payload_type: message.payload_type(),
        payload: message.payload(),
    }
    .encode();
    let again = Message::parse(again).expect("what we write can be read");
    assert!(again.digest_matches());
    assert_eq!(again.message_type(), message.message_type());
    assert_eq!((again.id(), again.sequence()), (message.id(), message.sequence()));
    assert_eq!((again.payload_type(), again.payload()), (message.payload_type(), message.payload()));
}

/// Every payload reader, whatever the message says it is.
fn payloads(payload: &[u8]) {
    if let Ok(acknowledge) = Acknowledge::parse(payload) {
        let message = Message::parse(acknowledge.encode(1)).expect("what we write can be read");
        let again = Acknowledge::parse(message.payload());
        assert_eq!(message.message_type(), MessageType::Acknowledge);
        assert_eq!(again, Ok(acknowledge));
    }
    if let Ok(size) = Size::parse(payload) {
        assert_eq!(Size::parse(&size.encode()), Ok(size));
    }
    if let Ok(flag) = Flag::parse(payload) {
        assert_eq!(Flag::parse(&flag.encode()), Ok(flag));
    }
    if let Ok(request) = HandshakeRequest::parse(payload) {
        let _ = (request.session_type(), request.kms_encryption());
        let answer = HandshakeResponse::answering(&request, "1.2.700.0");
        assert_eq!(HandshakeResponse::parse(&answer.encode()), Ok(answer));
    }
    let _ = HandshakeResponse::parse(payload).map(|response| response.encode());
    let _ = HandshakeComplete::parse(payload).map(|complete| complete.encode());
    let _ = EncChallenge::parse(payload).map(|challenge| challenge.encode());
    let _ = ChannelClosed::parse(payload);
    let _ = AgentSessionState::parse(payload);
    let _ = exit_code(payload);
}

/// Any number may come; only the expected one is delivered.
fn numbered(message: Message) {
    let sequence = message.sequence();
    let (mut incoming, mut deliver) = (Incoming::default(), Vec::new());
    let arrival = incoming.receive(message, &mut deliver);
    assert_eq!(arrival == Arrival::Deliver, sequence == 0);
    assert_eq!(deliver.len(), usize::from(sequence == 0));
}
