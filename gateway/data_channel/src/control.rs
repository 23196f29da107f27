//! The messages around a stream: opened, closed, how the agent is.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::json;
use crate::message::{Draft, MessageError, MessageType, SYN_FIN};
use crate::payload::PayloadType;

/// The only MessageSchemaVersion of the opening text.
const OPEN_SCHEMA: &str = "1.0";
/// The only SchemaVersion of the JSON payloads here.
const SCHEMA: i64 = 1;

/// The first message on a connection, the only one that is text.
///
/// No end answers it: success shows as traffic, failure as a close.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    /// Always `1.0`.
    #[serde(default)]
    pub message_schema_version: String,
    /// A new id for each connection.
    #[serde(default)]
    pub request_id: String,
    /// The token of StartSession or ResumeSession; a secret.
    pub token_value: String,
    /// One id per client process, kept over reconnects; empty from agents.
    #[serde(default)]
    pub client_id: String,
    /// The client's version; plugins before 1.2.677 leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// The instance, when an agent opens its side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_instance_id: Option<String>,
}

impl OpenDataChannel {
    /// What a client sends, with a new request id.
    pub fn new(token: &str, client_id: &str, client_version: Option<&str>) -> Self {
        Self {
            message_schema_version: OPEN_SCHEMA.to_owned(),
            request_id: Uuid::new_v4().to_string(),
            token_value: token.to_owned(),
            client_id: client_id.to_owned(),
            client_version: client_version.map(str::to_owned),
            client_instance_id: None,
        }
    }

    /// Reads the text; only the token is required.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        json::read("OpenDataChannelInput", text.as_bytes())
    }

    /// The text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Debug for OpenDataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDataChannel")
            .field("request_id", &self.request_id)
            .field("client_id", &self.client_id)
            .field("client_version", &self.client_version)
            .field("client_instance_id", &self.client_instance_id)
            .finish_non_exhaustive()
    }
}

/// The session is over, and why; the only thing that ends a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChannelClosed {
    /// `channel_closed`.
    pub message_type: String,
    /// The id of the message around it.
    pub message_id: String,
    /// A string; no peer reads it.
    pub created_date: String,
    /// Empty unless the service fills it.
    pub destination_id: String,
    /// The session.
    pub session_id: String,
    /// Always 1.
    pub schema_version: i64,
    /// What the user is told; empty at an ordinary end.
    pub output: String,
}

impl ChannelClosed {
    /// The whole message.
    ///
    /// The plugin prints `output` as it is, so control characters other than
    /// the line feed are removed here.
    pub fn message(session_id: &str, output: &str, created_ms: u64) -> Bytes {
        let id = Uuid::new_v4();
        let closed = Self {
            message_type: MessageType::ChannelClosed.as_str().to_owned(),
            message_id: id.to_string(),
            created_date: created_ms.to_string(),
            destination_id: String::new(),
            session_id: session_id.to_owned(),
            schema_version: SCHEMA,
            output: output.chars().filter(|c| *c == '\n' || !c.is_control()).collect(),
        };
        whole(MessageType::ChannelClosed, 0, id, created_ms, &json::write(&closed))
    }

    /// Reads the payload; every key may be missing.
    ///
    /// `output` is as the sender wrote it: clean it before a terminal sees it.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("channel_closed", payload)
    }
}

/// How an agent's session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// Its data channel is open.
    Connected,
    /// Its process has ended.
    Terminating,
    /// Any other word.
    #[serde(other)]
    Unknown,
}

/// What an agent tells the service; clients do not get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentSessionState {
    /// Always 1.
    #[serde(default)]
    pub schema_version: i64,
    /// How the session is.
    pub session_state: SessionState,
    /// The session.
    #[serde(default)]
    pub session_id: String,
}

impl AgentSessionState {
    /// The whole message.
    pub fn message(session_id: &str, session_state: SessionState, created_ms: u64) -> Bytes {
        let state = Self { schema_version: SCHEMA, session_state, session_id: session_id.to_owned() };
        let payload = json::write(&state);
        whole(MessageType::AgentSessionState, SYN_FIN, Uuid::new_v4(), created_ms, &payload)
    }

    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("agent_session_state", payload)
    }
}

