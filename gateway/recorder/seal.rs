//! Makes a sealed file: fixed frames, evidence, seek table.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};

use super::checkpoint::{Checkpoint, Takeover};
use super::evidence::{Chain, Ending, Evidence};
use super::frames::{self, Effort, SealEncoder};
use super::shipment::Shipment;
use super::{House, RecorderError, seek_table};
use crate::asciicast::Header;
use crate::session::SessionId;

/// Lines that one frame of a sealed recording holds, bytes.
///
/// A reader that looks for a moment unpacks half of one: 4 ms. With 1 MB a
/// frame files are 2 to 14 % larger, with 8 MB 0 to 5 % smaller; the encoder
/// takes 48 MB while it seals, and would take twice that.
const FRAME_LINES: usize = 4 << 20;

/// Lines of a recording that are worth the best effort, bytes.
///
/// They take some 10 s of a core that nobody else wants, and whoever asks for
/// ended sessions waits for it. Longer ones are mostly builds and floods.
const BEST_LINES: u64 = 16 << 20;
/// A seal that has taken so long goes on in a hurry: the machine is slow, or busy.
const BEST_TIME: Duration = Duration::from_secs(5);

/// A recording that is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of the whole file, hex, as `sha256sum` prints it.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
    /// Size of its lines.
    pub line_bytes: u64,
    /// Time of its last event.
    pub duration_ms: u64,
    /// Which key signed it.
    pub key_id: String,
}

/// A signed file that is in place; its name may not be on disk yet.
pub(super) struct Placed {
    session: SessionId,
    sealed: Sealed,
    evidence: Arc<Evidence>,
}

impl Placed {
    /// Makes the name durable, and says that the recording is sealed.
    ///
    /// Until then what proves the open file stays: a crash may bring that back.
    pub(super) fn settle(&self, house: &House) -> Result<Sealed, RecorderError> {
        let path = &self.sealed.path;
        house.keep_names().map_err(RecorderError::io(format!("seal {}", path.display())))?;
        Checkpoint::remove(path);
        house.count_bytes("sealed", self.sealed.bytes as usize);
        let (session, evidence) = (self.session.clone(), Arc::clone(&self.evidence));
        house.followers.offer(&Shipment::Sealed { session, evidence });
        Ok(self.sealed.clone())
    }
}

/// A sealed file in the making; it takes the place of the open one at the end.
pub(super) struct Seal<'a> {
    house: &'a House,
    id: SessionId,
    file: BufWriter<File>,
    encoder: SealEncoder,
    chain: Chain,
    lines: Vec<u8>,
    packed: Vec<u8>,
    /// How many lines are in frames.
    framed: u64,
    evidence: Evidence,
    compressed: Context,
    written: u64,
    /// Until when it takes its time; not at all if it was not told to.
    unhurried_until: Option<Instant>,
}

impl<'a> Seal<'a> {
    /// Begins a draft beside the open file.
    pub(super) fn begin(house: &'a House, id: &SessionId, ending: Ending) -> Result<Self, RecorderError> {
        let path = house.spool.draft_path(id);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(RecorderError::io(format!("make {}", path.display())))?;
        let chain = Chain::new();
        let (totals, ..) = chain.sums();
        let evidence = Evidence {
            format: "postern-evidence".into(),
            version: 1,
            session: id.to_string(),
            content: None,
            header: String::new(),
            segments: Vec::new(),
            frames: Vec::new(),
            frame_heads: Vec::new(),
            totals,
            end: ending,
            checkpoint: None,
            takeovers: Vec::new(),
            lines_sha256: String::new(),
            compressed_sha256: String::new(),
            key_id: String::new(),
            signature: String::new(),
        };
        Ok(Self {
            house,
            id: id.clone(),
            file: BufWriter::with_capacity(256 * 1024, file),
            encoder: SealEncoder::new().map_err(RecorderError::io("compress"))?,
            chain,
            lines: Vec::with_capacity(64 * 1024),
            packed: Vec::new(),
            framed: 0,
            evidence,
            compressed: Context::new(&SHA256),
            written: 0,
            unhurried_until: None,
        })
    }

    /// Takes its time as long as no other recording waits for its seal.
    pub(super) fn unhurried(self) -> Self {
        Self { unhurried_until: Some(Instant::now() + BEST_TIME), ..self }
    }

