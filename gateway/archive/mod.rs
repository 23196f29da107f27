//! Where are recordings kept for good? A directory, or S3.
//!
//! Each recording is two objects: `recordings/ID.cast.zst`, the sealed file
//! as it was in the spool, and `recordings/ID.json`, a signed [`Manifest`]
//! that is written last. What has no manifest is not in the archive.

mod config;
mod manifest;
mod place;
mod reading;
#[cfg(test)]
mod tests;
mod verify;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use aws_credential_types::provider::SharedCredentialsProvider;
use ring::digest::{Context, SHA256};

pub use config::{ArchiveConfig, LockMode};
pub use manifest::{Manifest, Origin};
pub use place::Whereabouts;
pub use reading::Reading;
pub use verify::Finding;

use self::place::Place;
use crate::recorder::{Damage, PublicKey, RECORDING_SUFFIX};
use crate::session::{SessionId, printable};

/// Where objects are, below the prefix.
const FOLDER: &str = "recordings";
/// What a manifest's name ends with, after the session id.
const MANIFEST_SUFFIX: &str = ".json";
/// Longest manifest that is read, bytes; ours have some 1 KB.
const MANIFEST_MAX: u64 = 64 * 1024;

/// What calls to AWS are made with.
#[derive(Clone)]
pub struct Access {
    /// Trusts the roots that the operator names.
    pub http: reqwest::Client,
    /// Where keys come from; S3 cannot be used without.
    pub credentials: Option<SharedCredentialsProvider>,
    /// The region of the AWS configuration.
    pub region: Option<String>,
    /// Another S3 than AWS's, if the AWS configuration names one.
    pub endpoint_url: Option<String>,
}

/// Why the archive did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The configuration cannot be used.
    #[error("archive: {0}")]
    Config(String),
    /// The directory or S3 said no.
    #[error("the archive {place}: {why}")]
    Store {
        /// Which archive.
        place: String,
        /// What it said.
        why: String,
    },
    /// The recording's file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// Why.
        why: std::io::Error,
    },
    /// What is to be archived is not a sealed recording.
    #[error("the recording of session {session} is not archived: {why}")]
    NotSealed {
        /// The session.
        session: SessionId,
        /// What is wrong with it.
        why: String,
    },
    /// What is there is not what was archived, or nothing proves that it is.
    #[error("the archived recording of session {session} is not given out: {why}")]
    Unproved {
        /// The session.
        session: String,
        /// What is wrong.
        why: String,
    },
    /// The manifest of a recording cannot be used.
    #[error("the manifest of session {session}: {why}")]
    Manifest {
        /// The session.
        session: SessionId,
        /// What is wrong with it.
        why: String,
    },
}

/// The archive; cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    place: Arc<Place>,
}

impl Archive {
    /// Opens the archive; makes a directory that is not there.
    pub fn open(config: &ArchiveConfig, access: Option<&Access>) -> Result<Self, ArchiveError> {
        Ok(Self { place: Arc::new(Place::open(config, access)?) })
    }

    /// Puts a sealed recording and its manifest there; gives the manifest.
    ///
    /// The signer is the recording key: its id, and what it signs. What is
    /// there of that session already is replaced.
    pub async fn keep(
        &self,
        path: &Path,
        origin: Origin,
        (key_id, sign): (String, impl FnOnce(&[u8]) -> Vec<u8>),
    ) -> Result<Manifest, ArchiveError> {
        let (sha256, bytes) = digest(path).await?;
        let manifest = Manifest::of(path, origin, (sha256, bytes))?.signed(key_id, sign);
        let session = manifest.session()?;
        self.place.put_file(&object(&session), path, bytes).await?;
        self.place.put(&manifest_object(&session), manifest.to_json().into()).await?;
        Ok(manifest)
    }

    /// Where a session's recording is, or would be.
    pub fn whereabouts(&self, session: &SessionId) -> Whereabouts {
        self.place.whereabouts(&object(session))
    }

