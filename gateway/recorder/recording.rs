//! A session's recording, as the relay task that owns it sees it.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;

use super::evidence::Ending;
use super::lines::{BACKLOG_MAX, Buffer, Finish, Lines, Reply};
use super::read::LINE_MAX;
use super::writer::ToWriter;
use super::{End, FlowNote, FlowState, RecorderError, Sealed, Stream};
use crate::asciicast::{EventCode, Handover, Marks, Piece, Runes, encode_event, encode_mark, encode_piece};
use crate::session::Durability;

/// Longest marker text, bytes; a marker is a label.
const MARKER_MAX: usize = 4096;

/// A place in the recording; later events have higher ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// The recording of one running session; one relay task owns it.
///
/// Nothing here blocks: lines go into the session's buffer and the writer
/// thread is told. Dropped without [`Recording::seal`], it is sealed as
/// `abandoned`.
pub struct Recording {
    lines: Arc<Lines>,
    writer: Sender<ToWriter>,
    marks: Marks,
    output: Runes,
    error_output: Runes,
    input: Runes,
    scratch: Vec<u8>,
    /// Lines that are recorded with the next output.
    ahead: Vec<u8>,
    last_ms: u64,
    sealed: bool,
}

/// A recording that could not be sealed, and is tried again.
pub struct SealedLater(oneshot::Receiver<Sealed>);

impl SealedLater {
    /// Waits for its seal; `None` if this process makes none any more.
    pub async fn sealed(self) -> Option<Sealed> {
        self.0.await.ok()
    }
}

/// Where a recording that goes on stands.
#[derive(Default)]
pub(super) struct State {
    pub(super) marks: Marks,
    pub(super) output: Runes,
    pub(super) error_output: Runes,
    pub(super) last_ms: u64,
}

impl Recording {
    pub(super) fn new(lines: Arc<Lines>, writer: Sender<ToWriter>) -> Self {
        Self {
            lines,
            writer,
            marks: Marks::default(),
            output: Runes::default(),
            error_output: Runes::default(),
            input: Runes::default(),
            scratch: Vec::new(),
            ahead: Vec::new(),
            last_ms: 0,
            sealed: false,
        }
    }

    /// A recording that another process began.
    pub(super) fn going_on(mut self, state: State) -> Self {
        (self.marks, self.last_ms) = (state.marks, state.last_ms);
        (self.output, self.error_output) = (state.output, state.error_output);
        self
    }

    /// Says when its events count as recorded, before the first of them.
    ///
    /// Only the first word counts; without one it is `process`.
    pub fn require(&self, durability: Durability) {
        self.lines.require(durability);
    }

    /// When its events count as recorded.
    pub fn durability(&self) -> Durability {
        self.lines.durability()
    }

    /// The position after everything that was taken so far.
    pub fn position(&self) -> Position {
        Position(self.lines.buffer().end())
    }

