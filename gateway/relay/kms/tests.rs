//! The handshake with a key, message by message, between the real contracts.

use std::future::{pending, ready};
use std::task::{Context, Waker};

use data_channel::message::{Draft, MessageType};
use serde_json::Value;
use uuid::Uuid;

use super::*;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";
const SHELL: &str = "Standard_Stream";

/// A message from one side; its date and flags are odd on purpose.
fn message(message_type: MessageType, sequence: i64, kind: PayloadType, payload: &[u8]) -> Message {
    let id = Uuid::new_v4();
    let draft = Draft { message_type, created_ms: 77, sequence, flags: 1, id, payload_type: kind, payload };
    Message::parse(draft.encode()).unwrap()
}

fn down(sequence: i64, kind: PayloadType, payload: &[u8]) -> Message {
    message(MessageType::OutputStreamData, sequence, kind, payload)
}

fn up(sequence: i64, kind: PayloadType, payload: &[u8]) -> Message {
    message(MessageType::InputStreamData, sequence, kind, payload)
}

fn data_key() -> Vec<u8> {
    (0..64).collect()
}

fn kms() -> Kms {
    Kms::new(
        Box::new(|wish| {
            assert_eq!((wish.kms_key_id.as_str(), wish.challenge.as_deref()), (KEY, Some("AAAA")));
            let cipher = Cipher::client(&data_key()).unwrap();
            Box::pin(ready(Ok(DataKey { cipher, sealed: b"sealed".to_vec() })))
        }),
        None,
    )
}

fn request(session_type: &str) -> HandshakeRequest {
    let action = KmsAction { kms_key_id: KEY.to_owned(), challenge: Some("AAAA".to_owned()) };
    HandshakeRequest::new("3.3.0.0", session_type, Value::Null).encrypted_with(&action)
}

fn requested(session_type: &str) -> Message {
    down(0, PayloadType::HandshakeRequest, &request(session_type).encode())
}

/// What a plugin answers: its own session type, and nothing of a key.
fn answered(sequence: i64, to: &Message) -> Message {
    assert_eq!(to.payload_type(), PayloadType::HandshakeRequest);
    let request = HandshakeRequest::parse(to.payload()).unwrap();
    assert!(!request.asks_for_encryption());
    assert_eq!(request.session_type().unwrap().session_type, SHELL);
    assert_eq!(request.agent_version, "3.3.0.0");
    let answer = HandshakeResponse::answering(&request, "1.2.677.0");
    assert!(answer.is_success());
    up(sequence, PayloadType::HandshakeResponse, &answer.encode())
}

fn poll(kms: &mut Kms) -> Option<Option<Bytes>> {
    kms.poll_key(&mut Context::from_waker(Waker::noop()))
}

fn sent(raw: Option<Bytes>) -> Message {
    let message = Message::parse(raw.expect("something goes up")).unwrap();
    assert!(message.digest_matches());
    message
}

fn same_header(left: &Message, right: &Message) -> bool {
    let header = |m: &Message| (m.sequence(), m.id(), m.created_ms(), m.flags(), m.message_type());
    header(left) == header(right)
}

#[track_caller]
fn ended(result: Result<Message, Ended>) -> String {
    let ended = result.expect_err("the session ends");
    assert_eq!(ended.reason(), "encryption_failed");
    ended.sentence().to_owned()
}

/// A session whose handshake is through, and the agent's end of it.
fn encrypted() -> (Kms, Cipher) {
    let (mut kms, agent) = (kms(), Cipher::agent(&data_key()).unwrap());
    let first = kms.downward(requested(SHELL)).unwrap();
    poll(&mut kms).unwrap();
    kms.upward(&answered(0, &first)).unwrap().unwrap();
    let challenge = agent.challenge(&[9; 64]).unwrap().encode();
    let second = kms.downward(down(1, PayloadType::EncChallengeRequest, &challenge)).unwrap();
    kms.upward(&answered(1, &second)).unwrap().unwrap();
    kms.downward(down(2, PayloadType::HandshakeComplete, b"{}")).unwrap();
    (kms, agent)
}

