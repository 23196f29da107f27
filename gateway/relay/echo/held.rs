//! One input message that waits to be recorded, and what of it was shown.

use tokio::time::Instant;

use super::Typed;

/// One input message, cut into keys and texts.
pub(super) struct Held {
    pub(super) sequence: i64,
    pub(super) at_ms: u64,
    pub(super) due: Instant,
    pub(super) bytes: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
}

pub(super) struct Piece {
    pub(super) end: usize,
    pub(super) is: Is,
    /// How much of the text was shown so far.
    pub(super) shown: usize,
    /// The line that it was typed on.
    pub(super) line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Key,
    Waiting,
    /// Something that looks like its echo was shown; not yet enough to be sure.
    Echoed,
    Shown,
    Hidden,
}

impl Is {
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Echoed)
    }
}

impl Held {
    /// Whether it is not known yet what of it may be recorded.
    pub(super) fn is_open(&self) -> bool {
        self.pieces.iter().any(|piece| piece.is.is_open())
    }

    /// What of its texts on that line waits still.
    pub(super) fn waiting(&self, line: u64) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.pieces.iter().map(|piece| piece.end));
        let on_line = move |piece: &Piece| piece.is == Is::Waiting && piece.line == line;
        let waiting = starts.zip(&self.pieces).filter(move |(_, piece)| on_line(piece));
        waiting.filter_map(|(start, piece)| self.bytes.get(start + piece.shown..piece.end))
    }

    pub(super) fn waiting_mut(&mut self, line: u64) -> impl Iterator<Item = (&mut Piece, &[u8])> {
        let (bytes, mut start) = (&self.bytes, 0);
        self.pieces.iter_mut().filter_map(move |piece| {
            let run = bytes.get(start + piece.shown..piece.end)?;
            start = piece.end;
            (piece.is == Is::Waiting && piece.line == line).then_some((piece, run))
        })
    }

    /// As it may be recorded: what is not known to be shown is hidden.
    pub(super) fn typed(self) -> Typed {
        let (mut bytes, mut start, mut hidden) = (Vec::with_capacity(self.bytes.len()), 0, false);
        for piece in &self.pieces {
            if matches!(piece.is, Is::Key | Is::Shown) {
                bytes.extend_from_slice(self.bytes.get(start..piece.end).unwrap_or_default());
            } else {
                bytes.push(b'*');
                hidden = true;
            }
            start = piece.end;
        }
        Typed { sequence: self.sequence, at_ms: self.at_ms, bytes, hidden }
    }
}
