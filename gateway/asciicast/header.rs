//! The first line of a recording.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::CastError;

/// The header line of asciicast v2.
///
/// `postern` holds what the gateway adds: session id, principal, target,
/// document, kind, reason, decision, node. Players skip keys they don't know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Always 2.
    pub version: u8,
    /// Columns at the start.
    pub width: u16,
    /// Rows at the start.
    pub height: u16,
    /// When it began, seconds since the Unix epoch.
    #[serde(default)]
    pub timestamp: i64,
    /// Length in seconds, if known when written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Longest pause a player should keep, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_time_limit: Option<f64>,
    /// What players show as title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The command that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Environment that matters for playing: `TERM`, `SHELL`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What the gateway knows of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postern: Option<Map<String, Value>>,
}

impl Header {
    /// A header of 80 by 24 that began at `timestamp` (Unix seconds).
    pub fn new(timestamp: i64) -> Self {
        Self {
            version: 2,
            width: 80,
            height: 24,
            timestamp,
            duration: None,
            idle_time_limit: None,
            title: None,
            command: None,
            env: BTreeMap::new(),
            postern: None,
        }
    }

    /// What the gateway said of the session under that name.
    pub fn said(&self, name: &str) -> Option<&str> {
        self.postern.as_ref()?.get(name)?.as_str()
    }

    /// Reads a header line; the line feed may be there or not.
    pub fn parse(line: &[u8]) -> Result<Self, CastError> {
        let header: Self =
            serde_json::from_slice(line).map_err(|error| CastError::Header(error.to_string()))?;
        if header.version != 2 {
            return Err(CastError::Header(format!("version is {}", header.version)));
        }
        Ok(header)
    }

    /// Appends the header as one line, line feed included.
    pub fn write(&self, into: &mut Vec<u8>) -> Result<(), CastError> {
        serde_json::to_writer(&mut *into, self).map_err(|error| CastError::Header(error.to_string()))?;
        into.push(b'\n');
        Ok(())
    }
}
