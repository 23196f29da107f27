//! The machines as SSM describes them, kept for half a minute.
//!
//! Tags decide in policies. So a machine whose tags cannot be had is not
//! described without them: the whole answer is an error.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::types::{
    ConnectionStatus, InstanceInformation, InstanceInformationStringFilter, PingStatus,
};

use super::details::details;
use super::fresh::Fresh;
use super::ssm::with;
use super::tags::Tags;
use super::{Broker, BrokerError, Keys, Operation};
use crate::session::{Instance, Machine, Target, printable};

/// How long "unknown" holds: a machine that just started is soon there.
const UNKNOWN: Duration = Duration::from_secs(5);
/// How long tags hold in the list, where nothing is decided by them alone.
const LISTED_TAGS: Duration = Duration::from_secs(5 * 60);
/// The whole list, which may take hundreds of calls for tags.
const LIST_TIME: Duration = Duration::from_secs(30);
/// Machines in the list, and machines kept one by one.
const INSTANCES_MAX: usize = 10_000;
/// Largest page that DescribeInstanceInformation gives.
const PAGE: i32 = 50;

/// Machines in a list, shared by all who look at it.
pub type Machines = Arc<Vec<Arc<Machine>>>;

/// What is known of the machines.
pub(super) struct Inventory {
    /// How long what SSM said of a machine holds.
    known: Duration,
    list: Fresh<Machines>,
    one: Mutex<HashMap<Target, Arc<Fresh<Option<Instance>>>>>,
    tags: Mutex<HashMap<Target, (Instant, Tags)>>,
}

impl Broker {
    /// One machine, at most 30 s old; 5 min when AWS does not answer.
    pub async fn instance(&self, target: &Target) -> Result<Instance, BrokerError> {
        let unknown = || BrokerError::TargetNotConnected(target.clone());
        let known = self.inventory.known;
        let age = |found: &Option<Instance>| if found.is_some() { known } else { UNKNOWN };
        let found = match self.inventory.place_for(target) {
            Some(kept) => kept.get(age, self.describe(target)).await?,
            None => self.describe(target).await?,
        };
        found.ok_or_else(unknown)
    }

    /// All machines, at most 10,000, at most 30 s old.
    pub async fn machines(&self) -> Result<Machines, BrokerError> {
        let listed = async {
            let late = BrokerError::TimedOut { operation: Operation::DescribeInstances };
            tokio::time::timeout(LIST_TIME, self.list()).await.unwrap_or(Err(late))
        };
        self.inventory.list.get(|_| self.inventory.known, listed).await
    }

    /// Whether the machine's agent answers now.
    pub async fn connection_status(&self, target: &Target) -> Result<bool, BrokerError> {
        let operation = Operation::GetConnectionStatus;
        let keys = self.keys.for_inventory().await?;
        let call = self.ssm.get_connection_status().target(target.as_str());
        let asked = async {
            let answer = call.customize().config_override(with(&keys)).send().await;
            answer.map_err(|error| BrokerError::of(operation, &error))
        };
        let answer = self.calls.run(operation, asked).await?;
        Ok(answer.status == Some(ConnectionStatus::Connected))
    }

    /// A container of ECS, which SSM does not describe: its name says all.
    ///
    /// `ecs:<cluster>_<task>_<runtime id>` is named `<cluster>/<task>`, so
    /// that policies can go by cluster.
    fn task(&self, target: &Target) -> Option<Instance> {
        let (cluster, task) = target.ecs_task()?;
        Some(Instance {
            target: target.clone(),
            account: self.place.account.clone(),
            region: self.place.region.clone(),
            name: Some(format!("{cluster}/{task}")),
            platform: None,
            agent_version: None,
            online: true,
            tags: Tags::new(),
        })
    }

    async fn describe(&self, target: &Target) -> Result<Option<Instance>, BrokerError> {
        let keys = self.keys.for_inventory().await?;
        let found = match self.task(target) {
            Some(task) => Some(task),
            None => self.describe_one(&keys, target).await?,
        };
        let Some(instance) = found else { return Ok(None) };
        let tags = self.tags(&keys, std::slice::from_ref(target)).await?.remove(target);
        Ok(tags.map(|tags| tagged(instance, tags)))
    }

    async fn describe_one(&self, keys: &Keys, target: &Target) -> Result<Option<Instance>, BrokerError> {
        let operation = Operation::DescribeInstances;
        let filter =
            InstanceInformationStringFilter::builder().key("InstanceIds").values(target.as_str()).build();
        let filter = filter.map_err(|_| BrokerError::Malformed { operation, what: "filter" })?;
        let call = self.ssm.describe_instance_information().filters(filter);
        let asked = async {
            match call.customize().config_override(with(keys)).send().await {
                Ok(answer) => Ok(answer.instance_information_list.unwrap_or_default()),
                Err(error) if error.code() == Some("InvalidInstanceId") => Ok(Vec::new()),
                Err(error) => Err(BrokerError::of(operation, &error)),
            }
        };
        let found = self.calls.run(operation, asked).await?;
        Ok(found.iter().filter_map(|info| self.read(info)).find(|instance| instance.target == *target))
    }

