//! Tags of machines, which policies decide by.
//!
//! SSM keeps those of `mi-` machines. Those of EC2 instances and ECS tasks
//! are read with the Resource Groups Tagging API, a hundred a call.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_resourcegroupstagging::config::Builder;
use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::types::{ResourceTypeForTagging, Tag};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::ssm::with;
use super::{Broker, BrokerError, Keys, Operation};
use crate::session::{Target, printable};

/// Most ARNs that GetResources takes.
const ARNS_MAX: usize = 100;
/// Calls for tags at once; the others of the gate stay free for sessions.
const CALLS: usize = 8;

/// Tags of one machine.
pub(super) type Tags = BTreeMap<String, String>;

impl Broker {
    /// The tags of these machines; one that SSM does not know is left out.
    pub(super) async fn tags(
        &self,
        keys: &Keys,
        targets: &[Target],
    ) -> Result<HashMap<Target, Tags>, BrokerError> {
        let (managed, others): (Vec<&Target>, Vec<&Target>) =
            targets.iter().partition(|target| target.as_str().starts_with("mi-"));
        // Made before they are streamed: a stream's closure cannot lend for long enough.
        let one_by_one: Vec<_> = managed.into_iter().map(|target| self.managed_tags(keys, target)).collect();
        let asked = others.chunks(ARNS_MAX).map(<[&Target]>::to_vec);
        let together: Vec<_> = asked.map(|targets| self.resource_tags(keys, targets)).collect();
        let mut tags = HashMap::new();
        let mut answers = stream::iter(one_by_one).buffer_unordered(CALLS);
        while let Some(found) = answers.try_next().await? {
            tags.extend(found);
        }
        let mut answers = stream::iter(together).buffer_unordered(CALLS);
        while let Some(found) = answers.try_next().await? {
            tags.extend(found);
        }
        Ok(tags)
    }

    /// What SSM knows; none if it does not know the machine any more.
    async fn managed_tags(
        &self,
        keys: &Keys,
        target: &Target,
    ) -> Result<Option<(Target, Tags)>, BrokerError> {
        let operation = Operation::ListTags;
        let call = self
            .ssm
            .list_tags_for_resource()
            .resource_type(ResourceTypeForTagging::ManagedInstance)
            .resource_id(target.as_str());
        let asked = async {
            match call.customize().config_override(with(keys)).send().await {
                Ok(answer) => Ok(Some(answer.tag_list.unwrap_or_default())),
                Err(error) if error.code() == Some("InvalidResourceId") => Ok(None),
                Err(error) => Err(BrokerError::of(operation, &error)),
            }
        };
        let tags = self.calls.run(operation, asked).await?;
        let read = |tag: &Tag| (printable(&tag.key), printable(&tag.value));
        Ok(tags.map(|tags| (target.clone(), tags.iter().map(read).collect())))
    }

    /// What EC2 and ECS know; what has no tags is not in AWS's answer.
    async fn resource_tags(
        &self,
        keys: &Keys,
        targets: Vec<&Target>,
    ) -> Result<Vec<(Target, Tags)>, BrokerError> {
        let operation = Operation::GetResources;
        let arns: Vec<String> = targets.iter().map(|target| self.place.target_arn(target)).collect();
        let call = self.tagging.get_resources().set_resource_arn_list(Some(arns.clone()));
        let with_keys = Builder::new().credentials_provider(keys.0.clone());
        let asked = async {
            let answer = call.customize().config_override(with_keys).send().await;
            answer.map_err(|error| BrokerError::of(operation, &error))
        };
        let answer = self.calls.run(operation, asked).await?;
        let mut known: HashMap<String, Tags> = HashMap::new();
        for resource in answer.resource_tag_mapping_list.unwrap_or_default() {
            let tags = resource.tags.unwrap_or_default();
            let tags = tags.iter().map(|tag| (printable(&tag.key), printable(&tag.value))).collect();
            known.extend(resource.resource_arn.map(|arn| (arn, tags)));
        }
        let tags = arns.iter().map(|arn| known.remove(arn).unwrap_or_default());
        Ok(targets.into_iter().cloned().zip(tags).collect())
    }
}
