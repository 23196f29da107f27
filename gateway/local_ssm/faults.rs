//! What tests do to a running stand-in, and what they ask it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::Running;
use super::sessions::{Counts, Order};

impl Running {
    /// The ids of the live sessions, newest first.
    pub fn live_sessions(&self) -> Vec<String> {
        self.service.sessions.list(true).iter().map(|session| session.id.to_string()).collect()
    }

    /// The user that a session was to run as, if its caller's tags say one.
    pub fn run_as(&self, session: &str) -> Option<String> {
        self.service.sessions.find(session)?.run_as.clone()
    }

    /// Cuts a session's connection without a word; false if it has none.
    pub async fn drop_connections(&self, session: &str) -> bool {
        self.order(session, Order::Cut).await
    }

    /// Closes a session's connection with 1000 `Bye`, as AWS every hour.
    pub async fn close_with_bye(&self, session: &str) -> bool {
        self.order(session, Order::Bye).await
    }

    /// Ends a session as the service does, at anybody's request.
    pub fn terminate(&self, session: &str) -> bool {
        self.service.sessions.find(session).is_some_and(|session| session.order(Order::Terminate))
    }

    /// Takes a target's agent off the network, or puts it back.
    pub fn set_online(&self, target: &str, online: bool) {
        let mut offline = self.service.offline.lock();
        if online {
            offline.remove(target);
        } else {
            offline.entry(target.to_owned()).or_insert_with(OffsetDateTime::now_utc);
        }
    }

    /// Gives a managed instance other tags, as `ListTagsForResource` tells.
    pub fn set_tags(&self, target: &str, tags: BTreeMap<String, String>) {
        self.service.retagged.lock().insert(target.to_owned(), tags);
    }

    /// Makes every key that `AssumeRole` gave out too old.
    pub fn expire_temporary_keys(&self) {
        self.service.callers.expire_all();
    }

    /// Makes the key service fail, or work again.
    pub fn set_keys_failing(&self, failing: bool) {
        self.service.keys.set_failing(failing);
    }

    /// Alters the next encrypted message of a session on its way.
    pub fn spoil_next_output(&self, session: &str) {
        if let Some(session) = self.service.sessions.find(session) {
            session.spoil_next.store(true, Ordering::Relaxed);
        }
    }

    /// What happened to a session's messages, live or over.
    pub fn counts(&self, session: &str) -> Option<Counts> {
        self.service.sessions.find(session).map(|session| session.counts())
    }

    /// Every output byte that the agent sent, once each and in order.
    ///
    /// Empty unless [`Habits::keep_sent`](super::Habits) is on.
    pub fn sent(&self, session: &str) -> Vec<u8> {
        self.service.sessions.find(session).map(|session| session.kept()).unwrap_or_default()
    }

    async fn order(&self, session: &str, order: fn(oneshot::Sender<bool>) -> Order) -> bool {
        let (told, answer) = oneshot::channel();
        let Some(session) = self.service.sessions.find(session) else { return false };
        session.order(order(told)) && answer.await.unwrap_or(false)
    }
}
