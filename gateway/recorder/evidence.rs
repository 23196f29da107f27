//! What proves a recording: hash chain, ranges, end and signature.
//!
//! It is JSON in a skippable zstd frame. `links.rs` says how the chain is
//! made. The signature is Ed25519 over the JSON with an empty `signature`.
//! The JSON is canonical: compact, fields in the order below; any other
//! spelling is damage.

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Takeover};
use super::links::{Head, Links};
use super::{PublicKey, SigningKey};
use crate::asciicast::{EventCode, Marks, peek};

/// Magic of the skippable frame that holds the evidence.
pub(super) const SKIPPABLE: u32 = 0x184D_2A50;
/// Longest evidence that is read, bytes: 40 GB of lines.
pub(super) const EVIDENCE_MAX: u64 = 64 << 20;

/// The evidence of a sealed recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Always `postern-evidence`.
    pub format: String,
    /// Version of this structure: 1.
    pub version: u32,
    /// The session.
    pub session: String,
    /// What the recording holds, as its header says: `terminal`, `flows`
    /// (connections, no bytes) or `flows+traffic`; older ones do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// SHA-256 of the header line, hex; the first link of the chain.
    pub header: String,
    /// The segments of event lines, in order.
    pub segments: Vec<Segment>,
    /// The zstd frames: compressed size, lines' size, SHA-256 in base64.
    pub frames: Vec<(u32, u32, String)>,
    /// For each frame: how many lines, and the chain's head after the last.
    ///
    /// So a frame can be passed on as it is, with its place in the chain;
    /// older recordings do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frame_heads: Vec<(u64, Head)>,
    /// Sums over the recording.
    pub totals: Totals,
    /// How it ended.
    pub end: Ending,
    /// Of a recovered one: what was signed while the session ran.
    ///
    /// The lines after it were in the spool when the gateway came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// When later processes of the gateway went on with the recording.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takeovers: Vec<Takeover>,
    /// SHA-256 of all lines, header included, hex: `zstdcat | sha256sum`.
    pub lines_sha256: String,
    /// SHA-256 of the file up to the evidence frame, hex.
    pub compressed_sha256: String,
    /// Which key signed.
    pub key_id: String,
    /// Ed25519 signature, base64.
    pub signature: String,
}

/// A run of event lines with its link of the hash chain.
///
/// In JSON: `[bytes, lines, until_ms, first, last, hash]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SegmentTuple", into = "SegmentTuple")]
pub struct Segment {
    /// Size of its lines.
    pub bytes: u64,
    /// How many lines.
    pub lines: u64,
    /// Time of its last line.
    pub until_ms: u64,
    /// First and last sequence number of the messages in it.
    ///
    /// A recording of flows has none: it says what messages did to
    /// connections and keeps no message as it came.
    pub sequences: Option<(i64, i64)>,
    /// The chain's link after it: SHA-256 in base64.
    pub hash: String,
}

type SegmentTuple = (u64, u64, u64, Option<i64>, Option<i64>, String);

impl From<SegmentTuple> for Segment {
    fn from((bytes, lines, until_ms, first, last, hash): SegmentTuple) -> Self {
        Self { bytes, lines, until_ms, sequences: first.zip(last), hash }
    }
}

impl From<Segment> for SegmentTuple {
    fn from(segment: Segment) -> Self {
        let (first, last) = segment.sequences.unzip();
        (segment.bytes, segment.lines, segment.until_ms, first, last, segment.hash)
    }
}

/// Sums over a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Size of all lines, header included.
    pub bytes: u64,
    /// How many lines, header included.
    pub lines: u64,
    /// Time of the last line.
    pub duration_ms: u64,
}

/// How a recording ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// Why the session ended.
    pub reason: String,
    /// When, milliseconds since the recording began.
    pub at_ms: u64,
    /// Whether it was put together from what a crash or error left.
    pub recovered: bool,
    /// Bytes of lines that are known to be lost.
    pub missing_bytes: u64,
}

