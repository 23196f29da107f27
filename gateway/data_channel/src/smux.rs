//! smux version 1: the connections that one port session carries.
//!
//! A multiplexed port session is one smux stream in each direction, cut into
//! `Output` payloads of at most 1024 bytes at arbitrary places. A frame is
//! eight bytes (version, command, length and stream, little-endian) and its
//! data. Version 1 has no windows: whoever reads slowly holds up all streams.
//! Source: `xtaci/smux` 1.5.15, which both stock programs contain.

/// Bytes before the data of a frame.
pub const FRAME_HEADER: usize = 8;
/// Most data bytes of one frame as the stock programs write it.
pub const FRAME_MAX: usize = 32_768;
/// The first stream of a client; every next one is two higher.
pub const FIRST_STREAM: u32 = 3;

/// The only version that the agent speaks.
const VERSION: u8 = 1;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// SYN: the stream begins.
    Open,
    /// FIN: the stream ends, both ways; there is no half-close.
    Close,
    /// PSH: bytes of the stream.
    Data,
    /// NOP: the peer is alive.
    KeepAlive,
}

/// Why bytes are not smux; the stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SmuxError {
    /// Another version, or no smux at all.
    #[error("the port stream is not smux version 1 (its first byte is {0})")]
    Version(u8),
    /// No command of version 1.
    #[error("smux command {0} is not known in version 1")]
    Command(u8),
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it says.
    pub command: Command,
    /// The stream it is about; 0 for keep-alives.
    pub stream: u32,
    /// How many bytes of data follow.
    pub length: u16,
}

impl FrameHeader {
    fn parse(bytes: &[u8; FRAME_HEADER]) -> Result<Self, SmuxError> {
        let [version, command, l0, l1, s0, s1, s2, s3] = *bytes;
        if version != VERSION {
            return Err(SmuxError::Version(version));
        }
        let command = match command {
            0 => Command::Open,
            1 => Command::Close,
            2 => Command::Data,
            3 => Command::KeepAlive,
            other => return Err(SmuxError::Command(other)),
        };
        let (length, stream) = (u16::from_le_bytes([l0, l1]), u32::from_le_bytes([s0, s1, s2, s3]));
        Ok(Self { command, stream, length })
    }

    fn encode(self) -> [u8; FRAME_HEADER] {
        let command = match self.command {
            Command::Open => 0,
            Command::Close => 1,
            Command::Data => 2,
            Command::KeepAlive => 3,
        };
        let ([l0, l1], [s0, s1, s2, s3]) = (self.length.to_le_bytes(), self.stream.to_le_bytes());
        [VERSION, command, l0, l1, s0, s1, s2, s3]
    }
}

/// Appends one frame without data.
pub fn encode(command: Command, stream: u32, into: &mut Vec<u8>) {
    into.extend_from_slice(&FrameHeader { command, stream, length: 0 }.encode());
}

/// Appends data of a stream, in as many frames as it takes.
pub fn encode_data(stream: u32, data: &[u8], into: &mut Vec<u8>) {
    for part in data.chunks(FRAME_MAX) {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        into.extend_from_slice(&FrameHeader { command: Command::Data, stream, length }.encode());
        into.extend_from_slice(part);
    }
}

/// What the next bytes of a direction were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A frame began; [`Piece::Data`] follows if it has data.
    Frame(FrameHeader),
    /// Data of the frame that began last, or a part of it.
    Data(u32, &'a [u8]),
}

/// Reads one direction of smux in whatever pieces it comes; keeps no data.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    header: [u8; FRAME_HEADER],
    /// Bytes of `header` that are there.
    have: usize,
    /// The stream and the data bytes still to come of the current frame.
    current: (u32, usize),
}

impl Frames {
    /// Goes on in the middle of a stream of frames, as [`Frames::place`] says.
    ///
    /// Of a header that is longer than one only the beginning counts.
    pub fn at(header: &[u8], stream: u32, left: usize) -> Self {
        let mut frames = Self { current: (stream, left), ..Self::default() };
        for (place, byte) in frames.header.iter_mut().zip(header) {
            *place = *byte;
        }
        frames.have = header.len().min(FRAME_HEADER - 1);
        frames
    }

