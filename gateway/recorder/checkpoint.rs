//! What proves a recording while its session runs: signed every few seconds.
//!
//! A checkpoint says where the hash chain stood after so many lines. It is one
//! line of JSON beside the open file, `<recording>.checkpoint`, in place of
//! the one before: the chain goes through all earlier lines anyway. After a
//! crash it tells what was there from what somebody made of it since.
//!
//! The first one, about the header alone, stays as `<recording>.begun` until
//! the seal: what has neither was not begun by this gateway, or was sealed
//! already, and is never signed.

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
/// What the name of the first one ends with.
const BEGUN_SUFFIX: &str = ".begun";
/// What a checkpoint's name ends with, after that, until it is whole.
const DRAFT_SUFFIX: &str = "-new";
/// Longest checkpoint that is read, bytes.
const LENGTH_MAX: u64 = 64 * 1024;

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
    /// When later processes went on with the recording, and from where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takeovers: Vec<Takeover>,
    /// When it was signed, milliseconds since the Unix epoch.
    pub signed_ms: u64,
    /// Which key signed.
    pub key_id: String,
    /// Ed25519 signature, base64.
    pub signature: String,
}

/// A later process went on with a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How many lines it found, header included.
    pub lines: u64,
    /// Time of the last of them, milliseconds since the recording began.
    pub until_ms: u64,
    /// How many of them the process before had signed; 1 is the header.
    ///
    /// The lines after these were in the spool when the gateway came back.
    pub signed_lines: u64,
    /// Time of the last that was signed.
    pub signed_until_ms: u64,
    /// When that was signed, milliseconds since the Unix epoch.
    pub signed_ms: u64,
    /// The hash chain's head after it.
    pub signed_head: Head,
}

impl Checkpoint {
    /// Signs where a recording stands, and who went on with it.
    pub(super) fn sign(
        session: &SessionId,
        stand: Stand,
        takeovers: &[Takeover],
        key: &SigningKey,
    ) -> io::Result<Self> {
        let mut checkpoint = Self {
            format: "postern-checkpoint".into(),
            version: 1,
            session: session.to_string(),
            lines: stand.lines,
            bytes: stand.bytes,
            until_ms: stand.until_ms,
            head: stand.head,
            takeovers: takeovers.to_vec(),
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
    ///
    /// With `disk` it is never there in pieces, whatever happens to the
    /// machine: at worst the one before is (one `fdatasync(2)`).
    pub fn write(&self, recording: &Path, disk: bool) -> io::Result<()> {
        self.write_as(&beside(recording, SUFFIX), disk)
    }

    /// Puts it beside a recording that begins.
    pub(super) fn write_begun(&self, recording: &Path) -> io::Result<()> {
        self.write_as(&Self::begun_path(recording), false)
    }

    /// Where the one of the beginning is.
    pub(super) fn begun_path(recording: &Path) -> PathBuf {
        beside(recording, BEGUN_SUFFIX)
    }

    fn write_as(&self, path: &Path, disk: bool) -> io::Result<()> {
        let draft = beside(path, DRAFT_SUFFIX);
        let json = serde_json::to_vec(self)?;
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let written = made.and_then(|mut file| {
            file.write_all(&json)?;
            if disk {
                file.sync_data()?;
            }
            fs::rename(&draft, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// The one beside a recording; `None` if there is none.
    pub fn read(recording: &Path) -> io::Result<Option<Self>> {
        read(&beside(recording, SUFFIX))
    }

    /// The one that was written when the recording began.
    pub(super) fn read_begun(recording: &Path) -> io::Result<Option<Self>> {
        read(&Self::begun_path(recording))
    }

    /// Removes those beside a recording: the seal proves more.
    pub fn remove(recording: &Path) {
        for suffix in [SUFFIX, BEGUN_SUFFIX] {
            let _ = fs::remove_file(beside(recording, suffix));
        }
    }

    /// The name of the recording that a file of this name is beside.
    pub(super) fn recording_of(name: &str) -> Option<&str> {
        name.strip_suffix(SUFFIX).or_else(|| name.strip_suffix(BEGUN_SUFFIX))
    }

    /// Whether a file of this name never became one.
    pub(super) fn is_draft(name: &str) -> bool {
        name.strip_suffix(DRAFT_SUFFIX).is_some_and(|name| Self::recording_of(name).is_some())
    }
}

fn read(path: &Path) -> io::Result<Option<Checkpoint>> {
    match fs::metadata(path) {
        Ok(found) if found.len() <= LENGTH_MAX => {
            serde_json::from_slice(&fs::read(path)?).map(Some).map_err(io::Error::from)
        }
        Ok(_) => Err(io::Error::other("it is too long")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
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
