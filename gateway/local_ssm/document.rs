//! What work a session document is for the agent.

mod content;
mod parameters;
mod words;

use std::collections::BTreeMap;

use data_channel::PayloadType;
use serde::Deserialize;
use serde_json::Value;

pub(super) use content::Content;
use content::{Resolved, SessionType};
use words::words;

use crate::error::{ApiError, Code};

/// Longest prefix of a separate stream's lines, as in the agent.
const PREFIX_MAX: usize = 30;
/// The type of port sessions that may be multiplexed.
const FORWARDING: &str = "LocalPortForwarding";

/// What the agent runs for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// The target's shell on a terminal; no handshake.
    Shell {
        /// Typed into it first; empty for nothing.
        profile: String,
    },
    /// `sh -c COMMAND` on a terminal; no handshake.
    InteractiveCommand(String),
    /// A program without terminal or input; always a handshake.
    NonInteractiveCommand {
        /// The program and its arguments; no shell reads them.
        argv: Vec<String>,
        /// Standard error and exit code as payload types of their own.
        separate: Option<Separators>,
    },
    /// TCP connections; always a handshake.
    Port(PortWork),
}

/// What stands before each new line of a command's separate streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Separators {
    /// Before standard output; mostly empty.
    pub(super) out: String,
    /// Before standard error.
    pub(super) err: String,
}

/// What a port session connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortWork {
    /// The document's properties, as the handshake tells them.
    pub(super) properties: Value,
    /// The host; the target itself if none.
    pub(super) host: Option<String>,
    /// The port.
    pub(super) port: u16,
    /// Whether it is a port forwarding: more than one connection.
    pub(super) forwards: bool,
}

impl Work {
    /// What a document asks for with these parameters.
    pub(super) fn of(content: &Content, given: &BTreeMap<String, Vec<String>>) -> Result<Self, ApiError> {
        let resolved = content.resolve(given)?;
        match resolved.session_type {
            SessionType::StandardStream => Ok(Self::Shell { profile: resolved.inputs.shell_profile.linux }),
            SessionType::InteractiveCommands => Ok(Self::InteractiveCommand(command(&resolved)?.commands)),
            SessionType::NonInteractiveCommands => {
                let command = command(&resolved)?;
                let argv =
                    words(&command.commands).ok_or_else(|| invalid("The command has an open quote."))?;
                Ok(Self::NonInteractiveCommand { argv, separate: command.separators()? })
            }
            SessionType::Port => PortWork::of(resolved.properties).map(Self::Port),
        }
    }

    /// The session type, as handshakes name it.
    pub(super) fn session_type(&self) -> &'static str {
        match self {
            Self::Shell { .. } => "Standard_Stream",
            Self::InteractiveCommand(_) => "InteractiveCommands",
            Self::NonInteractiveCommand { .. } => "NonInteractiveCommands",
            Self::Port(_) => "Port",
        }
    }

    /// Whether the agent starts with a handshake.
    pub(super) fn has_handshake(&self) -> bool {
        matches!(self, Self::NonInteractiveCommand { .. } | Self::Port(_))
    }

    /// Whether standard error and exit code have payload types of their own.
    pub(super) fn has_separate_streams(&self) -> bool {
        matches!(self, Self::NonInteractiveCommand { separate: Some(_), .. })
    }

    /// What stands before a new line of a stream.
    pub(super) fn separator(&self, kind: PayloadType) -> &str {
        match (self, kind) {
            (Self::NonInteractiveCommand { separate: Some(before), .. }, PayloadType::StdErr) => &before.err,
            (Self::NonInteractiveCommand { separate: Some(before), .. }, _) => &before.out,
            _ => "",
        }
    }

    /// What the handshake tells beside the type.
    pub(super) fn properties(&self) -> Value {
        match self {
            Self::Port(port) => port.properties.clone(),
            _ => Value::Null,
        }
    }
}

impl PortWork {
    fn of(properties: Value) -> Result<Self, ApiError> {
        /// The agent reads texts only; a number is no port.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Properties {
            #[serde(default)]
            host: String,
            port_number: String,
            #[serde(rename = "type", default)]
            kind: String,
        }
        let read = Properties::deserialize(&properties)
            .map_err(|error| invalid(&format!("The document's properties are not valid: {error}")))?;
        let port = read.port_number.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| invalid("The document's portNumber is no port."))?;
        let host = Some(read.host).filter(|host| !host.is_empty());
        Ok(Self { properties, host, port, forwards: read.kind == FORWARDING })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Platforms {
    linux: Option<Command>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    commands: String,
    #[serde(default)]
    separate_output_stream: Value,
    #[serde(default)]
    std_out_separator_prefix: String,
    #[serde(default)]
    std_err_separator_prefix: String,
}

impl Command {
    fn separators(self) -> Result<Option<Separators>, ApiError> {
        if !flag(&self.separate_output_stream)? {
            return Ok(None);
        }
        let (out, err) = (self.std_out_separator_prefix, self.std_err_separator_prefix);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'\r' | b'\n' | b'_' | b':' | b'-');
        if [&out, &err].iter().any(|prefix| prefix.len() > PREFIX_MAX || !prefix.bytes().all(plain)) {
            return Err(invalid("The document has a separator prefix that is not valid."));
        }
        Ok(Some(Separators { out, err }))
    }
}

fn command(resolved: &Resolved) -> Result<Command, ApiError> {
    let platforms = Platforms::deserialize(&resolved.properties)
        .map_err(|error| invalid(&format!("The document's properties are not valid: {error}")))?;
    let command = platforms.linux.ok_or_else(|| invalid("The document has no commands for Linux."))?;
    match command.commands.trim().is_empty() {
        true => Err(invalid("The document's commands are empty.")),
        false => Ok(command),
    }
}

/// A boolean, which documents write as text too.
fn flag(value: &Value) -> Result<bool, ApiError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text.is_empty() => Ok(false),
        Value::String(text) => text.parse().map_err(|_| invalid("separateOutputStream is no boolean.")),
        _ => Err(invalid("separateOutputStream is no boolean.")),
    }
}

fn invalid(why: &str) -> ApiError {
    ApiError::client(Code::InvalidDocument, why)
}
