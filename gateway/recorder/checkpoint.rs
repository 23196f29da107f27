//! What proves a recording while its session runs: signed every few seconds.
//!
//! A checkpoint says where the hash chain stood after so many lines. It is one
//! line of JSON beside the open file, `<recording>.checkpoint`, in place of
//! the one before: the chain goes through all earlier lines anyway. After a
//! crash it tells what was there from what somebody made of it since.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::links::{Head, Links};
use super::{PublicKey, SigningKey};
use crate::session::{SessionId, now_ms};

/// What a checkpoint's file name ends with, after the recording's.
const SUFFIX: &str = ".checkpoint";
/// Longest checkpoint that is read, bytes.
const LENGTH_MAX: u64 = 4096;

/// A signed statement about the first lines of a recording.
///
/// The signature is Ed25519 over the JSON with an empty `signature`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Always `postern-checkpoint`.
    pub format: String,
    /// Version of this structure: 1.
    pub version: u32,
    /// The session.
    pub session: String,
    /// How many lines, header included.
    pub lines: u64,
    /// Their size.
    pub bytes: u64,
    /// Time of the last of them, milliseconds since the recording began.
    pub until_ms: u64,
    /// The hash chain's head after the last of them.
    pub head: Head,
    /// When it was signed, milliseconds since the Unix epoch.
    pub signed_ms: u64,
    /// Which key signed.
    pub key_id: String,
    /// Ed25519 signature, base64.
    pub signature: String,
}

impl Checkpoint {
    /// Signs where a recording stands.
    pub(super) fn sign(session: &SessionId, stand: Stand, key: &SigningKey) -> serde_json::Result<Self> {
        let mut checkpoint = Self {
            format: "postern-checkpoint".into(),
            version: 1,
            session: session.to_string(),
            lines: stand.lines,
            bytes: stand.bytes,
            until_ms: stand.until_ms,
            head: stand.head,
            signed_ms: now_ms(),
            key_id: key.public().id(),
            signature: String::new(),
        };
        checkpoint.signature = BASE64.encode(&key.sign(&serde_json::to_vec(&checkpoint)?));
        Ok(checkpoint)
    }

    /// Whether one of these keys signed it.
    pub fn signed_by(&self, keys: &[PublicKey]) -> bool {
        let unsigned = serde_json::to_vec(&Self { signature: String::new(), ..self.clone() });
        let (Ok(unsigned), Ok(signature)) = (unsigned, BASE64.decode(self.signature.as_bytes())) else {
            return false;
        };
        let known = self.format == "postern-checkpoint" && self.version == 1;
        let key = keys.iter().find(|key| key.id() == self.key_id);
        known && key.is_some_and(|key| key.verifies(&unsigned, &signature))
    }

    /// Puts it beside the recording, in place of the one before.
    pub fn write(&self, recording: &Path) -> io::Result<()> {
        let path = path_of(recording);
        let draft = path.with_extension("checkpoint-new");
        let json = serde_json::to_vec(self)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&json)?;
        fs::rename(&draft, &path)
    }

    /// The one beside a recording; `None` if there is none.
    pub fn read(recording: &Path) -> io::Result<Option<Self>> {
        let path = path_of(recording);
        match fs::metadata(&path) {
            Ok(found) if found.len() <= LENGTH_MAX => {
                serde_json::from_slice(&fs::read(&path)?).map(Some).map_err(io::Error::from)
            }
            Ok(_) => Err(io::Error::other("it is too long")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the one beside a recording: the seal proves more.
    pub fn remove(recording: &Path) {
        let _ = fs::remove_file(path_of(recording));
    }
}

fn path_of(recording: &Path) -> PathBuf {
    let mut name = recording.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// What a checkpoint will say of a recording.
#[derive(Clone, Copy)]
pub(super) struct Stand {
    /// How many lines, header included.
    pub(super) lines: u64,
    /// Their size.
    pub(super) bytes: u64,
    /// Time of the last of them.
    pub(super) until_ms: u64,
    /// The chain after it.
    pub(super) head: Head,
}

/// Holds lines against the checkpoint as they are read.
pub(super) struct Witness {
    checkpoint: Option<Checkpoint>,
    links: Links,
}

impl Witness {
    /// A witness that has seen no line.
    pub(super) fn new(checkpoint: Option<Checkpoint>) -> Self {
        Self { checkpoint, links: Links::new() }
    }

    /// Takes the next line; false if it cannot be the one that was signed.
    pub(super) fn line(&mut self, line: &[u8]) -> bool {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|known| self.links.lines() < known.lines)
        else {
            return true;
        };
        self.links.line(line);
        self.links.lines() < checkpoint.lines || self.links.head() == checkpoint.head
    }

    /// Lines are lost here: what comes after cannot be told apart.
    pub(super) fn lost(&mut self) {
        if self.missing().is_some() {
            self.checkpoint = None;
        }
    }

    /// The checkpoint, if every line of it was there.
    pub(super) fn proved(self) -> Option<Checkpoint> {
        self.checkpoint.filter(|known| self.links.lines() == known.lines)
    }

    /// The checkpoint, if lines of it are missing.
    pub(super) fn missing(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref().filter(|known| self.links.lines() < known.lines)
    }
}
