//! The end of a session: the rest of the output, the last words, the hang-up.

use std::future::Future;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use data_channel::control::ChannelClosed;
use data_channel::message::{Message, MessageType};
use futures_util::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::leg::Heard;
use super::pump::{Pump, Upstream};
use super::{Control, Ended};
use crate::session::now_ms;

/// How long a client that just lost its connection may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// How long a client may take to come back for what only the gateway has.
const OWED_WITHIN: Duration = Duration::from_secs(330);
/// How many times longer it waits while output is still leaving: a slow
/// reader's buffers empty in lumps.
const LUMPS: u32 = 5;
/// Longest time that the rest of the output may take to leave.
const REST_MAX: Duration = Duration::from_secs(30);

/// The last words to the client, and how long to wait for its hang-up.
pub(super) struct Farewell {
    ended: Ended,
    message: Option<Bytes>,
    deadline: Instant,
    latest: Instant,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn say_farewell(&mut self, ended: Ended) {
        self.observe_end();
        self.output.begin_anyhow();
        // Closing the upstream leg early would lose the record of what is still coming; it is over anyway.
        self.upstream = Upstream::Over;
        let message = ChannelClosed::message(self.outside.session.as_str(), ended.sentence(), now_ms());
        let resumed = self.now < self.back_until;
        if resumed && ended.is_over_there() {
            self.give_back_all();
        }
        let news = !ended.sentence().is_empty() || !self.output.all_sent();
        let comes = resumed || self.attached && (news || self.output.owes());
        let just_gone = self.client.is_none() && comes && ended.reason() != "gateway_stopped";
        let back_by = (self.away_since + BACK_WITHIN).max(self.back_until);
        // What the agent was told is delivered is kept for as long as any client is waited for.
        let owes = ended.is_over_there() && self.output.owes();
        let back_by = if owes { back_by.max(self.now + OWED_WITHIN) } else { back_by };
        let deadline = match &self.client {
            Some(_) => self.now + self.farewell_patience(),
            None if just_gone => back_by,
            // Refused at its handshake: the client that comes reads why.
            None if !self.attached && self.flows.is_some() => self.now + BACK_WITHIN,
            None => self.now,
        };
        let latest = self.now + REST_MAX;
        self.farewell = Some(Farewell { ended, message: Some(message), deadline, latest });
    }

    /// Sends the rest and the last words, then waits for the hang-up.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            while let Poll::Ready(Some(order)) = self.outside.control.poll_recv(cx) {
                if let Control::Attach(socket) = order {
                    self.attach(*socket, cx);
                }
            }
            let said = self.client.is_some() && self.speak_last(cx);
            let Some(farewell) = &mut self.farewell else { return Poll::Pending };
            if said || self.now >= farewell.deadline {
                return Poll::Ready(farewell.ended.clone());
            }
            let wake = self.opening.until().map_or(farewell.deadline, |until| farewell.deadline.min(until));
            if self.alarm.deadline() != wake {
                self.alarm.as_mut().reset(wake);
            }
            ready!(self.alarm.as_mut().poll(cx));
            self.now = Instant::now();
        }
    }

    /// How long a client may take no step before it is given up.
    fn farewell_patience(&self) -> Duration {
        let patience = self.outside.times.farewell;
        if self.output.all_sent() { patience } else { patience * LUMPS }
    }

    /// True once the client has hung up.
    pub(super) fn speak_last(&mut self, cx: &mut Context<'_>) -> bool {
        let moved = self.end_quiet(cx) | self.send_output(cx);
        let patience = self.farewell_patience();
        if moved && let Some(farewell) = &mut self.farewell {
            // What is still leaving may leave, within bounds.
            farewell.deadline = farewell.latest.min(self.now + patience);
        }
        let Some(leg) = &mut self.client else { return true };
        if self.output.all_sent()
            && self.opening.until().is_none()
            && leg.has_room(cx)
            && let Some(message) = self.farewell.as_mut().and_then(|farewell| farewell.message.take())
        {
            leg.queue(message);
        }
        leg.poll_flushed(cx);
        while let Some(leg) = &mut self.client
            && let Poll::Ready(heard) = leg.poll_heard(cx, self.now)
        {
            match heard {
                Heard::Gone => return self.has_heard_all(),
                Heard::Text => {}
                Heard::Binary(raw) => self.last_acknowledge(raw),
            }
        }
        false
    }

    /// What the client acknowledges now the agent does not wait for any more.
    fn last_acknowledge(&mut self, raw: Bytes) {
        if let Ok(message) = Message::parse(raw)
            && message.message_type() == MessageType::Acknowledge
        {
            self.client_acknowledge(&message);
        }
    }

    /// Whether a client that hung up did so because it is over.
    ///
    /// One that lacks what only the gateway has lost its connection.
    fn has_heard_all(&mut self) -> bool {
        if !self.output.owes() {
            return true;
        }
        self.client_gone();
        if let Some(farewell) = &mut self.farewell {
            let sentence = farewell.ended.sentence();
            let message = ChannelClosed::message(self.outside.session.as_str(), sentence, now_ms());
            farewell.message = Some(message);
            farewell.deadline = self.now + OWED_WITHIN;
            farewell.latest = farewell.deadline + REST_MAX;
        }
        false
    }

    /// Tells clients that came too late that it is over.
    pub(super) async fn turn_away(&mut self, ended: &Ended) {
        self.outside.control.close();
        while let Ok(order) = self.outside.control.try_recv() {
            let Control::Attach(mut socket) = order else { continue };
            let message = ChannelClosed::message(self.outside.session.as_str(), ended.sentence(), now_ms());
            let said = socket.send(Frame::Binary(message));
            // A client that does not take it finds out by resuming.
            let _ = tokio::time::timeout(self.outside.times.farewell, said).await;
        }
    }
}
