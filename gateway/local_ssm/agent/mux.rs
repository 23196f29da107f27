//! A port session in smux: many connections, each a stream.
//!
//! Version 1 of smux has no windows. When what waits for slow connections is
//! too much no more input is taken, for all streams: the client keeps what is
//! not acknowledged. The stock agent does the same at the same size.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use data_channel::smux::{self, Command, Frames, Piece, SmuxError};
use data_channel::{Flag, PayloadType};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::destination::Destination;
use super::endpoint::Happened;
use super::stream::{Step, Stream};
use crate::local_ssm::sessions::Status;

/// Most connections of one session: each is a socket of this machine.
const STREAMS_MAX: usize = 256;
/// Most bytes that wait for all connections; smux's `MaxReceiveBuffer`.
const WAITING_MAX: usize = 4 << 20;
/// Most frames and flags that wait to be sent beside data: with two for each
/// end of a stream this is reached by a client that opens and never reads.
const SAID_MAX: usize = 1_024;
/// Keep-alives without any frame of the client until it counts as dead.
const MISSED_MAX: u32 = 3;

/// The smux server of one session.
pub(super) struct Mux {
    destination: Destination,
    frames: Frames,
    streams: BTreeMap<u32, Stream>,
    /// Frames without data and flags to send, in order.
    said: VecDeque<(PayloadType, Vec<u8>)>,
    /// The stream that was served last: the next one comes first.
    turn: u32,
    keep_alive: Option<KeepAlive>,
    broken: Option<SmuxError>,
}

impl Mux {
    /// No connection yet; keep-alives this often, if at all.
    pub(super) fn new(destination: Destination, keep_alive: Option<Duration>) -> Self {
        Self {
            destination,
            frames: Frames::default(),
            streams: BTreeMap::new(),
            said: VecDeque::new(),
            turn: 0,
            keep_alive: keep_alive.map(KeepAlive::new),
            broken: None,
        }
    }

    /// Whether more input may come.
    pub(super) fn has_room(&self) -> bool {
        let waiting: usize = self.streams.values().map(Stream::waiting).sum();
        waiting < WAITING_MAX && self.said.len() < SAID_MAX
    }

    /// Takes the next bytes of the client's smux.
    pub(super) fn take(&mut self, payload: &Bytes) {
        let mut rest = payload.as_ref();
        while self.broken.is_none() {
            match self.frames.next(&mut rest) {
                Ok(None) => return,
                Ok(Some(Piece::Frame(frame))) => self.frame(frame.command, frame.stream),
                Ok(Some(Piece::Data(id, data))) => {
                    // Data of a stream that has ended is late: forgotten.
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.take(data);
                    }
                }
                Err(error) => self.broken = Some(error),
            }
        }
    }

    fn frame(&mut self, command: Command, id: u32) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.heard = true;
        }
        match command {
            Command::Open if self.streams.contains_key(&id) => {}
            Command::Open if self.streams.len() >= STREAMS_MAX => self.refuse(id),
            Command::Open => {
                self.streams.insert(id, Stream::new(self.destination.dial()));
            }
            Command::Close => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.finish();
                }
            }
            Command::Data | Command::KeepAlive => {}
        }
    }

    /// Writes and reads every connection. May be dropped and called again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants_output: bool) -> Poll<Happened> {
        if let Some(error) = self.broken {
            return Poll::Ready(Happened::Over(Status::Failed, error.to_string()));
        }
        let has_room = self.has_room();
        match self.keep_alive.as_mut().and_then(|keep_alive| keep_alive.poll(cx, has_room)) {
            Some(Due::Say) if self.said.is_empty() => self.say(Command::KeepAlive, 0),
            Some(Due::Dead) => return Poll::Ready(Happened::Over(Status::Failed, String::new())),
            _ => {}
        }
        if wants_output && let Some((kind, bytes)) = self.said.pop_front() {
            return Poll::Ready(Happened::Output(kind, bytes));
        }
        self.poll_streams(cx, wants_output).map(|(id, step)| {
            self.turn = id;
            match step {
                Step::Read(bytes) => {
                    let mut framed = Vec::with_capacity(bytes.len() + smux::FRAME_HEADER);
                    smux::encode_data(id, &bytes, &mut framed);
                    return Happened::Output(PayloadType::Output, framed);
                }
                Step::Refused => self.refuse(id),
                Step::Ended => self.say(Command::Close, id),
            }
            self.streams.remove(&id);
            Happened::Moved
        })
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>, wants_output: bool) -> Poll<(u32, Step)> {
        let (after, before) = (self.turn.saturating_add(1).., ..=self.turn);
        for (id, stream) in self.streams.range_mut(after) {
            if let Poll::Ready(step) = stream.poll(cx, wants_output) {
                return Poll::Ready((*id, step));
            }
        }
        for (id, stream) in self.streams.range_mut(before) {
            if let Poll::Ready(step) = stream.poll(cx, wants_output) {
                return Poll::Ready((*id, step));
            }
        }
        Poll::Pending
    }

    /// Tells that a connection could not be made; the session stays.
    fn refuse(&mut self, id: u32) {
        self.said.push_back((PayloadType::Flag, Flag::ConnectToPortError.encode().to_vec()));
        self.say(Command::Close, id);
    }

    fn say(&mut self, command: Command, id: u32) {
        let mut frame = Vec::with_capacity(smux::FRAME_HEADER);
        smux::encode(command, id, &mut frame);
        self.said.push_back((PayloadType::Output, frame));
    }
}

/// smux's keep-alive, which old clients need.
struct KeepAlive {
    say: Interval,
    check: Interval,
    heard: bool,
}

enum Due {
    Say,
    Dead,
}

impl KeepAlive {
    fn new(every: Duration) -> Self {
        let ticks = |period: Duration| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        Self { say: ticks(every), check: ticks(every * MISSED_MAX), heard: false }
    }

    /// What is due; a client whose input is not taken is not dead.
    fn poll(&mut self, cx: &mut Context<'_>, has_room: bool) -> Option<Due> {
        if self.check.poll_tick(cx).is_ready() {
            let heard = std::mem::take(&mut self.heard);
            if !heard && has_room {
                return Some(Due::Dead);
            }
        }
        self.say.poll_tick(cx).is_ready().then_some(Due::Say)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(said: &[(Command, u32, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (command, id, length) in said {
            match command {
                Command::Data => smux::encode_data(*id, &vec![7; *length], &mut bytes),
                other => smux::encode(*other, *id, &mut bytes),
            }
        }
        bytes
    }

    proptest! {
        // Each case is megabytes in a build without optimisation.
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn whatever_a_client_says_memory_stays_bounded(
            said in prop::collection::vec(
                (
                    prop::sample::select(vec![Command::Open, Command::Open, Command::Data, Command::Close]),
                    0u32..600,
                    0usize..40_000,
                ),
                0..1_500,
            ),
        ) {
            let mut mux = Mux::new(Destination::none(), None);
            for payload in bytes(&said).chunks(1_024) {
                if !mux.has_room() {
                    break;
                }
                mux.take(&Bytes::copy_from_slice(payload));
            }
            prop_assert!(mux.broken.is_none());
            prop_assert!(mux.streams.len() <= STREAMS_MAX);
            let waiting: usize = mux.streams.values().map(Stream::waiting).sum();
            prop_assert!(waiting < WAITING_MAX + 1_024);
            // One payload more: each of its frames refused with two of ours.
            prop_assert!(mux.said.len() < SAID_MAX + 2 * 1_024 / smux::FRAME_HEADER);
        }
    }
}
