//! With what? The rooms that a session passes through, and what is set.

use std::sync::Arc;
use std::time::Duration;

use crate::archive::Archive;
use crate::broker::Fleet;
use crate::catalogue::Catalogue;
use crate::identity::KeyRing;
use crate::metrics::Metrics;
use crate::policy::Standing;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::relay::Times;
use crate::shipper::Shipper;
use crate::store::Store;

use super::keeping::Retention;
use super::proofs::Unproved;

/// The rooms that a session passes through.
pub struct Rooms {
    /// May they, and still?
    pub policy: Standing,
    /// Which session upstream?
    pub broker: Arc<Fleet>,
    /// What is going on, and what went on?
    pub registry: Registry,
    /// Is it on disk?
    pub recorder: Recorder,
    /// Where is recording X?
    pub store: Store,
    /// Which recording says X?
    pub catalogue: Catalogue,
    /// Where are recordings kept for good? Nowhere, if there is none.
    pub archive: Option<Archive>,
    /// Has CloudWatch Logs got it? None: nothing is shipped.
    pub shipper: Option<Arc<Shipper>>,
    /// Seals the stream tokens.
    pub keys: Arc<KeyRing>,
    /// Counts it all.
    pub metrics: Arc<Metrics>,
}

/// What the operator sets about sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `wss://host:port`, in front of every stream URL.
    pub stream_base: String,
    /// Name of this node in records.
    pub node: String,
    /// Megabytes that must be free where the spool is; 0: none.
    pub reserve_mb: u64,
    /// Sessions on this node at the most.
    pub sessions_max: usize,
    /// Sessions of one principal on this node at the most.
    pub sessions_per_principal: usize,
    /// Connections at once in one port session at the most.
    pub connections_per_session: usize,
    /// The relay's times.
    pub times: Times,
    /// How often machines with running sessions are described again.
    pub describe_every: Duration,
    /// What becomes of sessions whose person's proof is over.
    pub unproved: Unproved,
    /// How long recordings stay where.
    pub retention: Retention,
}
