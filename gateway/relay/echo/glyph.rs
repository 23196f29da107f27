//! The text of an output message, and what stands between.

/// A byte of text in an output message, and what follows it.
pub(super) struct Glyph {
    pub(super) byte: u8,
    /// Anything but text.
    pub(super) broken: bool,
    /// More than a carriage return, as line editors send it.
    pub(super) edited: bool,
    /// The cursor goes back.
    pub(super) back: bool,
    /// The cursor goes elsewhere.
    pub(super) placed: bool,
}

impl Glyph {
    pub(super) fn of(byte: u8) -> Self {
        Self { byte, broken: false, edited: false, back: false, placed: false }
    }
}

/// Whether the text begins with the run.
pub(super) fn starts<'a>(text: &[Glyph], mut run: impl Iterator<Item = &'a u8>) -> bool {
    let mut text = text.iter();
    run.all(|byte| text.next().is_some_and(|glyph| glyph.byte == *byte))
}
