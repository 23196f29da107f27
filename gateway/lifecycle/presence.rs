//! Whether a session's client is there, as the registry and metrics say.

use std::sync::Arc;

use tokio::sync::watch;

use super::Lifecycle;
use super::admission;
use super::live::Live;
use crate::registry::State;
use crate::relay::Presence;
use crate::session::now_ms;

impl Lifecycle {
    /// Keeps the registry and the gauge in step with the client's presence.
    pub(super) fn presence_of(self: &Arc<Self>, live: &Arc<Live>) -> Box<dyn FnMut(Presence) + Send> {
        let (id, live, registry) = (live.id.clone(), Arc::clone(live), self.rooms.registry.clone());
        let mut gauge = admission::StateGauge::new(&self.rooms.metrics);
        let (states, mut changed) = watch::channel(State::Connecting);
        // One task writes them, so that the last state is the one that stays.
        tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                let state = *changed.borrow_and_update();
                if let Err(error) = registry.set_state(&id, state, now_ms(), None).await {
                    tracing::warn!(session = %id, %error, "the session's state could not be registered");
                }
            }
        });
        Box::new(move |presence| {
            let state = match presence {
                Presence::Connected => State::Connected,
                Presence::Disconnected => State::Disconnected,
            };
            live.set_attached();
            gauge.set(state);
            states.send_replace(state);
        })
    }
}
