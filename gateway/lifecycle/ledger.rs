//! The decisions: who is told of which, by whatever way they ask.
//!
//! Everybody is told of their own, of those about sessions that they may
//! see, and whoever administers the gateway of all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Lifecycle;
use super::admission::Asker;
use super::listing::LOOKED_AT_MAX;
use crate::error::{ApiError, Code};
use crate::policy::{Action, Resource};
use crate::registry::{DecisionFilter, DecisionRecord, Page, SessionRecord};
use crate::session::{SessionId, printable};

/// The list that page tokens of decisions are for.
const KNOWN: &str = "decisions";
/// That somebody reads decisions of others is on record once in so long.
const ON_RECORD_FOR: Duration = Duration::from_secs(15 * 60);

/// Who reads decisions of others, and since when that is on record.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<String, Instant>>);

impl Readers {
    /// Whether it is to be put on record that this person reads.
    fn is_new(&self, principal_id: &str, now: Instant) -> bool {
        let readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.get(principal_id).is_none_or(|since| now.duration_since(*since) >= ON_RECORD_FOR)
    }

    fn add(&self, principal_id: &str, now: Instant) {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|_, since| now.duration_since(*since) < ON_RECORD_FOR);
        readers.insert(principal_id.to_owned(), now);
    }
}

impl Lifecycle {
    /// The decisions that match and that the caller may know of, newest first.
    ///
    /// A page may be short or empty and yet not be the last one. Whether it was
    /// all of them that were looked at, as for who administers, is told too.
    pub async fn decisions(
        &self,
        asker: &Asker,
        filter: &DecisionFilter,
        (limit, token): (usize, Option<String>),
    ) -> Result<(Page<DecisionRecord>, bool), ApiError> {
        let (limit, all) = (limit.clamp(1, 200), self.may_administer(asker));
        let now = Instant::now();
        if all && filter.owner.as_ref() != Some(&asker.principal.arn) {
            let id = &asker.principal.id;
            if self.readers.is_new(id, now) {
                self.admit_on_gateway(Action::Administer, asker).await?;
                self.readers.add(id, now);
            }
        }
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
                return Ok((Page { rows, next: self.sealed_page(asker, KNOWN, token) }, all));
            }
        }
    }

    /// One decision, if the caller may know of it.
    ///
    /// That somebody read it who only administers is on record.
    pub async fn decision(&self, asker: &Asker, id: &str) -> Result<DecisionRecord, ApiError> {
        let found = self.rooms.registry.decision(id).await?;
        let known = match &found {
            Some(row) => self.may_know(asker, row, &mut HashMap::new()).await?,
            None => false,
        };
        if !known && let Err(refused) = self.admit_on_gateway(Action::Administer, asker).await {
            // Whether there is one, those who may not know of it are not told.
            let hidden = refused.code == Code::AccessDenied;
            return Err(if hidden { no_decision(id, false) } else { refused });
        }
        found.ok_or_else(|| no_decision(id, true))
    }

    /// The decision that let a session begin; for who may see the session.
    pub async fn decision_of(&self, record: &SessionRecord) -> Result<Option<DecisionRecord>, ApiError> {
        Ok(self.rooms.registry.decision(&record.decision_id).await?)
    }

    /// Whether the caller administers the gateway; not written down.
    pub fn may_administer(&self, asker: &Asker) -> bool {
        self.quietly(asker, Action::Administer, Resource::Gateway)
    }

    /// Whether they may know of a decision without administering.
    ///
    /// `visible` are sessions that were looked up.
    pub(super) async fn may_know(
        &self,
        asker: &Asker,
        row: &DecisionRecord,
        visible: &mut HashMap<SessionId, bool>,
    ) -> Result<bool, ApiError> {
        if row.principal.id == asker.principal.id {
            return Ok(true);
        }
        let Some(id) = row.session.as_ref().or(row.started.as_ref()) else { return Ok(false) };
        if let Some(known) = visible.get(id) {
            return Ok(*known);
        }
        let may = self.registered(id).await?.is_some_and(|record| self.may_see(asker, &record));
        visible.insert(id.clone(), may);
        Ok(may)
    }
}

/// That there is none, or none for this caller, and what to do.
fn no_decision(id: &str, administers: bool) -> ApiError {
    let id = printable(id);
    let sentence = if administers {
        format!("there is no decision {id}; `postern decisions list` shows the ids of all")
    } else {
        format!(
            "there is no decision {id} that you may know of; `postern decisions list` shows the ids of those \
             you may, and whoever administers the gateway is told of all"
        )
    };
    ApiError::client(Code::DoesNotExist, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_on_record_once_in_a_quarter_of_an_hour() {
        let (readers, start) = (Readers::default(), Instant::now());
        assert!(readers.is_new("AIDACAROL", start));
        readers.add("AIDACAROL", start);
        assert!(!readers.is_new("AIDACAROL", start + ON_RECORD_FOR - Duration::from_secs(1)));
        assert!(readers.is_new("AIDADAVE", start) && readers.is_new("AIDACAROL", start + ON_RECORD_FOR));
        readers.add("AIDADAVE", start + ON_RECORD_FOR);
        assert_eq!(readers.0.lock().unwrap().len(), 1);
    }
}
