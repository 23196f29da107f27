//! Whose recording is it? What it says is held against who asked for it.

use std::fs::File;
use std::path::Path;

use super::PublicKey;
use super::read::LineReader;
use super::verify::{Damage, Report, verify};
use crate::asciicast::Header;
use crate::session::{SessionId, printable};

/// Checks a recording as [`verify`] does, and that it is of that session.
///
/// What is signed and what the header says are both compared: a whole and
/// well signed recording of another session is [`Damage`] here.
pub fn verify_of(session: &SessionId, path: &Path, trusted: &[PublicKey]) -> Result<Report, Damage> {
    let report = verify(path, trusted)?;
    let signed = match &report {
        Report::Sealed(evidence) => Some(evidence.session.clone()),
        Report::Unsealed { proved, .. } => proved.as_ref().map(|checkpoint| checkpoint.session.clone()),
    };
    for said in [signed, recorded_session(path)].into_iter().flatten() {
        if said != session.as_str() {
            let what = format!("it is the recording of another session, {}", printable(&said));
            return Err(Damage::at(0..0, what));
        }
    }
    Ok(report)
}

/// The session that a recording's header names, believed as it is.
pub fn recorded_session(path: &Path) -> Option<String> {
    let mut reader = LineReader::new(File::open(path).ok()?);
    let header = Header::parse(reader.next_line().ok()??).ok()?;
    header.said("session").map(str::to_owned)
}
