//! Which sessions run past the gateway? SSM's own list against the registry.
//!
//! Whoever may call StartSession with keys of their own is neither decided
//! upon nor recorded. They are found, counted, told of; the list of those
//! that run now is for who administers the gateway.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::alerts::{Publisher, Telling};
use crate::broker::{AtAws, Fleet};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::session::now_ms;

/// A session is the registry's to know so long after it began.
const GRACE: Duration = Duration::from_secs(30);

/// Those that run now, as the last look has found them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// When the last look was over, ms since the Unix epoch; none so far.
    pub looked_ms: Option<u64>,
    /// The sessions, as SSM orders them.
    pub sessions: Vec<AtAws>,
}

/// Looks for sessions that run past the gateway.
pub struct Shadows {
    broker: Arc<Fleet>,
    registry: Registry,
    metrics: Arc<Metrics>,
    publisher: Option<Publisher>,
    seen: ArcSwap<Seen>,
}

impl Shadows {
    /// Nothing was looked at yet.
    pub fn new(
        broker: Arc<Fleet>,
        registry: Registry,
        metrics: Arc<Metrics>,
        publisher: Option<Publisher>,
    ) -> Self {
        Self { broker, registry, metrics, publisher, seen: ArcSwap::default() }
    }

    /// What the last look has found.
    pub fn seen(&self) -> Arc<Seen> {
        self.seen.load_full()
    }

    /// Looks again and again, until the process stops.
    pub async fn look(self: Arc<Self>, every: Duration, mut stopped: watch::Receiver<bool>) {
        let mut rounds = tokio::time::interval(every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            match self.find(GRACE.min(every)).await {
                Ok(sessions) => self.tell(sessions).await,
                // What was found before stays found: nothing says that it is over.
                Err(why) => tracing::warn!(why, "sessions past the gateway could not be looked for"),
            }
        }
    }

    async fn find(&self, grace: Duration) -> Result<Vec<AtAws>, String> {
        let running = self.broker.sessions_at_aws().await.map_err(|error| error.to_string())?;
        let ids: Vec<String> = running.iter().map(|session| session.id.clone()).collect();
        // The registry is asked after AWS, so what it has not is not on its way.
        let ours = self.registry.upstream_ids(&ids).await;
        let ours = ours.map_err(|error| error.to_string())?;
        let young = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let now = now_ms();
        let is_shadow =
            |session: &AtAws| !ours.contains(&session.id) && now.saturating_sub(session.started_ms) >= young;
        Ok(running.into_iter().filter(is_shadow).collect())
    }

    /// Counts what was found, and tells of each session once.
    async fn tell(&self, sessions: Vec<AtAws>) {
        let before = self.seen.load_full();
        let known: HashSet<&str> = before.sessions.iter().map(|session| session.id.as_str()).collect();
        for shadow in sessions.iter().filter(|session| !known.contains(session.id.as_str())) {
            self.metrics.watch.shadow_sessions_seen.inc();
            tracing::warn!(
                upstream = %shadow.id, owner = %shadow.owner, target = %shadow.target,
                "a session runs past the gateway"
            );
            if let Some(publisher) = &self.publisher {
                let subject = format!("Postern: session past the gateway on {}", shadow.target);
                let (rule, what) = ("shadow-session", shadow.id.as_str());
                let body = json!({ "alert": rule, "session": shadow });
                publisher.say(vec![Telling::new(&subject, &[rule, what], body)]).await;
            }
        }
        self.metrics.watch.shadow_sessions.set(i64::try_from(sessions.len()).unwrap_or(i64::MAX));
        drop(known);
        self.seen.store(Arc::new(Seen { looked_ms: Some(now_ms()), sessions }));
    }
}
