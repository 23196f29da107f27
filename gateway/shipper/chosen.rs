//! Which run of a log stream is the session's recording? The signed one.
//!
//! Whoever may write into the log stream can add runs of their own, with
//! more lines or with the recording of somebody else.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use super::ShipperError;
use super::read_back::Copy;
use super::rebuild::{RebuildError, Rebuilds, Rebuilt};
use crate::recorder::read::LineReader;
use crate::recorder::{self, Checkpoint, PublicKey, Report, verify_of};
use crate::session::SessionId;

/// Sentences about other runs that are told.
const OTHERS_MAX: usize = 10;

/// Gives the copy that is best proved; tells what else is there.
///
/// `write` makes a copy of a run. An error is what is wrong with the run
/// that looked best, if none can be used.
pub(super) fn choose(
    all: Rebuilds,
    write: impl Fn(Rebuilt, Option<Checkpoint>) -> Result<Copy, ShipperError>,
    (id, trusted): (&SessionId, &[PublicKey]),
) -> Result<Copy, ShipperError> {
    let (mut copies, mut wrong) = (Vec::new(), Vec::new());
    wrong.extend(all.strange.map(ShipperError::from));
    for run in all.runs {
        let copy = run.map_err(ShipperError::from).and_then(|rebuilt| {
            let checkpoint = newest(&all.checkpoints, rebuilt.lines, trusted);
            checked(write(rebuilt, checkpoint)?, (id, trusted))
        });
        match copy {
            Ok(copy) => copies.push(copy),
            Err(error) if error.is_damage() => wrong.push(error),
            Err(error) => return Err(error),
        }
    }
    // Of equal ones the first: the one with most lines.
    let best = (0..copies.len()).rev().max_by_key(|at| copies.get(*at).map(rank));
    let Some(best) = best else {
        return Err(wrong.into_iter().next().unwrap_or(RebuildError::Nothing.into()));
    };
    let mut copy = copies.swap_remove(best);
    copy.others = wrong.iter().map(ToString::to_string).collect();
    for other in &copies {
        // An attempt that was given up holds the first lines of the recording.
        if !begins_with(&copy.path, &other.path)? {
            copy.others.push(format!("{} lines that are not those of the recording", other.lines));
        }
    }
    copy.others.truncate(OTHERS_MAX);
    Ok(copy)
}

/// Writes the lines of a run into a new file: sealed again if they were.
pub(super) fn write(
    mut rebuilt: Rebuilt,
    checkpoint: Option<Checkpoint>,
    made: io::Result<(File, PathBuf)>,
) -> Result<Copy, ShipperError> {
    let (mut file, path) = made.map_err(ShipperError::io("make a copy of a recording"))?;
    let (sealed, lines) = (rebuilt.evidence.is_some(), rebuilt.lines);
    let copy = Copy { path, sealed, lines, proved: None, others: Vec::new() };
    rebuilt.file.rewind().map_err(ShipperError::io("read a copy"))?;
    match &rebuilt.evidence {
        Some(evidence) => {
            let mut out = BufWriter::new(&mut file);
            recorder::restore(&mut rebuilt.file, evidence, &mut out)?;
            out.flush().map_err(ShipperError::io(format!("write {}", copy.path.display())))?;
        }
        None => {
            let copied = io::copy(&mut rebuilt.file, &mut file);
            copied.map_err(ShipperError::io(format!("write {}", copy.path.display())))?;
            if let Some(checkpoint) = &checkpoint {
                let written = checkpoint.write(&copy.path, false);
                written.map_err(ShipperError::io(format!("write beside {}", copy.path.display())))?;
            }
        }
    }
    Ok(copy)
}

/// The last checkpoint of so many lines; one that is trusted, if there is any.
fn newest(checkpoints: &[Checkpoint], lines: u64, trusted: &[PublicKey]) -> Option<Checkpoint> {
    let mut known: Vec<&Checkpoint> = checkpoints.iter().filter(|known| known.lines <= lines).collect();
    known.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.lines));
    let signed = known.iter().find(|checkpoint| checkpoint.signed_by(trusted));
    signed.or(known.first()).copied().cloned()
}

fn checked(mut copy: Copy, (id, trusted): (&SessionId, &[PublicKey])) -> Result<Copy, ShipperError> {
    if let Report::Unsealed { proved, .. } = verify_of(id, &copy.path, trusted)? {
        copy.proved = proved;
    }
    Ok(copy)
}

fn rank(copy: &Copy) -> (bool, bool) {
    (copy.sealed, copy.is_proved())
}

/// Whether a recording has all lines of another one, from its beginning.
fn begins_with(recording: &Path, beginning: &Path) -> Result<bool, ShipperError> {
    let open = |path: &Path| File::open(path).map(LineReader::new).map_err(ShipperError::io("read a copy"));
    let (mut all, mut first) = (open(recording)?, open(beginning)?);
    loop {
        match (first.next_line(), all.next_line()) {
            (Ok(None), Ok(_)) => return Ok(true),
            (Ok(line), Ok(same)) if line == same => {}
            _ => return Ok(false),
        }
    }
}