    /// The manifest of a session's recording, if it is archived.
    ///
    /// It is as it was found: its signature is [`Manifest::signed_by`]'s.
    pub async fn manifest(&self, session: &SessionId) -> Result<Option<Manifest>, ArchiveError> {
        let Some(found) = self.place.get(&manifest_object(session)).await? else { return Ok(None) };
        let wrong = |why: &str| ArchiveError::Manifest { session: session.clone(), why: why.to_owned() };
        if found.meta.size > MANIFEST_MAX {
            return Err(wrong("it is larger than any manifest of ours"));
        }
        let bytes = found.bytes().await.map_err(|error| self.place.failed(&error))?;
        let manifest = Manifest::parse(&bytes).map_err(|why| wrong(&why))?;
        if manifest.session != session.as_str() {
            return Err(wrong("it is of another session"));
        }
        Ok(Some(manifest))
    }

    /// The archived recording of a session, if there is one.
    ///
    /// Its manifest must be signed by one of these keys; the recording is
    /// held against it as it is read.
    pub async fn read(
        &self,
        session: &SessionId,
        trusted: &[PublicKey],
    ) -> Result<Option<Reading>, ArchiveError> {
        let unproved = |why: String| ArchiveError::Unproved { session: session.to_string(), why };
        let manifest = self.manifest(session).await?;
        if let Some(manifest) = manifest.as_ref().filter(|manifest| !manifest.signed_by(trusted)) {
            let key = printable(&manifest.key_id);
            return Err(unproved(format!(
                "its manifest is not signed by a key that is known here (key {key})"
            )));
        }
        let (manifest, found) = match (manifest, self.place.get(&object(session)).await?) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(unproved("it has no manifest".to_owned())),
            (Some(_), None) => return Err(unproved("there is a manifest of it and nothing else".to_owned())),
            (Some(manifest), Some(found)) => (manifest, found),
        };
        if found.meta.size != manifest.bytes {
            let (there, said) = (found.meta.size, manifest.bytes);
            return Err(unproved(format!("it has {there} bytes, and {said} in its manifest")));
        }
        Ok(Some(Reading::new(manifest, found, Arc::clone(&self.place))))
    }

    /// Whether the recording is there with that size.
    pub async fn holds(&self, session: &SessionId, bytes: u64) -> Result<bool, ArchiveError> {
        Ok(self.place.size(&object(session)).await? == Some(bytes))
    }

    /// Removes a recording and its manifest; it may be gone already.
    pub async fn remove(&self, session: &SessionId) -> Result<(), ArchiveError> {
        self.place.delete(&manifest_object(session)).await?;
        self.place.delete(&object(session)).await
    }

    /// Sessions that have a recording or a manifest there, in order.
    pub async fn sessions(&self) -> Result<Vec<SessionId>, ArchiveError> {
        let names = self.place.names(FOLDER).await?;
        let id = |name: &String| {
            let stem = name.strip_suffix(RECORDING_SUFFIX).or_else(|| name.strip_suffix(MANIFEST_SUFFIX))?;
            SessionId::parse(stem).ok()
        };
        let mut sessions: Vec<SessionId> = names.iter().filter_map(id).collect();
        sessions.sort_unstable();
        sessions.dedup();
        Ok(sessions)
    }
}

impl std::fmt::Display for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.place.name())
    }
}

fn object(session: &SessionId) -> String {
    format!("{FOLDER}/{session}{RECORDING_SUFFIX}")
}

fn manifest_object(session: &SessionId) -> String {
    format!("{FOLDER}/{session}{MANIFEST_SUFFIX}")
}

/// SHA-256 of a file in hex, and its size.
async fn digest(path: &Path) -> Result<(String, u64), ArchiveError> {
    let from = path.to_owned();
    let digest = tokio::task::spawn_blocking(move || {
        let (mut file, mut context, mut bytes) = (std::fs::File::open(from)?, Context::new(&SHA256), 0u64);
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok((data_encoding::HEXLOWER.encode(context.finish().as_ref()), bytes));
            }
            context.update(piece.get(..read).unwrap_or_default());
            bytes += read as u64;
        }
    });
    let digest = digest.await.unwrap_or_else(|_| Err(std::io::Error::other("its reader ended early")));
    digest.map_err(|why| ArchiveError::File { path: path.display().to_string(), why })
}

/// What a damaged file is called in an error.
fn damage(session: &SessionId, damage: &Damage) -> ArchiveError {
    ArchiveError::NotSealed { session: session.clone(), why: printable(&damage.to_string()) }
}
