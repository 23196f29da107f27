//! The end of the process: sessions are handed over, or ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::live::Live;
use super::{Lifecycle, stopping};
use crate::recorder::Recording;
use crate::registry::{State, Traffic};
use crate::relay::Control;
use crate::session::now_ms;

/// How long a stopping gateway lets its sessions say goodbye.
const DRAIN_FOR: Duration = Duration::from_secs(10);

impl Lifecycle {
    /// Stops taking sessions, ends the running ones, waits for the seals.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.rooms.recorder.hurry();
        for live in self.live.all() {
            live.end(stopping()).await;
        }
        if tokio::time::timeout(DRAIN_FOR, self.live.empty()).await.is_err() {
            tracing::warn!(
                left = self.live.count(),
                "sessions did not end in time; their recordings will be recovered"
            );
        }
    }

    /// Stops taking sessions and leaves the running ones to a later process.
    pub async fn hand_over(&self) {
        self.leaving.store(true, Ordering::Release);
        self.draining.store(true, Ordering::Release);
        self.rooms.recorder.hurry();
        for live in self.live.all() {
            // A closed channel means the session is ending by itself.
            let _ = live.orders.send(Control::Leave).await;
        }
        if tokio::time::timeout(DRAIN_FOR, self.live.empty()).await.is_err() {
            tracing::warn!(
                left = self.live.count(),
                "sessions were not left in time; they are taken over as they are"
            );
        }
    }

    /// Whether sessions are being left to a later process.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Writes down a session as a later process will find it.
    pub(super) async fn leave(&self, live: &Live, recording: Recording) {
        recording.leave();
        let traffic = Traffic {
            recording_sha256: None,
            bytes_in: live.counters.input(),
            bytes_out: live.counters.output(),
        };
        let done = async {
            self.rooms.registry.set_traffic(&live.id, &traffic).await?;
            if live.was_attached() {
                self.rooms.registry.set_state(&live.id, State::Disconnected, now_ms(), None).await?;
            }
            Ok::<(), crate::registry::RegistryError>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(session = %live.id, %error, "what the session moved could not be registered");
        }
        tracing::info!(session = %live.id, "session left to a later process");
    }
}
