//! What a session document says, and what that is for one session.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::parameters::{Parameter, filled, values};
use crate::error::{ApiError, Code};

/// The only schema of session documents.
const SCHEMA: &str = "1.0";
/// Longest document, bytes, as in AWS.
const CONTENT_MAX: usize = 64 << 10;

/// A document as its author wrote it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::local_ssm) struct Content {
    schema_version: String,
    session_type: SessionType,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    inputs: Value,
    #[serde(default)]
    properties: Value,
}

/// The four kinds of session that the agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum SessionType {
    #[serde(rename = "Standard_Stream")]
    StandardStream,
    InteractiveCommands,
    NonInteractiveCommands,
    Port,
}

/// A document with its parameters put in.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) session_type: SessionType,
    pub(super) inputs: Inputs,
    pub(super) properties: Value,
}

/// What the agent heeds of a document's inputs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Inputs {
    pub(super) shell_profile: ShellProfile,
    pub(super) kms_key_id: String,
}

/// What is typed into a fresh shell.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ShellProfile {
    pub(super) linux: String,
}

impl Content {
    /// Reads a document, or says why it is none.
    pub(in crate::local_ssm) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > CONTENT_MAX {
            return Err(format!("it has more than {CONTENT_MAX} bytes"));
        }
        let content: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if content.schema_version != SCHEMA {
            return Err(format!("its schema version is not {SCHEMA}"));
        }
        let plain = |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        match content.parameters.keys().find(|name| !plain(name)) {
            Some(name) => Err(format!("the parameter name {name:?} has more than letters and digits")),
            None => Ok(content),
        }
    }

    /// The document for a session that gives these parameters.
    pub(super) fn resolve(&self, given: &BTreeMap<String, Vec<String>>) -> Result<Resolved, ApiError> {
        let values = values(&self.parameters, given)?;
        let inputs = match filled(&self.inputs, &values) {
            Value::Null => Inputs::default(),
            inputs => serde_json::from_value(inputs).map_err(|error| {
                ApiError::client(
                    Code::InvalidDocument,
                    format!("The document's inputs are not valid: {error}"),
                )
            })?,
        };
        let properties = filled(&self.properties, &values);
        Ok(Resolved { session_type: self.session_type, inputs, properties })
    }

    /// The KMS key that its sessions are encrypted with, if any.
    pub(in crate::local_ssm) fn kms_key(
        &self,
        given: &BTreeMap<String, Vec<String>>,
    ) -> Result<Option<String>, ApiError> {
        Ok(Some(self.resolve(given)?.inputs.kms_key_id).filter(|key| !key.is_empty()))
    }
}
