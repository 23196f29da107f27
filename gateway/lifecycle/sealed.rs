//! Sealed recordings on their way to what works on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::Lifecycle;
use crate::recorder::SealedLater;
use crate::session::SessionId;

/// Sealed recordings that may wait; with more the spool is read again.
const WAITING_MAX: usize = 1024;

/// The way from the seal to one worker.
pub(super) struct Waiting {
    sealed: mpsc::Sender<SessionId>,
    worker: Mutex<Option<mpsc::Receiver<SessionId>>>,
    /// More were sealed than could wait.
    missed: AtomicBool,
}

impl Default for Waiting {
    fn default() -> Self {
        let (sealed, worker) = mpsc::channel(WAITING_MAX);
        Self { sealed, worker: Mutex::new(Some(worker)), missed: AtomicBool::new(false) }
    }
}

impl Waiting {
    /// What the worker reads, once.
    pub(super) fn begin(&self) -> Option<mpsc::Receiver<SessionId>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether some were left out since it was asked last.
    pub(super) fn missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// One was left out; the spool has to be read for it.
    pub(super) fn miss(&self) {
        self.missed.store(true, Ordering::Release);
    }

    fn add(&self, id: &SessionId) {
        if let Err(TrySendError::Full(_)) = self.sealed.try_send(id.clone()) {
            self.miss();
        }
    }
}

impl Lifecycle {
    /// A recording was sealed: it is indexed and archived soon.
    pub(super) fn recording_sealed(&self, id: &SessionId) {
        self.to_index.add(id);
        if self.rooms.archive.is_some() {
            self.to_archive.add(id);
        }
    }

    /// Waits for the seal of a recording that could not be made at once.
    ///
    /// If the gateway stops before, its next start seals what is left.
    pub(super) fn expect_seal(self: &Arc<Self>, id: &SessionId, later: SealedLater) {
        let (this, id) = (Arc::downgrade(self), id.clone());
        tokio::spawn(async move {
            let Some(sealed) = later.sealed().await else { return };
            let Some(this) = this.upgrade() else { return };
            tracing::info!(session = %id, "the recording is sealed now");
            if let Err(error) = this.rooms.registry.set_sealed(&id, &sealed.sha256).await {
                tracing::error!(session = %id, %error, "the recording's seal could not be registered");
            }
            this.recording_sealed(&id);
        });
    }
}
