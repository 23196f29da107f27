//! Is the log group there, and is it as configured?

use aws_sdk_cloudwatchlogs::types::{LogGroup, LogGroupClass};

use super::client::Logs;
use super::config::{AtLimit, LogClass};
use super::error::Trouble;
use super::{ShipperConfig, ShipperError};
use crate::broker::BrokerConfig;

/// What `PutRetentionPolicy` takes, days.
const RETENTIONS: &[u32] = &[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

/// Refuses settings that AWS would refuse later.
pub(super) fn check_settings(config: &ShipperConfig) -> Result<(), ShipperError> {
    let days = config.retention_days;
    if days != 0 && !RETENTIONS.contains(&days) {
        let sentence = format!("retention_days = {days} is not one of 0 (for ever), {RETENTIONS:?}");
        return Err(ShipperError::Config(sentence));
    }
    if config.at_limit == AtLimit::RemoveShipped && !config.recording {
        let sentence =
            "at_limit = \"remove_shipped\" needs recording = true: what is removed must be elsewhere";
        return Err(ShipperError::Config(sentence.to_owned()));
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
    if config.log_group.len() > 512 || !config.log_group.chars().all(valid) {
        let sentence = "log_group may have 512 letters, digits and any of _ - / . #".to_owned();
        return Err(ShipperError::Config(sentence));
    }
    Ok(())
}

/// Whether the log group is there, and in what it is not as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// It is there.
    Found(Vec<Difference>),
    /// It is not there, and the gateway creates it when it starts.
    ToBeCreated,
}

/// Something about a log group that is not as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub found: String,
    /// What to do about it.
    pub advice: String,
}

/// Looks at the log group and changes nothing.
pub async fn examine(config: &ShipperConfig, broker: &BrokerConfig) -> Result<Group, ShipperError> {
    check_settings(config)?;
    match Logs::connect(config, broker).await?.group().await? {
        Some(group) => Ok(Group::Found(differences(&group, config))),
        None if config.create => Ok(Group::ToBeCreated),
        None => Err(ShipperError::NoGroup(config.log_group.clone())),
    }
}

impl Logs {
    /// Finds or creates the group; gives how many days it keeps events.
    pub(super) async fn prepare_group(&self, config: &ShipperConfig) -> Result<Option<u32>, ShipperError> {
        if let Some(group) = self.group().await? {
            for Difference { found, advice } in differences(&group, config) {
                tracing::warn!(log_group = self.group, advice, "the log group is not as configured: {found}");
            }
            return Ok(group.retention_in_days.and_then(|days| u32::try_from(days).ok()));
        }
        if !config.create {
            return Err(ShipperError::NoGroup(self.group.clone()));
        }
        self.create_group(config).await?;
        Ok(Some(config.retention_days).filter(|days| *days > 0))
    }

    async fn group(&self) -> Result<Option<LogGroup>, ShipperError> {
        let call = self.client().describe_log_groups().log_group_name_prefix(&self.group);
        let found = call.send().await.map_err(|error| ShipperError::of("DescribeLogGroups", &error))?;
        // Groups come in the order of their names, so an exact one is first.
        let mut groups = found.log_groups.unwrap_or_default().into_iter();
        Ok(groups.find(|group| group.log_group_name() == Some(self.group.as_str())))
    }

    async fn create_group(&self, config: &ShipperConfig) -> Result<(), ShipperError> {
        let class = match config.class {
            LogClass::Standard => LogGroupClass::Standard,
            LogClass::InfrequentAccess => LogGroupClass::InfrequentAccess,
        };
        let mut call = self.client().create_log_group().log_group_name(&self.group).log_group_class(class);
        call = call.set_kms_key_id(config.kms_key_arn.clone());
        for (key, value) in &config.tags {
            call = call.tags(key, value);
        }
        let made = call.send().await.map_err(|error| ShipperError::of("CreateLogGroup", &error));
        match made {
            // Another node was faster.
            Err(error) if error.trouble() == Some(Trouble::Exists) => {}
            other => other.map(drop)?,
        }
        tracing::info!(log_group = self.group, "log group created");
        if let Some(days) = i32::try_from(config.retention_days).ok().filter(|days| *days > 0) {
            let call = self.client().put_retention_policy().log_group_name(&self.group);
            let kept = call.retention_in_days(days).send().await;
            kept.map_err(|error| ShipperError::of("PutRetentionPolicy", &error))?;
        }
        Ok(())
    }
}

/// In which respects a group is other than one that would be created.
fn differences(group: &LogGroup, config: &ShipperConfig) -> Vec<Difference> {
    let mut wrong = Vec::new();
    let mut differs = |found: String, advice: String| wrong.push(Difference { found, advice });
    let name = &config.log_group;
    let (days, wanted) = (group.retention_in_days.unwrap_or(0), config.retention_days);
    if wanted > 0 && i64::from(days) != i64::from(wanted) {
        let kept = if days == 0 { "for ever".to_owned() } else { format!("{days} days") };
        differs(
            format!("it keeps events {kept}, not {wanted} days"),
            format!("aws logs put-retention-policy --log-group-name {name} --retention-in-days {wanted}"),
        );
    }
    if let Some(key) = &config.kms_key_arn
        && group.kms_key_id.as_ref() != Some(key)
    {
        let other =
            group.kms_key_id.as_ref().map_or("no KMS key".to_owned(), |other| format!("the KMS key {other}"));
        differs(
            format!("it has {other}, not {key}"),
            format!(
                "aws logs associate-kms-key --log-group-name {name} --kms-key-id {key} (for events from then on)"
            ),
        );
    }
    let class = group.log_group_class.as_ref().map_or("STANDARD", LogGroupClass::as_str);
    if class == "INFREQUENT_ACCESS" && config.class == LogClass::Standard {
        differs(
            "its class is INFREQUENT_ACCESS, which has no metric filters, so no alarms".to_owned(),
            "a class cannot be changed: name another log_group, or set class = \"infrequent_access\""
                .to_owned(),
        );
    }
    wrong
}
