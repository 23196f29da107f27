//! Is somebody to be told? Rules that look at commands and output live.
//!
//! A thread of its own follows the recordings, so that no rule slows a
//! session down. What meets a rule is counted, kept to be published if the
//! rule says so, and handed to the session's owner, who marks the recording and asks
//! policy whether the session may go on. After a restart it reads what it
//! may have missed: an alert that is not marked in the recording is raised.

mod config;
mod publish;
mod rules;
mod sessions;
mod telling;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use config::AlertsConfig;
pub use publish::{Outbox, PublishError, Publisher};
pub use rules::{On, Rule, Rules, RulesError};
pub use telling::Telling;

use crate::metrics::Metrics;
use crate::recorder::{Feed, Shipment};
use crate::session::SessionId;
use sessions::Sessions;

/// Alerts that may wait for the sessions' owner.
const RAISED_MAX: usize = 1024;
/// What a mark of an alert begins with, in recordings.
pub const MARK: &str = "alert ";

/// One alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// In which session.
    pub session: SessionId,
    /// By which rule.
    pub rule: Arc<str>,
    /// When, milliseconds since the recording began.
    pub time_ms: u64,
    /// What met it, without control characters, cut.
    pub text: String,
    /// Whether an earlier process has raised it and marked the recording.
    pub marked: bool,
}

impl Raised {
    /// The mark in the recording: `alert NAME: TEXT`.
    pub fn mark(&self) -> String {
        format!("{MARK}{}: {}", self.rule, self.text)
    }
}

/// What was seen in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A rule was met.
    Alert(Raised),
    /// A command was sent off: its label, for a marker in the recording.
    Command(SessionId, String),
}

/// The thread that follows the recordings.
pub struct Watch {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Has it look at all lines that there are, and end.
    ///
    /// What is raised by them is kept when this returns.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread {
            // A panic in it has been reported; nothing is to be done about it.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Follows every recording from now on, until the recorder is closed.
///
/// With no rules nothing is followed, and the receiver ends at once.
pub fn watch(
    rules: Rules,
    feed: Feed,
    publisher: Option<Publisher>,
    metrics: Arc<Metrics>,
) -> std::io::Result<(mpsc::Receiver<Seen>, Watch)> {
    let (raised, receiver) = mpsc::channel(RAISED_MAX);
    let (stop, mut stopped) = watch::channel(false);
    if rules.is_empty() {
        return Ok((receiver, Watch { stop, thread: None }));
    }
    let mut follower = feed.follow();
    let runtime = Handle::current();
    let mut watcher = Watcher { sessions: Sessions::new(rules, feed), publisher, metrics, raised };
    let thread = std::thread::Builder::new().name("alerts".into()).spawn(move || {
        let next = async || {
            tokio::select! {
                biased;
                shipment = follower.next() => shipment,
                _ = stopped.wait_for(|stopped| *stopped) => None,
            }
        };
        watcher.follow(&runtime, next);
    })?;
    Ok((receiver, Watch { stop, thread: Some(thread) }))
}

/// What is watched, and whom it is told to.
struct Watcher {
    sessions: Sessions,
    publisher: Option<Publisher>,
    metrics: Arc<Metrics>,
    raised: mpsc::Sender<Seen>,
}

impl Watcher {
    fn follow(&mut self, runtime: &Handle, mut next: impl AsyncFnMut() -> Option<Shipment>) {
        while let Some(shipment) = runtime.block_on(next()) {
            let session = shipment.session().clone();
            let met = self.sessions.follow(shipment);
            let mut tellings = Vec::new();
            for (rule, alert) in met.iter().filter(|(_, alert)| !alert.marked) {
                self.metrics.watch.alerts.with_label_values(&[&rule.name]).inc();
                tracing::warn!(
                    session = %alert.session, rule = %alert.rule, text = alert.text, "alert raised"
                );
                if rule.publish {
                    let about = self.sessions.about(&alert.session);
                    tellings.push(Telling::of(alert, about.as_deref()));
                }
            }
            // Before its mark is in the recording, which says that it needs
            // not be raised again.
            if let Some(publisher) = &self.publisher {
                runtime.block_on(publisher.say(tellings));
            }
            for (_, alert) in met {
                // Nobody takes it: the gateway is going down.
                let _ = self.raised.blocking_send(Seen::Alert(alert));
            }
            for label in self.sessions.labels(&session) {
                let _ = self.raised.blocking_send(Seen::Command(session.clone(), label));
            }
        }
    }
}
