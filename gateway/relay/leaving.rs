//! Leaving a session to a later process: nothing ends, nothing is lost.
//!
//! The client's connection is closed first and read to its end, so that its
//! last acknowledges and keys still pass and what it typed can be shown; then
//! the upstream one, so that what was already on its way is recorded. The
//! session is left once the recording has all of it. What goes wrong meanwhile is for the later process to mend.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::pump::{Pump, Upstream, recording_failed};
use super::{Control, Ended};

/// How long each leg may take to close, and the recording to be written.
const EACH: Duration = Duration::from_secs(1);

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Client,
    Upstream,
    Recording,
}

/// A session on its way to a later process.
pub(super) struct Leaving {
    stage: Stage,
    deadline: Instant,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Begins to leave: the client is asked to hang up.
    pub(super) fn leave(&mut self) -> Result<(), Ended> {
        // Of a port session the agent keeps everything that the client may lack.
        if self.attached && self.flows.is_none() {
            self.note_debt()?;
        }
        if let Some(leg) = &mut self.client {
            leg.close(false);
        }
        if matches!(self.upstream, Upstream::Redialling(_)) {
            self.upstream = Upstream::Over;
        }
        self.leaving = Some(Leaving { stage: Stage::Client, deadline: self.now + EACH });
        Ok(())
    }

    /// Goes on until both legs are closed and everything is recorded.
    pub(super) fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Result<Poll<Ended>, Ended> {
        loop {
            self.turn_back_clients(cx)?;
            let mut moved = self.hear_upstream(cx)?;
            moved |= self.hear_client(cx)?;
            self.note_flows_now()?;
            moved |= self.send_backlog(cx);
            moved |= self.release_acknowledges(cx)?;
            moved |= self.release_input_acknowledges(cx)?;
            self.flush(cx);
            if moved {
                continue;
            }
            let Some(Leaving { stage, deadline }) = self.leaving else { return Ok(Poll::Pending) };
            let late = self.now >= deadline;
            let done = late
                || match stage {
                    Stage::Client => self.client.is_none() && self.tap.last_held().is_none(),
                    Stage::Upstream => matches!(self.upstream, Upstream::Over),
                    Stage::Recording => self.is_written(cx)?,
                };
            match stage {
                _ if !done => return self.wait_until(deadline, cx),
                Stage::Client => self.close_upstream(),
                Stage::Upstream => {
                    // A later process does not know what is held here.
                    self.tap.give_up_echo(self.now).map_err(|error| recording_failed(&error))?;
                    self.stage(Stage::Recording);
                }
                Stage::Recording => return Ok(Poll::Ready(Ended::Left)),
            }
        }
    }

    /// A client that is back too early finds the later process by itself.
    fn turn_back_clients(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        while let Poll::Ready(Some(order)) = self.outside.control.poll_recv(cx) {
            if let Control::End(ending) = order {
                return Err(Ended::ByGateway(ending));
            }
        }
        Ok(())
    }

    fn close_upstream(&mut self) {
        if self.client.is_some() {
            self.client_gone();
        }
        if let Upstream::Open(leg) = &mut self.upstream {
            leg.close(false);
        }
        self.stage(Stage::Upstream);
    }

    fn stage(&mut self, stage: Stage) {
        self.leaving = Some(Leaving { stage, deadline: self.now + EACH });
    }

    fn is_written(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let position = self.tap.position();
        match self.tap.recording().poll_written(cx, position) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(recording_failed(&error)),
        }
    }

    fn wait_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Result<Poll<Ended>, Ended> {
        if self.alarm.deadline() != deadline {
            self.alarm.as_mut().reset(deadline);
        }
        if self.alarm.as_mut().poll(cx).is_ready() {
            self.now = Instant::now();
            cx.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }
}
