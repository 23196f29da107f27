//! The seek table of the zstd seekable format, the file's last frame.
//!
//! `5E 2A 4D 18 | size | (compressed, decompressed: u32 LE)* | frames: u32 |
//! descriptor 00 | B1 EA 92 8F`, as in zstd's contrib/seekable_format.

/// Size of the footer: number of frames, descriptor, magic.
pub(super) const FOOTER: usize = 9;
/// Magic of the skippable frame that holds the table.
const SKIPPABLE: u32 = 0x184D_2A5E;
/// Last four bytes of a seekable file.
const MAGIC: u32 = 0x8F92_EAB1;
/// Bytes an entry takes: no checksums in it.
const ENTRY: usize = 8;
/// Most frames the format allows.
const FRAMES_MAX: u32 = 0x800_0000;

/// One frame of the file: compressed and decompressed size, bytes.
pub(super) type Entry = (u32, u32);

/// The whole frame with the table of these entries.
pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let size = entries.len() * ENTRY + FOOTER;
    let mut table = Vec::with_capacity(8 + size);
    table.extend_from_slice(&SKIPPABLE.to_le_bytes());
    table.extend_from_slice(&(size as u32).to_le_bytes());
    for (compressed, decompressed) in entries {
        table.extend_from_slice(&compressed.to_le_bytes());
        table.extend_from_slice(&decompressed.to_le_bytes());
    }
    table.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    table.push(0);
    table.extend_from_slice(&MAGIC.to_le_bytes());
    table
}

/// How many frames a footer speaks of; `None` if it is no footer.
pub(super) fn frames_in_footer(footer: &[u8; FOOTER]) -> Option<u32> {
    let [a, b, c, d, descriptor, m @ ..] = *footer;
    let frames = u32::from_le_bytes([a, b, c, d]);
    let known = u32::from_le_bytes(m) == MAGIC && descriptor == 0 && frames <= FRAMES_MAX;
    known.then_some(frames)
}

/// Size of the whole table frame for so many frames, bytes.
pub(super) fn size(frames: u32) -> u64 {
    8 + u64::from(frames) * ENTRY as u64 + FOOTER as u64
}

/// The entries of a whole table frame, without any check of its header.
pub(super) fn entries(table: &[u8]) -> Vec<Entry> {
    let end = table.len().saturating_sub(FOOTER);
    let body = table.get(8..end).unwrap_or_default();
    let entry = |bytes: &[u8; ENTRY]| {
        let [a, b, c, d, e, f, g, h] = *bytes;
        (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
    };
    body.as_chunks().0.iter().map(entry).collect()
}
