//! Is there room for another session?

use std::sync::atomic::Ordering;

use super::Lifecycle;
use super::live::{Full, Place};
use crate::error::{ApiError, Blame, Code};
use crate::session::Principal;

impl Lifecycle {
    /// Whether sessions can start: not draining, and recordings work.
    pub fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Acquire) {
            return Err("draining".to_owned());
        }
        self.rooms.recorder.healthy()?;
        self.has_reserve()?;
        self.rooms.shipper.as_ref().map_or(Ok(()), |shipper| shipper.ready())
    }

    /// Whether what runs can be recorded to its end.
    fn has_reserve(&self) -> Result<(), String> {
        let reserve = self.settings.reserve_mb;
        if reserve == 0 {
            return Ok(());
        }
        let spool = self.rooms.recorder.spool();
        let free = spool.free_bytes().map_err(|error| {
            format!("nobody knows how much room {} has: {error}", spool.directory().display())
        })?;
        let free = free >> 20;
        if free >= reserve {
            return Ok(());
        }
        Err(format!(
            "{free} MB are free in {}, and {reserve} are kept for sessions that run (recorder.reserve_mb)",
            spool.directory().display()
        ))
    }

    /// A place among the sessions of this node, or why there is none.
    pub(super) fn place_for(&self, principal: &Principal) -> Result<Place<'_>, ApiError> {
        self.ready().map_err(|why| {
            let sentence = format!("this gateway takes no sessions now: {why}; try again in a minute");
            ApiError::new(Code::ServiceUnavailable, Blame::Gateway, sentence)
        })?;
        let each = self.settings.sessions_per_principal;
        self.live.place(principal, self.settings.sessions_max, each).map_err(|full| match full {
            Full::Node => {
                let sentence = "this gateway runs as many sessions as it may; try again later";
                ApiError::new(Code::Throttling, Blame::Gateway, sentence)
            }
            Full::Principal => {
                let sentence = format!(
                    "you have {each} sessions open, the most allowed; end one with `postern sessions end ID`"
                );
                ApiError::client(Code::Throttling, sentence)
            }
        })
    }
}
