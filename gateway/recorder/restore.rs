//! Makes a sealed file again out of its lines and its evidence.

use std::io::{self, Read, Write};

use super::evidence::Evidence;
use super::frames::{self, Effort, SealEncoder};
use super::read::LineReader;
use super::{RecorderError, seal, seek_table};

/// Writes the sealed file that has these lines and this evidence.
///
/// `evidence` is its JSON as it was sealed. It is the same file byte for
/// byte, or an error: lines that are not those of the evidence are found.
/// Whether the signature is good is for [`super::verify`] to say.
pub fn restore(lines: impl Read, evidence: &[u8], into: &mut impl Write) -> Result<(), RecorderError> {
    let failed = |what: &str| RecorderError::Failed(format!("it cannot be sealed as it was: {what}"));
    let parsed: Evidence =
        serde_json::from_slice(evidence).map_err(|error| failed(&format!("its evidence: {error}")))?;
    let frame = parsed.to_frame().map_err(|error| failed(&error.to_string()))?;
    if frame.get(8..) != Some(evidence) {
        return Err(failed("its evidence is not as it was written"));
    }
    let mut reader = LineReader::new(lines);
    let mut encoder = SealEncoder::new().map_err(RecorderError::io("compress"))?;
    let (mut text, mut packed) = (Vec::new(), Vec::new());
    let write = |bytes: &[u8], into: &mut dyn Write| {
        into.write_all(bytes).map_err(RecorderError::io("write a sealed recording"))
    };
    for (size, wanted, hash) in &parsed.frames {
        text.clear();
        while text.len() < *wanted as usize {
            let line = reader.next_line().map_err(|error| failed(&error.to_string()))?;
            text.extend_from_slice(line.ok_or_else(|| failed("lines are missing"))?);
        }
        let made = remake(&mut encoder, &text, (*size, hash), &mut packed);
        if !made.map_err(RecorderError::io("compress"))? {
            return Err(failed("its lines are others, or were sealed by another release of zstd"));
        }
        write(&packed, into)?;
    }
    if reader.next_line().map_err(|error| failed(&error.to_string()))?.is_some() {
        return Err(failed("there are more lines than were sealed"));
    }
    write(&frame, into)?;
    write(&seek_table::encode(&seal::entries(&parsed, frame.len())), into)
}

/// Makes a frame in every way until it is that one; false if it never is.
fn remake(
    encoder: &mut SealEncoder,
    lines: &[u8],
    (size, hash): (u32, &str),
    into: &mut Vec<u8>,
) -> io::Result<bool> {
    for effort in Effort::ALL {
        encoder.frame(lines, effort, into)?;
        if into.len() == size as usize && frames::hash(into) == hash {
            return Ok(true);
        }
    }
    Ok(false)
}
