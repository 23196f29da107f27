//! The handshake: what the agent asks before a session, and the answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::json::{self, null_is_default};
use crate::message::MessageError;

/// The action that names the session's type.
const SESSION_TYPE: &str = "SessionType";
/// The action that sets up encryption.
const KMS_ENCRYPTION: &str = "KMSEncryption";

/// What the agent asks of the client (payload type 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    /// Four numbers with dots; the plugin picks its port mode by it.
    #[serde(default)]
    pub agent_version: String,
    /// What the client has to do, in order.
    #[serde(default, deserialize_with = "null_is_default")]
    pub requested_client_actions: Vec<RequestedAction>,
}

/// One thing the client has to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestedAction {
    /// `SessionType` or `KMSEncryption`; a peer may know more.
    pub action_type: String,
    /// What the action needs, by its type.
    #[serde(default)]
    pub action_parameters: Value,
}

/// Which kind of session the agent runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionTypeAction {
    /// `Standard_Stream`, `InteractiveCommands`, `NonInteractiveCommands` or `Port`.
    pub session_type: String,
    /// `null` for shells; for `Port` the document's resolved properties.
    #[serde(default)]
    pub properties: Value,
}

/// Which key encrypts the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsAction {
    /// The key's ARN or id.
    #[serde(rename = "KMSKeyId")]
    pub kms_key_id: String,
    /// Base64 of 16 random bytes; newer agents only.
    #[serde(rename = "Challenge", default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
}

impl KmsAction {
    /// Whether the agent wants its challenge bound to the key.
    pub fn has_challenge(&self) -> bool {
        self.challenge.as_ref().is_some_and(|challenge| !challenge.is_empty())
    }
}

impl HandshakeRequest {
    /// A request with the one action that every session needs.
    pub fn new(agent_version: &str, session_type: &str, properties: Value) -> Self {
        let action = SessionTypeAction { session_type: session_type.to_owned(), properties };
        Self {
            agent_version: agent_version.to_owned(),
            requested_client_actions: vec![RequestedAction {
                action_type: SESSION_TYPE.to_owned(),
                action_parameters: serde_json::to_value(action).unwrap_or_default(),
            }],
        }
    }

    /// The session's type, if the agent names it.
    pub fn session_type(&self) -> Option<SessionTypeAction> {
        self.action(SESSION_TYPE)
    }

    /// The session's key, if it is to be encrypted.
    pub fn kms_encryption(&self) -> Option<KmsAction> {
        self.action(KMS_ENCRYPTION)
    }

    /// Whether encryption is asked for, in words that can be read or not.
    pub fn asks_for_encryption(&self) -> bool {
        self.requested_client_actions.iter().any(|action| action.action_type == KMS_ENCRYPTION)
    }

    /// The same request with encryption asked for too.
    pub fn encrypted_with(mut self, key: &KmsAction) -> Self {
        self.requested_client_actions.push(RequestedAction {
            action_type: KMS_ENCRYPTION.to_owned(),
            action_parameters: serde_json::to_value(key).unwrap_or_default(),
        });
        self
    }

    /// The same request for a client that is to know of no encryption.
    pub fn without_encryption(mut self) -> Self {
        self.requested_client_actions.retain(|action| action.action_type != KMS_ENCRYPTION);
        self
    }

    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("HandshakeRequest", payload)
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        json::write(self)
    }

    fn action<T: for<'de> Deserialize<'de>>(&self, action_type: &str) -> Option<T> {
        let action = self.requested_client_actions.iter().find(|a| a.action_type == action_type)?;
        T::deserialize(&action.action_parameters).ok()
    }
}

/// What the client answers (payload type 6).
///
/// An agent fails the session on any action that did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    /// The agent picks its port mode by it.
    #[serde(default)]
    pub client_version: String,
    /// What became of each requested action.
    #[serde(default, deserialize_with = "null_is_default")]
    pub processed_client_actions: Vec<ProcessedAction>,
    /// What went wrong, `null` if nothing did.
    #[serde(default)]
    pub errors: Option<Vec<String>>,
}

/// What became of one requested action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedAction {
    /// The requested action's type.
    pub action_type: String,
    /// Whether it worked.
    pub action_status: ActionStatus,
    /// What the action gave, by its type; `null` for most.
    #[serde(default)]
    pub action_result: Value,
    /// Empty if it worked.
    #[serde(default, deserialize_with = "null_is_default")]
    pub error: String,
}

/// What a client answers when it has the session's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsResult {
    /// Base64 of the data key as KMS sealed it; the agent has it opened.
    #[serde(rename = "KMSCipherTextKey")]
    pub sealed: String,
    /// Never seen other than `null`.
    #[serde(rename = "KMSCipherTextHash", default)]
    pub hash: Option<String>,
    /// Whether the agent's challenge is bound to the key; newer peers only.
    #[serde(rename = "ChallengeAcknowledgement", default, skip_serializing_if = "std::ops::Not::not")]
    pub challenge_acknowledged: bool,
}

