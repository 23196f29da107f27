//! `DescribeInstanceInformation`: its filters checked, its rows in AWS's words.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Front;
use super::call::Call;
use super::operations::{invalid, page_size, parse, seconds, with_known, with_token};
use crate::error::{ApiError, Code};
use crate::session::{Associations, Instance, Machine, Target};

/// Fewest and most rows of one page, as in AWS.
const PAGE: RangeInclusive<usize> = 5..=50;
/// Rows of one page, if the caller does not say, as in AWS.
const PAGE_USUAL: usize = 10;
/// Most values of a filter, as in AWS.
const VALUES_MAX: usize = 100;
/// Most filters of one call; AWS has fewer keys.
const FILTERS_MAX: usize = 50;

/// The values of a key of filters.
#[derive(Clone, Copy)]
enum Takes {
    /// Whatever somebody looks for.
    Anything,
    /// Ids of machines.
    Ids,
    /// One of those that AWS knows.
    OneOf(&'static [&'static str]),
}

const PLATFORMS: Takes = Takes::OneOf(&["Windows", "Linux", "MacOS"]);
/// Keys of both lists of filters.
const KEYS: [(&str, Takes); 12] = [
    ("InstanceIds", Takes::Ids),
    ("AgentVersion", Takes::Anything),
    ("PingStatus", Takes::OneOf(&["Online", "ConnectionLost", "Inactive"])),
    ("PlatformType", PLATFORMS),
    ("PlatformTypes", PLATFORMS),
    ("ResourceType", Takes::OneOf(&["EC2Instance", "ManagedInstance"])),
    ("SourceTypes", Takes::OneOf(&["AWS::EC2::Instance", "AWS::SSM::ManagedInstance", "AWS::IoT::Thing"])),
    ("tag-key", Takes::Anything),
    ("ActivationIds", Takes::Anything),
    ("AssociationStatus", Takes::OneOf(&["Success", "Pending", "Failed"])),
    ("IamRole", Takes::Anything),
    ("SourceIds", Takes::Anything),
];
/// Keys that only the newer list of filters has.
const NEWER: [&str; 4] = ["PlatformType", "SourceTypes", "SourceIds", "tag-key"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeInstances {
    max_results: Option<i64>,
    next_token: Option<String>,
    #[serde(default)]
    filters: Vec<InstanceFilter>,
    #[serde(default)]
    instance_information_filter_list: Vec<OldInstanceFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceFilter {
    key: String,
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldInstanceFilter {
    key: String,
    value_set: Vec<String>,
}

/// Answers one call; policy leaves out what the caller may not see.
pub(super) async fn describe(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let input: DescribeInstances = parse(&call.body)?;
    let limit = page_size(input.max_results, PAGE, PAGE_USUAL)?;
    let token = input.next_token.clone();
    let filters = filters(input)?;
    let fits = |machine: &Machine| filters.iter().all(|wanted| wanted.fits(machine));
    let page = front.lifecycle.machines_page(&call.asker, fits, (limit, token.as_deref())).await?;
    let list: Vec<Value> = page.rows.iter().map(|machine| machine_json(machine)).collect();
    Ok(with_token(json!({"InstanceInformationList": list}), page.next))
}

/// The filters of either list, each one checked.
fn filters(input: DescribeInstances) -> Result<Vec<InstanceFilter>, ApiError> {
    let older = input.instance_information_filter_list;
    if !older.is_empty() && !input.filters.is_empty() {
        return Err(invalid("give Filters or InstanceInformationFilterList, not both"));
    }
    if let Some(wrong) = older.iter().find(|old| !is_older(&old.key)) {
        let key = &wrong.key;
        return Err(invalid(format!(
            "InstanceInformationFilterList has no key {key}; Filters has more keys"
        )));
    }
    let older = older.into_iter().map(|old| InstanceFilter { key: old.key, values: old.value_set });
    let all: Vec<InstanceFilter> = input.filters.into_iter().chain(older).collect();
    if all.len() > FILTERS_MAX {
        return Err(invalid(format!("there are {} filters; at most {FILTERS_MAX} are looked at", all.len())));
    }
    all.iter().try_for_each(InstanceFilter::check)?;
    Ok(all)
}

fn is_older(key: &str) -> bool {
    KEYS.iter().any(|(known, _)| *known == key) && !NEWER.contains(&key)
}

impl InstanceFilter {
    fn check(&self) -> Result<(), ApiError> {
        let key = self.key.as_str();
        if self.values.is_empty()
            || self.values.len() > VALUES_MAX
            || self.values.iter().any(String::is_empty)
        {
            return Err(invalid(format!(
                "the filter {key} must have 1 to {VALUES_MAX} values, none of them empty"
            )));
        }
        if key.strip_prefix("tag:").is_some_and(|name| !name.is_empty()) {
            return Ok(());
        }
        let Some((_, takes)) = KEYS.iter().find(|(known, _)| *known == key) else {
            let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
            let sentence = format!("there is no filter {key}; known are {} and tag:NAME", known.join(", "));
            return Err(ApiError::client(Code::InvalidFilterKey, sentence));
        };
        let wrong = |fits: &dyn Fn(&str) -> bool| self.values.iter().find(|value| !fits(value));
        let (wrong, valid) = match takes {
            Takes::Anything => return Ok(()),
            Takes::Ids => (wrong(&|id| Target::parse(id).is_ok()), "ids of machines".to_owned()),
            Takes::OneOf(known) => (wrong(&|value| known.contains(&value)), known.join(", ")),
        };
        let Some(wrong) = wrong else { return Ok(()) };
        let sentence = format!("{key} is never {wrong}; valid values are {valid}");
        Err(ApiError::client(Code::InvalidInstanceInformationFilterValue, sentence))
    }

    fn fits(&self, Machine { instance, details }: &Machine) -> bool {
        let is = |value: &str| self.values.iter().any(|wanted| wanted == value);
        let known = |text: &Option<Box<str>>| text.as_deref().is_some_and(is);
        match self.key.as_str() {
            "InstanceIds" => is(instance.target.as_str()),
            "PingStatus" => is(ping_status(instance.online, details.inactive)),
            "PlatformType" | "PlatformTypes" => instance.platform.as_deref().is_some_and(is),
            "AgentVersion" => instance.agent_version.as_deref().is_some_and(is),
            "ResourceType" => is(resource_type(instance)),
            "ActivationIds" => known(&details.activation_id),
            "AssociationStatus" => known(&details.association_status),
            "IamRole" => known(&details.iam_role),
            "SourceIds" => known(&details.source_id),
            "SourceTypes" => known(&details.source_type),
            "tag-key" => instance.tags.keys().any(|key| is(key)),
            key => {
                let tag = key.strip_prefix("tag:").and_then(|key| instance.tags.get(key));
                tag.is_some_and(|value| is(value))
            }
        }
    }
}

/// A row; what is not known of a machine is not there, as in AWS.
fn machine_json(Machine { instance, details }: &Machine) -> Value {
    let row = json!({
        "InstanceId": instance.target,
        "PingStatus": ping_status(instance.online, details.inactive),
        "ResourceType": resource_type(instance),
    });
    // SSM has no names of EC2's: those are tags, and who calls here may not ask EC2.
    let tag = instance.tags.get("Name").filter(|name| !name.is_empty());
    let name = tag.map(|name| Value::from(name.as_str())).or_else(|| text(&details.name));
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(Value::from);
    let optional = [
        ("LastPingDateTime", moment(details.last_ping_ms)),
        ("AgentVersion", said(&instance.agent_version)),
        ("IsLatestVersion", details.latest_agent.map(Value::from)),
        ("PlatformType", said(&instance.platform)),
        ("PlatformName", text(&details.platform_name)),
        ("PlatformVersion", text(&details.platform_version)),
        ("ActivationId", text(&details.activation_id)),
        ("IamRole", text(&details.iam_role)),
        ("RegistrationDate", moment(details.registered_ms)),
        ("Name", name),
        ("IPAddress", text(&details.ip_address)),
        ("ComputerName", text(&details.computer_name)),
        ("AssociationStatus", text(&details.association_status)),
        ("LastAssociationExecutionDate", moment(details.associated_ms)),
        ("LastSuccessfulAssociationExecutionDate", moment(details.associated_well_ms)),
        ("AssociationOverview", details.associations.as_deref().map(associations_json)),
        ("SourceId", text(&details.source_id)),
        ("SourceType", text(&details.source_type)),
    ];
    with_known(row, optional)
}

fn associations_json(associations: &Associations) -> Value {
    let counts = (!associations.counts.is_empty()).then(|| json!(associations.counts));
    let optional = [
        ("DetailedStatus", text(&associations.status)),
        ("InstanceAssociationStatusAggregatedCount", counts),
    ];
    with_known(json!({}), optional)
}

fn text(text: &Option<Box<str>>) -> Option<Value> {
    text.as_deref().map(Value::from)
}

fn moment(ms: Option<u64>) -> Option<Value> {
    ms.map(|ms| Value::from(seconds(ms)))
}

fn ping_status(online: bool, inactive: bool) -> &'static str {
    match (online, inactive) {
        (true, _) => "Online",
        (false, true) => "Inactive",
        (false, false) => "ConnectionLost",
    }
}

/// What SSM takes it for, which its id says.
fn resource_type(instance: &Instance) -> &'static str {
    if instance.target.as_str().starts_with("mi-") { "ManagedInstance" } else { "EC2Instance" }
}

#[cfg(test)]
mod tests;
