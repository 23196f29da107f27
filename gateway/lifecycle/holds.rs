//! Legal holds: what is held is there, and stays.

use super::Lifecycle;
use super::admission::Asker;
use super::keeping::Kept;
use super::recordings::no_recording;
use crate::error::{ApiError, Code};
use crate::policy::Action;
use crate::registry::{Hold, RegistryError, SessionRecord};
use crate::session::{SessionId, clean_reason, now_ms};

impl Lifecycle {
    /// Holds a recording, or ends the hold; policy decides and it is logged.
    ///
    /// A hold is confirmed only if the recording is there then: it is looked
    /// for while nothing is deleted here.
    pub async fn hold(
        &self,
        asker: &Asker,
        id: &SessionId,
        hold: Option<Option<String>>,
    ) -> Result<Kept, ApiError> {
        let record = self.registered(id).await?.ok_or_else(|| no_recording(id))?;
        self.admit_on_recording(Action::HoldRecording, asker, &record).await?;
        let by = asker.principal.arn.clone();
        tracing::info!(session = %id, principal = %by, held = hold.is_some(), "legal hold");
        let _nothing_goes = self.holding_or_deleting.lock().await;
        let done = match hold {
            Some(reason) => {
                self.still_there(id).await?;
                let reason = reason.map(|reason| clean_reason(&reason));
                self.rooms.registry.hold(id, &Hold { at_ms: now_ms(), by, reason }).await
            }
            None => self.rooms.registry.release(id).await.map(|_| ()),
        };
        done.map_err(|error| unregistered(&error))?;
        self.kept(id).await
    }

    /// What is known of how a recording is kept.
    pub async fn kept(&self, id: &SessionId) -> Result<Kept, ApiError> {
        let archived = self.rooms.registry.archived(id).await.map_err(|error| unregistered(&error))?;
        let hold = self.rooms.registry.held(id).await.map_err(|error| unregistered(&error))?;
        Ok(Kept { archived, hold })
    }

    /// Refuses a hold on what is nowhere any more.
    async fn still_there(&self, id: &SessionId) -> Result<(), ApiError> {
        let record = self.registered(id).await?.ok_or_else(|| no_recording(id))?;
        if !record.state.is_over() || self.here(id)?.is_some() {
            return Ok(());
        }
        if let (Some(archive), Some(archived)) = (&self.rooms.archive, self.kept(id).await?.archived) {
            let there = archive.holds(id, archived.bytes).await.map_err(|error| {
                tracing::error!(session = %id, %error, "the archive does not say whether it has the recording");
                ApiError::gateway("the archive does not say whether it has the recording, so it is not held; try again")
            })?;
            if there {
                return Ok(());
            }
        }
        Err(self.nothing_to_hold(&record))
    }

    fn nothing_to_hold(&self, record: &SessionRecord) -> ApiError {
        let id = &record.id;
        let elsewhere = if record.node == self.settings.node {
            String::new()
        } else {
            let node = crate::session::printable(&record.node);
            format!("; if it is still on the node {node}, which recorded it, ask that one")
        };
        let sentence = format!(
            "the recording of session {id} is neither here nor in the archive, so there is nothing to hold{elsewhere}"
        );
        ApiError::client(Code::DoesNotExist, sentence)
    }
}

fn unregistered(error: &RegistryError) -> ApiError {
    tracing::error!(%error, "the registry did not answer");
    ApiError::gateway("the gateway could not look up how the recording is kept; try again")
}
