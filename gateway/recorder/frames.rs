//! Zstd frames: the growing one of an open file, the fixed ones of a seal.

use std::io;

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{
    CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, compress_bound, get_error_name,
};

/// While live: as small as level 3 when flushed, a seventh of its memory.
const LIVE_LEVEL: i32 = 1;
/// Bytes of lines after which a frame ends and the next one begins.
///
/// It is the window of the level. A frame that outgrows it makes zstd look in
/// two places for every match, which takes it half as long again, for bytes
/// that a window later are out of reach anyway.
const LIVE_FRAME: usize = 512 * 1024;
/// Log of the places that the level remembers: 16 KB, half of a core's
/// nearest cache. The 64 KB that level 1 would take cost 8 % more time for
/// the same size.
const LIVE_HASH_LOG: u32 = 12;
/// From here on a session is compressed before its second is over, and that is
/// a frame of its own, bytes.
///
/// Zstd then reads them where they are instead of copying them into a window
/// that has to be fetched from far away at each turn. Frames of 64 KB would be
/// 3 % larger.
pub(super) const LIVE_WHOLE: usize = 192 * 1024;
/// At seal, in a hurry: 2 % smaller than level 9, at 20 MB/s of a core.
const QUICK_LEVEL: i32 = 12;
/// At seal, with time: 10 % smaller again, at 1 to 2 MB/s.
const BEST_LEVEL: i32 = 19;
/// Lines of a frame that is always worth the best, bytes; a quarter of a
/// second's work. Most shells and commands are all in it.
const SMALL: usize = 256 * 1024;

/// How much work a frame of a sealed recording is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Somebody waits.
    Quick,
    /// Nobody does.
    Best,
}

impl Effort {
    /// Every way in which a frame may have been made, the cheapest first.
    pub(super) const ALL: [Self; 2] = [Self::Quick, Self::Best];

    fn level(self, lines: usize) -> i32 {
        if self == Self::Best || lines <= SMALL { BEST_LEVEL } else { QUICK_LEVEL }
    }
}

/// How a turn of compression ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Everything so far can be decoded; the frame goes on.
    Flush,
    /// The frame is complete.
    End,
}

/// A streaming encoder of an open recording (1.4 MB when used).
pub(super) struct LiveEncoder {
    context: CCtx<'static>,
    /// Bytes of lines in the frame that was begun.
    begun: usize,
}

impl LiveEncoder {
    /// An encoder at the start of a frame.
    pub(super) fn new() -> io::Result<Self> {
        let mut context = CCtx::create();
        for parameter in [CParameter::CompressionLevel(LIVE_LEVEL), CParameter::HashLog(LIVE_HASH_LOG)] {
            context.set_parameter(parameter).map_err(named)?;
        }
        Ok(Self { context, begun: 0 })
    }

    /// Appends the next bytes; all of `lines` can then be decoded.
    pub(super) fn compress(&mut self, lines: &[u8], turn: Turn, into: &mut Vec<u8>) -> io::Result<()> {
        self.begun += lines.len();
        if self.begun == 0 {
            return Ok(());
        }
        let directive = if turn == Turn::End || self.begun >= LIVE_FRAME {
            self.begun = 0;
            ZSTD_EndDirective::ZSTD_e_end
        } else {
            ZSTD_EndDirective::ZSTD_e_flush
        };
        let mut input = InBuffer::around(lines);
        loop {
            let left = input.src.len() - input.pos();
            // Zstd copies nothing if there is room for all that can come.
            let whole = directive == ZSTD_EndDirective::ZSTD_e_end;
            into.reserve(if whole { compress_bound(left) } else { compress_bound(left) / 4 + 512 });
            let start = into.len();
            let mut output = OutBuffer::around_pos(into, start);
            let more = self.context.compress_stream2(&mut output, &mut input, directive).map_err(named)?;
            if more == 0 {
                return Ok(());
            }
        }
    }

    /// Forgets a frame that was begun, so that the encoder can be reused.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.begun = 0;
        self.context.reset(ResetDirective::SessionOnly).map_err(named).map(drop)
    }
}

/// A header line as a frame of its own, as an open file begins.
pub(super) fn header_frame(line: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(512);
    LiveEncoder::new()?.compress(line, Turn::End, &mut frame)?;
    Ok(frame)
}

/// Makes the independent frames of a sealed recording.
pub(super) struct SealEncoder {
    context: CCtx<'static>,
}

impl SealEncoder {
    /// An encoder with content sizes and checksums in every frame.
    pub(super) fn new() -> io::Result<Self> {
        let mut context = CCtx::create();
        for parameter in [CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(true)] {
            context.set_parameter(parameter).map_err(named)?;
        }
        Ok(Self { context })
    }

    /// Replaces what is in `into` with one frame of these lines.
    pub(super) fn frame(&mut self, lines: &[u8], effort: Effort, into: &mut Vec<u8>) -> io::Result<()> {
        let level = CParameter::CompressionLevel(effort.level(lines.len()));
        self.context.set_parameter(level).map_err(named)?;
        into.clear();
        into.reserve(compress_bound(lines.len()));
        self.context.compress2(into, lines).map_err(named).map(drop)
    }
}

/// SHA-256 of a frame as the evidence has it, base64.
pub(super) fn hash(frame: &[u8]) -> String {
    BASE64.encode(digest(&SHA256, frame).as_ref())
}

/// Whether a zstd frame that begins so carries a content checksum.
///
/// Sealed frames do, live ones do not; so a cut sealed file is no live one.
pub fn has_checksum(start: &[u8]) -> Option<bool> {
    let rest = start.strip_prefix(&0xFD2F_B528_u32.to_le_bytes())?;
    rest.first().map(|descriptor| descriptor & 0b100 != 0)
}

fn named(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}
