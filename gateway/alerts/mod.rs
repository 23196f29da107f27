//! Is somebody to be told? Rules that look at commands and output live.
//!
//! A thread of its own follows the recordings, so that no rule slows a
//! session down. What meets a rule is counted, published if the rule says
//! so, and handed to the session's owner, who marks the recording and asks
//! policy whether the session may go on. After a restart it reads what it
//! may have missed: an alert that is not marked in the recording is raised.

mod config;
mod publish;
mod rules;
mod sessions;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use config::AlertsConfig;
pub use publish::{PublishError, Publisher};
pub use rules::{On, Rule, Rules, RulesError};

use crate::metrics::Metrics;
use crate::recorder::Feed;
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
pub enum Watched {
    /// A rule was met.
    Alert(Raised),
    /// A command was sent off: its label, for a marker in the recording.
    Command(SessionId, String),
}

/// Follows every recording from now on, until the recorder is closed.
///
/// With no rules nothing is followed, and the receiver ends at once.
pub fn watch(
    rules: Rules,
    feed: Feed,
    publisher: Option<Publisher>,
    metrics: Arc<Metrics>,
) -> std::io::Result<mpsc::Receiver<Watched>> {
    let (raised, receiver) = mpsc::channel(RAISED_MAX);
    if rules.is_empty() {
        return Ok(receiver);
    }
    let mut follower = feed.follow();
    let runtime = tokio::runtime::Handle::current();
    let mut sessions = Sessions::new(rules, feed);
    std::thread::Builder::new().name("alerts".into()).spawn(move || {
        while let Some(shipment) = runtime.block_on(follower.next()) {
            for (rule, alert) in sessions.follow(shipment) {
                if alert.marked {
                    let _ = raised.blocking_send(Watched::Alert(alert));
                    continue;
                }
                metrics.watch.alerts.with_label_values(&[&rule.name]).inc();
                tracing::warn!(
                    session = %alert.session, rule = %alert.rule, text = alert.text, "alert raised"
                );
                if let Some(publisher) = publisher.as_ref().filter(|_| rule.publish) {
                    publisher.say_alert(&alert, sessions.about(&alert.session).as_deref());
                }
                // Nobody takes it: the gateway is going down.
                let _ = raised.blocking_send(Watched::Alert(alert));
            }
            for (session, label) in sessions.commands() {
                let _ = raised.blocking_send(Watched::Command(session, label));
            }
        }
    })?;
    Ok(receiver)
}
