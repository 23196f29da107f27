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
