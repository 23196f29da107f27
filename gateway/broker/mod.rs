//! Which session upstream? Brokered keys, SSM's calls, the data channel.
//!
//! The caller's own keys never reach AWS and the gateway's never leave it:
//! for every session the broker takes keys in the person's name that open
//! one machine with one document, starts the session with them and dials
//! its data channel. Calls and dials are bounded in number and in time.

use std::sync::Arc;

use tokio_rustls::TlsConnector;

use crate::metrics::Metrics;
use crate::proxy::Proxies;
use crate::session::{Principal, SessionId, SessionRequest};

mod aws;
mod config;
mod details;
mod dial;
mod documents;
mod error;
mod fleet;
mod fresh;
mod gate;
mod instances;
mod keys;
mod kms;
mod place;
mod queue;
mod roots;
mod running;
mod secret;
mod ssm;
mod stream;
mod tags;
mod upstream;

#[cfg(test)]
mod tests;

pub use aws::{aws_config, endpoint};
pub use config::{AccountConfig, BrokerConfig, StaticKeys};
pub use dial::{ClientIds, UpstreamSocket};
pub use documents::Plan;
pub use error::{BrokerError, Operation, root_cause};
pub use fleet::Fleet;
pub use instances::Machines;
pub use kms::KeyRefusal;
pub use running::AtAws;
pub use secret::{Secret, Token};
pub use stream::UpstreamStream;
pub use upstream::{Keys, Scope, Upstream, UpstreamRef};

use aws::Aws;
use documents::Documents;
use gate::Gate;
use instances::Inventory;
use keys::KeySource;
use place::Place;
use queue::StartQueue;
use roots::Roots;

/// The one way to an account in a region: sessions, machines, channels.
pub struct Broker {
    place: Arc<Place>,
    ssm: aws_sdk_ssm::Client,
    kms: aws_sdk_kms::Client,
    tagging: aws_sdk_resourcegroupstagging::Client,
    keys: KeySource,
    calls: Arc<Gate>,
    dials: Gate,
    starts: StartQueue,
    inventory: Inventory,
    documents: Documents,
    tls: TlsConnector,
    proxies: Proxies,
}

impl Broker {
    /// Reads the AWS configuration; asks STS for the account if not told.
    pub async fn new(config: BrokerConfig, metrics: Arc<Metrics>) -> Result<Self, BrokerError> {
        let roots = Roots::load(config.ca_bundle.as_deref())?;
        let calls = Arc::new(Gate::calls(Arc::clone(&metrics)));
        let aws = Aws::connect(&config, &roots).await?;
        let place = Arc::new(aws.place(&config, &calls).await?);
        let tls = TlsConnector::from(Arc::new(roots.client_config()?));
        Ok(Self {
            keys: KeySource::new(&aws, &config, Arc::clone(&place), Arc::clone(&calls)),
            ssm: aws.ssm,
            kms: aws.kms,
            tagging: aws.tagging,
            dials: Gate::dials(Arc::clone(&metrics)),
            starts: StartQueue::new(config.starts_per_second, metrics),
            inventory: Inventory::new(config.describe_every()),
            documents: Documents::default(),
            place,
            calls,
            tls,
            proxies: Proxies::from_env(),
        })
    }

    /// The account the sessions are in, twelve digits.
    pub fn account(&self) -> &str {
        &self.place.account
    }

    /// The region the sessions are in.
    pub fn region(&self) -> &str {
        &self.place.region
    }

    /// Opens a session with keys made for it; waits at most 15 s in line.
    ///
    /// `run_as` is the user of the machine that SSM runs it as. Not to be dropped half way: AWS may have opened the session already.
    pub async fn start(
        &self,
        principal: &Principal,
        request: &SessionRequest,
        id: &SessionId,
        run_as: Option<String>,
    ) -> Result<Upstream, BrokerError> {
        let scope = Arc::new(Scope {
            session: id.clone(),
            principal: principal.clone(),
            target: request.target.clone(),
            document: request.document.clone(),
            account: self.place.account.clone(),
            region: self.place.region.clone(),
            run_as,
        });
        self.starts.turn(&principal.id).await?;
        let keys = self.keys.for_session(&scope, None).await?;
        let opened = self.start_session(&keys, request).await?;
        Ok(Upstream {
            session_id: opened.session_id,
            stream_url: opened.stream_url,
            token: opened.token,
            keys,
            scope,
        })
    }

    /// A new token and stream URL; none if the session is over.
    pub async fn resume(&self, upstream: &UpstreamRef) -> Result<Option<Upstream>, BrokerError> {
        let keys = self.current_keys(upstream).await?;
        let resumed = self.resume_session(&keys, upstream).await?;
        Ok(resumed.map(|resumed| Upstream {
            session_id: upstream.session_id.clone(),
            stream_url: resumed.stream_url,
            token: resumed.token,
            keys,
            scope: Arc::clone(&upstream.scope),
        }))
    }

    /// Ends the session at AWS; one that is over already is no error.
    pub async fn terminate(&self, upstream: &UpstreamRef) -> Result<(), BrokerError> {
        let keys = self.current_keys(upstream).await?;
        self.terminate_session(&keys, &upstream.session_id).await
    }

    /// The session's keys, taken anew when they are about to expire.
    async fn current_keys(&self, upstream: &UpstreamRef) -> Result<Keys, BrokerError> {
        let mut slot = upstream.keys.lock().await;
        if let Some(keys) = slot.as_ref().filter(|keys| keys.are_good()) {
            return Ok(keys.clone());
        }
        let keys = self.keys.for_session(&upstream.scope, Some(&upstream.session_id)).await?;
        *slot = Some(keys.clone());
        Ok(keys)
    }
}
