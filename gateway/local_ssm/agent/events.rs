//! What can happen to a session, and waiting for the next thing.

use std::future::poll_fn;
use std::time::Instant;

use tokio::time::sleep_until;

use super::Agent;
use super::endpoint::Happened;
use crate::local_ssm::sessions::Order;
use crate::local_ssm::wire::{Heard, Wire};

/// What happened.
pub(super) enum Event {
    /// Someone wants something of the session.
    Order(Order),
    /// The stand-in stops.
    Shutdown,
    /// The client sent something, or is gone.
    Heard(Heard),
    /// The process or the ports did something.
    Endpoint(Happened),
    /// It is time to do what is due.
    Tick,
}

impl Agent {
    /// Waits for the next thing; writing to the client goes on meanwhile.
    pub(super) async fn next(&mut self) -> Event {
        if let Some(wire) = &mut self.wire {
            wire.start_writing().await;
        }
        let wake = self.wake_at();
        let wants_output = self.wants_output();
        let (quiet_until, now) = (self.quiet_until, Instant::now());
        let quiet = quiet_until > now && wants_output;
        let wake = if quiet { wake.min(quiet_until) } else { wake };
        let Self { orders, shutdown, wire, endpoint, .. } = self;
        tokio::select! {
            order = orders.recv() => order.map_or(Event::Shutdown, Event::Order),
            // The sender is dropped with the stand-in: that is a stop too.
            _ = shutdown.wait_for(|stop| *stop) => Event::Shutdown,
            heard = hear(wire) => Event::Heard(heard),
            happened = poll_fn(|cx| endpoint.poll(cx, wants_output && !quiet)) => Event::Endpoint(happened),
            () = sleep_until(wake.into()) => Event::Tick,
        }
    }
}

async fn hear(wire: &mut Option<Box<Wire>>) -> Heard {
    match wire {
        Some(wire) => wire.hear().await,
        None => std::future::pending().await,
    }
}
