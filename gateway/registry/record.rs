//! The rows as the program sees them: sessions, their states, decisions.

use serde::{Deserialize, Serialize};

use crate::session::{Document, Instance, Principal, SessionId, SessionKind, Target};

/// Where a session stands, in the words of the SSM API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Handed out; no client has come yet.
    Connecting,
    /// A client is on the data channel.
    Connected,
    /// The client is away and may resume.
    Disconnected,
    /// Being ended.
    Terminating,
    /// Over.
    Terminated,
    /// Never came to be, or broke.
    Failed,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Connecting,
        Self::Connected,
        Self::Disconnected,
        Self::Terminating,
        Self::Terminated,
        Self::Failed,
    ];

    /// The word of the API and of the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::Disconnected => "Disconnected",
            Self::Terminating => "Terminating",
            Self::Terminated => "Terminated",
            Self::Failed => "Failed",
        }
    }

    /// The state of that word, if there is one.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the session is over; such a state is never left.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Terminated | Self::Failed)
    }

    /// Whether the session is over or about to be.
    pub fn is_ending(self) -> bool {
        self.is_over() || self == Self::Terminating
    }
}

/// One session, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub principal: Principal,
    /// The machine.
    pub target: Target,
    /// The machine as it was described when the session began.
    ///
    /// Who may look at the session later is decided on these tags, also
    /// when the machine is long gone.
    pub instance: Instance,
    /// The document it runs.
    pub document: Document,
    /// What it carries.
    pub kind: SessionKind,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Where it stands.
    pub state: State,
    /// When it began, ms since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, ms since the Unix epoch.
    pub ended_ms: Option<u64>,
    /// Why it ended, in one safe line; the first reason given stays.
    pub end_reason: Option<String>,
    /// The session's id at AWS.
    pub upstream_id: Option<String>,
    /// The decision that let it begin; recorded before the session.
    pub decision_id: String,
    /// The node that started it.
    pub node: String,
    /// SHA-256 of the sealed recording, hex.
    pub recording_sha256: Option<String>,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
}

/// One decision, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Its id, a UUID.
    pub id: String,
    /// When, ms since the Unix epoch.
    pub at_ms: u64,
    /// Who asked.
    pub principal: Principal,
    /// What for, as the policy names it.
    pub action: String,
    /// On which machine, if on one.
    pub target: Option<Target>,
    /// With which document, if with one.
    pub document: Option<Document>,
    /// For which session, if there is one yet.
    pub session: Option<SessionId>,
    /// The answer.
    pub allowed: bool,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The answer in one safe line.
    pub sentence: String,
    /// The digest of the policy folder that decided.
    pub policy_digest: String,
    /// The address the caller came from.
    pub source_ip: Option<String>,
    /// All that was asked, in the policy's own form, to be asked again.
    #[serde(default)]
    pub request: Option<serde_json::Value>,
    /// What a permit obliged the gateway to, in the policy's own form.
    #[serde(default)]
    pub obligations: Option<serde_json::Value>,
    /// How long the answer took, microseconds.
    #[serde(default)]
    pub took_us: Option<u64>,
    /// The node that decided.
    #[serde(default)]
    pub node: Option<String>,
    /// The session that it let begin; known once that has begun.
    #[serde(default)]
    pub started: Option<SessionId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("connected"), None);
    }
}