#[test]
fn a_plugin_is_asked_twice_and_the_agent_gets_key_and_proof() {
    let (mut kms, agent) = (kms(), Cipher::agent(&data_key()).unwrap());
    let asked = requested(SHELL);
    let first = kms.downward(asked.clone()).unwrap();
    assert!(same_header(&first, &asked) && first.digest_matches());
    assert_eq!(poll(&mut kms), Some(None));

    let answer = answered(0, &first);
    let given = sent(kms.upward(&answer).unwrap());
    assert!(same_header(&given, &answer));
    let response = HandshakeResponse::parse(given.payload()).unwrap();
    assert!(response.is_success());
    assert_eq!(response.client_version, "1.2.677.0");
    let key = response.key().unwrap();
    assert_eq!((key.sealed_key().unwrap(), key.challenge_acknowledged), (b"sealed".to_vec(), true));

    let challenge = agent.challenge(&[9; 64]).unwrap();
    let asked = down(1, PayloadType::EncChallengeRequest, &challenge.encode());
    let second = kms.downward(asked.clone()).unwrap();
    assert!(same_header(&second, &asked) && second.digest_matches());
    let answer = answered(1, &second);
    let proof = sent(kms.upward(&answer).unwrap());
    assert!(same_header(&proof, &answer));
    assert_eq!(proof.payload_type(), PayloadType::EncChallengeResponse);
    assert!(agent.is_proof(&EncChallenge::parse(proof.payload()).unwrap(), &[9; 64]));
}

#[test]
fn answers_that_are_sent_again_are_the_same_again() {
    let (mut kms, _) = encrypted();
    let request = down(0, PayloadType::HandshakeRequest, &request(SHELL).without_encryption().encode());
    for (number, kind) in [
        (0, PayloadType::HandshakeResponse),
        (1, PayloadType::EncChallengeResponse),
        (0, PayloadType::HandshakeResponse),
    ] {
        assert_eq!(sent(kms.upward(&answered(number, &request)).unwrap()).payload_type(), kind);
    }
    // A third answer would make a real agent deaf.
    assert_eq!(kms.upward(&answered(2, &request)).unwrap(), None);
}

#[test]
fn the_clients_answer_waits_for_the_key() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut receiver = Some(receiver);
    let mut kms = Kms::new(
        Box::new(move |_| {
            let receiver = receiver.take().unwrap();
            Box::pin(async move { Ok(receiver.await.unwrap()) })
        }),
        None,
    );
    let first = kms.downward(requested(SHELL)).unwrap();
    let answer = answered(0, &first);
    assert_eq!(kms.upward(&answer).unwrap(), None);
    assert_eq!(kms.upward(&answer).unwrap(), None, "a repeat waits too");
    assert_eq!(poll(&mut kms), None);
    let cipher = Cipher::client(&data_key()).unwrap();
    sender.send(DataKey { cipher, sealed: b"sealed".to_vec() }).unwrap();
    let waited = sent(poll(&mut kms).unwrap());
    assert!(HandshakeResponse::parse(waited.payload()).unwrap().key().is_some());
    assert_eq!(poll(&mut kms), None);
}

#[test]
fn what_the_agent_writes_is_clear_for_client_and_recording() {
    let (mut kms, agent) = encrypted();
    for (number, kind) in [(3, PayloadType::Output), (4, PayloadType::StdErr), (5, PayloadType::ExitCode)] {
        let sealed = down(number, kind, &agent.encrypt(b"words").unwrap());
        let clear = kms.downward(sealed.clone()).unwrap();
        assert!(same_header(&clear, &sealed) && clear.digest_matches());
        assert_eq!((clear.payload_type(), clear.payload()), (kind, &b"words"[..]));
    }
    let flag = down(6, PayloadType::Flag, &[0, 0, 0, 1]);
    assert_eq!(kms.downward(flag.clone()).unwrap(), flag);
}

