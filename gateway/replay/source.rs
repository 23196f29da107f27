//! The text of a recording: plain or zstd, growing or cut, seekable.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::ReplayError;

/// Bytes of the file read at once: a few zstd blocks.
const READ_BYTES: usize = 64 * 1024;
/// Text decoded at once; small, a line rarely needs more.
const TEXT_BYTES: usize = 64 * 1024;
/// Text between two remembered frames; nearer ones save nothing.
const FRAME_SPACING: u64 = 256 * 1024;
/// Frames remembered; when more come, every other is forgotten.
const FRAMES_MAX: usize = 1024;
/// First bytes of a zstd frame.
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
/// First bytes of a skippable zstd frame, whose last digit varies.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// Where a frame begins, in the file and in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    file: u64,
    text: u64,
}

/// A file read as text from any offset of the text.
///
/// The end of the file is no final state: the next call looks again, so a
/// file that is still being written goes on.
pub(super) struct Source {
    file: File,
    zstd: Option<Unpacker>,
}

impl Source {
    /// Looks at the first bytes to see whether the file is compressed.
    pub fn new(mut file: File) -> Result<Self, ReplayError> {
        let mut magic = Vec::with_capacity(4);
        (&mut file).take(4).read_to_end(&mut magic).map_err(ReplayError::Read)?;
        let magic = magic.as_slice().try_into().map(u32::from_le_bytes).unwrap_or_default();
        file.rewind().map_err(ReplayError::Read)?;
        let packed = magic == ZSTD_MAGIC || magic & !0xF == SKIPPABLE_MAGIC;
        let zstd = if packed { Some(Unpacker::new().map_err(ReplayError::Read)?) } else { None };
        Ok(Self { file, zstd })
    }

    /// Appends some text; 0 bytes: there is no more now.
    pub fn read(&mut self, into: &mut Vec<u8>) -> Result<usize, ReplayError> {
        match &mut self.zstd {
            Some(unpacker) => unpacker.read(&mut self.file, into, TEXT_BYTES),
            None => (&mut self.file).take(READ_BYTES as u64).read_to_end(into).map_err(ReplayError::Read),
        }
    }

    /// Continues from that byte of the text.
    pub fn seek(&mut self, text: u64) -> Result<(), ReplayError> {
        match &mut self.zstd {
            Some(unpacker) => unpacker.seek(&mut self.file, text),
            None => self.file.seek(SeekFrom::Start(text)).map(|_| ()).map_err(ReplayError::Read),
        }
    }

    /// The frames that are known so far; none if it is not compressed.
    pub fn frames(&self) -> &[Frame] {
        self.zstd.as_ref().map(|unpacker| unpacker.frames.as_slice()).unwrap_or_default()
    }

    /// Frames that an earlier reader of the same bytes has found.
    pub fn know(&mut self, frames: &[Frame]) {
        if let (Some(unpacker), false) = (&mut self.zstd, frames.is_empty()) {
            unpacker.frames = frames.to_vec();
        }
    }

    /// Whether the bytes end where a compressed frame does.
    pub fn is_whole(&self) -> bool {
        self.zstd.as_ref().is_none_or(|unpacker| unpacker.between_frames)
    }
}

/// Turns zstd frames, skippable ones included, into text.
struct Unpacker {
    decoder: Decoder<'static>,
    packed: Vec<u8>,
    used: usize,
    file_at: u64,
    text_at: u64,
    between_frames: bool,
    /// The last step filled its room: the decoder may hold more text.
    holds_text: bool,
    frames: Vec<Frame>,
    spacing: u64,
}

impl Unpacker {
    fn new() -> io::Result<Self> {
        Ok(Self {
            decoder: Decoder::new()?,
            packed: Vec::new(),
            used: 0,
            file_at: 0,
            text_at: 0,
            between_frames: true,
            holds_text: false,
            frames: vec![Frame { file: 0, text: 0 }],
            spacing: FRAME_SPACING,
        })
    }

    fn read(&mut self, file: &mut File, into: &mut Vec<u8>, limit: usize) -> Result<usize, ReplayError> {
        loop {
            // Stepping without input or held text is an error to the decoder.
            if !self.holds_text && self.used == self.packed.len() && !self.refill(file)? {
                return Ok(0);
            }
            let got = self.unpack(into, limit)?;
            if got > 0 {
                return Ok(got);
            }
        }
    }

    /// One step of the decoder; 0 bytes: it wants more input.
    fn unpack(&mut self, into: &mut Vec<u8>, limit: usize) -> Result<usize, ReplayError> {
        let start = into.len();
        into.resize(start + limit, 0);
        let mut input = InBuffer::around(self.packed.get(self.used..).unwrap_or_default());
        let mut output = OutBuffer::around_pos(into.as_mut_slice(), start);
        let step = self.decoder.run(&mut input, &mut output);
        let (read, end) = (input.pos(), output.pos());
        into.truncate(end);
        let damaged = |error: io::Error| ReplayError::Damaged { at: self.file_at, why: error.to_string() };
        let hint = step.map_err(damaged)?;
        self.used += read;
        self.file_at += read as u64;
        self.text_at += (end - start) as u64;
        self.holds_text = end == start + limit && hint != 0;
        self.between_frames = hint == 0;
        if self.between_frames {
            self.remember();
        }
        Ok(end - start)
    }

    fn refill(&mut self, file: &mut File) -> Result<bool, ReplayError> {
        self.packed.clear();
        self.used = 0;
        file.take(READ_BYTES as u64).read_to_end(&mut self.packed).map_err(ReplayError::Read)?;
        Ok(!self.packed.is_empty())
    }

    /// Notes that a frame begins here, if that is worth it.
    fn remember(&mut self) {
        let last = self.frames.last().map_or(0, |frame| frame.text);
        if self.text_at < last.saturating_add(self.spacing) {
            return;
        }
        self.frames.push(Frame { file: self.file_at, text: self.text_at });
        if self.frames.len() > FRAMES_MAX {
            let mut nth = 0usize;
            self.frames.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.spacing = self.spacing.saturating_mul(2);
        }
    }

    fn seek(&mut self, file: &mut File, text: u64) -> Result<(), ReplayError> {
        self.rewind(file, text).map_err(ReplayError::Read)?;
        let mut passed = Vec::with_capacity(TEXT_BYTES);
        while self.text_at < text {
            passed.clear();
            let missing = usize::try_from(text - self.text_at).unwrap_or(usize::MAX);
            if self.read(file, &mut passed, missing.min(TEXT_BYTES))? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Goes to the nearest remembered frame at or before the text.
    fn rewind(&mut self, file: &mut File, text: u64) -> io::Result<()> {
        let after = self.frames.partition_point(|frame| frame.text <= text);
        let known = self.frames.get(after.saturating_sub(1)).copied();
        let frame = known.unwrap_or(Frame { file: 0, text: 0 });
        file.seek(SeekFrom::Start(frame.file))?;
        self.decoder.reinit()?;
        self.packed.clear();
        self.used = 0;
        (self.file_at, self.text_at) = (frame.file, frame.text);
        (self.between_frames, self.holds_text) = (true, false);
        Ok(())
    }
}
