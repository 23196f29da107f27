//! Has CloudWatch Logs got it?
//!
//! Every session has a log stream of its name, and a *carrier* that brings
//! its lines there about once a second: as events that people and filters
//! read, and as events that the exact recording is made from again. What
//! could not be sent stays in the spool; a cursor on disk says how far each
//! session has come.

mod batch;
mod carrier;
mod chosen;
mod client;
mod config;
mod connections;
mod cursor;
mod depot;
mod error;
mod event;
mod group;
mod maker;
mod pace;
mod policy;
mod post;
mod read_back;
mod readable;
mod rebuild;
mod segment;
mod shipped;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use config::{AtLimit, LogClass, ShipperConfig};
pub use error::{ShipperError, Trouble};
pub use group::{Difference, Group, examine};
pub use policy::PolicyEvent;
pub use read_back::{Copy, LogStream, Reader};
pub use rebuild::RebuildError;
pub use shipped::{Leave, MayLeave};

use crate::broker::BrokerConfig;
use crate::metrics::Metrics;
use crate::recorder::{Feed, Follower, Shipment};
use crate::session::SessionId;
use client::Logs;
use cursor::Cursors;
use depot::Depot;

/// How often the backlog is measured.
const MEASURE: Duration = Duration::from_secs(1);
/// How long a stop waits for what is still to be sent.
const GRACE: Duration = Duration::from_secs(5);
/// How often a stop looks whether all is sent.
const LOOK: Duration = Duration::from_millis(20);

/// Which events are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forms {
    transcript: bool,
    recording: bool,
}

/// Where the shipper finds the spool, and where it keeps its own files.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The recorder's spool.
    pub spool: PathBuf,
    /// Cursors, and copies that were read back.
    pub own: PathBuf,
}

/// Ships sessions to CloudWatch Logs; one per process and spool.
pub struct Shipper {
    depot: Arc<Depot>,
    reader: Reader,
    stop: watch::Sender<bool>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
}

impl Shipper {
    /// Looks for the log group, then ships what is in the spool and comes.
    ///
    /// A group that is missing and not to be created is an error; an AWS
    /// that cannot be reached is not.
    pub async fn start(
        config: ShipperConfig,
        broker: &BrokerConfig,
        feed: Feed,
        folders: &Folders,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ShipperError> {
        group::check_settings(&config)?;
        let logs = Logs::connect(&config, broker).await?;
        let cursors = Cursors::open(&folders.own)?;
        let reader = Reader::new(Arc::clone(&logs), &folders.own);
        let follower = if config.recording { feed.follow_and_store() } else { feed.follow() };
        let depot = Arc::new(Depot::new(logs, feed, cursors, (config, folders.spool.clone()), metrics));
        match depot.prepare_group().await {
            Err(error) if error.trouble().is_some_and(Trouble::passes) => {
                tracing::warn!(%error, "CloudWatch Logs cannot be reached yet; sessions wait in the spool");
            }
            other => other?,
        }
        let (stop, stopped) = watch::channel(false);
        let dispatcher = tokio::spawn(dispatch(Arc::clone(&depot), follower, stopped));
        let dispatcher = Mutex::new(Some(dispatcher));
        Ok(Self { depot, reader, stop, dispatcher })
    }

    /// Whether new sessions have room in the spool; if not, why.
    pub fn ready(&self) -> Result<(), String> {
        self.depot.ready()
    }

    /// Whether all of a session is in the log group.
    ///
    /// Of one that is not in the spool any more this is not known: false.
    pub fn has(&self, id: &SessionId) -> bool {
        self.depot.cursors.is_finished(id)
    }

    /// Asks this before a recording is removed from a full spool.
    ///
    /// Nothing is removed until it is said whom to ask.
    pub fn ask_before_removal(&self, may_leave: MayLeave) {
        self.depot.ask(may_leave);
    }

    /// Reads sessions back from the log group.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Sends what is there, for a few seconds at the most; then ends.
    ///
    /// The rest is sent after the next start.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let dispatcher = self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(dispatcher) = dispatcher {
            // A panic in it has been reported by the runtime.
            let _ = dispatcher.await;
        }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        let dispatcher = self.dispatcher.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(dispatcher) = dispatcher {
            dispatcher.abort();
        }
    }
}

/// Gives every session's carrier what is for it.
async fn dispatch(depot: Arc<Depot>, mut follower: Follower, mut stop: watch::Receiver<bool>) {
    let mut carriers = JoinSet::new();
    for id in depot.unfinished() {
        depot.carry(&id, &mut carriers);
    }
    let mut measure = tokio::time::interval(MEASURE);
    loop {
        tokio::select! {
            shipment = follower.next() => match shipment {
                Some(shipment) => deliver(&depot, shipment, &mut carriers),
                None => break,
            },
            _ = measure.tick() => depot.measure().await,
            Some(_) = carriers.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    let all_sent = async {
        while let Some(shipment) = follower.waiting() {
            deliver(&depot, shipment, &mut carriers);
        }
        depot.hurry();
        while !depot.is_quiet() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(GRACE, all_sent).await.is_err() {
        tracing::warn!("not everything could be shipped before the stop; it goes on after the next start");
    }
    depot.measure().await;
}

fn deliver(depot: &Arc<Depot>, shipment: Shipment, carriers: &mut JoinSet<()>) {
    let Some(post) = depot.carry(shipment.session(), carriers) else { return };
    match shipment {
        Shipment::Begun { .. } => {}
        Shipment::Lines { batch, .. } => post.offer(batch),
        Shipment::Behind { .. } => post.look_at_spool(false),
        Shipment::Sealed { .. } => post.look_at_spool(true),
        Shipment::Checkpoint { checkpoint, .. } => post.prove(checkpoint),
    }
}

/// The folder of copies that were read back.
fn copies(own: &Path) -> PathBuf {
    own.join("read_back")
}
