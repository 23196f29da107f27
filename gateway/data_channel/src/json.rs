//! How the JSON payloads are read and written.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::message::MessageError;

/// Reads a payload; the error names the type and shows nothing of it.
pub(crate) fn read<T: DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, MessageError> {
    serde_json::from_slice(json).map_err(|_| MessageError::Payload(what))
}

/// Writes a payload; the types of this crate always can be.
pub(crate) fn write<T: Serialize>(payload: &T) -> Vec<u8> {
    serde_json::to_vec(payload).unwrap_or_default()
}

/// Takes `null` for the default, as Go writes its empty lists.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