#[test]
fn what_is_typed_is_encrypted_anew_each_time_and_sizes_are_not() {
    let (mut kms, agent) = encrypted();
    let typed = up(2, PayloadType::Output, b"ls\r");
    let (one, two) = (sent(kms.upward(&typed).unwrap()), sent(kms.upward(&typed).unwrap()));
    assert!(same_header(&one, &typed) && same_header(&two, &typed));
    assert_ne!(one.payload(), two.payload());
    assert_eq!(agent.decrypt(one.payload()), agent.decrypt(two.payload()));
    assert_eq!(agent.decrypt(one.payload()).unwrap(), b"ls\r");
    let size = up(3, PayloadType::Size, br#"{"cols":80,"rows":24}"#);
    assert_eq!(kms.upward(&size).unwrap().as_ref(), Some(size.raw()));
}

#[test]
fn nothing_is_typed_before_the_handshake_is_complete() {
    let mut kms = kms();
    let typed = up(0, PayloadType::Output, b"x");
    assert!(!kms.is_too_early(&typed), "a session without a handshake has none to wait for");
    kms.downward(requested(SHELL)).unwrap();
    assert!(kms.is_too_early(&typed));
    poll(&mut kms).unwrap();
    assert!(kms.is_too_early(&typed));
    assert!(!kms.is_too_early(&up(0, PayloadType::HandshakeResponse, b"{}")));
    kms.downward(down(1, PayloadType::HandshakeComplete, b"{}")).unwrap();
    assert!(!kms.is_too_early(&typed));
}

#[test]
fn an_altered_payload_ends_the_session() {
    let (mut kms, agent) = encrypted();
    let mut sealed = agent.encrypt(b"words").unwrap();
    sealed[14] ^= 1;
    let said = ended(kms.downward(down(3, PayloadType::Output, &sealed)));
    assert!(said.contains("does not decrypt"), "{said}");
    let said = ended(kms.downward(down(3, PayloadType::StdErr, b"in clear")));
    assert!(said.contains("does not decrypt"), "{said}");
}

#[test]
fn an_agent_that_breaks_the_handshake_ends_the_session() {
    ended(kms().downward(requested("Port")));
    let challenge = Cipher::agent(&data_key()).unwrap().challenge(&[9; 64]).unwrap().encode();
    ended(kms().downward(down(0, PayloadType::EncChallengeRequest, &challenge)));
    let unreadable = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[
        {"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream"}},
        {"ActionType":"KMSEncryption","ActionParameters":{}}]}"#;
    ended(kms().downward(down(0, PayloadType::HandshakeRequest, unreadable)));

    let asking = || {
        let mut kms = Kms::new(Box::new(|_| Box::pin(pending())), None);
        kms.downward(requested(SHELL)).unwrap();
        kms
    };
    ended(asking().downward(down(1, PayloadType::Output, b"in clear")));
    ended(asking().downward(requested(SHELL)));

    let (mut kms, agent) = encrypted();
    let again = agent.challenge(&[9; 64]).unwrap().encode();
    ended(kms.downward(down(3, PayloadType::EncChallengeRequest, &again)));
}

#[test]
fn a_challenge_of_who_has_another_key_ends_the_session() {
    let mut kms = kms();
    kms.downward(requested(SHELL)).unwrap();
    poll(&mut kms).unwrap();
    let stranger = Cipher::agent(&[1; 64]).unwrap().challenge(&[9; 64]).unwrap().encode();
    let said = ended(kms.downward(down(1, PayloadType::EncChallengeRequest, &stranger)));
    assert!(said.contains("does not have the key"), "{said}");
}

#[test]
fn without_a_key_nothing_goes_up_and_the_sentence_is_kept() {
    let mut kms = Kms::new(Box::new(|_| Box::pin(ready(Err("no key today".to_owned())))), None);
    let first = kms.downward(requested(SHELL)).unwrap();
    assert_eq!((poll(&mut kms), kms.refusal()), (None, Some("no key today")));
    assert_eq!(kms.upward(&answered(0, &first)).unwrap(), None);
}

#[test]
fn a_session_without_a_key_is_not_touched() {
    let mut kms = Kms::new(Box::new(|_| panic!("nobody asked for a key")), None);
    let plain = HandshakeRequest::new("3.3.0.0", SHELL, Value::Null).encode();
    for message in [down(0, PayloadType::HandshakeRequest, &plain), down(1, PayloadType::Output, b"x")] {
        assert_eq!(kms.downward(message.clone()).unwrap(), message);
    }
    let typed = up(0, PayloadType::Output, b"x");
    assert_eq!(kms.upward(&typed).unwrap().as_ref(), Some(typed.raw()));
}

#[test]
fn a_session_that_is_taken_over_goes_on_with_its_key() {
    let (_, agent) = encrypted();
    let key = DataKey { cipher: Cipher::client(&data_key()).unwrap(), sealed: b"sealed".to_vec() };
    let mut kms = Kms::new(Box::new(|_| panic!("the key is there")), Some(key));
    let clear = kms.downward(down(9, PayloadType::Output, &agent.encrypt(b"words").unwrap())).unwrap();
    assert_eq!(clear.payload(), b"words");
    let typed = up(7, PayloadType::Output, b"ls\r");
    assert!(!kms.is_too_early(&typed));
    assert_eq!(agent.decrypt(sent(kms.upward(&typed).unwrap()).payload()).unwrap(), b"ls\r");
}