    async fn list(&self) -> Result<Machines, BrokerError> {
        let keys = self.keys.for_inventory().await?;
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let (page, next) = self.page(&keys, token).await?;
            let read = |info| Some(Machine { instance: self.read(info)?, details: details(info) });
            found.extend(page.iter().filter_map(read));
            token = next;
            if token.is_none() || found.len() >= INSTANCES_MAX {
                break;
            }
        }
        if token.is_some() {
            tracing::warn!(limit = INSTANCES_MAX, "the account has more machines than are listed");
        }
        found.truncate(INSTANCES_MAX);
        self.inventory.forget_tags_but(&found);
        let mut tags = self.listed_tags(&keys, &found).await?;
        let there = found.into_iter().filter_map(|Machine { instance, details }| {
            let tags = tags.remove(&instance.target)?;
            Some(Arc::new(Machine { instance: tagged(instance, tags), details }))
        });
        Ok(Arc::new(there.collect()))
    }

    async fn page(
        &self,
        keys: &Keys,
        token: Option<String>,
    ) -> Result<(Vec<InstanceInformation>, Option<String>), BrokerError> {
        let operation = Operation::DescribeInstances;
        let call = self.ssm.describe_instance_information().max_results(PAGE).set_next_token(token);
        let asked = async {
            let answer = call.customize().config_override(with(keys)).send().await;
            answer.map_err(|error| BrokerError::of(operation, &error))
        };
        let answer = self.calls.run(operation, asked).await?;
        let next = answer.next_token.filter(|token| !token.is_empty());
        Ok((answer.instance_information_list.unwrap_or_default(), next))
    }

    /// Tags as the list shows them: kept for five minutes.
    async fn listed_tags(
        &self,
        keys: &Keys,
        found: &[Machine],
    ) -> Result<HashMap<Target, Tags>, BrokerError> {
        let mut tags = self.inventory.kept_tags();
        let unknown = found.iter().map(|machine| &machine.instance.target);
        let unknown: Vec<Target> = unknown.filter(|target| !tags.contains_key(*target)).cloned().collect();
        let read = self.tags(keys, &unknown).await?;
        self.inventory.keep_tags(&read);
        tags.extend(read);
        Ok(tags)
    }

    fn read(&self, info: &InstanceInformation) -> Option<Instance> {
        let said = |text: Option<&str>| text.map(printable).filter(|text| !text.is_empty());
        Some(Instance {
            target: Target::parse(info.instance_id()?).ok()?,
            account: self.place.account.clone(),
            region: self.place.region.clone(),
            name: said(info.name()).or_else(|| said(info.computer_name())),
            platform: said(info.platform_type().map(|platform| platform.as_str())),
            agent_version: said(info.agent_version()),
            online: info.ping_status() == Some(&PingStatus::Online),
            tags: Tags::new(),
        })
    }
}

impl Inventory {
    /// Nothing is known yet; what will be holds for so long.
    pub(super) fn new(known: Duration) -> Self {
        Self { known, list: Fresh::default(), one: Mutex::default(), tags: Mutex::default() }
    }

    /// Where a machine's description is kept; none if all are in use.
    fn place_for(&self, target: &Target) -> Option<Arc<Fresh<Option<Instance>>>> {
        let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = one.get(target) {
            return Some(Arc::clone(kept));
        }
        if one.len() >= INSTANCES_MAX {
            one.retain(|_, kept| !kept.is_spent());
        }
        if one.len() >= INSTANCES_MAX {
            return None;
        }
        Some(Arc::clone(one.entry(target.clone()).or_default()))
    }

    fn kept_tags(&self) -> HashMap<Target, Tags> {
        let mut kept = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (at, _)| at.elapsed() < LISTED_TAGS);
        kept.iter().map(|(target, (_, tags))| (target.clone(), tags.clone())).collect()
    }

    fn keep_tags(&self, read: &HashMap<Target, Tags>) {
        let mut kept = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.extend(read.iter().map(|(target, tags)| (target.clone(), (now, tags.clone()))));
    }

    /// Forgets the tags of machines that are gone.
    fn forget_tags_but(&self, found: &[Machine]) {
        let there: HashSet<&Target> = found.iter().map(|machine| &machine.instance.target).collect();
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).retain(|target, _| there.contains(target));
    }
}

/// The description with its tags; a `Name` among them is its name.
fn tagged(instance: Instance, tags: Tags) -> Instance {
    let name = tags.get("Name").filter(|name| !name.is_empty()).cloned();
    Instance { name: name.or(instance.name), tags, ..instance }
}
