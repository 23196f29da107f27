//! `policy` events: every decision of policy, in a log stream of its node.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::batch::{LogEvent, Window, batches};
use super::carrier::retimed;
use super::error::Trouble;
use super::event::{Arn, Named};
use super::{Shipper, ShipperError};
use crate::session::{now_ms, sanitised_name};

/// In front of the node's name; no session's id has a slash.
const STREAM: &str = "policy/";
/// Attempts before a batch is left for later.
const ATTEMPTS: u32 = 3;

/// One decision, as flat as a metric filter needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyEvent {
    /// The decision's id; an event that comes twice has the same.
    pub decision_id: String,
    /// When, ms since the Unix epoch.
    pub at_ms: u64,
    /// The answer.
    pub allowed: bool,
    /// What for.
    pub action: String,
    /// Who asked: an ARN.
    pub principal: String,
    /// On which machine; empty if on none.
    pub target: String,
    /// With which document.
    pub document: Option<String>,
    /// The session that it let begin or was about; empty if none.
    pub session: String,
    /// The policies that decided, with commas.
    pub policies: String,
    /// The digest of the policy set.
    pub policy_set: String,
    /// The answer in one safe line.
    pub sentence: String,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// From where.
    pub source_ip: Option<String>,
    /// How long the answer took, microseconds.
    pub took_us: Option<u64>,
}

/// The same in Session Manager's eight fields, and flat scalars.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    event_version: &'static str,
    event_time: String,
    aws_region: &'a str,
    target: Named<'a>,
    user_identity: Arn<'a>,
    run_as_user: &'static str,
    session_id: &'a str,
    session_data: [&'a str; 0],
    event_name: &'static str,
    event_time_ms: u64,
    decision_id: &'a str,
    decision: &'static str,
    action: &'a str,
    principal: &'a str,
    target_id: &'a str,
    gateway_session_id: &'a str,
    policy_ids: &'a str,
    policy_set: &'a str,
    sentence: &'a str,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_us: Option<u64>,
}

impl Shipper {
    /// Whether decisions are shipped: with what people and filters read.
    pub fn ships_decisions(&self) -> bool {
        self.depot.ships_transcripts()
    }

    /// Stores decisions in their node's log stream; all, or an error.
    ///
    /// After an error some may be stored; they may be sent again.
    pub async fn ship_decisions(&self, node: &str, events: Vec<PolicyEvent>) -> Result<(), ShipperError> {
        let depot = &self.depot;
        let stream = format!("{STREAM}{}", sanitised_name(node));
        let made = events.iter().filter_map(|event| event.in_region(&depot.logs.region, node));
        let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        let window = Window::at(now, depot.retention_days());
        for batch in batches(made.collect(), window) {
            let sent = self.put(&stream, batch).await;
            if let Some(trouble) = sent.as_ref().err().and_then(ShipperError::trouble) {
                depot.count_error(trouble);
            }
            sent?;
        }
        Ok(())
    }

    async fn put(&self, stream: &str, mut batch: Vec<LogEvent>) -> Result<(), ShipperError> {
        let logs = &self.depot.logs;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = attempt >= ATTEMPTS;
            match logs.put(stream, &batch).await {
                Ok(rejected) if rejected.is_empty() => {
                    self.depot.counted(&batch);
                    return Ok(());
                }
                Ok(_) if last => return Err(ShipperError::rejected()),
                Ok(rejected) => batch = retimed(rejected),
                // The first ones of a node find no stream yet.
                Err(error) if error.trouble() == Some(Trouble::Missing) && !last => {
                    logs.create_stream(stream).await?;
                }
                Err(error) if error.trouble() == Some(Trouble::Credentials) && !last => logs.renew().await?,
                Err(error) => return Err(error),
            }
        }
    }
}

impl PolicyEvent {
    fn in_region(&self, region: &str, node: &str) -> Option<LogEvent> {
        let at_ms = i64::try_from(self.at_ms).unwrap_or(i64::MAX);
        let seconds = OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000)).ok()?;
        let event = Event {
            event_version: "1.0",
            event_time: seconds.format(&Rfc3339).ok()?,
            aws_region: region,
            target: Named { id: &self.target },
            user_identity: Arn { arn: &self.principal },
            run_as_user: "",
            session_id: &self.session,
            session_data: [],
            event_name: "policy",
            event_time_ms: self.at_ms,
            decision_id: &self.decision_id,
            decision: if self.allowed { "allow" } else { "deny" },
            action: &self.action,
            principal: &self.principal,
            target_id: &self.target,
            gateway_session_id: &self.session,
            policy_ids: &self.policies,
            policy_set: &self.policy_set,
            sentence: &self.sentence,
            node,
            document: self.document.as_deref(),
            reason: self.reason.as_deref(),
            source_ip: self.source_ip.as_deref(),
            took_us: self.took_us,
        };
        Some(LogEvent { at_ms, message: serde_json::to_string(&event).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_decision_is_flat_and_the_alarm_that_ships_is_raised_by_a_denial() {
        let template = include_str!("../../deploy/alarms/denials.yaml");
        let pattern = template.lines().find_map(|line| line.trim().strip_prefix("FilterPattern: '"));
        assert_eq!(pattern, Some("{ $.eventName = \"policy\" && $.decision = \"deny\" }'"));
        for (allowed, decision) in [(false, "deny"), (true, "allow")] {
            let made = PolicyEvent { allowed, at_ms: 1_785_000_001_500, ..PolicyEvent::default() };
            let event = made.in_region("eu-west-1", "node-a").unwrap();
            let event: Value = serde_json::from_str(&event.message).unwrap();
            assert_eq!((&event["eventName"], &event["decision"]), (&"policy".into(), &decision.into()));
            assert_eq!(event["eventTime"], "2026-07-25T17:20:01Z");
            let scalars = event.as_object().unwrap().iter().filter(|(_, value)| !value.is_object());
            assert!(scalars.filter(|(key, _)| *key != "sessionData").all(|(_, value)| !value.is_array()));
        }
    }
}
