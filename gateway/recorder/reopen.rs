//! Goes on with a recording: file and journal joined, open again.
//!
//! The lines are written anew beside the open file and put in its place in
//! one step, so a crash at any moment leaves either the one or the other.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::checkpoint::{Checkpoint, Stand, Takeover};
use super::frames::{LiveEncoder, Turn, header_frame};
use super::lines::{Lines, OpenFile};
use super::links::Links;
use super::memory::Memory;
use super::recording::State;
use super::recovery::{self, Part};
use super::{FlowState, House, INPUT_DIGEST, RecorderError, Stream};
use crate::asciicast::Header;
use crate::session::{SessionId, now_ms};

/// Processes that one recording goes through; bounds what each signs of it.
const TAKEOVERS_MAX: usize = 100;
/// Lines compressed at a time, bytes: what a busy second writes.
const CHUNK: usize = 256 * 1024;

/// What a recording says about the session that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Time of the last event, milliseconds since the recording began.
    pub last_ms: u64,
    /// The number after that of the last message; `None` if there is none.
    pub next_output: Option<i64>,
    /// The last window size: columns and rows.
    pub size: Option<(u16, u16)>,
    /// Bytes of all output.
    pub output_bytes: u64,
    /// Messages of the gateway's own among the output, with numbers.
    pub notices: u64,
    /// The last output in order, 1 MB and more if the client may lack more.
    pub messages: Vec<Recorded>,
    /// From where on the client may lack output, as the recording says.
    pub owed: Option<i64>,
    /// Whether the client has acknowledged in order.
    pub settled: bool,
    /// The last input messages by number, with the beginning of a digest: of
    /// a terminal SHA-256 of their bytes, of a port as the relay noted it.
    pub inputs: BTreeMap<i64, [u8; INPUT_DIGEST]>,
    /// Where a port session is; `None` before its handshake.
    pub flow: Option<FlowState>,
}

/// One output event with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The message's number; `None` if it was the gateway's own.
    pub sequence: Option<i64>,
    /// The stream it came from.
    pub stream: Stream,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A recording that goes on.
pub(super) struct Reopened {
    pub(super) lines: Lines,
    pub(super) header: Header,
    pub(super) state: State,
    pub(super) recovered: Recovered,
}

/// Reopens what an earlier process left of a recording.
pub(super) fn reopen(house: &House, id: &SessionId) -> Result<Option<Reopened>, RecorderError> {
    let Some(index) = house.past_lines(id) else { return Ok(None) };
    let Some(signed) = recovery::begun(house, id, &index)? else {
        house.past_done(id, true);
        return Ok(None);
    };
    if signed.takeovers.len() >= TAKEOVERS_MAX {
        return Err(RecorderError::Failed(format!("{TAKEOVERS_MAX} processes went on with it, so it ends")));
    }
    let path = house.spool.draft_path(id);
    let rewritten = rewrite(house, id, (&index, signed.clone()));
    if rewritten.is_err() {
        // The open file is untouched, and a draft of nothing is of no use.
        let _ = fs::remove_file(&path);
    }
    let Rewritten { file, position, links, header, memory } = rewritten?;
    let (state, recovered) = memory.finish();
    let stand =
        Stand { lines: links.lines(), bytes: position, until_ms: recovered.last_ms, head: links.head() };
    let takeovers = take_over(house, id, signed, stand)?;
    house.past_done(id, true);
    let lines = Lines::after(id.clone(), (position, links), file).taken_over(takeovers);
    Ok(Some(Reopened { lines, header, state, recovered }))
}

/// Signs that this process goes on, and with what: the seal will say so.
fn take_over(
    house: &House,
    id: &SessionId,
    signed: Checkpoint,
    stand: Stand,
) -> Result<Vec<Takeover>, RecorderError> {
    let mut takeovers = signed.takeovers;
    takeovers.push(Takeover {
        at_ms: now_ms(),
        lines: stand.lines,
        until_ms: stand.until_ms,
        signed_lines: signed.lines,
        signed_until_ms: signed.until_ms,
        signed_ms: signed.signed_ms,
        signed_head: signed.head,
    });
    let path = house.spool.path(id);
    let written = Checkpoint::sign(id, stand, &takeovers, &house.key)
        .and_then(|checkpoint| checkpoint.write(&path, true));
    written.map_err(RecorderError::io(format!("sign where {} goes on", path.display())))?;
    Ok(takeovers)
}

fn rewrite(
    house: &House,
    id: &SessionId,
    joined: (&super::journal::Index, Checkpoint),
) -> Result<Rewritten, RecorderError> {
    let path = house.spool.draft_path(id);
    let failed = || RecorderError::io(format!("reopen {}", house.spool.path(id).display()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let mut rewrite = Rewrite::to(file.map_err(failed())?).map_err(failed())?;
    recovery::join(house, id, joined, &mut |part| match part {
        Part::Line(line) => rewrite.line(line).map_err(failed()),
        Part::Lost(_) => Err(RecorderError::Hole(id.clone())),
    })?;
    let whole = rewrite.finish().map_err(failed())?;
    house.spool.place(id).and_then(|()| house.keep_names()).map_err(failed())?;
    Ok(whole)
}

/// Writes the lines anew, as an open file has them.
struct Rewrite {
    file: BufWriter<File>,
    encoder: LiveEncoder,
    waiting: Vec<u8>,
    packed: Vec<u8>,
    is: Rewritten,
}

/// What was written anew.
struct Rewritten {
    file: OpenFile,
    position: u64,
    links: Links,
    header: Header,
    memory: Memory,
}

impl Rewrite {
    fn to(file: File) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(CHUNK, file),
            encoder: LiveEncoder::new()?,
            waiting: Vec::new(),
            packed: Vec::new(),
            is: Rewritten {
                file: OpenFile::new(),
                position: 0,
                links: Links::new(),
                header: Header::new(0),
                memory: Memory::default(),
            },
        })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let is_header = self.is.position == 0;
        self.is.position += line.len() as u64;
        self.is.links.line(line);
        if is_header {
            self.is.header = Header::parse(line).unwrap_or(Header::new(0));
            let frame = header_frame(line)?;
            self.is.file.wrote(&frame);
            return self.file.write_all(&frame);
        }
        self.is.memory.line(line);
        self.waiting.extend_from_slice(line);
        if self.waiting.len() >= CHUNK { self.compress(Turn::Flush) } else { Ok(()) }
    }

    fn compress(&mut self, turn: Turn) -> io::Result<()> {
        self.packed.clear();
        self.encoder.compress(&self.waiting, turn, &mut self.packed)?;
        self.waiting.clear();
        self.is.file.wrote(&self.packed);
        self.file.write_all(&self.packed)
    }

    /// Makes it durable: the old journal goes soon after.
    fn finish(mut self) -> io::Result<Rewritten> {
        self.compress(Turn::End)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(self.is)
    }
}
