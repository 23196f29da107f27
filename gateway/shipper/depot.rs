//! What the carriers of all sessions share: calls, cursors, the weather.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::batch::LogEvent;
use super::carrier::Carrier;
use super::client::Logs;
use super::config::AtLimit;
use super::cursor::Cursors;
use super::error::Trouble;
use super::maker::{Maker, Round};
use super::pace::Backoff;
use super::post::Post;
use super::shipped::{MayLeave, Shipped};
use super::{Forms, ShipperConfig, ShipperError};
use crate::metrics::Metrics;
use crate::recorder::{Feed, RECORDING_SUFFIX};
use crate::session::{SessionId, now_ms};

/// Rounds under way at once: bounds memory and calls.
///
/// A frame of a sealed recording counts as several.
const ROUNDS: usize = 32;

/// What the carriers share.
pub(super) struct Depot {
    pub(super) logs: Arc<Logs>,
    pub(super) cursors: Cursors,
    pub(super) permits: Semaphore,
    feed: Feed,
    config: ShipperConfig,
    spool: PathBuf,
    metrics: Arc<Metrics>,
    posts: Mutex<HashMap<SessionId, Arc<Post>>>,
    outage: Mutex<Outage>,
    /// Days that the group keeps events; 0: for ever.
    retention: AtomicU32,
    /// Whether the group has said so.
    group_known: AtomicBool,
    /// Who else needs what is in the spool; without an answer all of it stays.
    may_leave: OnceLock<MayLeave>,
    /// Size of the spool when it was measured last, bytes.
    spool_bytes: AtomicU64,
}

/// Trouble that every session meets.
#[derive(Default)]
struct Outage {
    backoff: Backoff,
    why: String,
}

