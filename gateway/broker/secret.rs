//! A text that no log and no error ever shows.

use std::fmt;

/// The token that opens a data channel once.
pub type Token = Secret;

/// A secret; it is shown only where `expose` is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; for the wire, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_tells_the_secret() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<secret>");
    }
}
