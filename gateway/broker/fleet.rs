//! Which account and region is a machine in? One broker for each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use data_channel::encryption::DataKey;
use data_channel::handshake::KmsAction;

use super::{
    AtAws, Broker, BrokerConfig, BrokerError, ClientIds, KeyRefusal, Machines, Plan, Scope, Upstream,
    UpstreamRef, UpstreamSocket,
};
use crate::metrics::Metrics;
use crate::session::{Instance, Principal, SessionId, SessionRequest, Target};

/// Machines of which it is remembered where they are.
const PLACES_MAX: usize = 10_000;

/// Every account and region with machines, the configured first one first.
pub struct Fleet {
    brokers: Vec<Broker>,
    /// Where each machine was found; only used with several brokers.
    places: Mutex<HashMap<Target, usize>>,
}

impl Fleet {
    /// Reads the AWS configuration once for each account and region.
    pub async fn new(config: BrokerConfig, metrics: Arc<Metrics>) -> Result<Self, BrokerError> {
        let mut brokers: Vec<Broker> = Vec::new();
        for one in config.each() {
            let broker = Broker::new(one, Arc::clone(&metrics)).await?;
            let (account, region) = (broker.account(), broker.region());
            if brokers.iter().any(|known| known.account() == account && known.region() == region) {
                return Err(BrokerError::Config(format!("account {account} in {region} is there twice")));
            }
            brokers.push(broker);
        }
        Ok(Self { brokers, places: Mutex::default() })
    }

    /// One machine, wherever it is; at most as old as one broker's is.
    pub async fn instance(&self, target: &Target) -> Result<Instance, BrokerError> {
        if let Some(broker) = self.known_place(target) {
            return broker.instance(target).await;
        }
        let mut failed = None;
        for (index, broker) in self.brokers.iter().enumerate() {
            match broker.instance(target).await {
                // SSM describes no tasks, so only tags tell whose one is.
                Ok(task) if target.ecs_task().is_some() && task.tags.is_empty() => {}
                Ok(instance) => {
                    self.remember(target, index);
                    return Ok(instance);
                }
                Err(BrokerError::TargetNotConnected(_)) => {}
                // It may be there: that it is nowhere cannot be said.
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| BrokerError::TargetNotConnected(target.clone())))
    }

    /// All machines of all accounts; without those that cannot be asked.
    pub async fn machines(&self) -> Result<Machines, BrokerError> {
        if let [only] = self.brokers.as_slice() {
            return only.machines().await;
        }
        let (mut found, mut failed) = (Vec::new(), None);
        for broker in &self.brokers {
            match broker.machines().await {
                Ok(some) => found.extend(some.iter().cloned()),
                Err(error) => {
                    tracing::warn!(account = broker.account(), %error, "machines could not be listed");
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(Arc::new(found)),
        }
    }

    /// What the request will do on a machine of that platform.
    pub async fn plan(&self, request: &SessionRequest, platform: Option<&str>) -> Result<Plan, BrokerError> {
        self.place_of(&request.target).await?.plan(request, platform).await
    }

    /// Opens a session where its machine is; see [`Broker::start`].
    pub async fn start(
        &self,
        principal: &Principal,
        request: &SessionRequest,
        id: &SessionId,
        run_as: Option<String>,
    ) -> Result<Upstream, BrokerError> {
        self.place_of(&request.target).await?.start(principal, request, id, run_as).await
    }

    /// Dials a session's data channel.
    pub async fn dial(&self, upstream: &Upstream, client: &ClientIds) -> Result<UpstreamSocket, BrokerError> {
        self.of(&upstream.scope)?.dial(upstream, client).await
    }

    /// A new token and stream URL; none if the session is over.
    pub async fn resume(&self, upstream: &UpstreamRef) -> Result<Option<Upstream>, BrokerError> {
        self.of(&upstream.scope)?.resume(upstream).await
    }

    /// Ends the session at AWS; one that is over already is no error.
    pub async fn terminate(&self, upstream: &UpstreamRef) -> Result<(), BrokerError> {
        self.of(&upstream.scope)?.terminate(upstream).await
    }

    /// Has KMS make a session's key; see [`Broker::data_key`].
    pub async fn data_key(&self, upstream: &UpstreamRef, wish: &KmsAction) -> Result<DataKey, KeyRefusal> {
        self.for_key(upstream, wish)?.data_key(upstream, wish).await
    }

    /// Has KMS open a session's key that another process had it make.
    pub async fn open_data_key(
        &self,
        upstream: &UpstreamRef,
        wish: &KmsAction,
        sealed: &[u8],
    ) -> Result<DataKey, KeyRefusal> {
        self.for_key(upstream, wish)?.open_data_key(upstream, wish, sealed).await
    }

    /// Every open session of every account and region.
    ///
    /// An error if one cannot be asked: what runs there is not over.
    pub async fn sessions_at_aws(&self) -> Result<Vec<AtAws>, BrokerError> {
        let mut found = Vec::new();
        for broker in &self.brokers {
            found.extend(broker.sessions_at_aws().await?);
        }
        Ok(found)
    }

    /// The broker that a session's key is asked of.
    fn for_key(&self, upstream: &UpstreamRef, wish: &KmsAction) -> Result<&Broker, KeyRefusal> {
        let refused = |error| KeyRefusal { key: crate::session::printable(&wish.kms_key_id), error };
        self.of(&upstream.scope).map_err(refused)
    }

    /// The broker of the account and region that a session was opened in.
    fn of(&self, scope: &Scope) -> Result<&Broker, BrokerError> {
        let here = |broker: &&Broker| broker.account() == scope.account && broker.region() == scope.region;
        self.brokers.iter().find(here).ok_or_else(|| {
            let (account, region) = (&scope.account, &scope.region);
            BrokerError::Config(format!("account {account} in {region} is not the broker's any more"))
        })
    }

    /// The broker of the account and region that a machine is in.
    async fn place_of(&self, target: &Target) -> Result<&Broker, BrokerError> {
        if let Some(broker) = self.known_place(target) {
            return Ok(broker);
        }
        self.instance(target).await?;
        self.known_place(target).ok_or_else(|| BrokerError::TargetNotConnected(target.clone()))
    }

    fn known_place(&self, target: &Target) -> Option<&Broker> {
        if let [only] = self.brokers.as_slice() {
            return Some(only);
        }
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(target).and_then(|index| self.brokers.get(*index))
    }

    fn remember(&self, target: &Target, index: usize) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(target.clone(), index);
    }
}
