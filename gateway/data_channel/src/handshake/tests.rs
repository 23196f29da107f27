//! Handshakes as real peers write them.

use serde_json::{Value, json};

use super::{
    ActionStatus, EncChallenge, HandshakeComplete, HandshakeRequest, HandshakeResponse, KmsAction, KmsResult,
};
use crate::message::MessageError;

const REQUEST: &[u8] = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}},{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/k","Challenge":"AAAA"}}]}"#;
const RESPONSE: &[u8] = br#"{"ClientVersion":"1.2.677.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""},{"ActionType":"KMSEncryption","ActionStatus":1,"ActionResult":{"KMSCipherTextKey":"AAAA","KMSCipherTextHash":null},"Error":""}],"Errors":null}"#;

fn same_json(left: &[u8], right: &[u8]) -> bool {
    let read = |json| serde_json::from_slice::<Value>(json).unwrap();
    read(left) == read(right)
}

#[test]
fn a_request_of_an_agent_is_read_and_written_back() {
    let request = HandshakeRequest::parse(REQUEST).unwrap();
    assert_eq!(request.agent_version, "3.3.0.0");
    let session_type = request.session_type().unwrap();
    assert_eq!(session_type.session_type, "Port");
    assert_eq!(session_type.properties, json!({"portNumber": "22"}));
    let kms = KmsAction { kms_key_id: "alias/k".to_owned(), challenge: Some("AAAA".to_owned()) };
    assert_eq!(request.kms_encryption(), Some(kms));
    assert!(same_json(&request.encode(), REQUEST));
}

#[test]
fn a_request_of_our_own_names_the_session_type_alone() {
    let request = HandshakeRequest::new("3.3.0.0", "Standard_Stream", Value::Null);
    let json = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream","Properties":null}}]}"#;
    assert!(same_json(&request.encode(), json));
    assert_eq!(request.kms_encryption(), None);
}

#[test]
fn empty_lists_may_be_null_as_go_writes_them() {
    let request = HandshakeRequest::parse(br#"{"AgentVersion":"","RequestedClientActions":null}"#).unwrap();
    assert_eq!((request.requested_client_actions.len(), request.session_type()), (0, None));
    let response =
        HandshakeResponse::parse(br#"{"ClientVersion":"1","ProcessedClientActions":null,"Errors":null}"#);
    assert!(response.is_ok_and(|response| response.is_success()));
}

#[test]
fn a_response_of_a_plugin_is_read_and_written_back() {
    let response = HandshakeResponse::parse(RESPONSE).unwrap();
    assert!(response.is_success());
    assert_eq!(response.processed_client_actions[1].action_result["KMSCipherTextKey"], "AAAA");
    assert!(same_json(&response.encode(), RESPONSE));
}

#[test]
fn the_odd_answer_to_an_unknown_action_is_read_as_it_is() {
    let odd = br#"{"ClientVersion":"1.2.0.0","ProcessedClientActions":[{"ActionType":"X","ActionStatus":0,"ActionResult":3,"Error":"e"}],"Errors":["e"]}"#;
    let response = HandshakeResponse::parse(odd).unwrap();
    assert_eq!(response.processed_client_actions[0].action_status, ActionStatus::Other(0));
    assert!(!response.is_success() && same_json(&response.encode(), odd));
}

#[test]
fn known_session_types_are_answered_with_success() {
    for name in ["Standard_Stream", "InteractiveCommands", "NonInteractiveCommands", "Port"] {
        let request = HandshakeRequest::new("3.3.0.0", name, Value::Null);
        let response = HandshakeResponse::answering(&request, "1.2.700.0");
        assert!(response.is_success() && response.errors.is_none());
        assert_eq!(response.client_version, "1.2.700.0");
    }
}

#[test]
fn what_we_cannot_do_is_answered_with_an_error() {
    let encrypted = HandshakeResponse::answering(&HandshakeRequest::parse(REQUEST).unwrap(), "1.2.700.0");
    let statuses: Vec<_> = encrypted.processed_client_actions.iter().map(|a| a.action_status).collect();
    assert_eq!(statuses, [ActionStatus::Success, ActionStatus::Unsupported]);
    assert_eq!(encrypted.errors, Some(vec!["Unsupported action KMSEncryption".to_owned()]));
    let unknown = HandshakeRequest::new("3.3.0.0", "Telepathy", Value::Null);
    let response = HandshakeResponse::answering(&unknown, "1.2.700.0");
    assert_eq!(response.processed_client_actions[0].action_status, ActionStatus::Failed);
}

#[test]
fn the_end_of_a_handshake_and_a_challenge_are_read_back() {
    let json = br#"{"HandshakeTimeToComplete":123456789,"CustomerMessage":"hello"}"#;
    let complete = HandshakeComplete::parse(json).unwrap();
    assert_eq!(
        (complete.handshake_time_to_complete, complete.customer_message.as_str()),
        (123_456_789, "hello")
    );
    assert_eq!(complete.encode(), json);
    let challenge = EncChallenge::parse(br#"{"Challenge":"AAAA"}"#).unwrap();
    assert_eq!(challenge.encode(), br#"{"Challenge":"AAAA"}"#);
    assert_eq!(EncChallenge::parse(b"{}"), Err(MessageError::Payload("EncChallenge")));
}

#[test]
fn what_is_not_a_handshake_is_refused() {
    for bad in [&b""[..], b"{", b"\xff", br#"{"AgentVersion":1}"#, br#"{"RequestedClientActions":[{}]}"#] {
        assert_eq!(HandshakeRequest::parse(bad), Err(MessageError::Payload("HandshakeRequest")));
    }
    let no_number = br#"{"ProcessedClientActions":[{"ActionType":"X","ActionStatus":"1"}]}"#;
    assert_eq!(HandshakeResponse::parse(no_number), Err(MessageError::Payload("HandshakeResponse")));
}

#[test]
fn a_key_is_asked_for_and_given_as_real_peers_do() {
    let key = KmsAction { kms_key_id: "alias/k".to_owned(), challenge: Some("AAAA".to_owned()) };
    let request = HandshakeRequest::new("3.3.0.0", "Port", json!({"portNumber": "22"})).encrypted_with(&key);
    assert!(same_json(&request.encode(), REQUEST));
    let clear = request.without_encryption();
    assert!(!clear.asks_for_encryption());
    assert!(same_json(
        &clear.encode(),
        &HandshakeRequest::new("3.3.0.0", "Port", json!({"portNumber": "22"})).encode()
    ));

    let response = HandshakeResponse::answering(&clear, "1.2.677.0");
    assert_eq!(response.key(), None);
    let response = response.with_key(&KmsResult::new(&[0, 0, 0], false));
    assert!(same_json(&response.encode(), RESPONSE));
    assert_eq!(response.key().unwrap().sealed_key(), Ok(vec![0, 0, 0]));
    let newer = response.with_key(&KmsResult::new(&[0], true));
    assert_eq!(newer.processed_client_actions.len(), 2);
    assert_eq!(newer.processed_client_actions[1].action_result["ChallengeAcknowledgement"], true);
}

#[test]
fn an_unreadable_wish_for_encryption_is_still_one() {
    let odd = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"KMSEncryption","ActionParameters":7}]}"#;
    let request = HandshakeRequest::parse(odd).unwrap();
    assert!(request.asks_for_encryption() && request.kms_encryption().is_none());
}
