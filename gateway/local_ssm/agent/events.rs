//! What can happen to a session, and waiting for the next thing.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::task::{Context, Poll};
use std::time::Instant;

use data_channel::PayloadType;
use tokio::io::ReadBuf;
use tokio::time::sleep_until;

use super::Agent;
use crate::local_ssm::input::Input;
use crate::local_ssm::process::Process;
use crate::local_ssm::sessions::Order;
use crate::local_ssm::wire::{Heard, Wire};

/// Most bytes of one read; a terminal gives no more at a time.
const READ: usize = 4_096;

/// What happened.
pub(super) enum Event {
    /// Someone wants something of the session.
    Order(Order),
    /// The stand-in stops.
    Shutdown,
    /// The client sent something, or is gone.
    Heard(Heard),
    /// The process wrote something.
    Output(PayloadType, Vec<u8>),
    /// The process wrote its last.
    OutputEnd,
    /// What waited was typed.
    Typed,
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
        let Self { orders, shutdown, wire, process, input, .. } = self;
        tokio::select! {
            order = orders.recv() => order.map_or(Event::Shutdown, Event::Order),
            // The sender is dropped with the stand-in: that is a stop too.
            _ = shutdown.wait_for(|stop| *stop) => Event::Shutdown,
            heard = hear(wire) => Event::Heard(heard),
            event = poll_fn(|cx| poll_process(cx, process, input, wants_output && !quiet)) => event,
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

fn poll_process(
    cx: &mut Context<'_>,
    process: &mut Option<Process>,
    input: &mut Input,
    wants_output: bool,
) -> Poll<Event> {
    let Some(process) = process else { return Poll::Pending };
    if !input.is_empty()
        && let Poll::Ready(typed) = input.poll_type(cx, process)
    {
        if typed.is_err() {
            input.clear();
        }
        return Poll::Ready(Event::Typed);
    }
    if !wants_output {
        return Poll::Pending;
    }
    let mut room = [const { MaybeUninit::uninit() }; READ];
    let mut into = ReadBuf::uninit(&mut room);
    process.poll_output(cx, &mut into).map(|kind| match kind {
        Some(kind) => Event::Output(kind, into.filled().to_vec()),
        None => Event::OutputEnd,
    })
}
