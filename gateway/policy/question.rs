//! What may be asked: who wants to do what, to what, under which conditions.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::session::{Document, Instance, Principal, SessionId, SessionKind, printable};

/// One question to the policy.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What they want to do.
    pub action: Action,
    /// To what.
    pub resource: Resource<'a>,
    /// Under which conditions.
    pub context: Asked<'a>,
}

/// Everything the gateway asks the policy about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Open a shell.
    StartShell,
    /// Run one command.
    StartCommand,
    /// Open the standard streams of an SSH client.
    StartSsh,
    /// Forward a port of the target.
    ForwardPort,
    /// Forward a port of a host that the target reaches.
    ForwardPortToHost,
    /// Come back to a session that lost its connection.
    ResumeSession,
    /// End a session.
    TerminateSession,
    /// See a session that runs.
    WatchSession,
    /// Replay a recording.
    ReplayRecording,
    /// Put a legal hold on a recording, or end it.
    HoldRecording,
    /// See that an instance exists.
    ListTargets,
    /// Everything about the gateway that is not about one session.
    Administer,
}

impl Action {
    /// Every action, in the order of the schema.
    pub const ALL: [Self; 12] = [
        Self::StartShell,
        Self::StartCommand,
        Self::StartSsh,
        Self::ForwardPort,
        Self::ForwardPortToHost,
        Self::ResumeSession,
        Self::TerminateSession,
        Self::WatchSession,
        Self::ReplayRecording,
        Self::HoldRecording,
        Self::ListTargets,
        Self::Administer,
    ];

    /// Its name in policies, logs and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartShell => "startShell",
            Self::StartCommand => "startCommand",
            Self::StartSsh => "startSsh",
            Self::ForwardPort => "forwardPort",
            Self::ForwardPortToHost => "forwardPortToHost",
            Self::ResumeSession => "resumeSession",
            Self::TerminateSession => "terminateSession",
            Self::WatchSession => "watchSession",
            Self::ReplayRecording => "replayRecording",
            Self::HoldRecording => "holdRecording",
            Self::ListTargets => "listTargets",
            Self::Administer => "administer",
        }
    }

    /// Whether it opens a session: the group `startSession` of the schema.
    pub fn starts_session(self) -> bool {
        matches!(
            self,
            Self::StartShell
                | Self::StartCommand
                | Self::StartSsh
                | Self::ForwardPort
                | Self::ForwardPortToHost
        )
    }
}

impl Action {
    /// The document by which such a session is started if none is named.
    pub fn usual_document(self) -> &'static str {
        match self {
            Self::StartCommand => "AWS-StartNonInteractiveCommand",
            Self::StartSsh => "AWS-StartSSHSession",
            Self::ForwardPort => "AWS-StartPortForwardingSession",
            Self::ForwardPortToHost => "AWS-StartPortForwardingSessionToRemoteHost",
            _ => Document::SHELL,
        }
    }

    /// Whether its context may say what a session did so far.
    pub(super) fn is_about_sessions(self) -> bool {
        !matches!(self, Self::ListTargets | Self::Administer)
    }
}

impl From<SessionKind> for Action {
    fn from(kind: SessionKind) -> Self {
        match kind {
            SessionKind::Shell => Self::StartShell,
            SessionKind::InteractiveCommand | SessionKind::NonInteractiveCommand => Self::StartCommand,
            SessionKind::Ssh => Self::StartSsh,
            SessionKind::Port => Self::ForwardPort,
            SessionKind::PortToHost => Self::ForwardPortToHost,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the action is done to.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// A machine.
    Instance(&'a Instance),
    /// A session, of its owner on its machine.
    Session {
        /// The session.
        id: &'a SessionId,
        /// Who started it.
        owner: &'a Principal,
        /// Where it runs.
        instance: &'a Instance,
    },
    /// The recording of a session.
    Recording {
        /// The session.
        id: &'a SessionId,
        /// Who started it.
        owner: &'a Principal,
        /// Where it ran.
        instance: &'a Instance,
    },
    /// The gateway itself.
    Gateway,
}

impl<'a> Resource<'a> {
    /// The machine that it is or that it was on.
    pub fn instance(&self) -> Option<&'a Instance> {
        match *self {
            Self::Instance(instance) | Self::Session { instance, .. } | Self::Recording { instance, .. } => {
                Some(instance)
            }
            Self::Gateway => None,
        }
    }
}

impl fmt::Display for Resource<'_> {
    /// One safe phrase: `mi-0abc (web-prod)`, `session alice-…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longest name shown, in characters: the sentence stays one line.
        const NAME_MAX: usize = 64;
        match self {
            Self::Instance(instance) => {
                write!(f, "{}", instance.target)?;
                let name = instance.name.as_deref().map(printable).unwrap_or_default();
                if name.is_empty() {
                    return Ok(());
                }
                write!(f, " ({})", name.chars().take(NAME_MAX).collect::<String>())
            }
            Self::Session { id, .. } => write!(f, "session {id}"),
            Self::Recording { id, .. } => write!(f, "recording {id}"),
            Self::Gateway => f.write_str("this gateway"),
        }
    }
}

/// The conditions of a request, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The document of the session to start.
    pub document: Option<&'a Document>,
    /// The document's parameters.
    pub parameters: Option<&'a BTreeMap<String, Vec<String>>>,
    /// Why, in the caller's words.
    pub reason: Option<&'a str>,
    /// Where the request came from.
    pub source_ip: Option<IpAddr>,
    /// The session, if it runs already.
    pub session: Option<&'a SessionId>,
    /// The names of the alert rules that it met.
    pub alerts: &'a [String],
    /// How long it has been there, and what it moved.
    pub running: Option<Running>,
}

/// How long a session has been there, and what it moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running {
    /// Since it began.
    pub age: Duration,
    /// Since payload last moved, either way.
    pub idle: Duration,
    /// Payload bytes, both ways together.
    pub bytes: u64,
}

impl<'a> Asked<'a> {
    /// The reason, if it says anything at all.
    pub(super) fn stated_reason(&self) -> Option<&'a str> {
        self.reason.map(str::trim).filter(|reason| !reason.is_empty())
    }
}