impl KmsResult {
    /// The answer with a key as KMS sealed it.
    pub fn new(sealed: &[u8], challenge_acknowledged: bool) -> Self {
        Self { sealed: STANDARD.encode(sealed), hash: None, challenge_acknowledged }
    }

    /// The key as KMS sealed it.
    pub fn sealed_key(&self) -> Result<Vec<u8>, MessageError> {
        STANDARD.decode(&self.sealed).map_err(|_| MessageError::Payload("KMSCipherTextKey"))
    }
}

/// Whether an action worked; a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionStatus {
    /// 1.
    Success,
    /// 2.
    Failed,
    /// 3.
    Unsupported,
    /// Any other; plugins answer 0 to an action they do not know.
    Other(i64),
}

impl HandshakeResponse {
    /// Answers a request: session types we know succeed, the rest does not.
    ///
    /// Encryption is answered as unsupported; replace that action's row when
    /// the client can do it.
    pub fn answering(request: &HandshakeRequest, client_version: &str) -> Self {
        let actions: Vec<_> = request.requested_client_actions.iter().map(ProcessedAction::of).collect();
        let errors: Vec<_> = actions.iter().map(|a| &a.error).filter(|e| !e.is_empty()).cloned().collect();
        Self {
            client_version: client_version.to_owned(),
            processed_client_actions: actions,
            errors: (!errors.is_empty()).then_some(errors),
        }
    }

    /// The same answer with the key's result, whatever it said of it before.
    pub fn with_key(mut self, key: &KmsResult) -> Self {
        self.processed_client_actions.retain(|action| action.action_type != KMS_ENCRYPTION);
        self.processed_client_actions.push(ProcessedAction {
            action_type: KMS_ENCRYPTION.to_owned(),
            action_status: ActionStatus::Success,
            action_result: serde_json::to_value(key).unwrap_or_default(),
            error: String::new(),
        });
        self
    }

    /// What the client says of the key, if it has one.
    pub fn key(&self) -> Option<KmsResult> {
        let action = self.processed_client_actions.iter().find(|a| a.action_type == KMS_ENCRYPTION)?;
        KmsResult::deserialize(&action.action_result).ok()
    }

    /// Whether every answered action worked.
    pub fn is_success(&self) -> bool {
        self.processed_client_actions.iter().all(|action| action.action_status == ActionStatus::Success)
    }

    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("HandshakeResponse", payload)
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        json::write(self)
    }
}

impl ProcessedAction {
    fn of(action: &RequestedAction) -> Self {
        let named = action.action_parameters.get("SessionType").and_then(Value::as_str);
        let (action_status, error) = match (action.action_type.as_str(), named) {
            (SESSION_TYPE, Some(name)) if is_known_session_type(name) => {
                (ActionStatus::Success, String::new())
            }
            (SESSION_TYPE, name) => {
                (ActionStatus::Failed, format!("Unknown session type {}", name.unwrap_or_default()))
            }
            (other, _) => (ActionStatus::Unsupported, format!("Unsupported action {other}")),
        };
        let action_type = action.action_type.clone();
        Self { action_type, action_status, action_result: Value::Null, error }
    }
}

fn is_known_session_type(name: &str) -> bool {
    matches!(name, "Standard_Stream" | "InteractiveCommands" | "NonInteractiveCommands" | "Port")
}

impl Serialize for ActionStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(match self {
            Self::Success => 1,
            Self::Failed => 2,
            Self::Unsupported => 3,
            Self::Other(number) => *number,
        })
    }
}

impl<'de> Deserialize<'de> for ActionStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match i64::deserialize(deserializer)? {
            1 => Self::Success,
            2 => Self::Failed,
            3 => Self::Unsupported,
            other => Self::Other(other),
        })
    }
}

/// The agent starts the session (payload type 7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeComplete {
    /// How long the handshake took, in nanoseconds.
    #[serde(default)]
    pub handshake_time_to_complete: i64,
    /// What the client prints, if not empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub customer_message: String,
}

impl HandshakeComplete {
    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("HandshakeComplete", payload)
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        json::write(self)
    }
}

/// A proof that both ends have the key (payload types 8 and 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncChallenge {
    /// Base64 of the encrypted random bytes.
    pub challenge: String,
}

impl EncChallenge {
    /// A challenge, or the answer to one, from its encrypted bytes.
    pub fn new(encrypted: &[u8]) -> Self {
        Self { challenge: STANDARD.encode(encrypted) }
    }

    /// The encrypted bytes.
    pub fn encrypted(&self) -> Result<Vec<u8>, MessageError> {
        STANDARD.decode(&self.challenge).map_err(|_| MessageError::Payload("EncChallenge"))
    }

    /// Reads the payload.
    pub fn parse(payload: &[u8]) -> Result<Self, MessageError> {
        json::read("EncChallenge", payload)
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        json::write(self)
    }
}

#[cfg(test)]
mod tests;
