//! Keeping recordings: into the archive after the seal, and out of it in time.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Lifecycle;
use crate::archive::{Archive, ArchiveError, Manifest, Origin};
use crate::catalogue::CatalogueError;
use crate::registry::{Archived, Hold, RegistryError};
use crate::session::{SessionId, now_ms};
use crate::shipper::Leave;
use crate::store::{Found, StoreError};

/// Recordings in the list of work; with more the spool is read again.
const WORK_MAX: usize = 10_000;
/// How long the archive is left alone after it failed, first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often it is looked at what has been kept long enough.
const TIDY: Duration = Duration::from_secs(3600);
/// Recordings deleted in one go.
const DELETED_AT_ONCE: u32 = 1000;
const DAY_MS: u64 = 86_400_000;

/// How long recordings stay where; not set: for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Days in the spool, once archived.
    pub keep_local_days: Option<u32>,
    /// Days in all.
    pub delete_after_days: Option<u32>,
}

/// What is known of how a recording is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Whether and when it was archived.
    pub archived: Option<Archived>,
    /// The hold on it.
    pub hold: Option<Hold>,
}

/// Why a recording was not archived.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

impl KeepError {
    /// Whether another try could go better.
    fn passes(&self) -> bool {
        !matches!(
            self,
            Self::Archive(ArchiveError::NotSealed { .. }) | Self::Store(StoreError::Header { .. })
        )
    }
}

