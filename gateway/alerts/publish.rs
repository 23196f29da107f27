//! Alerts to an SNS topic: kept in the registry until SNS has taken them.
//!
//! An alert is on disk before it is tried, so a stop or a crash loses none;
//! it may be published twice, always with the same id. Readers drop what
//! they have. When too many wait, what comes is counted and not published;
//! when one has waited too long, it is counted and given up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sns::Client;
use aws_sdk_sns::config::timeout::TimeoutConfig;
use aws_sdk_sns::error::DisplayErrorContext;
use tokio::sync::{Notify, watch};

use super::telling::Telling;
use super::{AlertsConfig, Rules};
use crate::broker::{self, BrokerConfig, BrokerError};
use crate::metrics::Metrics;
use crate::registry::{ALERTS_MAX, Registry, RegistryError, WaitingAlert};
use crate::session::{now_ms, printable};

/// Alerts that may wait in memory while the registry takes none.
const UNKEPT_MAX: usize = 1000;
/// How long an alert may wait for SNS.
const AGE_MAX: Duration = Duration::from_secs(14 * 86_400);
/// When an alert that another node has kept is published by this one.
const LEFT: Duration = Duration::from_secs(600);
/// How long between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it is looked for alerts of nodes that are gone, and for old ones.
const LOOK: Duration = Duration::from_secs(60);
/// What a stop waits for the last alerts to go.
const GRACE: Duration = Duration::from_secs(2);
/// How long a call may take.
const CONNECT: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(20);

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

/// Where alerts wait, by which node, and where that is counted.
pub struct Outbox {
    /// Keeps them.
    pub registry: Registry,
    /// Who raises them.
    pub node: String,
    /// Counts them.
    pub metrics: Arc<Metrics>,
}

/// Publishes alerts one after the other; cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    client: Client,
    topic: String,
    outbox: Outbox,
    /// What the registry did not take.
    unkept: Mutex<VecDeque<WaitingAlert>>,
    news: Notify,
}

/// Why nothing goes just now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("SNS took no alert: {0}; it is kept and tried again")]
    Sns(String),
    #[error("the alerts that wait cannot be read or noted: {0}")]
    Registry(#[from] RegistryError),
}

impl Publisher {
    /// The publisher of the topic; none if there is no topic, and no rule
    /// that needs one.
    pub async fn for_rules(
        rules: &Rules,
        config: &AlertsConfig,
        broker: &BrokerConfig,
        outbox: Outbox,
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
        let client = Client::from_conf(settings.build());
        let inner = Inner { client, topic, outbox, unkept: Mutex::default(), news: Notify::new() };
        Ok(Some(Self(Arc::new(inner))))
    }

    /// Keeps what is to be told; waits for the disk and not for SNS.
    ///
    /// If the registry takes it not, it waits in memory and is tried too.
    pub async fn say(&self, tellings: Vec<Telling>) {
        let alerts: Vec<WaitingAlert> = tellings.into_iter().map(|telling| telling.0).collect();
        if alerts.is_empty() {
            return;
        }
        if let Err(error) = self.keep(&alerts).await {
            tracing::error!(
                %error, alerts = alerts.len(),
                "alerts are not in the registry: they wait in memory and a crash would lose them"
            );
            let mut unkept = self.unkept();
            let room = UNKEPT_MAX.saturating_sub(unkept.len());
            let refused = alerts.len().saturating_sub(room);
            unkept.extend(alerts.into_iter().take(room));
            drop(unkept);
            self.refuse(refused, UNKEPT_MAX);
        }
        self.0.news.notify_one();
    }

    /// Publishes what waits and what comes, until the process stops.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut pause = PAUSE.0;
        loop {
            let tried = tokio::select! {
                tried = self.publish_next() => tried,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            let (wait, for_news) = match tried {
                Ok(true) => {
                    pause = PAUSE.0;
                    continue;
                }
                Ok(false) => (LOOK, true),
                Err(trouble) => {
                    tracing::warn!(why = %trouble, again_in = ?pause, "an alert is not published yet");
                    let wait = pause;
                    pause = (pause * 2).min(PAUSE.1);
                    (wait, false)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.news.notified(), if for_news => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        // What was raised last goes along, if it goes quickly; else it waits.
        let last = async { while let Ok(true) = self.publish_next().await {} };
        let _ = tokio::time::timeout(GRACE, last).await;
    }

    /// Publishes one alert; false if none waits.
    async fn publish_next(&self) -> Result<bool, Trouble> {
        let kept = self.next_kept().await;
        // While the registry does not work, what waits in memory goes first.
        let (alert, is_kept) = match self.unkept().front().cloned() {
            Some(alert) => (alert, false),
            None => match kept? {
                Some(alert) => (alert, true),
                None => return Ok(false),
            },
        };
        let call = self.0.client.publish().topic_arn(&self.0.topic);
        let sent = call.subject(&alert.subject).message(&alert.body).send().await;
        if let Err(error) = sent {
            self.count("retried", 1);
            if is_kept {
                self.0.outbox.registry.alert_tried(&alert.id).await?;
            }
            return Err(Trouble::Sns(printable(&DisplayErrorContext(&error).to_string())));
        }
        if is_kept {
            self.0.outbox.registry.alert_published(&alert.id).await?;
        } else {
            self.unkept().retain(|unkept| unkept.id != alert.id);
        }
        // Only now: until it is noted, a crash makes it published again.
        self.count("published", 1);
        Ok(true)
    }

    /// What the registry has to be published, without what is too old.
    ///
    /// What it did not take before is offered to it again.
    async fn next_kept(&self) -> Result<Option<WaitingAlert>, RegistryError> {
        let registry = &self.0.outbox.registry;
        let unkept: Vec<WaitingAlert> = self.unkept().iter().cloned().collect();
        if !unkept.is_empty() {
            self.keep(&unkept).await?;
            self.unkept().retain(|alert| !unkept.contains(alert));
        }
        let expired = registry.expire_alerts(ago(AGE_MAX)).await?;
        if expired > 0 {
            let days = AGE_MAX.as_secs() / 86_400;
            tracing::error!(
                expired,
                days,
                "alerts that SNS did not take for so many days are given up; their recordings are marked"
            );
            self.count("expired", expired);
        }
        let waiting = self.0.outbox.metrics.queue_depth.with_label_values(&["alerts"]);
        waiting.set(i64::try_from(registry.alerts_waiting().await?).unwrap_or(i64::MAX));
        registry.next_alert(&self.0.outbox.node, ago(LEFT)).await
    }

    async fn keep(&self, alerts: &[WaitingAlert]) -> Result<(), RegistryError> {
        let refused = self.0.outbox.registry.keep_alerts(&self.0.outbox.node, alerts).await?;
        self.refuse(refused, ALERTS_MAX as usize);
        Ok(())
    }

    fn refuse(&self, refused: usize, most: usize) {
        if refused > 0 {
            tracing::error!(refused, most, "too many alerts wait for SNS; new ones are not published");
            self.count("dropped", u64::try_from(refused).unwrap_or(u64::MAX));
        }
    }

    fn count(&self, result: &str, many: u64) {
        self.0.outbox.metrics.watch.alerts_published.with_label_values(&[result]).inc_by(many);
    }

    fn unkept(&self) -> MutexGuard<'_, VecDeque<WaitingAlert>> {
        self.0.unkept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ago(time: Duration) -> u64 {
    now_ms().saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
