//! The decisions: who is told of which.

use super::Lifecycle;
use super::admission::Asker;
use crate::error::ApiError;
use crate::policy::{Action, Resource, Standing};
use crate::registry::{DecisionFilter, DecisionRecord, Page, SessionRecord};
use crate::replay::Outline;
use crate::session::SessionId;

/// Rows looked at for one page that policy thins out.
const LOOKED_AT_MAX: usize = 1000;

impl Lifecycle {
    /// The decisions that match and that the caller may know of, newest first.
    ///
    /// Those are their own, those about sessions that they may see, and all
    /// of them for whoever administers the gateway.
    pub async fn decisions(
        &self,
        asker: &Asker,
        filter: &DecisionFilter,
        (limit, token): (usize, Option<String>),
    ) -> Result<Page<DecisionRecord>, ApiError> {
        let (limit, all) = (limit.clamp(1, 200), self.may_administer(asker));
        let (mut token, mut rows, mut looked_at) = (token, Vec::new(), 0);
        loop {
            let page = self.rooms.registry.decisions(filter, limit - rows.len(), token.as_deref()).await?;
            looked_at += page.rows.len();
            for row in page.rows {
                if all || self.may_know(asker, &row).await? {
                    rows.push(row);
                }
            }
            token = page.next;
            if token.is_none() || rows.len() >= limit || looked_at >= LOOKED_AT_MAX {
                return Ok(Page { rows, next: token });
            }
        }
    }

    /// The decision that let a session begin; for who may see the session.
    pub async fn decision_of(&self, record: &SessionRecord) -> Result<Option<DecisionRecord>, ApiError> {
        Ok(self.rooms.registry.decision(&record.decision_id).await?)
    }

    /// Whether the caller may replay a recording; not written down.
    pub async fn may_replay(&self, asker: &Asker, id: &SessionId) -> Result<bool, ApiError> {
        Ok(self.replayable(asker, id).await?.is_some())
    }

    /// Where the scenes of a long recording begin, for who was admitted to it.
    ///
    /// Without it a pass through the recording finds them.
    pub async fn outline(&self, id: &SessionId) -> Option<Outline> {
        let found = self.rooms.catalogue.outline(id).await;
        found.inspect_err(|error| tracing::warn!(session = %id, %error, "no outline")).ok().flatten()
    }

    /// Whether the caller administers the gateway; not written down.
    pub fn may_administer(&self, asker: &Asker) -> bool {
        self.quietly(asker, Action::Administer, Resource::Gateway)
    }

    /// The policy set in force, and the folder that it is read from.
    pub fn policies(&self) -> &Standing {
        &self.rooms.policy
    }

    async fn may_know(&self, asker: &Asker, row: &DecisionRecord) -> Result<bool, ApiError> {
        if row.principal.id == asker.principal.id {
            return Ok(true);
        }
        let Some(id) = &row.session else { return Ok(false) };
        Ok(self.registered(id).await?.is_some_and(|record| self.may_see(asker, &record)))
    }
}
