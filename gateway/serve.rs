//! Build the rooms, listen, drain.

mod access;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::alerts::{self, Outbox, PublishError, Publisher, Rules, RulesError, Watch};
use crate::archive::{Archive, ArchiveError};
use crate::broker::{BrokerError, Fleet};
use crate::catalogue::{Catalogue, CatalogueError, FILE_NAME};
use crate::client::ClientError;
use crate::config::{Config, ConfigError, OnStop};
use crate::console::{self, Console, ConsoleConfig};
use crate::front_door::{Admin, Front, Listener, TlsError, router, serve_admin};
use crate::identity::{Identity, IdentityConfig, IdentityError, KeyRing, SeenSignatures};
use crate::lifecycle::{Lifecycle, Retention, Rooms, Settings, Shadows};
use crate::metrics::Metrics;
use crate::policy::{PolicyError, Standing};
use crate::recorder::{PublicKey, Recorder, RecorderConfig, RecorderError, SigningKey};
use crate::registry::{Registry, RegistryConfig, RegistryError};
use crate::shipper::{Folders, Shipper, ShipperError};
use crate::store::Store;

pub use self::access::archive_access;

/// Why a gateway does not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy folder; names file and line.
    #[error("the policies cannot be used, so nothing is opened:\n{0}")]
    Policy(#[from] PolicyError),
    /// The certificate or its key.
    #[error("the listener's TLS: {0}")]
    Tls(#[from] TlsError),
    /// The key ring or the identity settings.
    #[error("identity: {0}")]
    Identity(#[from] IdentityError),
    /// AWS's side.
    #[error("broker: {0}")]
    Broker(#[from] BrokerError),
    /// The database.
    #[error("registry: {0}")]
    Registry(#[from] RegistryError),
    /// The spool or the signing key.
    #[error("recorder: {0}")]
    Recorder(#[from] RecorderError),
    /// The index of the recordings.
    #[error("{0}; it may be removed: it is made anew from the recordings")]
    Catalogue(#[from] CatalogueError),
    /// The alert rules; names file and line.
    #[error("alerts: {0}")]
    Alerts(#[from] RulesError),
    /// What publishes alerts.
    #[error("alerts: {0}")]
    Publish(#[from] PublishError),
    /// A thread that cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The archive.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    /// The roots that the archive is reached with.
    #[error("archive: {0}")]
    Access(#[from] ClientError),
    /// The log group or the settings for it.
    #[error("shipper: {}", .0.with_advice())]
    Shipper(#[from] ShipperError),
    /// A metric is registered twice, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: std::io::Error,
    },
    /// A folder that cannot be made.
    #[error("cannot make {path}: {why}")]
    Folder {
        /// The folder.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// A running gateway.
pub struct Gateway {
    /// What clients call it.
    pub public_url: String,
    /// Where the public listener is bound.
    pub address: SocketAddr,
    /// Where metrics and health are served.
    pub admin_address: SocketAddr,
    lifecycle: Arc<Lifecycle>,
    registry: Registry,
    catalogue: Catalogue,
    shipper: Option<Arc<Shipper>>,
    alerts: Watch,
    on_stop: OnStop,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Builds every room and listens; nothing is opened if one fails.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        config.check()?;
        private_folder(&config.state_directory)?;
        private_folder(&config.state_directory.join("keys"))?;
        let metrics = Arc::new(Metrics::new()?);
        let policy = policies(&config)?;
        let rules = alert_rules(&config)?;
        let keys = Arc::new(KeyRing::open(&config.key_ring())?);
        let signing = SigningKey::open(&config.signing_key())?;
        let (recording_keys_json, signing_keys) = (recording_keys(&signing), signing.known());
        let spool = config.spool();
        let recorder =
            Recorder::open(RecorderConfig { spool: spool.clone() }, signing, Arc::clone(&metrics))?;
        let registry = Registry::open(&RegistryConfig { url: config.registry_url() }).await?;
        let catalogue = Catalogue::open(&spool.join(FILE_NAME)).await?;
        let archive = archive(&config).await?;
        let node = node_name(&config);
        let unfinished = registry.unfinished(&node).await?;
        let broker = Arc::new(Fleet::new(config.broker.clone(), Arc::clone(&metrics)).await?);
        let shipper = shipper(&config, &recorder, &metrics).await?;

        let (listener, address) = bind(&config, &metrics)?;
        let (admin, admin_address) = bind_admin(config.admin.address).await?;
        let public_url = config.listen.public_url.clone().unwrap_or_else(|| format!("https://{address}"));

        let identity = Identity::new(identity_config(&config, &public_url), Arc::clone(&keys))?;
        let outbox = Outbox { registry: registry.clone(), node: node.clone(), metrics: Arc::clone(&metrics) };
        let publisher = Publisher::for_rules(&rules, &config.alerts, &config.broker, outbox).await?;
        let shadows = shadows((&broker, &registry), &metrics, &publisher);
        let watched = alerts::watch(rules, recorder.feed(), publisher.clone(), Arc::clone(&metrics));
        let (raised, alerts) = watched.map_err(ServeError::Thread)?;
        let rooms = Rooms {
            policy,
            broker,
            registry: registry.clone(),
            recorder,
            store: Store::new(&spool),
            catalogue: catalogue.clone(),
            archive,
            shipper: shipper.clone(),
            keys,
            metrics: Arc::clone(&metrics),
        };
        let lifecycle = Lifecycle::new(rooms, settings(&config, &public_url, node));
        // Nobody who was shut out comes in while the first look is pending.
        lifecycle.know_revocations().await?;
        tokio::spawn(Arc::clone(&lifecycle).heed(raised));
        lifecycle.adopt(unfinished);
        let front = Arc::new(Front {
            identity,
            seen: SeenSignatures::new(),
            lifecycle: Arc::clone(&lifecycle),
            metrics: Arc::clone(&metrics),
            origin: public_url.clone(),
            console: config.console.enabled,
            shadows: Arc::clone(&shadows),
            recording_keys: recording_keys_json,
        });
        let routes = router(front).merge(console_routes(&config, &public_url, &lifecycle, signing_keys));
        let (stop, stopped) = watch::channel(false);
        let admin_pages = Admin { metrics, lifecycle: Arc::clone(&lifecycle) };
        look_for_shadows(shadows, &config, &stopped);
        let mut tasks = beside(&lifecycle, &stopped);
        tasks.extend(publisher.map(|publisher| tokio::spawn(publisher.run(stopped.clone()))));
        tasks.push(tokio::spawn(listener.serve(routes, stopped.clone())));
        tasks.push(tokio::spawn(serve_admin(admin, admin_pages, stopped)));
        tracing::info!(%public_url, %address, %admin_address, "listening");
        Ok(Self {
            public_url,
            address,
            admin_address,
            lifecycle,
            registry,
            catalogue,
            shipper,
            alerts,
            on_stop: config.sessions.on_stop,
            stop,
            tasks,
        })
    }

    /// What a stop does to the sessions.
    pub fn on_stop(&self) -> OnStop {
        self.on_stop
    }

    /// Reads the policy folder again, as after a change.
    pub async fn reload_policies(&self) {
        self.lifecycle.reload_policies().await;
    }

    /// Hands the sessions over or ends them, then stops listening.
    pub async fn stop(self) {
        match self.on_stop {
            OnStop::HandOver => self.lifecycle.hand_over().await,
            OnStop::End => self.lifecycle.drain().await,
        }
        if let Some(shipper) = &self.shipper {
            shipper.stop().await;
        }
        self.alerts.finish().await;
        self.stop.send_replace(true);
        for task in self.tasks {
            // One that panicked has been reported by the runtime.
            let _ = task.await;
        }
        // What is being indexed may still change the registry.
        self.catalogue.close().await;
        self.registry.close().await;
    }
}

fn policies(config: &Config) -> Result<Standing, PolicyError> {
    let policy = Standing::load(&config.policy.directory)?;
    let set = policy.set();
    tracing::info!(policies = set.len(), digest = set.digest(), "policies loaded");
    Ok(policy)
}

fn shadows(
    (broker, registry): (&Arc<Fleet>, &Registry),
    metrics: &Arc<Metrics>,
    publisher: &Option<Publisher>,
) -> Arc<Shadows> {
    let (broker, metrics) = (Arc::clone(broker), Arc::clone(metrics));
    Arc::new(Shadows::new(broker, registry.clone(), metrics, publisher.clone()))
}

/// What goes on beside the calls, until the process stops.
fn beside(lifecycle: &Arc<Lifecycle>, stopped: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
    let asking = Arc::clone(lifecycle).keep_asking(stopped.clone());
    let shipping = Arc::clone(lifecycle).ship_decisions(stopped.clone());
    vec![tokio::spawn(asking), tokio::spawn(shipping)]
}

/// Looks for sessions past the gateway, unless told never to.
fn look_for_shadows(shadows: Arc<Shadows>, config: &Config, stopped: &watch::Receiver<bool>) {
    let seconds = config.sessions.shadow_seconds;
    if seconds > 0 {
        tokio::spawn(shadows.look(Duration::from_secs(seconds), stopped.clone()));
    }
}

/// The pages for browsers, if there are to be any.
fn console_routes(
    config: &Config,
    public_url: &str,
    lifecycle: &Arc<Lifecycle>,
    keys: Vec<PublicKey>,
) -> axum::Router {
    if !config.console.enabled {
        return axum::Router::new();
    }
    let provider = config.identity.oidc.is_some();
    let at = (ConsoleConfig { provider, ..config.console.clone() }, public_url.to_owned());
    let folder = config.state_directory.join("console");
    console::routes(Console::new(Arc::clone(lifecycle), at, keys, folder))
}

fn settings(config: &Config, public_url: &str, node: String) -> Settings {
    Settings {
        stream_base: public_url.replacen("https://", "wss://", 1),
        node,
        reserve_mb: config.recorder.reserve_mb,
        sessions_max: config.sessions.maximum,
        sessions_per_principal: config.sessions.per_principal,
        connections_per_session: config.sessions.connections_per_session,
        times: config.times(),
        describe_every: config.broker.describe_every(),
        unproved: config.unproved(),
        retention: Retention {
            keep_local_days: config.archive.keep_local_days,
            delete_after_days: config.archive.delete_after_days,
        },
    }
}

/// The rules of the file that is named, or of the one beside the policies.
pub fn alert_rules(config: &Config) -> Result<Rules, RulesError> {
    match &config.alerts.rules {
        Some(path) => Rules::load(path),
        None => rules_beside(&config.policy.directory),
    }
}

/// The rules in a policy folder, if it has any.
pub fn rules_beside(policies: &Path) -> Result<Rules, RulesError> {
    let beside = policies.join("alerts.toml");
    if beside.exists() { Rules::load(&beside) } else { Ok(Rules::default()) }
}

/// The archive, if one is configured.
async fn archive(config: &Config) -> Result<Option<Archive>, ServeError> {
    if config.archive.location.is_none() {
        return Ok(None);
    }
    let (bundle, keys) = (config.archive.ca_bundle.as_deref(), config.broker.static_keys.as_ref());
    let access = match config.archive.needs_access() {
        true => Some(archive_access(bundle, keys).await?),
        false => None,
    };
    let archive = Archive::open(&config.archive, access.as_ref())?;
    tracing::info!(%archive, "sealed recordings are archived");
    Ok(Some(archive))
}

/// The shipper, if there is a log group to ship to.
async fn shipper(
    config: &Config,
    recorder: &Recorder,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Shipper>>, ServeError> {
    if !config.shipper.is_on() {
        return Ok(None);
    }
    let folders = Folders { spool: config.spool(), own: config.shipper_folder() };
    let (settings, feed, metrics) = (config.shipper.clone(), recorder.feed(), Arc::clone(metrics));
    let shipper = Shipper::start(settings, &config.broker, feed, &folders, metrics).await?;
    Ok(Some(Arc::new(shipper)))
}

/// Binds what clients connect to.
fn bind(config: &Config, metrics: &Arc<Metrics>) -> Result<(Listener, SocketAddr), ServeError> {
    let (at, tls) = (&config.listen, config.tls().server_config()?);
    let failed = |why| ServeError::Listen { address: at.address, why };
    let listener = Listener::bind((at.address, at.connections_per_source), tls, Arc::clone(metrics));
    let listener = listener.map_err(failed)?;
    let address = listener.address().map_err(failed)?;
    Ok((listener, address))
}

async fn bind_admin(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |why| ServeError::Listen { address, why };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

fn identity_config(config: &Config, public_url: &str) -> IdentityConfig {
    let mut identity = IdentityConfig::new(public_url, config.identity.allowed_accounts.clone());
    identity.hosts = hosts(public_url);
    identity.regions = config.identity.regions.clone();
    identity.sts_endpoint_url = config.identity.sts_endpoint_url.clone().or_else(sts_from_environment);
    identity.ca_bundle = config.identity.ca_bundle.clone();
    identity.oidc = config.identity.oidc.clone();
    identity.web_identity = config.identity.web_identity.clone();
    identity.key_ttl = Duration::from_secs(u64::from(config.identity.key_minutes) * 60);
    identity
}

/// The standard AWS variables, as an SDK would read them.
fn sts_from_environment() -> Option<String> {
    ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"].iter().find_map(|name| std::env::var(name).ok())
}

/// The `Host` values that requests may be signed for.
fn hosts(public_url: &str) -> Vec<String> {
    let host = public_url.trim_start_matches("https://").to_owned();
    let mut hosts = vec![host.clone()];
    // Clients leave the default port out, whatever the URL says.
    match host.strip_suffix(":443") {
        Some(bare) => hosts.push(bare.to_owned()),
        None => hosts.push(format!("{host}:443")),
    }
    hosts
}

/// The public keys as `/v1/recording-keys` shows them; the first one signs.
fn recording_keys(signing: &SigningKey) -> serde_json::Value {
    let shown = |key: &PublicKey| {
        let signs = *key == signing.public();
        serde_json::json!({"id": key.id(), "algorithm": "Ed25519", "pem": key.to_pem(), "signs": signs})
    };
    signing.known().iter().map(shown).collect()
}

fn node_name(config: &Config) -> String {
    if !config.sessions.node.is_empty() {
        return crate::session::printable(&config.sessions.node);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = crate::session::printable(host.trim());
    if host.is_empty() { "postern".to_owned() } else { host }
}

/// A folder that only the gateway's user may look into.
fn private_folder(path: &Path) -> Result<(), ServeError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|why| ServeError::Folder { path: path.display().to_string(), why })
}
