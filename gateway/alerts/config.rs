//! What the operator sets about alerts.

use std::path::PathBuf;

use serde::Deserialize;

/// `[alerts]` of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// The rules; `alerts.toml` in the policy folder, if it is there.
    pub rules: Option<PathBuf>,
    /// The SNS topic for rules that publish.
    pub topic_arn: Option<String>,
    /// Where SNS is called, if not at AWS.
    pub sns_endpoint_url: Option<String>,
}