impl Lifecycle {
    /// Archives what is sealed and not archived yet, and then what will be.
    ///
    /// The spool is the list of work: what a stop cuts off is found again.
    pub(super) fn archive_recordings(self: &Arc<Self>) {
        let (Some(archive), Some(sealed)) = (self.rooms.archive.clone(), self.to_archive.begin()) else {
            return;
        };
        let this = Arc::downgrade(self);
        let worker = Worker { this: Weak::clone(&this), archive, work: VecDeque::new(), pause: PAUSE.0 };
        tokio::spawn(worker.run(sealed));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TIDY);
            loop {
                ticks.tick().await;
                let Some(this) = this.upgrade() else { return };
                this.tidy(now_ms()).await;
            }
        });
    }

    /// Says to the shipper what may leave a full spool: what is indexed and not held.
    pub(super) fn guard_spool(self: &Arc<Self>) {
        let Some(shipper) = &self.rooms.shipper else { return };
        let this = Arc::downgrade(self);
        shipper.ask_before_removal(Arc::new(move |id| {
            let this = this.clone();
            Box::pin(async move { this.upgrade()?.may_leave(&id).await })
        }));
    }

    /// Whether a recording may leave the spool: sealed, indexed and not held.
    ///
    /// None is held from here on until the answer is dropped. Where somebody
    /// holds or deletes just now it stays: that may take as long as the archive
    /// does, and what is shipped to sessions that run must not wait for it.
    async fn may_leave(&self, id: &SessionId) -> Option<Leave> {
        let alone = Arc::clone(&self.holding_or_deleting).try_lock_owned().ok()?;
        let held = self.rooms.registry.held(id).await.inspect_err(|error| {
            tracing::error!(session = %id, %error, "it is not known whether it is held; it stays in the spool");
        });
        if held.ok()?.is_some() || !self.rooms.catalogue.knows(id).await.unwrap_or(false) {
            return None;
        }
        let found = self.rooms.store.find(id).ok()?.filter(|found| found.sealed)?;
        let begun = u64::try_from(found.header().ok()?.timestamp).ok()?;
        Some(Leave { begun_ms: begun.saturating_mul(1000), alone })
    }

    /// Whether CloudWatch Logs, if it is to have recordings, has this one.
    fn is_shipped(&self, id: &SessionId) -> bool {
        self.rooms.shipper.as_ref().is_none_or(|shipper| shipper.has(id))
    }

    /// Removes what has been kept long enough, and is not held.
    pub(super) async fn tidy(&self, now_ms: u64) {
        let Some(archive) = &self.rooms.archive else { return };
        let _alone = self.indexing_or_deleting.lock().await;
        let ended_before = |days: Option<u32>| Some(now_ms.saturating_sub(u64::from(days?) * DAY_MS));
        if let Some(before) = ended_before(self.settings.retention.keep_local_days)
            && let Err(error) = self.leave_old(archive, before).await
        {
            tracing::error!(%error, "archived recordings stay in the spool for now");
        }
        if let Some(before) = ended_before(self.settings.retention.delete_after_days)
            && let Err(error) = self.delete_old(archive, before).await
        {
            tracing::error!(%error, "old recordings are not deleted for now");
        }
    }

    /// Removes at once what is kept for no days.
    ///
    /// Called once a recording is indexed and once it is archived; the later
    /// one counts.
    pub(super) async fn keep_no_longer(&self, id: &SessionId) {
        let Some(archive) = &self.rooms.archive else { return };
        let retention = self.settings.retention;
        let _alone = self.indexing_or_deleting.lock().await;
        if retention.keep_local_days == Some(0)
            && let Err(error) = self.leave_at_once(archive, id).await
        {
            tracing::error!(session = %id, %error, "the archived recording stays in the spool for now");
        }
        if retention.delete_after_days == Some(0)
            && let Err(error) = self.delete_old(archive, now_ms()).await
        {
            tracing::error!(%error, "old recordings are not deleted for now");
        }
    }

    async fn leave_at_once(&self, archive: &Archive, id: &SessionId) -> Result<(), KeepError> {
        if !self.rooms.catalogue.knows(id).await? {
            return Ok(());
        }
        match self.rooms.store.find(id)? {
            Some(found) if found.sealed => self.leave_spool(archive, &found, u64::MAX).await,
            _ => Ok(()),
        }
    }

    /// Removes files from the spool that have been there long enough.
    async fn leave_old(&self, archive: &Archive, before: u64) -> Result<(), KeepError> {
        // What is not indexed yet is still needed here.
        let indexed = self.rooms.catalogue.known().await?;
        let here = self.in_spool().await?.into_iter();
        for found in here.filter(|found| found.sealed && indexed.contains(found.id.as_str())) {
            self.leave_spool(archive, &found, before).await?;
        }
        Ok(())
    }

    /// Removes a file from the spool if the archive surely has it, and
    /// CloudWatch Logs if it is shipped there.
    async fn leave_spool(&self, archive: &Archive, found: &Found, before: u64) -> Result<(), KeepError> {
        if let Some(archived) = self.rooms.registry.archived(&found.id).await?
            && archived.ended_ms <= before
            && archived.bytes == found.bytes
            && self.is_shipped(&found.id)
            && archive.holds(&found.id, found.bytes).await?
        {
            remove(&found.path)?;
            tracing::info!(session = %found.id, %archive, "the recording has left the spool");
        }
        Ok(())
    }

    /// What is in the spool; reading it may take seconds.
    pub(super) async fn in_spool(&self) -> Result<Vec<Found>, StoreError> {
        let store = self.rooms.store.clone();
        let listed = tokio::task::spawn_blocking(move || store.list()).await;
        // The task ends by itself and does not panic; if it did, nothing was seen.
        listed.unwrap_or_else(|_| Ok(Vec::new()))
    }

    async fn delete_old(&self, archive: &Archive, before: u64) -> Result<(), KeepError> {
        for old in self.rooms.registry.archived_before(before, DELETED_AT_ONCE).await? {
            let id = &old.session;
            // A hold may have come since the list was made; none comes from here on.
            let _nobody_holds = self.holding_or_deleting.lock().await;
            if self.rooms.registry.held(id).await?.is_some() {
                continue;
            }
            if let Some(found) = self.rooms.store.find(id)? {
                remove(&found.path)?;
            }
            archive.remove(id).await?;
            if let Err(error) = self.rooms.catalogue.remove(id).await {
                tracing::error!(session = %id, %error, "a deleted recording is still in the catalogue");
            }
            self.rooms.registry.remove_archived(id).await?;
            self.rooms.metrics.archived.with_label_values(&["deleted"]).inc();
            tracing::info!(session = %id, %archive, ended_ms = old.ended_ms, "the recording was deleted");
        }
        Ok(())
    }

    async fn archive_one(&self, archive: &Archive, id: &SessionId) -> Result<Option<Manifest>, KeepError> {
        let Some(found) = self.rooms.store.find(id)?.filter(|found| found.sealed) else { return Ok(None) };
        if self.rooms.registry.archived(id).await?.is_some() {
            return Ok(None);
        }
        let origin = self.origin(&found)?;
        let key = self.rooms.recorder.public_key().id();
        let sign = |json: &[u8]| self.rooms.recorder.sign(json);
        let manifest = archive.keep(&found.path, origin, (key, sign)).await?;
        let archived = Archived {
            session: id.clone(),
            at_ms: manifest.archived_ms,
            ended_ms: manifest.ended_ms,
            bytes: manifest.bytes,
            sha256: manifest.sha256.clone(),
        };
        self.rooms.registry.add_archived(&archived).await?;
        Ok(Some(manifest))
    }

    /// Where a recording comes from, as its own header says.
    fn origin(&self, found: &Found) -> Result<Origin, StoreError> {
        let header = found.header()?;
        let said = |name| header.said(name).map(str::to_owned);
        Ok(Origin {
            session: found.id.clone(),
            principal: said("principal").unwrap_or_default(),
            target: said("target").unwrap_or_default(),
            durability: said("durability"),
            started_ms: u64::try_from(header.timestamp).unwrap_or_default().saturating_mul(1000),
            node: self.settings.node.clone(),
            archived_ms: now_ms(),
        })
    }
}

