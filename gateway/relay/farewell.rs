//! The end of a session: the rest of the output, the last words, the hang-up.

use std::future::Future;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use data_channel::control::ChannelClosed;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Ended;
use super::leg::Heard;
use super::pump::{Pump, Upstream};
use crate::session::now_ms;

/// The last words to the client, and how long to wait for its hang-up.
pub(super) struct Farewell {
    ended: Ended,
    message: Option<Bytes>,
    deadline: Instant,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn say_farewell(&mut self, ended: Ended) {
        // Closing the upstream leg early would lose the record of what is still coming; it is over anyway.
        self.upstream = Upstream::Over;
        let message = ChannelClosed::message(self.outside.session.as_str(), ended.sentence(), now_ms());
        let deadline = self.now + self.outside.times.farewell;
        self.farewell = Some(Farewell { ended, message: Some(message), deadline });
    }

    /// Sends the rest and the last words, then waits for the hang-up.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let said = self.client.is_none() || self.speak_last(cx);
            let Some(farewell) = &mut self.farewell else { return Poll::Pending };
            if said || self.now >= farewell.deadline {
                return Poll::Ready(farewell.ended.clone());
            }
            if self.alarm.deadline() != farewell.deadline {
                self.alarm.as_mut().reset(farewell.deadline);
            }
            ready!(self.alarm.as_mut().poll(cx));
            self.now = Instant::now();
        }
    }

    /// True once the client has hung up.
    pub(super) fn speak_last(&mut self, cx: &mut Context<'_>) -> bool {
        self.send_output(cx);
        let Some(leg) = &mut self.client else { return true };
        if self.output.all_sent()
            && leg.has_room(cx)
            && let Some(message) = self.farewell.as_mut().and_then(|farewell| farewell.message.take())
        {
            leg.queue(message);
        }
        leg.poll_flushed(cx);
        while let Poll::Ready(heard) = leg.poll_heard(cx, self.now) {
            if matches!(heard, Heard::Gone) {
                return true;
            }
        }
        false
    }
}
