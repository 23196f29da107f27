//! Searching recordings: who is told what.

use std::collections::HashMap;

use super::Lifecycle;
use super::admission::Asker;
use crate::catalogue::{CatalogueError, Found, Hit, Query, Recorded};
use crate::error::{ApiError, Blame, Code};
use crate::policy::{Action, Resource};
use crate::registry::{Page, SessionRecord};
use crate::session::SessionId;

/// Searches at once on this node: each may keep a core busy.
pub(super) const AT_ONCE: usize = 2;
/// Most hits of one page.
const HITS_MAX: usize = 500;

/// A hit, and in which recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHit {
    /// The recording.
    pub recording: Recorded,
    /// The line or command.
    pub hit: Hit,
}

/// The list that page tokens of searches are for.
const HITS: &str = "hits";

impl Lifecycle {
    /// Searches what was on the screens that the caller may replay.
    ///
    /// Every recording that something is told of is a decision on record.
    pub async fn search(
        &self,
        asker: &Asker,
        query: Query,
        (limit, token): (usize, Option<&str>),
    ) -> Result<Page<FoundHit>, ApiError> {
        let Ok(_turn) = self.searches.try_acquire() else {
            let sentence = "this gateway runs as many searches as it may; try again in a moment";
            return Err(ApiError::new(Code::Throttling, Blame::Gateway, sentence));
        };
        let limit = limit.clamp(1, HITS_MAX);
        let token = self.opened_page(asker, HITS, token)?;
        let mut search =
            self.rooms.catalogue.search(query, token.as_deref()).map_err(|error| told(&error))?;
        let mut known: HashMap<SessionId, Option<SessionRecord>> = HashMap::new();
        let mut rows: Vec<FoundHit> = Vec::new();
        while rows.len() < limit {
            let Some(found) = search.next().await.map_err(|error| told(&error))? else { break };
            let Found { recording, .. } = &found;
            if !known.contains_key(&recording.session) {
                let record = self.replayable(asker, &recording.session).await?;
                known.insert(recording.session.clone(), record);
            }
            let Some(Some(record)) = known.get(&recording.session) else {
                search.pass(&found);
                continue;
            };
            let hits = search.hits(&found, limit - rows.len()).map_err(|error| told(&error))?;
            if !hits.is_empty() && rows.last().is_none_or(|row| row.recording.session != recording.session) {
                self.admit_replay(asker, record).await?;
            }
            rows.extend(hits.into_iter().map(|hit| FoundHit { recording: recording.clone(), hit }));
            // A look is work; sessions are relayed on this thread too.
            tokio::task::yield_now().await;
        }
        Ok(Page { rows, next: self.sealed_page(asker, HITS, search.token()) })
    }

    /// The session, if its recording may be replayed.
    pub(super) async fn replayable(
        &self,
        asker: &Asker,
        id: &SessionId,
    ) -> Result<Option<SessionRecord>, ApiError> {
        let Some(record) = self.registered(id).await? else { return Ok(None) };
        let resource =
            Resource::Recording { id: &record.id, owner: &record.principal, instance: &record.instance };
        Ok(self.quietly(asker, Action::ReplayRecording, resource).then_some(record))
    }
}

fn told(error: &CatalogueError) -> ApiError {
    match error {
        CatalogueError::Pattern(why) => ApiError::client(Code::Validation, why.clone()),
        CatalogueError::Token => ApiError::client(Code::InvalidNextToken, error.to_string()),
        _ => {
            tracing::error!(%error, "a search failed");
            ApiError::gateway("the gateway could not search its recordings")
        }
    }
}
