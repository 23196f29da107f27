//! A recording wherever it is: here, in the archive, or as it was shipped.
//!
//! What comes from elsewhere is given out only if a key of this gateway has
//! signed that it is this session's. Where the archive's is damaged, what was
//! shipped takes its place if it is whole, and log, metrics and answer tell.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Lifecycle;
use super::recordings::no_recording;
use crate::archive::{ArchiveError, Reading};
use crate::error::ApiError;
use crate::session::SessionId;
use crate::shipper::{self, RebuildError, ShipperError};
use crate::store::Found;

/// For how long an archived recording counts as damaged without another look.
const DAMAGED_FOR: Duration = Duration::from_secs(600);
/// Damaged recordings that are remembered; of more the oldest are found anew.
const DAMAGED_MAX: usize = 1000;

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
    ReadBack {
        /// The copy.
        copy: shipper::Copy,
        /// Whether the archive has it, too, and not as it was archived.
        archive_damaged: bool,
    },
}

/// Archived recordings that broke off, when, and why.
///
/// Only the end of a long one tells: until then it would be given out, and
/// break off, again and again.
#[derive(Default)]
pub(super) struct Damaged(Mutex<HashMap<SessionId, (Instant, String)>>);

impl Damaged {
    fn add(&self, id: &SessionId, why: &str, now: Instant) {
        let mut damaged = self.known();
        damaged.retain(|_, (since, _)| now.duration_since(*since) < DAMAGED_FOR);
        if damaged.len() >= DAMAGED_MAX {
            let oldest = damaged.iter().min_by_key(|(_, (since, _))| *since).map(|(id, _)| id.clone());
            oldest.map(|oldest| damaged.remove(&oldest));
        }
        damaged.insert(id.clone(), (now, why.to_owned()));
    }

    fn why(&self, id: &SessionId, now: Instant) -> Option<String> {
        let damaged = self.known();
        let (_, why) = damaged.get(id).filter(|(since, _)| now.duration_since(*since) < DAMAGED_FOR)?;
        Some(why.clone())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SessionId, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the archive does not give a recording out.
struct Refused {
    told: ApiError,
    /// It is there, and not what was archived.
    damaged: bool,
}

impl From<ApiError> for Refused {
    fn from(told: ApiError) -> Self {
        Self { told, damaged: false }
    }
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
            // It was sealed: a part of it would be less than what was archived.
            (Ok(Some(copy)), Err(refused)) if refused.damaged && !copy.sealed => Err(refused.told),
            (Ok(Some(copy)), archived) => {
                let archive_damaged = archived.is_err_and(|refused| refused.damaged);
                if archive_damaged {
                    tracing::error!(session = %id, "the archive's copy is damaged; it is shown as CloudWatch Logs has it");
                }
                Ok(RecordingFile::ReadBack { copy, archive_damaged })
            }
            // What the archive has is wrong: that is more than that CloudWatch has nothing.
            (_, Err(refused)) if refused.damaged => Err(refused.told),
            // It may be where nobody answered, so nobody says that there is none.
            (Err(error), _) | (_, Err(Refused { told: error, .. })) => Err(error),
            (Ok(None), Ok(_)) => Err(no_recording(id)),
        }
    }

    /// Notes that an archived recording broke off, so that who asks again gets
    /// it from elsewhere; says what is told of it, and whether it is damaged.
    pub fn archive_broke_off(&self, id: &SessionId, error: &ArchiveError) -> (ApiError, bool) {
        let refused = self.refused(id, error);
        if let (true, Some(why)) = (refused.damaged, why_unproved(error)) {
            self.damaged.add(id, why, Instant::now());
        }
        (refused.told, refused.damaged)
    }

    /// Says, counts and tells that the archive does not give a recording out.
    fn refused(&self, id: &SessionId, error: &ArchiveError) -> Refused {
        let damaged = why_unproved(error).is_some();
        if damaged {
            self.rooms.metrics.archived.with_label_values(&["damaged"]).inc();
        }
        Refused { told: refused_by_archive(id, error), damaged }
    }

    /// The recording on this node, if it is here.
    pub(super) fn here(&self, id: &SessionId) -> Result<Option<Found>, ApiError> {
        self.rooms.store.find(id).map_err(|error| {
            tracing::error!(session = %id, %error, "the recording could not be looked up");
            ApiError::gateway("the gateway could not look up the recording")
        })
    }

    /// The recording in the archive, if there is one.
    async fn archived(&self, id: &SessionId) -> Result<Option<Reading>, Refused> {
        let Some(archive) = &self.rooms.archive else { return Ok(None) };
        if let Some(why) = self.damaged.why(id, Instant::now()) {
            return Err(self.refused(id, &unproved(id, why)));
        }
        let mut reading = match archive.read(id, &self.rooms.recorder.known_keys()).await {
            Ok(Some(reading)) => reading,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.refused(id, &error)),
        };
        if self.registered_digests(id).await?.iter().any(|known| *known != reading.manifest.sha256) {
            let why = "its manifest is not of the file that the registry knows".to_owned();
            return Err(self.refused(id, &unproved(id, why)));
        }
        match reading.begin().await {
            Ok(()) => Ok(Some(reading)),
            Err(error) => Err(self.refused(id, &error)),
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

fn unproved(id: &SessionId, why: String) -> ArchiveError {
    ArchiveError::Unproved { session: id.to_string(), why }
}

/// What is wrong with what the archive has, if it has anything.
fn why_unproved(error: &ArchiveError) -> Option<&str> {
    match error {
        ArchiveError::Unproved { why, .. } | ArchiveError::Manifest { why, .. } => Some(why),
        _ => None,
    }
}

/// What is told of an archive that does not give a recording out.
fn refused_by_archive(id: &SessionId, error: &ArchiveError) -> ApiError {
    let Some(why) = why_unproved(error) else {
        tracing::error!(session = %id, %error, "the archive did not give the recording");
        return ApiError::gateway("the gateway could not read the recording from its archive; try again");
    };
    tracing::error!(session = %id, %error, "the archive does not have what was archived");
    ApiError::gateway(format!(
        "what the archive has of the recording of {id} is not what was archived, or nothing proves that it is, so it \
         is not shown: {why}. `postern verify --archive` says more; whoever runs the gateway can put the right file \
         back, which may take ten minutes to be seen"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_off_counts_as_damaged_for_a_while() {
        let (damaged, now) = (Damaged::default(), Instant::now());
        let id = SessionId::mint("alice");
        assert_eq!(damaged.why(&id, now), None);
        damaged.add(&id, "altered", now);
        assert_eq!(damaged.why(&id, now).as_deref(), Some("altered"));
        assert_eq!(damaged.why(&id, now + DAMAGED_FOR), None);
        for number in 0..DAMAGED_MAX {
            let later = now + Duration::from_millis(1 + number as u64);
            damaged.add(&SessionId::mint("bob"), "altered", later);
        }
        assert_eq!(damaged.why(&id, now), None, "the oldest went");
        assert_eq!(damaged.known().len(), DAMAGED_MAX);
    }
}