    /// Adds one line with its line feed.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), RecorderError> {
        if self.evidence.content.is_none() && self.chain.is_empty() {
            self.evidence.content = content(line);
        }
        if self.lines.len() + line.len() > FRAME_LINES {
            self.end_frame()?;
        }
        self.evidence.segments.extend(self.chain.line(line));
        self.lines.extend_from_slice(line);
        Ok(())
    }

    /// Notes bytes of lines that are known to be lost.
    pub(super) fn lost(&mut self, bytes: u64) {
        self.evidence.end.missing_bytes += bytes;
    }

    /// Notes how much was signed while the session ran.
    pub(super) fn proved(&mut self, checkpoint: Option<Checkpoint>) {
        self.evidence.checkpoint = checkpoint;
    }

    /// Notes when processes went on with it.
    pub(super) fn taken_over(&mut self, takeovers: &[Takeover]) {
        self.evidence.takeovers = takeovers.to_vec();
    }

    /// Signs, makes it durable and puts it in place of the open file.
    pub(super) fn finish(mut self) -> Result<Placed, RecorderError> {
        self.end_frame()?;
        self.evidence.segments.extend(self.chain.close());
        let (totals, header, all) = self.chain.sums();
        let (line_bytes, duration_ms) = (totals.bytes, totals.duration_ms);
        self.evidence.totals = totals;
        self.evidence.end.at_ms = self.evidence.end.at_ms.max(duration_ms);
        self.evidence.header = header;
        self.evidence.lines_sha256 = all;
        self.evidence.compressed_sha256 = HEXLOWER.encode(self.compressed.clone().finish().as_ref());
        let failed = self.failed();
        let signed = self.evidence.sign(&self.house.key).and_then(|()| self.evidence.to_frame());
        let evidence = signed.map_err(|error| failed(error.into()))?;
        let table = seek_table::encode(&entries(&self.evidence, evidence.len()));
        for frame in [&evidence, &table] {
            self.compressed.update(frame);
            self.file.write_all(frame).map_err(&failed)?;
            self.written += frame.len() as u64;
        }
        self.file.flush().and_then(|()| self.house.disk.flush(self.file.get_ref())).map_err(&failed)?;
        self.house.spool.place(&self.id).map_err(&failed)?;
        let sealed = Sealed {
            path: self.house.spool.path(&self.id),
            sha256: HEXLOWER.encode(self.compressed.finish().as_ref()),
            bytes: self.written,
            line_bytes,
            duration_ms,
            key_id: self.evidence.key_id.clone(),
        };
        Ok(Placed { session: self.id, sealed, evidence: Arc::new(self.evidence) })
    }

    fn end_frame(&mut self) -> Result<(), RecorderError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let failed = self.failed();
        let effort = self.effort();
        self.encoder.frame(&self.lines, effort, &mut self.packed).map_err(&failed)?;
        self.file.write_all(&self.packed).map_err(&failed)?;
        self.compressed.update(&self.packed);
        self.written += self.packed.len() as u64;
        let hash = frames::hash(&self.packed);
        self.evidence.frames.push((self.packed.len() as u32, self.lines.len() as u32, hash));
        let (lines, head) = self.chain.stand();
        self.evidence.frame_heads.push((lines - self.framed, head));
        self.framed = lines;
        self.lines.clear();
        Ok(())
    }

    fn effort(&self) -> Effort {
        let before: u64 = self.evidence.frames.iter().map(|(_, lines, _)| u64::from(*lines)).sum();
        let early = before < BEST_LINES && self.unhurried_until.is_some_and(|until| Instant::now() < until);
        if early && self.house.waiting_seals.load(Ordering::Relaxed) == 0 {
            Effort::Best
        } else {
            Effort::Quick
        }
    }

    fn failed(&self) -> impl Fn(io::Error) -> RecorderError + use<> {
        let what = format!("seal {}", self.house.spool.path(&self.id).display());
        move |source| RecorderError::Io { what: what.clone(), source }
    }
}

/// What a header line says that the recording holds.
fn content(line: &[u8]) -> Option<String> {
    let about = Header::parse(line).ok()?.postern?;
    about.get("content")?.as_str().map(str::to_owned)
}

/// The seek table's entries: the data frames, then the evidence.
pub(super) fn entries(evidence: &Evidence, evidence_frame: usize) -> Vec<seek_table::Entry> {
    let data = evidence.frames.iter().map(|(compressed, lines, _)| (*compressed, *lines));
    data.chain([(evidence_frame as u32, 0)]).collect()
}
