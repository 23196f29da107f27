//! Alerts to an SNS topic: in order, with patience, within bounds.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sns::Client;
use aws_sdk_sns::config::timeout::TimeoutConfig;
use aws_sdk_sns::error::DisplayErrorContext;
use serde_json::json;
use tokio::sync::mpsc;

use super::{AlertsConfig, Raised, Rules};
use crate::asciicast::Header;
use crate::broker::{self, BrokerConfig, BrokerError};
use crate::metrics::Metrics;
use crate::session::printable;

/// Alerts that may wait for SNS; more are counted and not published.
const WAITING_MAX: usize = 1000;
/// How long an alert is tried again, and how long between two tries.
const TRY_FOR: Duration = Duration::from_secs(15 * 60);
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a call may take.
const CONNECT: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(20);
/// Longest subject that SNS takes, ASCII characters.
const SUBJECT_MAX: usize = 100;

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No topic.
    #[error("rule {0:?} publishes, but alerts.topic_arn is not set")]
    NoTopic(String),
    /// No AWS configuration.
    #[error(transparent)]
    Aws(#[from] BrokerError),
}

/// Publishes alerts one after the other.
#[derive(Clone)]
pub struct Publisher {
    waiting: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
}

struct Message {
    subject: String,
    body: String,
}

impl Publisher {
    /// The publisher of the topic; none if there is no topic, and no rule
    /// that needs one.
    pub async fn for_rules(
        rules: &Rules,
        config: &AlertsConfig,
        broker: &BrokerConfig,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, PublishError> {
        let Some(topic) = config.topic_arn.clone() else {
            return match rules.all().find(|rule| rule.publish) {
                Some(rule) => Err(PublishError::NoTopic(rule.name.clone())),
                None => Ok(None),
            };
        };
        let sdk = broker::aws_config(broker).await?;
        let mut settings = aws_sdk_sns::config::Builder::from(&sdk).timeout_config(
            TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build(),
        );
        if let Some(url) = &config.sns_endpoint_url {
            settings = settings.endpoint_url(broker::endpoint(url)?);
        }
        Ok(Some(Self::start(Client::from_conf(settings.build()), topic, Arc::clone(metrics))))
    }

    /// Begins to publish to that topic.
    fn start(client: Client, topic: String, metrics: Arc<Metrics>) -> Self {
        let (waiting, mut queue) = mpsc::channel::<Message>(WAITING_MAX);
        let counts = Arc::clone(&metrics);
        tokio::spawn(async move {
            while let Some(message) = queue.recv().await {
                let result = if publish(&client, &topic, &message).await { "published" } else { "failed" };
                counts.watch.alerts_published.with_label_values(&[result]).inc();
            }
        });
        Self { waiting, metrics }
    }

    /// Takes something to be told; never waits.
    ///
    /// The subject loses what SNS does not take.
    pub fn say(&self, subject: &str, body: &serde_json::Value) {
        let subject: String = subject.chars().filter(char::is_ascii).take(SUBJECT_MAX).collect();
        let message = Message { subject: subject.clone(), body: body.to_string() };
        if self.waiting.try_send(message).is_err() {
            tracing::error!(subject, "too many alerts wait for SNS; this one is not published");
            self.metrics.watch.alerts_published.with_label_values(&["dropped"]).inc();
        }
    }

    /// Takes a session's alert; never waits.
    pub(super) fn say_alert(&self, alert: &Raised, header: Option<&Header>) {
        self.say(&format!("Postern alert {} in {}", alert.rule, alert.session), &body(alert, header));
    }
}

async fn publish(client: &Client, topic: &str, message: &Message) -> bool {
    let began = tokio::time::Instant::now();
    let mut pause = PAUSE;
    loop {
        let call = client.publish().topic_arn(topic).subject(&message.subject).message(&message.body);
        let Err(error) = call.send().await else { return true };
        let why = printable(&DisplayErrorContext(&error).to_string());
        if began.elapsed() >= TRY_FOR {
            tracing::error!(why, "an alert could not be published");
            return false;
        }
        tracing::warn!(why, "an alert is not published yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What is said of an alert, and of the session by its header.
fn body(alert: &Raised, header: Option<&Header>) -> serde_json::Value {
    let said = |name| header.and_then(|header| header.said(name));
    let at = header
        .and_then(|header| u64::try_from(header.timestamp).ok())
        .map(|began| began * 1000 + alert.time_ms);
    json!({
        "alert": &*alert.rule,
        "text": alert.text,
        "session": alert.session,
        "principal": said("principal"),
        "target": said("target"),
        "node": said("node"),
        "time_ms": at,
        "offset_ms": alert.time_ms,
        "replay": format!("postern replay {} --at {}s", alert.session, alert.time_ms / 1000),
    })
}