impl Depot {
    pub(super) fn new(
        logs: Arc<Logs>,
        feed: Feed,
        cursors: Cursors,
        (config, spool): (ShipperConfig, PathBuf),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            logs,
            cursors,
            permits: Semaphore::new(ROUNDS),
            feed,
            config,
            spool,
            metrics,
            posts: Mutex::default(),
            outage: Mutex::default(),
            retention: AtomicU32::new(0),
            group_known: AtomicBool::new(false),
            may_leave: OnceLock::new(),
            spool_bytes: AtomicU64::new(0),
        }
    }

    /// Finds or creates the log group.
    pub(super) async fn prepare_group(&self) -> Result<(), ShipperError> {
        let days = self.logs.prepare_group(&self.config).await?;
        self.retention.store(days.unwrap_or(0), Ordering::Relaxed);
        self.group_known.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn ships_recordings(&self) -> bool {
        self.config.recording
    }

    pub(super) fn ships_transcripts(&self) -> bool {
        self.config.transcript
    }

    pub(super) fn retention_days(&self) -> Option<u32> {
        Some(self.retention.load(Ordering::Relaxed)).filter(|days| *days > 0)
    }

    /// Sessions in the spool that are not wholly shipped.
    pub(super) fn unfinished(&self) -> Vec<SessionId> {
        let ids = self.feed.recordings().unwrap_or_else(|error| {
            tracing::error!(%error, "the spool cannot be listed; what is in it is not shipped");
            self.count("spool");
            Vec::new()
        });
        ids.into_iter().filter(|id| !self.cursors.is_finished(id)).collect()
    }

    /// The post of a session, whose carrier is started if there is none.
    ///
    /// None if all of it is shipped: word of its seal may come after that.
    pub(super) fn carry(self: &Arc<Self>, id: &SessionId, carriers: &mut JoinSet<()>) -> Option<Arc<Post>> {
        let mut posts = self.posts();
        match posts.entry(id.clone()) {
            Entry::Occupied(post) => Some(Arc::clone(post.get())),
            Entry::Vacant(_) if self.cursors.is_finished(id) => None,
            Entry::Vacant(place) => {
                let post = Arc::new(Post::new());
                place.insert(Arc::clone(&post));
                let (depot, id, given) = (Arc::clone(self), id.clone(), Arc::clone(&post));
                carriers.spawn(async move { depot.carrier(id, given).run().await });
                Some(post)
            }
        }
    }

    fn carrier(self: Arc<Self>, id: SessionId, post: Arc<Post>) -> Carrier {
        let cursor = self.cursors.load(&id).unwrap_or_else(|error| {
            tracing::error!(session = %id, %error, "the session is shipped again from its beginning");
            super::cursor::Cursor::fresh()
        });
        let forms = Forms { transcript: self.config.transcript, recording: self.config.recording };
        let maker = Maker::new(self.feed.clone(), id.clone(), self.logs.region.clone(), forms, cursor);
        Carrier::new(self, id, post, maker)
    }

    /// A session is wholly shipped or gone.
    pub(super) fn done(&self, id: &SessionId) {
        self.posts().remove(id);
    }

    /// Notes that all of a session is shipped.
    pub(super) fn finished(&self, id: &SessionId) -> Result<(), ShipperError> {
        let note = Shipped { log_group: self.config.log_group.clone(), recording: self.config.recording };
        self.cursors.finish(id, &note)
    }

    /// Asks this before anything is removed from the spool.
    pub(super) fn ask(&self, may_leave: MayLeave) {
        let _ = self.may_leave.set(may_leave);
    }

    /// A round is stored.
    pub(super) fn stored(&self, id: &SessionId, round: &Round) {
        let mut outage = self.outage();
        if outage.backoff.failures() > 0 {
            tracing::info!("CloudWatch Logs takes events again");
        }
        *outage = Outage::default();
        drop(outage);
        if self.config.recording {
            self.feed.accepted(id, round.after.line);
        }
    }

    /// A batch is stored.
    pub(super) fn counted(&self, batch: &[LogEvent]) {
        let bytes: usize = batch.iter().map(|event| event.message.len()).sum();
        self.metrics.shipper.batches.inc();
        self.metrics.shipper.events.inc_by(batch.len() as u64);
        self.metrics.shipper.bytes.inc_by(bytes as u64);
    }

    pub(super) fn count_error(&self, trouble: Trouble) {
        self.count(trouble.label());
    }

    fn count(&self, kind: &str) {
        self.metrics.shipper.errors.with_label_values(&[kind]).inc();
    }

    /// Waits while CloudWatch Logs is to be left alone.
    pub(super) async fn weather(&self) {
        loop {
            let wait = self.outage().backoff.wait(Instant::now());
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes a failure; says how long its session has to wait for itself.
    pub(super) async fn failed(&self, id: &SessionId, error: &ShipperError, own: &mut Backoff) -> Duration {
        self.count(error.trouble().map_or("spool", Trouble::label));
        match error.trouble() {
            Some(trouble) if trouble.concerns_all() => {
                self.outage_of(error);
                if trouble == Trouble::Credentials {
                    self.renew().await;
                }
                Duration::ZERO
            }
            trouble => {
                tracing::error!(session = %id, %error, "the session is not shipped; it is tried again");
                if trouble == Some(Trouble::Missing) && self.config.create {
                    self.create_again().await;
                }
                let now = Instant::now();
                own.failed(now).saturating_duration_since(now)
            }
        }
    }

    fn outage_of(&self, error: &ShipperError) {
        let mut outage = self.outage();
        let before = outage.backoff.failures();
        outage.backoff.failed(Instant::now());
        if outage.backoff.failures() > before && before.is_power_of_two() || before == 0 {
            let failures = outage.backoff.failures();
            let advice = error.advice();
            tracing::warn!(%error, advice, failures, "CloudWatch Logs takes no events; sessions wait in the spool");
        }
        outage.why = error.to_string();
    }

    async fn renew(&self) {
        if let Err(error) = self.logs.renew().await {
            tracing::error!(%error, "the AWS configuration cannot be read again");
        }
    }

    async fn create_again(&self) {
        if let Err(error) = self.prepare_group().await {
            tracing::error!(%error, "the log group is gone and cannot be created again");
        }
    }

    /// Every carrier sends what it has at once.
    pub(super) fn hurry(&self) {
        self.posts().values().for_each(|post| post.hurry());
    }

    /// Whether nothing waits to be stored.
    pub(super) fn is_quiet(&self) -> bool {
        self.posts().values().all(|post| post.backlog().is_none())
    }

    /// Measures the backlog and, if it is bounded, the spool.
    pub(super) async fn measure(&self) {
        let now = tokio::time::Instant::now();
        let (mut seconds, mut bytes) = (0, 0);
        for (id, post) in self.posts().iter() {
            let Some((oldest, kept, spool)) = post.backlog() else { continue };
            seconds = seconds.max(now.saturating_duration_since(oldest).as_secs());
            let spooled =
                if spool { std::fs::metadata(self.recording(id)).map_or(0, |about| about.len()) } else { 0 };
            bytes += kept as u64 + spooled;
        }
        self.metrics.shipper.backlog_seconds.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.metrics.shipper.backlog_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        if self.config.spool_limit_mb > 0 {
            let mut size = size_of(&self.spool);
            if self.config.at_limit == AtLimit::RemoveShipped {
                size = self.make_room(size).await;
            }
            self.spool_bytes.store(size, Ordering::Relaxed);
        }
    }

    /// Removes what CloudWatch has instead, oldest first, until there is room.
    async fn make_room(&self, mut size: u64) -> u64 {
        let limit = self.config.spool_limit_mb << 20;
        let (Some(may_leave), true) = (self.may_leave.get(), self.group_known.load(Ordering::Acquire)) else {
            return size;
        };
        if size < limit {
            return size;
        }
        let retention = self.retention.load(Ordering::Relaxed);
        for (bytes, id, shipped) in self.shipped() {
            if size < limit {
                break;
            }
            // It stays free to leave until it is gone, at the end of this turn.
            let Some(leave) = may_leave(id.clone()).await else { continue };
            if !shipped.replaces(&self.config.log_group, retention, (leave.begun_ms, now_ms())) {
                continue;
            }
            match std::fs::remove_file(self.recording(&id)) {
                Ok(()) => {
                    tracing::info!(session = %id, "removed from the full spool; CloudWatch Logs has it");
                    self.cursors.forget(&id);
                    size -= bytes.min(size);
                }
                Err(error) => tracing::error!(session = %id, %error, "cannot be removed from the spool"),
            }
        }
        size
    }

    /// What of the spool is wholly shipped, with its size, oldest first.
    fn shipped(&self) -> Vec<(u64, SessionId, Shipped)> {
        let ids = self.feed.recordings().unwrap_or_default().into_iter();
        let mut shipped: Vec<_> = ids
            .filter_map(|id| {
                let note = self.cursors.shipped(&id)?;
                let about = std::fs::metadata(self.recording(&id)).ok()?;
                Some((about.modified().ok()?, about.len(), id, note))
            })
            .collect();
        shipped.sort_by(|(one, _, a, _), (other, _, b, _)| (one, a).cmp(&(other, b)));
        shipped.into_iter().map(|(_, bytes, id, note)| (bytes, id, note)).collect()
    }

    fn recording(&self, id: &SessionId) -> PathBuf {
        self.spool.join(format!("{id}{RECORDING_SUFFIX}"))
    }

    /// Whether there is room in the spool for another session.
    pub(super) fn ready(&self) -> Result<(), String> {
        let (limit, size) = (self.config.spool_limit_mb, self.spool_bytes.load(Ordering::Relaxed) >> 20);
        if limit == 0 || size < limit {
            return Ok(());
        }
        let outage = self.outage();
        let why = if outage.why.is_empty() { "nothing has failed" } else { &outage.why };
        Err(format!("the spool holds {size} MB, its limit is {limit} MB; shipping to CloudWatch Logs: {why}"))
    }

    fn posts(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Post>>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Size of the files in a folder and one below, bytes.
fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size_of(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}