impl Evidence {
    /// Signs; sets the key id and the signature.
    pub(super) fn sign(&mut self, key: &SigningKey) -> serde_json::Result<()> {
        self.key_id = key.public().id();
        self.signature.clear();
        self.signature = BASE64.encode(&key.sign(&self.to_json()?));
        Ok(())
    }

    /// Whether the signature is that key's.
    pub(super) fn signed_by(&self, key: &PublicKey) -> bool {
        let unsigned = Self { signature: String::new(), ..self.clone() };
        let signature = BASE64.decode(self.signature.as_bytes());
        match (unsigned.to_json(), signature) {
            (Ok(message), Ok(signature)) => key.verifies(&message, &signature),
            _ => false,
        }
    }

    /// The canonical JSON.
    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// The skippable frame with it.
    pub(super) fn to_frame(&self) -> serde_json::Result<Vec<u8>> {
        let json = self.to_json()?;
        let mut frame = Vec::with_capacity(json.len() + 8);
        frame.extend_from_slice(&SKIPPABLE.to_le_bytes());
        frame.extend_from_slice(&(json.len() as u32).to_le_bytes());
        frame.extend_from_slice(&json);
        Ok(frame)
    }
}

/// Makes the chain and its segments from lines, one after the other.
#[derive(Clone)]
pub(super) struct Chain {
    links: Links,
    segment: Segment,
    marks: Marks,
    all: Context,
    totals: Totals,
    header: String,
}

impl Chain {
    /// A chain that has seen no line.
    pub(super) fn new() -> Self {
        let (links, all) = (Links::new(), Context::new(&SHA256));
        let totals = Totals { bytes: 0, lines: 0, duration_ms: 0 };
        Self { links, segment: Segment::empty(), marks: Marks::default(), all, totals, header: String::new() }
    }

    /// Whether no line was added yet, not even the header.
    pub(super) fn is_empty(&self) -> bool {
        self.totals.lines == 0
    }

    /// How many lines it has seen, and the head after the last of them.
    pub(super) fn stand(&self) -> (u64, Head) {
        (self.totals.lines, self.links.head())
    }

    /// Adds a line; gives the segment that had no room for it.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<Segment> {
        self.all.update(line);
        self.totals.bytes += line.len() as u64;
        self.totals.lines += 1;
        let closed = self.links.line(line);
        if self.totals.lines == 1 {
            self.header = HEXLOWER.encode(ring::digest::digest(&SHA256, line).as_ref());
            return None;
        }
        let closed = closed.map(|link| self.ended(link));
        self.segment.bytes += line.len() as u64;
        self.segment.lines += 1;
        if let Some(peeked) = peek(line) {
            self.note(peeked.time_ms, peeked.code, peeked.escaped);
        }
        closed
    }

    /// Closes the last segment.
    pub(super) fn close(&mut self) -> Option<Segment> {
        let link = self.links.close()?;
        Some(self.ended(link))
    }

    /// Sums, and SHA-256 of the header line and of all lines in hex.
    pub(super) fn sums(&self) -> (Totals, String, String) {
        let all = HEXLOWER.encode(self.all.clone().finish().as_ref());
        (self.totals.clone(), self.header.clone(), all)
    }

    fn note(&mut self, time_ms: u64, code: EventCode, escaped: &[u8]) {
        self.totals.duration_ms = self.totals.duration_ms.max(time_ms);
        let sequence = self.marks.follow(code, escaped).and_then(|covered| covered.sequence);
        if let Some(sequence) = sequence {
            let first = self.segment.sequences.map_or(sequence, |(first, _)| first);
            self.segment.sequences = Some((first, sequence));
        }
        self.segment.until_ms = time_ms;
    }

    fn ended(&mut self, link: Head) -> Segment {
        Segment { hash: link.to_string(), ..std::mem::replace(&mut self.segment, Segment::empty()) }
    }
}

impl Segment {
    fn empty() -> Self {
        Self { bytes: 0, lines: 0, until_ms: 0, sequences: None, hash: String::new() }
    }
}
