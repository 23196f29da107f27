//! What the SSM API tells of targets: instances, status, tags.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Service;
use super::answer::{self, Answer};
use super::callers::Caller;
use super::settings::LocalTarget;
use super::ssm::{page, page_start, read, seconds};
use crate::error::{ApiError, Code};
use crate::session::Target;

/// How the ids of tasks begin.
const TASK: &str = "ecs:";
/// Fewest and most instances of one page, as in AWS.
const PAGE: std::ops::RangeInclusive<usize> = 5..=50;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfTarget {
    target: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectionStatus<'a> {
    target: &'a str,
    status: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeInstances {
    max_results: Option<usize>,
    next_token: Option<String>,
    #[serde(default)]
    filters: Vec<Filter>,
    #[serde(default)]
    instance_information_filter_list: Vec<OldFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: String,
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldFilter {
    key: String,
    value_set: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Instances<'a> {
    instance_information_list: Vec<Instance<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Instance<'a> {
    instance_id: &'a str,
    ping_status: &'static str,
    last_ping_date_time: f64,
    agent_version: &'a str,
    is_latest_version: bool,
    platform_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_version: Option<&'a str>,
    resource_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "IPAddress")]
    ip_address: &'static str,
    computer_name: &'a str,
    source_id: &'a str,
    source_type: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListTags {
    resource_type: String,
    resource_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tags<'a> {
    tag_list: Vec<Tag<'a>>,
}

impl Service {
    /// Whether a target's agent is on the network.
    pub(super) fn is_online(&self, target: &str) -> bool {
        self.targets.contains_key(target) && !self.offline.lock().contains_key(target)
    }

    /// The ARN that IAM knows a target by.
    pub(super) fn target_arn(&self, target: &Target) -> String {
        if let Some((cluster, task)) = target.ecs_task() {
            return format!("arn:aws:ecs:{}:{}:task/{cluster}/{task}", self.region, self.account);
        }
        match target.as_str() {
            id if id.starts_with("mi-") => self.arn(&format!("managed-instance/{id}")),
            id => format!("arn:aws:ec2:{}:{}:instance/{id}", self.region, self.account),
        }
    }

    /// `GetConnectionStatus`.
    pub(super) fn get_connection_status(&self, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
        let input: OfTarget = read(body)?;
        self.permit(caller, "ssm:GetConnectionStatus", "*")?;
        let status = if self.is_online(&input.target) { "connected" } else { "notconnected" };
        Ok(answer::json(&ConnectionStatus { target: &input.target, status }))
    }

    /// `DescribeInstanceInformation`.
    pub(super) fn describe_instances(
        &self,
        caller: &Caller,
        body: &[u8],
        now: OffsetDateTime,
    ) -> Result<Answer, ApiError> {
        let input: DescribeInstances = read(body)?;
        self.permit(caller, "ssm:DescribeInstanceInformation", "*")?;
        let most = input.max_results.unwrap_or(*PAGE.end());
        if !PAGE.contains(&most) {
            return Err(ApiError::client(Code::Validation, "MaxResults must be 5 to 50"));
        }
        let old = input.instance_information_filter_list.into_iter();
        let old = old.map(|filter| Filter { key: filter.key, values: filter.value_set });
        let filters: Vec<Filter> = input.filters.into_iter().chain(old).collect();
        let mut fitting = Vec::new();
        // Tasks can be connected to, but SSM does not list them.
        for target in self.targets.values().filter(|target| !target.id.starts_with(TASK)) {
            let mut fits = true;
            for filter in &filters {
                fits &= filter.fits(target, self.ping_status(target))?;
            }
            if fits {
                fitting.push(target);
            }
        }
        let start = page_start(input.next_token.as_deref())?;
        let (targets, next_token) = page(fitting, start, most);
        let list = targets.iter().map(|target| self.described(target, now)).collect();
        Ok(answer::json(&Instances { instance_information_list: list, next_token }))
    }

    /// `ListTagsForResource`, for managed instances only.
    pub(super) fn list_tags(&self, caller: &Caller, body: &[u8]) -> Result<Answer, ApiError> {
        let input: ListTags = read(body)?;
        self.permit(caller, "ssm:ListTagsForResource", "*")?;
        let managed = input.resource_type == "ManagedInstance" && input.resource_id.starts_with("mi-");
        let target = self.targets.get(&input.resource_id).filter(|_| managed);
        let unknown = || ApiError::client(Code::Validation, "The resource ID is not valid.");
        let target = target.ok_or_else(unknown)?;
        let retagged = self.retagged.lock();
        let tags = retagged.get(&target.id).unwrap_or(&target.tags);
        let tag_list = tags.iter().map(|(key, value)| Tag { key, value }).collect();
        Ok(answer::json(&Tags { tag_list }))
    }

    fn ping_status(&self, target: &LocalTarget) -> &'static str {
        if self.is_online(&target.id) { "Online" } else { "ConnectionLost" }
    }

    /// What is true of a target; it has no activation, role or association.
    fn described<'a>(&'a self, target: &'a LocalTarget, now: OffsetDateTime) -> Instance<'a> {
        let last_ping = self.offline.lock().get(&target.id).copied().unwrap_or(now);
        Instance {
            instance_id: &target.id,
            ping_status: self.ping_status(target),
            last_ping_date_time: seconds(last_ping),
            agent_version: target.agent_version(),
            is_latest_version: target.agent_is_latest(),
            platform_type: "Linux",
            platform_name: self.platform.name.as_deref(),
            platform_version: self.platform.version.as_deref(),
            resource_type: resource_type(target),
            name: is_managed(target).then_some(&target.name),
            ip_address: "127.0.0.1",
            computer_name: &target.name,
            source_id: &target.id,
            source_type: source_type(target),
        }
    }
}

impl Filter {
    fn fits(&self, target: &LocalTarget, ping_status: &str) -> Result<bool, ApiError> {
        let has = |value: &str| self.values.iter().any(|wanted| wanted == value);
        Ok(match self.key.as_str() {
            "InstanceIds" | "SourceIds" => has(&target.id),
            "PingStatus" => has(ping_status),
            "PlatformType" | "PlatformTypes" => has("Linux"),
            "AgentVersion" => has(target.agent_version()),
            "ResourceType" => has(resource_type(target)),
            "SourceTypes" => has(source_type(target)),
            // No target has one.
            "ActivationIds" | "AssociationStatus" | "IamRole" => false,
            "tag-key" => target.tags.keys().any(|key| has(key)),
            key => match key.strip_prefix("tag:") {
                Some(tag) => target.tags.get(tag).is_some_and(|value| has(value)),
                None => return Err(ApiError::client(Code::InvalidFilterKey, "no such filter key")),
            },
        })
    }
}

fn resource_type(target: &LocalTarget) -> &'static str {
    if is_managed(target) { "ManagedInstance" } else { "EC2Instance" }
}

fn source_type(target: &LocalTarget) -> &'static str {
    if is_managed(target) { "AWS::SSM::ManagedInstance" } else { "AWS::EC2::Instance" }
}

fn is_managed(target: &LocalTarget) -> bool {
    target.id.starts_with("mi-")
}
