//! The tap: each message into the recording, once, before it is forwarded.

use std::task::{Context, Poll};

use data_channel::message::Message;
use data_channel::payload::{PayloadType, Size};
use tokio::time::Instant;

use super::InputKey;
use super::commands::Commands;
use super::echo::Echo;
use super::noted::Noted;
use super::typed::{Typed, TypedMessages};
use crate::recorder::{
    FlowNote, FlowState, INPUT_DIGEST, Position, RecorderError, Recording, Recovered, Stream,
};
use crate::session::Durability;

/// Whether something is in the recording.
type Recorded = Poll<Result<(), RecorderError>>;

/// The recording of one session and what it has taken so far.
pub(super) struct Tap {
    recording: Recording,
    started: Instant,
    record_input: bool,
    position: Position,
    /// The end of what an earlier process recorded.
    before: Position,
    typed: TypedMessages,
    /// Input that is not recorded yet.
    echo: Echo,
    /// What the shell marks as commands.
    commands: Commands,
    /// The number of the last input event.
    last_input: Option<i64>,
    /// The notes of a port session, whose positions are counted by notes.
    noted: Option<Noted>,
}

impl Tap {
    /// Of a port session `keys` are those of its digests; a terminal has none.
    pub(super) fn new(
        recording: Recording,
        record_input: bool,
        now: Instant,
        keys: Option<&[InputKey]>,
    ) -> Self {
        let before = recording.position();
        Self {
            recording,
            started: now,
            record_input,
            position: Position::default(),
            before,
            typed: TypedMessages::keyed(keys.unwrap_or_default()),
            echo: Echo::default(),
            commands: Commands::default(),
            last_input: None,
            noted: keys.is_some().then(|| Noted::after(before)),
        }
    }

    /// Records keys from now on, if asked to; what was begun goes on.
    pub(super) fn record_keys(&mut self, record: bool) {
        self.record_input |= record;
    }

    /// Goes on after an earlier process that recorded this.
    pub(super) fn go_on(&mut self, started: Instant, recovered: &mut Recovered, now: Instant) {
        self.started = started;
        self.typed.go_on(std::mem::take(&mut recovered.inputs));
        self.echo.go_on(recovered.messages.iter().map(|message| message.bytes.as_slice()), now);
    }

    /// Notes from where on the client may lack output.
    pub(super) fn owed(&mut self, sequence: Option<i64>, now: Instant) -> Result<Position, RecorderError> {
        let at = self.elapsed_ms(now);
        self.position = self.recording.owed(at, sequence)?;
        Ok(self.position)
    }

    /// Notes that the client acknowledges in order.
    pub(super) fn settled(&mut self, now: Instant) -> Result<(), RecorderError> {
        let at = self.elapsed_ms(now);
        self.position = self.recording.settled(at)?;
        Ok(())
    }

    /// Up to where input has yet to be recorded, if it is recorded.
    pub(super) fn unrecorded_input(&mut self) -> Option<Position> {
        let (last, counts) = match &self.noted {
            Some(noted) => (noted.seen(), true),
            None => (self.position, self.record_input),
        };
        (counts && last > self.recorded()).then_some(last)
    }

    /// Up to where what was seen is as durable as it has to be.
    pub(super) fn recorded(&mut self) -> Position {
        let recorded = self.recording.recorded();
        self.noted.as_mut().map_or(recorded, |noted| noted.recorded(recorded))
    }

    /// Ready once what was seen up to `position` is as durable as it must be.
    pub(super) fn poll_recorded(&mut self, cx: &mut Context<'_>, position: Position) -> Recorded {
        self.poll(cx, position, Recording::poll_recorded)
    }

    /// Ready once what was seen up to `position` survives the process.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>, position: Position) -> Recorded {
        self.poll(cx, position, Recording::poll_written)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        position: Position,
        poll: impl FnOnce(&mut Recording, &mut Context<'_>, Position) -> Recorded,
    ) -> Recorded {
        let place = self.noted.as_ref().map_or(Some(position), |noted| noted.place(position));
        match (place, &self.noted) {
            (None, Some(noted)) => {
                // The note is written by its clock, or once the last one is.
                let last = self.recording.poll_written(cx, noted.last());
                if let Poll::Ready(Err(error)) = last { Poll::Ready(Err(error)) } else { Poll::Pending }
            }
            _ => poll(&mut self.recording, cx, place.unwrap_or(position)),
        }
    }

    /// The number of the last input message that is held for its echo.
    pub(super) fn last_held(&self) -> Option<u64> {
        let (held, released) = self.echo.counts();
        (held > released).then_some(held)
    }

    /// Whether the input message of that number is held no more.
    pub(super) fn is_released(&self, number: u64) -> bool {
        self.echo.counts().1 >= number
    }

