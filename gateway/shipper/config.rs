//! What the shipper is told.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Where sessions are shipped to, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShipperConfig {
    /// The log group of all sessions; empty: nothing is shipped.
    pub log_group: String,
    /// Whether the gateway creates the group if it is not there.
    pub create: bool,
    /// Class of a group that the gateway creates.
    pub class: LogClass,
    /// How long a group that the gateway creates keeps events; 0: for ever.
    pub retention_days: u32,
    /// The KMS key of a group that the gateway creates.
    pub kms_key_arn: Option<String>,
    /// Tags of a group that the gateway creates.
    pub tags: BTreeMap<String, String>,
    /// Whether events that people and filters can read are shipped.
    pub transcript: bool,
    /// Whether events that hold the exact recording are shipped.
    pub recording: bool,
    /// CloudWatch Logs, if not AWS's own; `https`, or `http` on loopback.
    pub endpoint_url: Option<String>,
    /// Largest spool, megabytes; 0: no limit.
    pub spool_limit_mb: u64,
    /// What happens at that limit; nothing is ever lost.
    pub at_limit: AtLimit,
}

/// What happens when the spool is at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtLimit {
    /// No new session begins until somebody makes room.
    Stop,
    /// Sealed recordings that CloudWatch has wholly are removed from the
    /// spool, oldest first; no session begins if that is not enough.
    RemoveShipped,
}

/// The class of a log group; it cannot be changed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogClass {
    /// With metric filters, subscriptions and live tail.
    Standard,
    /// Half the price; without metric filters, so without alarms.
    InfrequentAccess,
}

impl Default for ShipperConfig {
    fn default() -> Self {
        Self {
            log_group: String::new(),
            create: false,
            class: LogClass::Standard,
            retention_days: 0,
            kms_key_arn: None,
            tags: BTreeMap::new(),
            transcript: true,
            recording: true,
            endpoint_url: None,
            spool_limit_mb: 0,
            at_limit: AtLimit::Stop,
        }
    }
}

impl ShipperConfig {
    /// Whether anything is shipped.
    pub fn is_on(&self) -> bool {
        !self.log_group.is_empty() && (self.transcript || self.recording)
    }
}