    /// The part of a header that has come, the stream of the current frame,
    /// and how many bytes of its data are still to come.
    pub fn place(&self) -> (&[u8], u32, usize) {
        let (stream, left) = self.current;
        (self.header.get(..self.have).unwrap_or_default(), stream, left)
    }

    /// Takes the next piece off `bytes`; `None` when they are used up.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Piece<'a>>, SmuxError> {
        let (stream, left) = self.current;
        if left > 0 {
            let (data, rest) = bytes.split_at(left.min(bytes.len()));
            (self.current, *bytes) = ((stream, left - data.len()), rest);
            return Ok((!data.is_empty()).then_some(Piece::Data(stream, data)));
        }
        let wanted = self.header.get_mut(self.have..).unwrap_or_default();
        let (head, rest) = bytes.split_at(wanted.len().min(bytes.len()));
        for (place, byte) in wanted.iter_mut().zip(head) {
            *place = *byte;
        }
        (self.have, *bytes) = (self.have + head.len(), rest);
        if self.have < FRAME_HEADER {
            return Ok(None);
        }
        let header = FrameHeader::parse(&self.header)?;
        self.have = 0;
        self.current = (header.stream, usize::from(header.length));
        Ok(Some(Piece::Frame(header)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was said, with data put together again.
    fn read(pieces: &[&[u8]]) -> Result<Vec<(Command, u32, Vec<u8>)>, SmuxError> {
        let (mut frames, mut said) = (Frames::default(), Vec::<(Command, u32, Vec<u8>)>::new());
        for piece in pieces {
            let mut rest = *piece;
            // Between any two pieces somebody else may go on.
            let (header, stream, left) = frames.place();
            frames = Frames::at(header, stream, left);
            while let Some(piece) = frames.next(&mut rest)? {
                match piece {
                    Piece::Frame(header) => said.push((header.command, header.stream, Vec::new())),
                    Piece::Data(stream, data) => {
                        let (_, last, bytes) = said.last_mut().unwrap();
                        assert_eq!(*last, stream);
                        bytes.extend_from_slice(data);
                    }
                }
            }
        }
        Ok(said)
    }

    #[test]
    fn a_frame_has_the_bytes_of_the_real_library() {
        let mut bytes = Vec::new();
        encode(Command::Open, FIRST_STREAM, &mut bytes);
        encode_data(FIRST_STREAM, b"hi", &mut bytes);
        encode(Command::Close, FIRST_STREAM, &mut bytes);
        encode(Command::KeepAlive, 0, &mut bytes);
        let expected =
            b"\x01\x00\0\0\x03\0\0\0\x01\x02\x02\0\x03\0\0\0hi\x01\x01\0\0\x03\0\0\0\x01\x03\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_not_smux_is_an_error() {
        assert_eq!(read(&[b"SSH-2.0-x"]), Err(SmuxError::Version(b'S')));
        assert_eq!(read(&[&[1, 4, 0, 0, 0, 0, 0, 0]]), Err(SmuxError::Command(4)));
    }

    #[test]
    fn much_data_is_cut_into_frames() {
        let (data, mut bytes) = (vec![7; FRAME_MAX + 1], Vec::new());
        encode_data(5, &data, &mut bytes);
        let said = read(&[&bytes]).unwrap();
        let lengths: Vec<usize> = said.iter().map(|(_, _, data)| data.len()).collect();
        assert_eq!(lengths, [FRAME_MAX, 1]);
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            said in prop::collection::vec((0u32..9, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            cut in 1usize..30,
        ) {
            let mut bytes = Vec::new();
            for (stream, data) in &said {
                match data.len() {
                    0 => encode(Command::Open, *stream, &mut bytes),
                    _ => encode_data(*stream, data, &mut bytes),
                }
            }
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let expected: Vec<_> = said
                .into_iter()
                .map(|(stream, data)| (if data.is_empty() { Command::Open } else { Command::Data }, stream, data))
                .collect();
            prop_assert_eq!(read(&pieces).unwrap(), expected);
        }
    }
}
