//! Is everything in the archive that its manifests say, unaltered?

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;

use super::{Archive, ArchiveError, Manifest, digest, object};
use crate::recorder::{self, Evidence, PublicKey, Report};
use crate::session::SessionId;

/// What was found of one session in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Recording and manifest belong together and are unaltered; and what the
    /// recording does not prove, as [`recorder::Evidence::doubts`] has it.
    Whole(Box<Manifest>, Vec<String>),
    /// Something is damaged, missing or signed by somebody else.
    Wrong(String),
    /// A recording without manifest: being archived or being removed, or
    /// somebody took the manifest away.
    Unfinished {
        /// What its own seal says; it is whole and of this session.
        evidence: Box<Evidence>,
    },
}

impl Archive {
    /// Checks one session against keys that the caller trusts.
    ///
    /// `scratch` is a folder for a copy of the recording, removed after.
    pub async fn check(
        &self,
        session: &SessionId,
        trusted: &[PublicKey],
        scratch: &Path,
    ) -> Result<Finding, ArchiveError> {
        let manifest = match self.manifest(session).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return self.check_alone(session, trusted, scratch).await,
            Err(ArchiveError::Manifest { why, .. }) => {
                return Ok(Finding::Wrong(format!("its manifest is damaged: {why}")));
            }
            Err(error) => return Err(error),
        };
        if !manifest.signed_by(trusted) {
            let key = crate::session::printable(&manifest.key_id);
            return Ok(Finding::Wrong(format!("its manifest is not signed by a trusted key (key {key})")));
        }
        let Some(copy) = self.copy(session, scratch).await? else {
            return Ok(Finding::Wrong("its recording is missing".to_owned()));
        };
        let found = digest(&copy.path).await?;
        if found != (manifest.sha256.clone(), manifest.bytes) {
            let (bytes, expected) = (found.1, manifest.bytes);
            let why = format!(
                "its recording was altered: {bytes} bytes, {expected} in the manifest; SHA-256 differs"
            );
            return Ok(Finding::Wrong(why));
        }
        Ok(match sealed(session, &copy.path, trusted) {
            Ok(evidence) => {
                let head = evidence.segments.last().map(|segment| segment.hash.clone());
                let same = (&evidence.lines_sha256, &head) == (&manifest.lines_sha256, &manifest.chain_head);
                if same {
                    Finding::Whole(Box::new(manifest), evidence.doubts())
                } else {
                    Finding::Wrong("manifest and recording say different things".to_owned())
                }
            }
            Err(why) => Finding::Wrong(why),
        })
    }

    /// Checks a recording that has no manifest by its own seal.
    async fn check_alone(
        &self,
        session: &SessionId,
        trusted: &[PublicKey],
        scratch: &Path,
    ) -> Result<Finding, ArchiveError> {
        let Some(copy) = self.copy(session, scratch).await? else {
            return Ok(Finding::Wrong("it went away while it was looked at".to_owned()));
        };
        Ok(match sealed(session, &copy.path, trusted) {
            Ok(evidence) => Finding::Unfinished { evidence },
            Err(why) => Finding::Wrong(format!("it has no manifest, and {why}")),
        })
    }

    /// What is there under a session's name, whatever it is.
    async fn copy(&self, session: &SessionId, scratch: &Path) -> Result<Option<Copy>, ArchiveError> {
        let Some(found) = self.place.get(&object(session)).await? else { return Ok(None) };
        let copy = Copy::make(scratch, session)?;
        let mut stream = found.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.place.failed(&error))?;
            let written = (&copy.file).write_all(&piece);
            written.map_err(|why| ArchiveError::File { path: copy.path.display().to_string(), why })?;
        }
        Ok(Some(copy))
    }
}

fn sealed(session: &SessionId, path: &Path, trusted: &[PublicKey]) -> Result<Box<Evidence>, String> {
    match recorder::verify_of(session, path, trusted) {
        Ok(Report::Sealed(evidence)) => Ok(evidence),
        Ok(Report::Unsealed { .. }) => Err("its recording is not sealed".to_owned()),
        Err(damage) => Err(damage.to_string()),
    }
}

/// A copy of a recording, removed when it was looked at.
struct Copy {
    path: PathBuf,
    file: File,
}

impl Copy {
    fn make(folder: &Path, session: &SessionId) -> Result<Self, ArchiveError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = folder.join(format!("postern-check-{}-{session}.cast.zst", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|why| ArchiveError::File { path: path.display().to_string(), why })?;
        Ok(Self { path, file })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What somebody else removed need not be removed.
        let _ = std::fs::remove_file(&self.path);
    }
}
