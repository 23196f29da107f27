//! The hash chain over a recording's lines, as far as they go.
//!
//! The first link is SHA-256 of the header line; event lines are hashed in
//! segments of at most [`SEGMENT_MAX`] bytes of whole lines, each as
//! `SHA-256(link before ‖ lines)`. A segment ends before the line that has no
//! room in it. So whoever has the lines can say the head after any of them.

use std::fmt;

use data_encoding::BASE64;
use memchr::{memchr, memchr_iter, memrchr};
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

/// Lines are hashed in segments of at most this many bytes.
const SEGMENT_MAX: usize = 64 * 1024;

/// The chain's head after a line: the link if the segment ended there.
///
/// In JSON and shown: base64.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Head([u8; 32]);

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({self})")
    }
}

impl From<Head> for String {
    fn from(head: Head) -> Self {
        head.to_string()
    }
}

impl TryFrom<String> for Head {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or("a head is 32 bytes in base64")
    }
}

impl Head {
    fn of(digest: &ring::digest::Digest) -> Self {
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

/// A chain that grows with the lines; about 0.3 KB.
#[derive(Clone)]
pub struct Links {
    link: Head,
    open: Context,
    /// Bytes of lines in the open segment.
    segment: usize,
    lines: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self::new()
    }
}

impl Links {
    /// A chain that has seen no line.
    pub fn new() -> Self {
        Self { link: Head([0; 32]), open: Context::new(&SHA256), segment: 0, lines: 0 }
    }

    /// How many lines it has seen, header included.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The head after the last line.
    pub fn head(&self) -> Head {
        if self.segment == 0 { self.link } else { Head::of(&self.open.clone().finish()) }
    }

    /// Adds one line; gives the link of the segment that ended before it.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<Head> {
        if self.lines == 0 {
            self.lines = 1;
            self.begin_segment(Head::of(&digest(&SHA256, line)));
            return None;
        }
        let full = self.segment > 0 && self.segment + line.len() > SEGMENT_MAX;
        let closed = if full { self.close() } else { None };
        self.add(line, 1);
        closed
    }

    /// Adds any number of whole lines, as if one after the other.
    pub fn extend(&mut self, mut lines: &[u8]) {
        while let Some(whole) = self.whole(lines) {
            let (fit, rest) = lines.split_at(whole);
            if self.lines == 0 {
                self.line(fit);
            } else {
                self.add(fit, count(fit));
                if !rest.is_empty() {
                    self.close();
                }
            }
            lines = rest;
        }
    }

    /// Ends the segment; gives its link, if it has lines.
    pub(super) fn close(&mut self) -> Option<Head> {
        if self.segment == 0 {
            return None;
        }
        let link = self.head();
        self.begin_segment(link);
        Some(link)
    }

    /// Size of the first lines that the segment has room for.
    fn whole(&self, lines: &[u8]) -> Option<usize> {
        let first = || memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
        let room = SEGMENT_MAX.saturating_sub(self.segment);
        if lines.is_empty() {
            return None;
        }
        if self.lines == 0 {
            return Some(first());
        }
        let Some(within) = lines.get(..room).filter(|within| within.len() < lines.len()) else {
            return Some(lines.len());
        };
        match memrchr(b'\n', within) {
            Some(last) => Some(last + 1),
            None if self.segment > 0 => Some(0),
            // A line that no segment has room for has one of its own.
            None => Some(first()),
        }
    }

    fn add(&mut self, lines: &[u8], count: u64) {
        self.open.update(lines);
        self.segment += lines.len();
        self.lines += count;
    }

    fn begin_segment(&mut self, link: Head) {
        self.link = link;
        self.open = Context::new(&SHA256);
        self.open.update(&link.0);
        self.segment = 0;
    }
}

/// How many lines these bytes are.
pub(super) fn count(lines: &[u8]) -> u64 {
    memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_together_make_the_same_chain_as_one_by_one() {
        let lines: Vec<Vec<u8>> = (0..600usize)
            .map(|n| {
                [vec![b'x'; n * 7919 % 900 + 70_000 * usize::from(n % 97 == 96)], b"\n".to_vec()].concat()
            })
            .collect();
        let mut single = Links::new();
        for line in &lines {
            single.line(line);
        }
        for chunk in [1, 2, 3, 50, 599, 600] {
            let mut together = Links::new();
            lines.chunks(chunk).for_each(|lines| together.extend(&lines.concat()));
            assert_eq!((together.head(), together.lines()), (single.head(), 600), "{chunk} at a time");
        }
    }
}
