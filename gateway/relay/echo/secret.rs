//! Why text is hidden that nobody looks at any more.

/// Hidden text of a line that may be shown after all, bytes.
const TEXT_MAX: usize = 4096;

/// Why the rest of a line is hidden.
pub(super) enum Secret {
    /// A prompt asked for it.
    Prompt,
    /// This was not shown.
    NotShown {
        /// All of it.
        text: Vec<u8>,
        /// The last of it.
        last: Vec<u8>,
    },
}

/// Adds to what was not shown of a line; beyond a bound it is never found.
pub(super) fn not_shown(all: &mut Vec<u8>, last: &mut Vec<u8>, text: &[u8]) {
    if all.len() <= TEXT_MAX {
        all.extend_from_slice(text);
    }
    text.clone_into(last);
}
