//! Reads a recording line by line: `.cast`, sealed, open or torn.

use std::io::{self, Read};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Longest line that is written or read, bytes, its line feed counted.
///
/// A byte of an event takes 6 at most (`\u001b`), so it is what a message of
/// 349 KB can become; no larger one passes a gateway.
pub const LINE_MAX: usize = 2 << 20;
/// Largest window a frame may ask for: 32 MiB, what `zstd --ultra -22` may.
const WINDOW_LOG_MAX: u32 = 25;
/// Bytes read from the source at a time.
const INPUT: usize = 32 * 1024;
/// Room for one decompressed block.
const OUTPUT: usize = 128 * 1024;

/// Why a recording cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source could not be read.
    #[error("the recording could not be read: {0}")]
    Io(#[from] io::Error),
    /// The compressed bytes are not zstd.
    #[error("the recording is damaged near compressed byte {at}: {why}")]
    Damaged {
        /// How many compressed bytes were read before.
        at: u64,
        /// What the decoder said.
        why: String,
    },
    /// A line is longer than [`LINE_MAX`].
    #[error("a line of the recording is longer than {LINE_MAX} bytes")]
    LineTooLong,
}

/// The lines of a recording, in order, as bytes.
///
/// At the end of what is there, torn or not, [`LineReader::next_line`] says `None`;
/// it may be asked again when the file of a running session has grown.
pub struct LineReader<R> {
    source: R,
    form: Form,
    input: Vec<u8>,
    used: usize,
    read: u64,
    text: Vec<u8>,
    line: usize,
    scanned: usize,
}

enum Form {
    Unknown,
    Plain,
    Zstd { decoder: Box<Decoder<'static>>, inside: bool, full: bool },
}

impl<R: Read> LineReader<R> {
    /// A reader at the first line; the form is found by the first bytes.
    pub fn new(source: R) -> Self {
        let (input, text) = (Vec::new(), Vec::new());
        Self { source, form: Form::Unknown, input, used: 0, read: 0, text, line: 0, scanned: 0 }
    }

    /// The next whole line with its line feed; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, ReadError> {
        loop {
            let fresh = self.text.get(self.scanned..).unwrap_or_default();
            if let Some(found) = fresh.iter().position(|b| *b == b'\n') {
                let start = self.line;
                self.line = self.scanned + found + 1;
                self.scanned = self.line;
                return Ok(self.text.get(start..self.line));
            }
            self.scanned = self.text.len();
            if self.text.len() - self.line > LINE_MAX {
                return Err(ReadError::LineTooLong);
            }
            self.text.drain(..self.line);
            self.scanned -= self.line;
            self.line = 0;
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Whether the end is inside a line or a frame: torn, or still growing.
    pub fn torn(&self) -> bool {
        let inside = matches!(self.form, Form::Zstd { inside: true, .. });
        inside || self.line < self.text.len() || self.used < self.input.len()
    }

    /// Adds text after what is there; `false` when the source has no more.
    fn fill(&mut self) -> Result<bool, ReadError> {
        loop {
            if self.decode()? {
                return Ok(true);
            }
            if !self.read_source()? {
                return Ok(false);
            }
            if matches!(self.form, Form::Unknown) {
                let Some(form) = recognise(&self.input)? else { continue };
                self.form = form;
            }
        }
    }

    /// Decodes what was read until there is text; `false` if it gave none.
    fn decode(&mut self) -> Result<bool, ReadError> {
        let before = self.text.len();
        match &mut self.form {
            Form::Unknown => {}
            Form::Plain => {
                self.text.extend_from_slice(self.input.get(self.used..).unwrap_or_default());
                self.used = self.input.len();
            }
            Form::Zstd { decoder, inside, full } => {
                // The decoder counts calls without progress: never ask in vain.
                while self.text.len() == before && (*full || self.used < self.input.len()) {
                    let input = self.input.get(self.used..).unwrap_or_default();
                    self.text.reserve(OUTPUT);
                    let mut from = InBuffer::around(input);
                    let mut to = OutBuffer::around_pos(&mut self.text, before);
                    let hint = decoder.run(&mut from, &mut to).map_err(|error| ReadError::Damaged {
                        at: self.read - input.len() as u64,
                        why: error.to_string(),
                    })?;
                    let read = from.pos();
                    self.used += read;
                    *inside = hint != 0;
                    *full = self.text.len() == self.text.capacity();
                    if read == 0 && self.text.len() == before {
                        break;
                    }
                }
            }
        }
        Ok(self.text.len() > before)
    }

    /// Reads more of the source; `false` at its end.
    fn read_source(&mut self) -> Result<bool, ReadError> {
        self.input.drain(..self.used);
        self.used = 0;
        let kept = self.input.len();
        self.input.resize(kept + INPUT, 0);
        let read = loop {
            match self.source.read(self.input.get_mut(kept..).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.input.truncate(kept + *read.as_ref().unwrap_or(&0));
        let read = read?;
        self.read += read as u64;
        Ok(read > 0)
    }
}

/// Zstd by the magic of a frame or skippable frame, else plain text.
fn recognise(start: &[u8]) -> io::Result<Option<Form>> {
    let Some(magic) = start.first_chunk::<4>() else {
        let text = start.iter().any(|b| matches!(b, b'{' | b'\n'));
        return Ok(text.then_some(Form::Plain));
    };
    let magic = u32::from_le_bytes(*magic);
    if magic != 0xFD2F_B528 && magic >> 4 != 0x0184_D2A5 {
        return Ok(Some(Form::Plain));
    }
    let mut decoder = Box::new(Decoder::new()?);
    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
    Ok(Some(Form::Zstd { decoder, inside: false, full: false }))
}
