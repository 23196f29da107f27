//! What a caller is shown: sessions, machines, their states.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::Lifecycle;
use super::admission::Asker;
use crate::error::{ApiError, Code};
use crate::registry::{Filter, Page, RegistryError, SessionRecord};
use crate::relay::Destination;
use crate::session::{Machine, SessionId, Target, now_ms};

/// Rows looked at for one page that policy thins out.
pub(super) const LOOKED_AT_MAX: usize = 1000;

/// The lists that page tokens are for.
const SESSIONS: &str = "sessions";
const MACHINES: &str = "instances";

/// Which sessions, how many, and after which.
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    /// What they have in common.
    pub filter: Filter,
    /// How many, 1 to 200.
    pub limit: usize,
    /// The token of the page before.
    pub token: Option<String>,
}

/// What a running port session carries now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePort {
    /// Where it goes.
    pub destination: Destination,
    /// How many connections there were so far.
    pub connections: u64,
    /// How many of them are open.
    pub connections_open: u64,
}

impl Lifecycle {
    /// The sessions that match and that the caller may see.
    pub async fn sessions(
        &self,
        asker: &Asker,
        query: SessionQuery,
    ) -> Result<Page<SessionRecord>, ApiError> {
        let limit = query.limit.clamp(1, 200);
        let mut token = self.opened_page(asker, SESSIONS, query.token.as_deref())?;
        let mut rows = Vec::new();
        let mut looked_at = 0;
        loop {
            let page =
                self.rooms.registry.sessions(&query.filter, limit - rows.len(), token.as_deref()).await;
            let page = page.map_err(|error| unavailable(&error))?;
            looked_at += page.rows.len();
            for mut row in page.rows {
                if self.may_see(asker, &row) {
                    self.freshen(&mut row);
                    rows.push(row);
                }
            }
            token = page.next;
            if token.is_none() || rows.len() >= limit || looked_at >= LOOKED_AT_MAX {
                return Ok(Page { rows, next: self.sealed_page(asker, SESSIONS, token) });
            }
        }
    }

    /// Tells when a list of sessions has to be looked at again.
    ///
    /// Only of what this node does; None once it is being stopped.
    pub fn session_changes(&self) -> Option<watch::Receiver<u64>> {
        let stopping = self.draining.load(Ordering::Acquire);
        (!stopping).then(|| self.rooms.registry.changes())
    }

    /// A page token as a caller is given it: good for them and this list.
    ///
    /// It names the last row that was looked at, which they may not see.
    pub(super) fn sealed_page(&self, asker: &Asker, list: &str, token: Option<String>) -> Option<String> {
        token.map(|token| self.rooms.keys.seal(&page_of(asker, list), token.as_bytes()))
    }

    /// What [`Self::sealed_page`] sealed for the same caller and list.
    pub(super) fn opened_page(
        &self,
        asker: &Asker,
        list: &str,
        token: Option<&str>,
    ) -> Result<Option<String>, ApiError> {
        let Some(token) = token else { return Ok(None) };
        let opened = self.rooms.keys.unseal(&page_of(asker, list), token).ok();
        let opened = opened.and_then(|bytes| String::from_utf8(bytes).ok());
        opened.map(Some).ok_or_else(|| unavailable(&RegistryError::InvalidNextToken))
    }

    /// One session, if the caller may see it.
    pub async fn session(&self, asker: &Asker, id: &SessionId) -> Result<SessionRecord, ApiError> {
        if let Some(mut record) = self.registered(id).await?
            && self.may_see(asker, &record)
        {
            self.freshen(&mut record);
            return Ok(record);
        }
        Err(ApiError::client(Code::DoesNotExist, format!("there is no session {id}")))
    }

    /// The KMS key that a session is encrypted with upstream, if any.
    pub async fn kms_key_of(&self, record: &SessionRecord) -> Result<Option<String>, ApiError> {
        let key = self.rooms.registry.session_key(&record.id).await.map_err(|error| unavailable(&error))?;
        Ok(key.map(|key| crate::session::printable(&key.kms_key_id)))
    }

    /// What a running port session carries; for who may see the session.
    pub fn live_port(&self, id: &SessionId) -> Option<LivePort> {
        let live = self.live.get(id)?;
        Some(LivePort {
            destination: live.destination.clone()?,
            connections: live.counters.connections(),
            connections_open: live.counters.connections_open(),
        })
    }

    /// How long nothing was moved in a running session, milliseconds.
    pub fn idle_ms(&self, id: &SessionId) -> Option<u64> {
        let live = self.live.get(id).filter(|live| !live.has_ended())?;
        u64::try_from(live.running(std::time::Instant::now()).idle.as_millis()).ok()
    }

    /// Whether a running session has had a client, here or before.
    pub fn was_attached(&self, id: &SessionId) -> bool {
        self.live.get(id).is_some_and(|live| live.was_attached())
    }

    /// The numbers of the next output and input message of a running session.
    ///
    /// None if it is over, or if there was none since this process has it.
    pub fn next_numbers(&self, id: &SessionId) -> (Option<i64>, Option<i64>) {
        let live = self.live.get(id);
        let counters = live.as_ref().map(|live| &live.counters);
        (counters.and_then(|c| c.next_output()), counters.and_then(|c| c.next_input()))
    }

    /// The machines that the caller may see.
    pub async fn machines(&self, asker: &Asker) -> Result<Vec<Arc<Machine>>, ApiError> {
        let machines = self.rooms.broker.machines().await?;
        Ok(machines.iter().filter(|machine| self.may_list(asker, &machine.instance)).cloned().collect())
    }

    /// A page of those of them that fit, in the order of their ids.
    pub async fn machines_page(
        &self,
        asker: &Asker,
        fits: impl Fn(&Machine) -> bool,
        (limit, token): (usize, Option<&str>),
    ) -> Result<Page<Arc<Machine>>, ApiError> {
        let after = self.opened_page(asker, MACHINES, token)?;
        let mut rows = self.machines(asker).await?;
        let is_later =
            |row: &Machine| after.as_deref().is_none_or(|after| row.instance.target.as_str() > after);
        rows.retain(|row| is_later(row) && fits(row));
        rows.sort_by(|a, b| a.instance.target.cmp(&b.instance.target));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| last.instance.target.to_string());
        Ok(Page { rows, next: self.sealed_page(asker, MACHINES, next) })
    }

    /// Whether a machine that the caller may see answers.
    pub async fn connected(&self, asker: &Asker, target: &Target) -> Result<bool, ApiError> {
        match self.rooms.broker.instance(target).await {
            Ok(instance) if self.may_list(asker, &instance) => Ok(instance.online),
            _ => Ok(false),
        }
    }

    pub(super) async fn registered(&self, id: &SessionId) -> Result<Option<SessionRecord>, ApiError> {
        self.rooms.registry.session(id).await.map_err(|error| unavailable(&error))
    }

    /// Byte counts of a running session are with its relay.
    fn freshen(&self, record: &mut SessionRecord) {
        if let Some(live) = self.live.get(&record.id) {
            record.bytes_in = live.counters.input();
            record.bytes_out = live.counters.output();
            record.started_ms = record.started_ms.min(now_ms());
        }
    }
}

fn page_of(asker: &Asker, list: &str) -> String {
    format!("page of {list} for {}", asker.principal.id)
}

fn unavailable(error: &RegistryError) -> ApiError {
    if matches!(error, RegistryError::InvalidNextToken) {
        return ApiError::client(Code::InvalidNextToken, "the page token is not one of this gateway's");
    }
    tracing::error!(%error, "the registry did not answer");
    ApiError::gateway("the gateway could not look up its sessions; try again")
}
