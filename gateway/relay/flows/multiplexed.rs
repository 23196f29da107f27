//! Both directions of smux: which connection each byte is of.

use data_channel::smux::{Command, FrameHeader, Frames, Piece};
use tokio::time::Instant;

use super::connections::Connections;
use super::{Fault, Note};
use crate::recorder::{Direction, FramePlace, Side};

/// Where what is seen goes.
pub(super) type Into<'a> = (&'a mut Connections, Instant, &'a mut Vec<Note>);

/// The two smux streams of a session.
#[derive(Default)]
pub(super) struct Multiplexed {
    up: Frames,
    down: Frames,
}

impl Multiplexed {
    /// Goes on where an earlier process was.
    pub(super) fn after(up: &FramePlace, down: &FramePlace) -> Self {
        let frames = |place: &FramePlace| {
            Frames::at(&place.header, place.stream, usize::try_from(place.left).unwrap_or(0))
        };
        Self { up: frames(up), down: frames(down) }
    }

    /// Where both directions are, first the one from the client.
    pub(super) fn places(&self) -> [FramePlace; 2] {
        [&self.up, &self.down].map(|frames| {
            let (header, stream, left) = frames.place();
            // No frame has more than 64 KB.
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            // Of a frame that is over nobody wants to know the stream.
            let stream = if left > 0 { stream } else { 0 };
            FramePlace { header: header.to_vec(), stream, left }
        })
    }

    /// Takes the next bytes; true if they are more than signs of life.
    pub(super) fn take(
        &mut self,
        direction: Direction,
        mut bytes: &[u8],
        into: &mut Into<'_>,
    ) -> Result<bool, Fault> {
        let frames = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        let mut active = false;
        while let Some(piece) = frames.next(&mut bytes)? {
            active |= match piece {
                Piece::Frame(header) => frame(direction, header, into)?,
                Piece::Data(stream, data) => {
                    let (connections, now, notes) = into;
                    connections.data(stream, direction, data, (*now, notes));
                    true
                }
            };
        }
        Ok(active)
    }
}

fn frame(
    direction: Direction,
    header: FrameHeader,
    (connections, now, notes): &mut Into<'_>,
) -> Result<bool, Fault> {
    let stream = header.stream;
    // The real library reads no data after these, whatever their length says.
    if header.command != Command::Data && header.length > 0 {
        return Err(Fault::Malformed("a frame without data has a length"));
    }
    match (header.command, direction) {
        (Command::Open, Direction::Up) if connections.knows(stream) => {
            return Err(Fault::Malformed("a stream is opened twice"));
        }
        (Command::Open, Direction::Up) => connections.open(stream, *now, notes)?,
        (Command::Open, Direction::Down) => {
            return Err(Fault::Malformed("the target's agent opens a stream"));
        }
        (Command::Close, Direction::Up) => connections.close(stream, Side::Client, notes),
        (Command::Close, Direction::Down) => connections.close(stream, Side::Target, notes),
        (Command::Data | Command::KeepAlive, _) => {}
    }
    Ok(matches!(header.command, Command::Open | Command::Close))
}
