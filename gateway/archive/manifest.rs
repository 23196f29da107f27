//! What the archive says of a recording, signed with the recording key.
//!
//! JSON, compact, fields in the order below; the signature is Ed25519 over
//! the JSON with an empty `signature`, as that of the evidence is.

use std::path::Path;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{ArchiveError, damage};
use crate::recorder::{self, PublicKey};
use crate::session::SessionId;

/// What the first field says; no other signed JSON of ours says that.
const FORMAT: &str = "postern-archive";

/// Where a recording comes from; what its evidence does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The session.
    pub session: SessionId,
    /// The principal's ARN.
    pub principal: String,
    /// The machine.
    pub target: String,
    /// How durable each event had to be before it was acknowledged.
    pub durability: Option<String>,
    /// When it began, ms since the Unix epoch.
    pub started_ms: u64,
    /// The node that archives it.
    pub node: String,
    /// When, ms since the Unix epoch.
    pub archived_ms: u64,
}

/// The manifest of an archived recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `postern-archive`.
    pub format: String,
    /// Version of this structure: 1.
    pub version: u32,
    /// The session.
    pub session: String,
    /// The principal's ARN.
    pub principal: String,
    /// The machine.
    pub target: String,
    /// What the recording holds, as its evidence says.
    pub content: Option<String>,
    /// How durable each event had to be before it was acknowledged.
    pub durability: Option<String>,
    /// When it began, ms since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, ms since the Unix epoch.
    pub ended_ms: u64,
    /// Why it ended, as its evidence says.
    pub end: String,
    /// What its evidence does not prove: losses, lines that nobody had signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hex: what `sha256sum` prints.
    pub sha256: String,
    /// SHA-256 of all its lines, hex: what `zstdcat | sha256sum` prints.
    pub lines_sha256: String,
    /// The last link of the recording's hash chain, base64.
    pub chain_head: Option<String>,
    /// Which key sealed the recording.
    pub recording_key_id: String,
    /// The node that archived it.
    pub node: String,
    /// When, ms since the Unix epoch.
    pub archived_ms: u64,
    /// Which key signed this manifest.
    pub key_id: String,
    /// Ed25519 signature, base64.
    pub signature: String,
}

impl Manifest {
    /// The manifest of a sealed file, not signed yet.
    pub(super) fn of(
        path: &Path,
        origin: Origin,
        (sha256, bytes): (String, u64),
    ) -> Result<Self, ArchiveError> {
        let evidence = recorder::evidence(path).map_err(|found| damage(&origin.session, &found))?;
        let refused =
            |why: &str| ArchiveError::NotSealed { session: origin.session.clone(), why: why.into() };
        let evidence = evidence.ok_or_else(|| refused("it is not sealed"))?;
        if evidence.session != origin.session.as_str() {
            return Err(refused("its evidence is of another session"));
        }
        let doubts = evidence.doubts();
        Ok(Self {
            format: FORMAT.to_owned(),
            version: 1,
            session: evidence.session,
            principal: origin.principal,
            target: origin.target,
            content: evidence.content,
            durability: origin.durability,
            started_ms: origin.started_ms,
            ended_ms: origin.started_ms.saturating_add(evidence.end.at_ms),
            end: evidence.end.reason,
            doubts,
            bytes,
            sha256,
            lines_sha256: evidence.lines_sha256,
            chain_head: evidence.segments.last().map(|segment| segment.hash.clone()),
            recording_key_id: evidence.key_id,
            node: origin.node,
            archived_ms: origin.archived_ms,
            key_id: String::new(),
            signature: String::new(),
        })
    }

    /// The same, signed; `sign` gives the key's id and the signature.
    pub(super) fn signed(mut self, key_id: String, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        (self.key_id, self.signature) = (key_id, String::new());
        self.signature = BASE64.encode(&sign(&self.to_json()));
        self
    }

    /// Reads a manifest; any other spelling than ours is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT || manifest.version != 1 {
            return Err("it is no manifest of a version known here".to_owned());
        }
        if manifest.to_json() != bytes {
            return Err("it is not spelt as it was signed".to_owned());
        }
        Ok(manifest)
    }

    /// Whether one of the keys signed it.
    pub fn signed_by(&self, trusted: &[PublicKey]) -> bool {
        let unsigned = Self { signature: String::new(), ..self.clone() };
        let Ok(signature) = BASE64.decode(self.signature.as_bytes()) else { return false };
        let json = unsigned.to_json();
        trusted.iter().any(|key| key.id() == self.key_id && key.verifies(&json, &signature))
    }

    /// The canonical JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn session(&self) -> Result<SessionId, ArchiveError> {
        SessionId::parse(&self.session).map_err(|error| ArchiveError::Config(error.to_string()))
    }
}
