//! A run of lines as the catalogue keeps it: compressed, with their times.

use super::CatalogueError;

/// Text of one block: small enough to look through, large enough to index.
pub(super) const TEXT_MAX: usize = 16 * 1024;
/// A block is read in whole; one longer line may be in it.
const UNPACKED_MAX: usize = 4 * TEXT_MAX;
/// zstd level: a block is packed once, on the sealer's heels.
const LEVEL: i32 = 3;

/// Lines with their times, in the order in which they were seen.
#[derive(Default)]
pub(super) struct Block {
    times: Vec<u64>,
    /// The lines, each with a line feed.
    text: String,
}

/// A block as SQLite keeps it.
pub(super) struct Packed {
    pub times: Vec<u8>,
    pub text: Vec<u8>,
}

impl Block {
    /// Adds a line; true: the block is full.
    pub fn push(&mut self, time_ms: u64, line: &str) -> bool {
        self.times.push(time_ms);
        self.text.push_str(line);
        self.text.push('\n');
        self.text.len() >= TEXT_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines with their times.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = (u64, &str)> {
        let lines: Vec<(u64, &str)> = self.times.iter().copied().zip(self.text.lines()).collect();
        lines.into_iter()
    }

    pub fn pack(&self) -> std::io::Result<Packed> {
        let mut before = 0u64;
        let mut times = Vec::with_capacity(self.times.len() * 8);
        for time in &self.times {
            // Times mostly grow by little, which packs well.
            times.extend_from_slice(&time.wrapping_sub(before).to_le_bytes());
            before = *time;
        }
        let times = zstd::bulk::compress(&times, LEVEL)?;
        Ok(Packed { times, text: zstd::bulk::compress(self.text.as_bytes(), LEVEL)? })
    }

    pub fn unpack(packed: &Packed) -> Result<Self, CatalogueError> {
        let damaged = |error: std::io::Error| CatalogueError::Damaged(error.to_string());
        let text = zstd::bulk::decompress(&packed.text, UNPACKED_MAX).map_err(damaged)?;
        let text = String::from_utf8(text).map_err(|error| CatalogueError::Damaged(error.to_string()))?;
        // A line has at least its line feed, so no more times than bytes.
        let times = zstd::bulk::decompress(&packed.times, UNPACKED_MAX * 8).map_err(damaged)?;
        let mut before = 0u64;
        let times = times.as_chunks::<8>().0.iter().map(|step| {
            before = before.wrapping_add(u64::from_le_bytes(*step));
            before
        });
        Ok(Self { times: times.collect(), text })
    }
}
