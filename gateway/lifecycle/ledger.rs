//! The decisions: who is told of which.

use std::collections::HashMap;

use super::Lifecycle;
use super::admission::Asker;
use super::audit::unknown;
use super::listing::LOOKED_AT_MAX;
use crate::error::{ApiError, Code};
use crate::policy::{Action, Resource};
use crate::registry::{DecisionFilter, DecisionRecord, Page, SessionRecord};
use crate::session::SessionId;

/// The lists that page tokens of decisions are for: a token of one's own must
/// not open the page after the first of everybody's.
const KNOWN: &str = "decisions";
const OWN: &str = "own decisions";
const ALL: &str = "all decisions";

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
        let mut visible = HashMap::new();
        let mut token = self.opened_page(asker, KNOWN, token.as_deref())?;
        let (mut rows, mut looked_at) = (Vec::new(), 0);
        loop {
            let page = self.rooms.registry.decisions(filter, limit - rows.len(), token.as_deref()).await?;
            looked_at += page.rows.len();
            for row in page.rows {
                if all || self.may_know(asker, &row, &mut visible).await? {
                    rows.push(row);
                }
            }
            token = page.next;
            if token.is_none() || rows.len() >= limit || looked_at >= LOOKED_AT_MAX {
                return Ok(Page { rows, next: self.sealed_page(asker, KNOWN, token) });
            }
        }
    }

    /// The decision that let a session begin; for who may see the session.
    pub async fn decision_of(&self, record: &SessionRecord) -> Result<Option<DecisionRecord>, ApiError> {
        Ok(self.rooms.registry.decision(&record.decision_id).await?)
    }

    /// Whether the caller administers the gateway; not written down.
    pub fn may_administer(&self, asker: &Asker) -> bool {
        self.quietly(asker, Action::Administer, Resource::Gateway)
    }

    /// A page of decisions, newest first: one's own, or all to whoever may
    /// administer the gateway.
    pub async fn all_decisions(
        &self,
        asker: &Asker,
        filter: &DecisionFilter,
        (limit, token): (usize, Option<&str>),
    ) -> Result<Page<DecisionRecord>, ApiError> {
        let own = filter.owner.as_ref() == Some(&asker.principal.arn);
        let list = if own { OWN } else { ALL };
        let token = self.opened_page(asker, list, token)?;
        if !own {
            // That somebody reads them is on record once, not for every page.
            match token {
                None => drop(self.admit_on_gateway(Action::Administer, asker).await?),
                Some(_) if self.may_administer(asker) => {}
                Some(_) => {
                    let sentence = "you may not read decisions of others any more";
                    return Err(ApiError::client(Code::AccessDenied, sentence));
                }
            }
        }
        let Page { rows, next } = self.rooms.registry.decisions(filter, limit, token.as_deref()).await?;
        Ok(Page { rows, next: self.sealed_page(asker, list, next) })
    }

    /// One decision: one's own, or any to whoever may administer.
    pub async fn decision(&self, asker: &Asker, id: &str) -> Result<DecisionRecord, ApiError> {
        let found = self.rooms.registry.decision(id).await?;
        if found.as_ref().is_none_or(|record| record.principal.id != asker.principal.id) {
            self.admit_on_gateway(Action::Administer, asker).await?;
        }
        found.ok_or_else(|| unknown("decision", id))
    }

    /// Whether they may know of it; `visible` are sessions that were looked up.
    async fn may_know(
        &self,
        asker: &Asker,
        row: &DecisionRecord,
        visible: &mut HashMap<SessionId, bool>,
    ) -> Result<bool, ApiError> {
        if row.principal.id == asker.principal.id {
            return Ok(true);
        }
        let Some(id) = &row.session else { return Ok(false) };
        if let Some(known) = visible.get(id) {
            return Ok(*known);
        }
        let may = self.registered(id).await?.is_some_and(|record| self.may_see(asker, &record));
        visible.insert(id.clone(), may);
        Ok(may)
    }
}