    /// When input is held no longer, whether it was shown or not.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.echo.due()
    }

    /// Records input of which it is known now whether it was shown.
    pub(super) fn record_input(&mut self, now: Instant) -> Result<bool, RecorderError> {
        let mut moved = false;
        while let Some(typed) = self.echo.next(now) {
            moved = true;
            if self.last_input.is_none_or(|last| last.checked_add(1) != Some(typed.sequence)) {
                self.recording.input_is(typed.at_ms, typed.sequence)?;
            }
            self.last_input = Some(typed.sequence);
            if typed.hidden {
                self.recording.hidden(typed.at_ms)?;
            }
            self.position = self.recording.input(typed.at_ms, &typed.bytes)?;
        }
        Ok(moved)
    }

    /// Nothing more is shown: input that is held is recorded as hidden.
    pub(super) fn give_up_echo(&mut self, now: Instant) -> Result<bool, RecorderError> {
        self.echo.give_up();
        self.record_input(now)
    }

    /// What is acknowledged waits at least for this.
    ///
    /// What an earlier process recorded may not be as durable as it must be.
    pub(super) fn before(&self) -> Position {
        if self.noted.is_some() { Noted::before() } else { self.before }
    }

    /// Up to where the recording has taken something.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// What what was seen has to survive.
    pub(super) fn durability(&self) -> Durability {
        self.recording.durability()
    }

    /// Whether the recording takes more without growing past its bound.
    pub(super) fn has_room(&self) -> bool {
        self.recording.has_room()
    }

    /// Records an output message; its acknowledge waits for the position.
    pub(super) fn output(&mut self, message: &Message, now: Instant) -> Result<Position, RecorderError> {
        let stream = match message.payload_type() {
            PayloadType::StdErr => Stream::StdErr,
            PayloadType::ExitCode => Stream::ExitCode,
            // Handshakes and flags are not what the user saw.
            PayloadType::HandshakeRequest
            | PayloadType::HandshakeComplete
            | PayloadType::EncChallengeRequest
            | PayloadType::Flag => return Ok(self.position),
            // Clients print every other type as it is, known or not.
            _ => Stream::Output,
        };
        if self.record_input {
            self.echo.shows(message.payload());
            self.record_input(now)?;
        }
        let at = self.elapsed_ms(now);
        let position = self.recording.output(at, message.sequence(), stream, message.payload())?;
        self.position = position;
        if stream == Stream::Output {
            for command in self.commands.output(at, message.payload()) {
                self.position = self.recording.marker(at, &command.label())?;
            }
        }
        Ok(position)
    }

    /// Records what the gateway says on the user's screen.
    pub(super) fn notice(
        &mut self,
        payload_type: PayloadType,
        text: &str,
        now: Instant,
    ) -> Result<Position, RecorderError> {
        let at = self.elapsed_ms(now);
        self.position = self.recording.notice(at, shown_on(payload_type), text)?;
        Ok(self.position)
    }

    /// Records what stands above the next output, together with it.
    pub(super) fn above_output(&mut self, payload_type: PayloadType, text: &str, now: Instant) {
        let at = self.elapsed_ms(now);
        self.recording.above_output(at, shown_on(payload_type), text);
    }

    /// Records a mark about something that the user is not shown.
    pub(super) fn marker(&mut self, text: &str, now: Instant) -> Result<(), RecorderError> {
        let at = self.elapsed_ms(now);
        self.position = self.recording.marker(at, text)?;
        Ok(())
    }

    /// Records an input message: window sizes always, keys when asked.
    ///
    /// False if the message must not reach the agent: it is so far ahead of
    /// what came before that nothing could tell it from a repeat later.
    pub(super) fn input(&mut self, message: &Message, now: Instant) -> Result<bool, RecorderError> {
        match self.typed.arrival(message) {
            Typed::Repeat => return Ok(true),
            Typed::TooEarly => return Ok(false),
            Typed::Fresh => {}
            Typed::Other => self.typed.replace(message),
        }
        let at = self.elapsed_ms(now);
        match message.payload_type() {
            PayloadType::Size => {
                if let Ok(size) = Size::parse(message.payload()) {
                    self.commands.resize(size.cols, size.rows);
                    self.position = self.recording.resize(at, size.cols, size.rows)?;
                }
            }
            PayloadType::Output if self.record_input => {
                self.echo.typed((message.sequence(), at), message.payload(), now);
                self.record_input(now)?;
            }
            _ => {}
        }
        Ok(true)
    }

    /// What is noted of an input message of a port session.
    pub(super) fn digest(&self, message: &Message) -> [u8; INPUT_DIGEST] {
        self.typed.digest(message)
    }

    /// Says whether an input message is new, and remembers it.
    pub(super) fn arrival(&mut self, message: &Message) -> Typed {
        self.typed.arrival(message)
    }

    /// When the next note of a port session should be written.
    pub(super) fn note_due(&self, now: Instant) -> Option<Instant> {
        self.noted.as_ref().map(|noted| noted.due(self.recording.written(), now))
    }

    /// Keeps what was seen of a port session for its next note.
    pub(super) fn saw(&mut self, notes: Vec<FlowNote>, urgent: bool) -> Position {
        self.noted.as_mut().map_or(self.position, |noted| noted.keep(notes, urgent))
    }

    /// Records what was seen of a port session, and where it is now.
    pub(super) fn note_flows(&mut self, state: &FlowState, now: Instant) -> Result<(), RecorderError> {
        let at = self.elapsed_ms(now);
        let Some(noted) = &mut self.noted else { return Ok(()) };
        self.position = self.recording.flows(at, &noted.take(), state)?;
        noted.wrote(self.position, now);
        Ok(())
    }

    /// The agent has taken an input message; repeats of it change nothing.
    pub(super) fn input_taken(&mut self, sequence: i64) {
        self.typed.taken(sequence);
    }

    pub(super) fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    pub(super) fn into_recording(mut self, now: Instant) -> (Recording, u64) {
        // A recording that failed says so with its seal.
        let _ = self.give_up_echo(now);
        let at = self.elapsed_ms(now);
        (self.recording, at)
    }

    fn elapsed_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where a terminal shows what comes with such messages.
fn shown_on(payload_type: PayloadType) -> Stream {
    if payload_type == PayloadType::StdErr { Stream::StdErr } else { Stream::Output }
}
