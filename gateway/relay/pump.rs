//! The pump: one task that keeps both legs of one session moving.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;

use super::acknowledge::HeldAcknowledges;
use super::destination::Carries;
use super::farewell::Farewell;
use super::flows::Flows;
use super::held_back::HeldBack;
use super::kms::Kms;
use super::leaving::Leaving;
use super::leg::Leg;
use super::notice::{Screen, Warnings};
use super::opening::Opening;
use super::output::Output;
use super::read_only::ReadOnly;
use super::tap::Tap;
use super::{Control, Ended, Ending, Parts, Presence, Redialled, Rules};
use crate::recorder::{Position, RecorderError, Recording};
use crate::session::printable;

/// Messages taken from one leg before the other gets its turn.
pub(super) const TURN: usize = 64;
/// When to look again whether a full recording takes more.
const ROOM_AGAIN: Duration = Duration::from_millis(10);
/// Turns before the task yields to the other sessions of its worker.
const TURNS: usize = 8;

/// Relays one session until it ends; returns its recording, unsealed.
///
/// The `u64` is the session's age in milliseconds, for the seal.
pub async fn run<C, U>(parts: Parts<C, U>) -> (Recording, u64, Ended)
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut parts = parts;
    let resumed = parts.resumed.take();
    let mut pump = Pump::new(parts);
    if let Some(resumed) = resumed {
        pump.go_on(resumed);
    }
    let ended = poll_fn(|cx| pump.poll(cx)).await;
    if ended != Ended::Left {
        pump.turn_away(&ended).await;
    }
    let (recording, age) = pump.tap.into_recording(Instant::now());
    (recording, age, ended)
}

/// The upstream side: open, being dialled again, or over.
pub(super) enum Upstream<U> {
    Open(Box<Leg<U>>),
    Redialling(Pin<Box<dyn Future<Output = Redialled<U>> + Send>>),
    Over,
}

/// Which way a step of the pump went wrong ends the session.
pub(super) type Step = Result<bool, Ended>;

pub(super) struct Pump<C, U> {
    pub(super) client: Option<Leg<C>>,
    pub(super) upstream: Upstream<U>,
    pub(super) output: Output,
    pub(super) opening: Opening,
    pub(super) held: HeldAcknowledges,
    /// From where on the client may lack what the agent does not keep, as the
    /// recording says, and where it does.
    pub(super) noted: Option<(i64, Position)>,
    /// Whether the recording says that the client acknowledges in order.
    pub(super) settled: bool,
    /// The agent's acknowledges of keys that are not recorded yet.
    pub(super) typed: VecDeque<HeldInput>,
    pub(super) tap: Tap,
    pub(super) kms: Kms,
    /// What is known of a port session's connections; none of a terminal.
    pub(super) flows: Option<Flows>,
    /// The client's input, and what must be recorded before it passes.
    pub(super) backlog: VecDeque<(Position, Bytes)>,
    pub(super) started: Instant,
    /// When payload last moved, either way.
    pub(super) active: Instant,
    pub(super) rules: Rules,
    pub(super) read_only: ReadOnly,
    pub(super) screen: Screen,
    pub(super) warnings: Warnings,
    pub(super) held_back: HeldBack,
    pub(super) away_since: Instant,
    /// Whether a client has ever been there.
    pub(super) attached: bool,
    pub(super) farewell: Option<Farewell>,
    pub(super) leaving: Option<Leaving>,
    /// Until then a client may come back to hear the end.
    pub(super) back_until: Instant,
    pub(super) alarm: Pin<Box<Sleep>>,
    pub(super) now: Instant,
    pub(super) outside: Outside<C, U>,
}

/// An acknowledge of the agent that may not pass yet.
pub(super) struct HeldInput {
    /// Input up to this number is held for its echo.
    pub(super) held: Option<u64>,
    /// Then it has to be recorded up to there.
    pub(super) position: Position,
    pub(super) raw: Bytes,
}