/// Works on the list, one recording after the other.
struct Worker {
    this: Weak<Lifecycle>,
    archive: Archive,
    work: VecDeque<SessionId>,
    pause: Duration,
}

impl Worker {
    async fn run(mut self, mut sealed: mpsc::Receiver<SessionId>) {
        self.find_missed().await;
        loop {
            while let Ok(id) = sealed.try_recv() {
                self.add(id);
            }
            match self.step().await {
                Step::Done => {}
                Step::Idle => match sealed.recv().await {
                    Some(id) => self.add(id),
                    None => return,
                },
                Step::Failed => tokio::time::sleep(self.pause).await,
                Step::Over => return,
            }
        }
    }

    async fn step(&mut self) -> Step {
        let Some(this) = self.this.upgrade() else { return Step::Over };
        this.rooms.metrics.archive_backlog.set(i64::try_from(self.work.len()).unwrap_or(i64::MAX));
        let Some(id) = self.work.pop_front() else {
            if this.to_archive.missed() {
                self.find_missed().await;
                return Step::Done;
            }
            return Step::Idle;
        };
        match this.archive_one(&self.archive, &id).await {
            Ok(manifest) => {
                self.pause = PAUSE.0;
                if let Some(manifest) = manifest {
                    this.rooms.metrics.archived.with_label_values(&["archived"]).inc();
                    this.rooms.metrics.archived_bytes.inc_by(manifest.bytes);
                    this.keep_no_longer(&id).await;
                }
                Step::Done
            }
            Err(error) if this.draining.load(Ordering::Acquire) => {
                // The stop closes what archiving needs; nothing is lost by it.
                tracing::debug!(session = %id, %error, "cut off by the stop");
                tracing::info!(session = %id, "the gateway stops; the recording stays in the spool and is archived after its next start");
                Step::Over
            }
            Err(error) if error.passes() => {
                this.rooms.metrics.archived.with_label_values(&["retried"]).inc();
                tracing::warn!(session = %id, %error, again_in = ?self.pause, "the recording is not archived yet");
                // Others need not wait for one that never goes.
                self.add(id);
                this.rooms.metrics.archive_backlog.set(i64::try_from(self.work.len()).unwrap_or(i64::MAX));
                drop(this);
                self.pause = (self.pause * 2).min(PAUSE.1);
                Step::Failed
            }
            Err(error) => {
                this.rooms.metrics.archived.with_label_values(&["failed"]).inc();
                tracing::error!(session = %id, %error, "the recording cannot be archived; it stays in the spool");
                Step::Done
            }
        }
    }

    fn add(&mut self, id: SessionId) {
        if self.work.len() < WORK_MAX {
            self.work.push_back(id);
        } else if let Some(this) = self.this.upgrade() {
            this.to_archive.miss();
        }
    }

    /// What an earlier process or a full list left out, oldest first.
    async fn find_missed(&mut self) {
        let Some(this) = self.this.upgrade() else { return };
        let found =
            async { Ok::<_, KeepError>((this.rooms.registry.all_archived().await?, this.in_spool().await?)) };
        match found.await {
            Ok((archived, mut found)) => {
                found.retain(|found| found.sealed && !archived.contains(found.id.as_str()));
                found.sort_by_key(|found| found.modified);
                found.into_iter().for_each(|found| self.add(found.id));
            }
            Err(error) => tracing::error!(%error, "the spool cannot be looked through for the archive"),
        }
    }
}

enum Step {
    Done,
    Idle,
    Failed,
    Over,
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
