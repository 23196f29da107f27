//! A recording wherever it is: here, in the archive, or as it was shipped.
//!
//! What comes from elsewhere is given out only if a key of this gateway has
//! signed that it is this session's.

use std::path::PathBuf;

use super::Lifecycle;
use super::recordings::no_recording;
use crate::archive::{ArchiveError, Reading};
use crate::error::ApiError;
use crate::session::SessionId;
use crate::shipper::{self, RebuildError, ShipperError};
use crate::store::Found;

/// A recording that a caller may read.
pub enum RecordingFile {
    /// It is on this node.
    Here {
        /// The `.cast.zst` file.
        path: PathBuf,
        /// Whether it is complete and signed.
        sealed: bool,
    },
    /// It is in the archive, complete and signed.
    Archived(Reading),
    /// It was made again from what was shipped; a file for this caller.
    ReadBack(shipper::Copy),
}

impl Lifecycle {
    /// The recording of a session, for somebody who was admitted to it.
    pub async fn stored(&self, id: &SessionId) -> Result<RecordingFile, ApiError> {
        if let Some(found) = self.here(id)? {
            return Ok(RecordingFile::Here { path: found.path, sealed: found.sealed });
        }
        let archived = self.archived(id).await;
        if let Ok(Some(reading)) = archived {
            return Ok(RecordingFile::Archived(reading));
        }
        match (self.read_back(id).await, archived) {
            (Ok(Some(copy)), _) => Ok(RecordingFile::ReadBack(copy)),
            // It may be where nobody answered, so nobody says that there is none.
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(None), Ok(_)) => Err(no_recording(id)),
        }
    }

    /// The recording on this node, if it is here.
    pub(super) fn here(&self, id: &SessionId) -> Result<Option<Found>, ApiError> {
        self.rooms.store.find(id).map_err(|error| {
            tracing::error!(session = %id, %error, "the recording could not be looked up");
            ApiError::gateway("the gateway could not look up the recording")
        })
    }

    /// The recording in the archive, if there is one.
    async fn archived(&self, id: &SessionId) -> Result<Option<Reading>, ApiError> {
        let Some(archive) = &self.rooms.archive else { return Ok(None) };
        let mut reading = match archive.read(id, &self.rooms.recorder.known_keys()).await {
            Ok(Some(reading)) => reading,
            Ok(None) => return Ok(None),
            Err(error) => return Err(refused_by_archive(id, &error)),
        };
        if self.registered_digests(id).await?.iter().any(|known| *known != reading.manifest.sha256) {
            let why = "its manifest is not of the file that the registry knows".to_owned();
            return Err(refused_by_archive(id, &ArchiveError::Unproved { session: id.to_string(), why }));
        }
        match reading.begin().await {
            Ok(()) => Ok(Some(reading)),
            Err(error) => Err(refused_by_archive(id, &error)),
        }
    }

    /// What the registry says that the sealed file's SHA-256 is, in hex.
    async fn registered_digests(&self, id: &SessionId) -> Result<Vec<String>, ApiError> {
        let sealed = self.registered(id).await?.and_then(|record| record.recording_sha256);
        let archived = self.kept(id).await?.archived.map(|archived| archived.sha256);
        Ok(sealed.into_iter().chain(archived).collect())
    }

    /// The recording as it was shipped; the spool has it no more.
    async fn read_back(&self, id: &SessionId) -> Result<Option<shipper::Copy>, ApiError> {
        let Some(shipper) = &self.rooms.shipper else { return Ok(None) };
        let copy = match shipper.reader().recording(id, &self.rooms.recorder.known_keys()).await {
            Ok(copy) => copy,
            Err(ShipperError::NoStream { .. } | ShipperError::Rebuild(RebuildError::Nothing)) => {
                return Ok(None);
            }
            Err(error) => {
                tracing::error!(session = %id, %error, "the recording could not be read back");
                let sentence = if error.is_damage() {
                    "what CloudWatch Logs has of the recording is not what this gateway has signed, so it is not \
                     shown; `postern verify --cloudwatch` says more"
                } else {
                    "the gateway could not read the recording back from CloudWatch Logs"
                };
                return Err(ApiError::gateway(sentence));
            }
        };
        for other in &copy.others {
            tracing::warn!(session = %id, %other, "the log stream holds what no gateway put there");
        }
        if !copy.is_proved() {
            tracing::error!(session = %id, lines = copy.lines, "nothing of what was shipped is signed");
            let sentence = "CloudWatch Logs has the session's beginning, and nothing of it is signed yet, so it is \
                 not shown";
            return Err(ApiError::gateway(sentence));
        }
        Ok(Some(copy))
    }
}

/// What is told of an archive that does not give a recording out.
pub fn refused_by_archive(id: &SessionId, error: &ArchiveError) -> ApiError {
    let (ArchiveError::Unproved { why, .. } | ArchiveError::Manifest { why, .. }) = error else {
        tracing::error!(session = %id, %error, "the archive did not give the recording");
        return ApiError::gateway("the gateway could not read the recording from its archive; try again");
    };
    tracing::error!(session = %id, %error, "the archive does not have what was archived");
    ApiError::gateway(format!(
        "what the archive has of the recording of {id} is not what was archived, or nothing proves that it is, so it \
         is not shown: {why}. `postern verify --archive` says more; whoever runs the gateway can put the right file back"
    ))
}