fn whole(message_type: MessageType, flags: u64, id: Uuid, created_ms: u64, payload: &[u8]) -> Bytes {
    let payload_type = PayloadType::Unset;
    Draft { message_type, created_ms, sequence: 0, flags, id, payload_type, payload }.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn an_opening_is_the_json_of_a_plugin() {
        let open = OpenDataChannel::new("a token", "an id", Some("1.2.677.0"));
        let text = format!(
            r#"{{"MessageSchemaVersion":"1.0","RequestId":"{}","TokenValue":"a token","ClientId":"an id","ClientVersion":"1.2.677.0"}}"#,
            open.request_id
        );
        assert_eq!(open.to_text(), text);
        assert_eq!(OpenDataChannel::parse(&text), Ok(open));
        assert!(!OpenDataChannel::new("t", "c", None).to_text().contains("ClientVersion"));
    }

    #[test]
    fn an_opening_of_an_old_plugin_or_an_agent_is_read() {
        let old = r#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"t","ClientId":"c"}"#;
        assert_eq!(OpenDataChannel::parse(old).map(|open| open.client_version), Ok(None));
        let agent = r#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"t","ClientInstanceId":"i-0","ClientId":""}"#;
        let instance = OpenDataChannel::parse(agent).map(|open| open.client_instance_id);
        assert_eq!(instance, Ok(Some("i-0".to_owned())));
        let refused = Err(MessageError::Payload("OpenDataChannelInput"));
        for bad in ["", "{}", r#"{"TokenValue":null}"#, "token"] {
            assert_eq!(OpenDataChannel::parse(bad), refused);
        }
    }

    #[test]
    fn an_opening_never_shows_its_token() {
        let shown = format!("{:?}", OpenDataChannel::new("hush", "client", None));
        assert!(shown.contains("client") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_close_passes_every_check_of_a_plugin() {
        let message = Message::parse(ChannelClosed::message("alice-1", "denied", 1_700)).unwrap();
        assert_eq!(message.message_type(), MessageType::ChannelClosed);
        assert!(message.digest_matches() && message.created_ms() == 1_700);
        let closed = ChannelClosed::parse(message.payload()).unwrap();
        assert_eq!((closed.session_id.as_str(), closed.output.as_str()), ("alice-1", "denied"));
        assert_eq!(closed.message_id, message.id().to_string());
        let json: serde_json::Value = serde_json::from_slice(message.payload()).unwrap();
        assert_eq!(json["CreatedDate"], "1700");
        assert_eq!(json["SchemaVersion"], 1);
    }

    #[test]
    fn a_close_carries_no_control_characters_to_the_terminal() {
        let raw = ChannelClosed::message("s", "one\ntwo\u{1b}[2J\u{9b}\u{7}", 1);
        let closed = ChannelClosed::parse(Message::parse(raw).unwrap().payload()).unwrap();
        assert_eq!(closed.output, "one\ntwo[2J");
    }

    #[test]
    fn a_close_without_keys_is_still_a_close() {
        assert_eq!(ChannelClosed::parse(b"{}"), Ok(ChannelClosed::default()));
        assert_eq!(ChannelClosed::parse(b"{"), Err(MessageError::Payload("channel_closed")));
    }

    #[test]
    fn the_agents_state_is_read_back() {
        let raw = AgentSessionState::message("alice-1", SessionState::Terminating, 1);
        let message = Message::parse(raw).unwrap();
        assert_eq!((message.message_type(), message.flags()), (MessageType::AgentSessionState, SYN_FIN));
        let json = br#"{"SchemaVersion":1,"SessionState":"Terminating","SessionId":"alice-1"}"#;
        assert_eq!(message.payload(), json);
        assert_eq!(AgentSessionState::parse(json).map(|s| s.session_state), Ok(SessionState::Terminating));
        let other = AgentSessionState::parse(br#"{"SessionState":"Asleep"}"#);
        assert_eq!(other.map(|s| s.session_state), Ok(SessionState::Unknown));
    }
}