    /// Records one output message; each sequence number once, ascending.
    ///
    /// `at_ms` counts from the beginning of the recording and never goes
    /// back. Fails when the recording failed or too much is waiting.
    pub fn output(
        &mut self,
        at_ms: u64,
        sequence: i64,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<Position, RecorderError> {
        let at_ms = self.time(at_ms);
        let implied = self.marks.implies(stream, sequence);
        let (lines, scratch) = (self.lines.clone(), &mut self.scratch);
        let runes = match stream {
            Stream::StdErr => &mut self.error_output,
            Stream::Output | Stream::ExitCode => &mut self.output,
        };
        let (mut buffer, from) = room(&lines)?;
        buffer.bytes.append(&mut self.ahead);
        if stream == Stream::ExitCode {
            encode_exit(&mut buffer.bytes, at_ms, implied, sequence, bytes);
        } else {
            if !implied {
                encode_mark(&mut buffer.bytes, at_ms, stream, Some(sequence));
            }
            encode_piece(&mut buffer.bytes, at_ms, EventCode::Output, &runes.take(bytes, scratch));
        }
        self.marks.wrote(sequence);
        self.hand_over(buffer, from)
    }

    /// Records what the gateway itself said on the screen, as `s -`.
    ///
    /// One notice is one event; a rune that the agent began goes on after it.
    pub fn notice(&mut self, at_ms: u64, stream: Stream, text: &str) -> Result<Position, RecorderError> {
        let at_ms = self.time(at_ms);
        let lines = self.lines.clone();
        let (mut buffer, from) = room(&lines)?;
        encode_mark(&mut buffer.bytes, at_ms, stream, None);
        encode_event(&mut buffer.bytes, at_ms, EventCode::Output, text);
        self.hand_over(buffer, from)
    }

    /// Records what the gateway shows above the next output, with that.
    ///
    /// A crash leaves both or neither: what is shown again is recorded again.
    pub fn above_output(&mut self, at_ms: u64, stream: Stream, text: &str) {
        let at_ms = self.time(at_ms);
        encode_mark(&mut self.ahead, at_ms, stream, None);
        encode_event(&mut self.ahead, at_ms, EventCode::Output, text);
    }

    /// Records what the person typed.
    pub fn input(&mut self, at_ms: u64, bytes: &[u8]) -> Result<Position, RecorderError> {
        let at_ms = self.time(at_ms);
        let lines = self.lines.clone();
        let (mut buffer, from) = room(&lines)?;
        let piece = self.input.take(bytes, &mut self.scratch);
        encode_piece(&mut buffer.bytes, at_ms, EventCode::Input, &piece);
        self.hand_over(buffer, from)
    }

    /// Notes that the next input event has a `*` for what was not shown.
    pub fn hidden(&mut self, at_ms: u64) -> Result<Position, RecorderError> {
        self.handover(at_ms, Handover::Hidden)
    }

    /// Records that the window now has that many columns and rows.
    pub fn resize(&mut self, at_ms: u64, cols: u16, rows: u16) -> Result<Position, RecorderError> {
        self.event(at_ms, EventCode::Resize, &format!("{cols}x{rows}"))
    }

    /// Records a mark that players show; cut at 4 KB.
    pub fn marker(&mut self, at_ms: u64, text: &str) -> Result<Position, RecorderError> {
        let end = text.floor_char_boundary(MARKER_MAX);
        self.event(at_ms, EventCode::Marker, text.get(..end).unwrap_or_default())
    }

    /// Records what was seen of a port session, and where it now is.
    ///
    /// All of it is one record of the journal: a crash leaves it whole or not
    /// at all. Captured bytes only come from sessions that capture them.
    pub fn flows(
        &mut self,
        at_ms: u64,
        notes: &[FlowNote],
        state: &FlowState,
    ) -> Result<Position, RecorderError> {
        let at_ms = self.time(at_ms);
        let mut record = Vec::new();
        for note in notes {
            note.encode(&mut record, at_ms)?;
        }
        state.encode(&mut record, at_ms)?;
        let lines = self.lines.clone();
        let (mut buffer, from) = room(&lines)?;
        buffer.bytes.extend_from_slice(&record);
        self.hand_over(buffer, from)
    }

    /// Notes for a later process from where on the client may lack output.
    pub fn owed(&mut self, at_ms: u64, sequence: Option<i64>) -> Result<Position, RecorderError> {
        self.handover(at_ms, Handover::Owed(sequence))
    }

    /// Notes for a later process which input message the next event is.
    pub fn input_is(&mut self, at_ms: u64, sequence: i64) -> Result<Position, RecorderError> {
        self.handover(at_ms, Handover::Input(sequence))
    }

    /// Notes for a later process that the client acknowledges in order.
    pub fn settled(&mut self, at_ms: u64) -> Result<Position, RecorderError> {
        self.handover(at_ms, Handover::Settled)
    }

    /// Leaves the recording open for a later process.
    ///
    /// What was handed over before is written; nothing is sealed.
    pub fn leave(mut self) {
        self.sealed = true;
    }

    /// Up to where the recording is as durable as it has to be.
    pub fn recorded(&self) -> Position {
        Position(self.lines.recorded())
    }

    /// Ready once `position` is as durable as it has to be.
    pub fn poll_recorded(
        &mut self,
        context: &mut Context<'_>,
        position: Position,
    ) -> Poll<Result<(), RecorderError>> {
        self.lines.poll_recorded(context, position.0)
    }

    /// Up to where the recording survives the end of the process.
    pub fn written(&self) -> Position {
        Position(self.lines.journaled())
    }

    /// Ready once `position` survives the end of the process.
    pub fn poll_written(
        &mut self,
        context: &mut Context<'_>,
        position: Position,
    ) -> Poll<Result<(), RecorderError>> {
        self.lines.poll_journaled(context, position.0)
    }

    /// Whether another message fits; if not, stop reading for a while.
    pub fn has_room(&self) -> bool {
        self.lines.buffer().bytes.len() < BACKLOG_MAX / 2
    }

    /// Writes the rest, re-compresses and signs; the recording is final.
    ///
    /// A recording that failed is sealed too, with what is on disk.
    pub async fn seal(self, at_ms: u64, end: &End) -> Result<Sealed, RecorderError> {
        self.seal_or_later(at_ms, end).await.map_err(|(error, _)| error)
    }

    /// The same; with an error comes what waits for a later try.
    pub async fn seal_or_later(
        mut self,
        at_ms: u64,
        end: &End,
    ) -> Result<Sealed, (RecorderError, SealedLater)> {
        let ((tried, answer), (later, sealed_later)) = (oneshot::channel(), oneshot::channel());
        self.finish(at_ms, &end.reason, Some(Reply { tried, later }));
        let answer = answer.await.unwrap_or(Err(RecorderError::Closed));
        answer.map_err(|error| (error, SealedLater(sealed_later)))
    }

    #[cfg(test)]
    pub(super) fn lines_for_test(&self) -> Arc<Lines> {
        self.lines.clone()
    }

    fn event(&mut self, at_ms: u64, code: EventCode, text: &str) -> Result<Position, RecorderError> {
        let at_ms = self.time(at_ms);
        let lines = self.lines.clone();
        let (mut buffer, from) = room(&lines)?;
        encode_event(&mut buffer.bytes, at_ms, code, text);
        self.hand_over(buffer, from)
    }

    fn handover(&mut self, at_ms: u64, note: Handover) -> Result<Position, RecorderError> {
        let at_ms = self.time(at_ms);
        let lines = self.lines.clone();
        let (mut buffer, from) = room(&lines)?;
        note.encode(&mut buffer.bytes, at_ms);
        self.hand_over(buffer, from)
    }

    /// Players want times that never go back.
    fn time(&mut self, at_ms: u64) -> u64 {
        self.last_ms = self.last_ms.max(at_ms);
        self.last_ms
    }

    /// Lets go of the buffer and sees to it that the writer comes by.
    ///
    /// A line that no reader takes would make the whole recording unreadable:
    /// then nothing that came `from` there on is recorded.
    fn hand_over(&self, mut buffer: MutexGuard<'_, Buffer>, from: usize) -> Result<Position, RecorderError> {
        if let Some(length) = too_long(buffer.bytes.get(from..).unwrap_or_default()) {
            buffer.bytes.truncate(from);
            return Err(RecorderError::LineTooLong(length));
        }
        let end = Position(buffer.end());
        if buffer.waiting_since.is_none() {
            buffer.waiting_since = Some(Instant::now());
        }
        drop(buffer);
        self.call_writer()?;
        Ok(end)
    }

    fn call_writer(&self) -> Result<(), RecorderError> {
        let queued = &self.lines.queued;
        if queued.load(Ordering::Acquire) || queued.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.writer.send(ToWriter::Lines(self.lines.clone())).map_err(|_| RecorderError::Closed)
    }

    fn finish(&mut self, at_ms: u64, reason: &str, reply: Option<Reply>) {
        self.sealed = true;
        let at_ms = self.time(at_ms);
        let lines = self.lines.clone();
        let mut buffer = lines.buffer();
        encode_tail(&mut buffer.bytes, at_ms, Stream::Output, self.output.finish());
        encode_tail(&mut buffer.bytes, at_ms, Stream::StdErr, self.error_output.finish());
        if let Some(piece) = self.input.finish() {
            encode_piece(&mut buffer.bytes, at_ms, EventCode::Input, &piece);
        }
        let ending = Ending { reason: reason.to_owned(), at_ms, recovered: false, missing_bytes: 0 };
        drop(buffer);
        let _ = self.writer.send(ToWriter::Finish(lines, Finish { ending, reply }));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.sealed {
            self.finish(self.last_ms, "abandoned", None);
        }
    }
}

/// The session's buffer and its length, if the recording may take more.
fn room(lines: &Lines) -> Result<(MutexGuard<'_, Buffer>, usize), RecorderError> {
    lines.check()?;
    let buffer = lines.buffer();
    let from = buffer.bytes.len();
    if from >= BACKLOG_MAX { Err(RecorderError::Backlog) } else { Ok((buffer, from)) }
}

/// The length of a line that is longer than readers take.
fn too_long(lines: &[u8]) -> Option<usize> {
    if lines.len() <= LINE_MAX {
        return None;
    }
    lines.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::len).find(|length| *length > LINE_MAX)
}

/// Writes an exit code as `x` with the status alone, as asciinema has it.
fn encode_exit(into: &mut Vec<u8>, at_ms: u64, implied: bool, sequence: i64, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let status = text.trim().trim_start_matches("EXIT_CODE:").trim_start();
    let code = match status.parse::<i32>() {
        Ok(_) => EventCode::Exit,
        Err(_) => EventCode::Output,
    };
    if !implied || code != EventCode::Exit {
        encode_mark(into, at_ms, Stream::ExitCode, Some(sequence));
    }
    let shown = if code == EventCode::Exit { status } else { &text };
    encode_piece(into, at_ms, code, &Piece { exact: bytes, text: shown.into() });
}

/// Writes the bytes of a rune that was never finished; they are no message.
fn encode_tail(into: &mut Vec<u8>, at_ms: u64, stream: Stream, piece: Option<Piece<'_>>) {
    if let Some(piece) = piece {
        encode_mark(into, at_ms, stream, None);
        encode_piece(into, at_ms, EventCode::Output, &piece);
    }
}
