//! The Resource Groups Tagging API, for the targets of one machine.

use serde::{Deserialize, Serialize};
use sigv4::{Request, Rules};
use time::OffsetDateTime;

use super::Service;
use super::answer::{self, Answer};
use super::ssm::{api_error, read};
use crate::error::{ApiError, Code};
use crate::session::Target;

/// Most ARNs in one call, as in AWS.
const ARNS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetResources {
    #[serde(rename = "ResourceARNList")]
    arns: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resources<'a> {
    resource_tag_mapping_list: Vec<Resource<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resource<'a> {
    #[serde(rename = "ResourceARN")]
    arn: String,
    tags: Vec<Tag<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tag<'a> {
    key: &'a str,
    value: &'a str,
}

impl Service {
    /// Answers one call.
    pub(super) fn tagging(&self, operation: &str, request: &Request<'_>, now: OffsetDateTime) -> Answer {
        let caller = self.callers.verify(request, &Rules::json_call("tagging"), now);
        let result = caller.map_err(|refusal| api_error(&refusal)).and_then(|caller| {
            if operation != "GetResources" {
                return Err(ApiError::client(Code::UnknownOperation, "no such operation"));
            }
            self.permit(&caller, "tag:GetResources", "*")?;
            let input: GetResources = read(request.body)?;
            if input.arns.is_empty() || input.arns.len() > ARNS_MAX {
                return Err(ApiError::client(Code::Validation, "ResourceARNList must have 1 to 100 ARNs"));
            }
            Ok(answer::json(&Resources { resource_tag_mapping_list: self.tagged(&input.arns) }))
        });
        result.unwrap_or_else(|error| answer::refusal(&error))
    }

    /// What of these has tags; `mi-` machines are SSM's, not found here.
    fn tagged(&self, arns: &[String]) -> Vec<Resource<'_>> {
        let others = self.targets.values().filter(|target| !target.id.starts_with("mi-"));
        let named =
            others.filter_map(|target| Some((self.target_arn(&Target::parse(&target.id).ok()?), target)));
        named
            .filter(|(arn, target)| arns.contains(arn) && !target.tags.is_empty())
            .map(|(arn, target)| Resource {
                arn,
                tags: target.tags.iter().map(|(key, value)| Tag { key, value }).collect(),
            })
            .collect()
    }
}