/// What the pump was given: owner, clock settings, counters.
pub(super) struct Outside<C, U> {
    pub(super) session: crate::session::SessionId,
    pub(super) redial: super::Redial<U>,
    pub(super) control: tokio::sync::mpsc::Receiver<Control<C>>,
    pub(super) presence: Box<dyn FnMut(Presence) + Send>,
    pub(super) meters: std::sync::Arc<super::Meters>,
    pub(super) counters: std::sync::Arc<super::Counters>,
    pub(super) times: super::Times,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    fn new(mut parts: Parts<C, U>) -> Self {
        let now = Instant::now();
        let keys = matches!(parts.carries, Carries::Port(_)).then_some(parts.input_keys.as_slice());
        let upstream = match parts.upstream.take() {
            Some(socket) => Upstream::Open(Box::new(Leg::new(socket, now))),
            None => Upstream::Redialling((parts.redial)()),
        };
        Self {
            client: None,
            upstream,
            output: Output::default(),
            opening: Opening::default(),
            held: HeldAcknowledges::default(),
            tap: Tap::new(parts.recording, parts.rules.record_input, now, keys),
            noted: None,
            settled: false,
            kms: Kms::new(parts.data_keys, parts.data_key),
            typed: VecDeque::new(),
            flows: match parts.carries {
                Carries::Terminal => None,
                Carries::Port(forward) => Some(Flows::new(forward)),
            },
            backlog: VecDeque::new(),
            started: now,
            active: now,
            screen: Screen::default(),
            warnings: Warnings::new(&parts.rules),
            held_back: HeldBack::new(std::sync::Arc::clone(&parts.meters)),
            rules: parts.rules,
            read_only: ReadOnly::default(),
            away_since: now,
            attached: false,
            farewell: None,
            leaving: None,
            back_until: now,
            alarm: Box::pin(sleep_until(now)),
            now,
            outside: Outside {
                session: parts.session,
                redial: parts.redial,
                control: parts.control,
                presence: parts.presence,
                meters: parts.meters,
                counters: parts.counters,
                times: parts.times,
            },
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.now = Instant::now();
        // A client that keeps every turn busy does not stop the clocks.
        if self.farewell.is_none()
            && let Some(ended) = self.time_is_up()
        {
            self.say_farewell(ended);
        }
        for _ in 0..TURNS {
            if self.farewell.is_some() {
                return self.poll_farewell(cx);
            }
            let moved = if self.leaving.is_some() {
                match self.poll_leaving(cx) {
                    Ok(left) => return left,
                    Err(ended) => Err(ended),
                }
            } else {
                self.turn(cx)
            };
            match moved {
                Ok(true) => {}
                Ok(false) => return self.rest(cx),
                Err(ended) => self.say_farewell(ended),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One turn of everything; true if anything moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = self.hear_owner(cx)?;
        self.observe_time();
        moved |= self.redial(cx)?;
        moved |= self.hear_kms(cx)?;
        moved |= self.hear_upstream(cx)?;
        moved |= self.end_quiet(cx);
        moved |= self.send_output(cx);
        moved |= self.hear_client(cx)?;
        moved |= self.note_flows()?;
        moved |= self.send_backlog(cx);
        moved |= self.tap.record_input(self.now).map_err(|error| recording_failed(&error))?;
        moved |= self.release_acknowledges(cx)?;
        moved |= self.release_input_acknowledges(cx)?;
        moved |= self.give_notice(cx)?;
        self.flush(cx);
        Ok(moved)
    }

    fn hear_owner(&mut self, cx: &mut Context<'_>) -> Step {
        match self.outside.control.poll_recv(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Some(Control::Attach(socket))) => {
                self.attach(*socket, cx);
                Ok(true)
            }
            Poll::Ready(Some(Control::End(ending))) => Err(Ended::ByGateway(ending)),
            Poll::Ready(Some(Control::Warn(sentence))) => {
                self.warnings.told = Some(sentence);
                Ok(true)
            }
            Poll::Ready(Some(Control::Mark(text))) => {
                self.tap.marker(&text, self.now).map_err(|error| recording_failed(&error))?;
                Ok(true)
            }
            Poll::Ready(Some(Control::Obey(rules))) => {
                self.obey(rules);
                Ok(true)
            }
            Poll::Ready(Some(Control::HangUp)) => {
                if self.client.is_some() {
                    self.client_gone();
                }
                Ok(true)
            }
            Poll::Ready(Some(Control::Leave)) => self.leave().map(|()| true),
            Poll::Ready(None) => Err(end("gateway_stopped", "the gateway is stopping")),
        }
    }

    /// Keeps other limits from now on; what was shown is not shown again.
    fn obey(&mut self, rules: Rules) {
        self.warnings.keep(&rules);
        self.tap.record_keys(rules.record_input);
        self.rules = Rules { banner: self.rules.banner.take(), ..rules };
    }

    pub(super) fn attach(&mut self, socket: WebSocketStream<C>, cx: &mut Context<'_>) {
        if let Some(mut old) = self.client.replace(Leg::new(socket, self.now)) {
            old.close(false);
            old.poll_flushed(cx);
        }
        self.attached = true;
        self.output.restart();
        self.opening.restart();
        (self.outside.presence)(Presence::Connected);
    }

    fn redial(&mut self, cx: &mut Context<'_>) -> Step {
        let Upstream::Redialling(dialling) = &mut self.upstream else { return Ok(false) };
        let Poll::Ready(redialled) = dialling.as_mut().poll(cx) else { return Ok(false) };
        match redialled {
            Ok(Some(socket)) => {
                self.upstream = Upstream::Open(Box::new(Leg::new(socket, self.now)));
                self.output.listens_again();
                Ok(true)
            }
            Ok(None) => {
                self.upstream = Upstream::Over;
                Err(Ended::Vanished)
            }
            Err(why) => {
                self.upstream = Upstream::Over;
                Err(end(
                    "upstream_lost",
                    &format!("the connection to the target is lost: {}", printable(&why)),
                ))
            }
        }
    }

    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if let Some(leg) = &mut self.client {
            leg.poll_flushed(cx);
        }
        if let Upstream::Open(leg) = &mut self.upstream {
            leg.poll_flushed(cx);
        }
    }

    /// Nothing moves: keep the clocks, then sleep until something does.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let times = self.outside.times;
        if self.client.as_mut().is_some_and(|leg| !leg.keep_alive(times.ping, self.now)) {
            self.client_gone();
        }
        if let Upstream::Open(leg) = &mut self.upstream
            && !leg.keep_alive(times.ping, self.now)
        {
            self.upstream = Upstream::Redialling((self.outside.redial)());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.flush(cx);
        self.set_alarm(cx);
        Poll::Pending
    }

    fn set_alarm(&mut self, cx: &mut Context<'_>) {
        let times = self.outside.times;
        let mut next = self.client.as_ref().map_or(self.away_until(), |leg| leg.ping_due(times.ping));
        if let Upstream::Open(leg) = &self.upstream {
            next = next.min(leg.ping_due(times.ping));
        }
        if let Some((position, due)) = self.held.waiting_for()
            && due > self.now
            && position <= self.tap.recorded()
        {
            next = next.min(due);
        }
        next = self.rules.max_duration.map_or(next, |limit| next.min(self.started + limit));
        next = self.rules.idle_timeout.map_or(next, |limit| next.min(self.active + limit));
        next = self.flows.as_ref().and_then(Flows::due).map_or(next, |due| next.min(due));
        next = self.note_due().map_or(next, |due| next.min(due));
        next = self.output.begins_at().map_or(next, |due| next.min(due));
        next = self.tap.held_until().map_or(next, |due| next.min(due));
        next = self.notice_due().map_or(next, |due| next.min(due));
        next = self.opening.until().map_or(next, |until| next.min(until));
        if !self.tap.has_room() {
            next = next.min(self.now + ROOM_AGAIN);
        }
        // Moving a timer is not free: an early wake-up sets it again.
        let armed = self.alarm.deadline();
        if next < armed || armed <= self.now {
            self.alarm.as_mut().reset(next);
        }
        if self.alarm.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// The end that one of the session's clocks asks for.
    fn time_is_up(&self) -> Option<Ended> {
        let over = |since: Instant, limit: Option<Duration>| limit.filter(|limit| self.now >= since + *limit);
        if let Some(limit) = over(self.started, self.rules.max_duration) {
            return Some(end(
                "max_duration",
                &format!("the session reached its longest duration of {limit:?}"),
            ));
        }
        if let Some(limit) = over(self.active, self.rules.idle_timeout) {
            return Some(end("idle_timeout", &format!("nothing happened in the session for {limit:?}")));
        }
        let gone = self.client.is_none() && self.now >= self.away_until();
        gone.then(|| end("client_away", "no client came back in time"))
    }

    /// When a session without a client is given up.
    fn away_until(&self) -> Instant {
        let times = self.outside.times;
        self.away_since + if self.attached { times.client_away } else { times.first_client }
    }

    pub(super) fn client_gone(&mut self) {
        self.client = None;
        self.away_since = self.now;
        (self.outside.presence)(Presence::Disconnected);
    }
}

pub(super) fn end(reason: &'static str, sentence: &str) -> Ended {
    Ended::ByGateway(Ending { reason, sentence: sentence.to_owned() })
}

pub(super) fn recording_failed(error: &RecorderError) -> Ended {
    end("recording_failed", &format!("the session ended because it can no longer be recorded: {error}"))
}
