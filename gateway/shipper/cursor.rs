//! How far each session has been shipped, on disk beside the spool.
//!
//! A plan is written before its events are sent. A process that ends half
//! way makes the same events from the same lines again, so readers can drop
//! what came twice by its number. A session without a usable cursor begins a
//! new *run*: all of it is shipped again under a higher number. Cursors are
//! not flushed to disk; after a crash of the machine they may be older than
//! what was sent, so one of an earlier boot is not usable.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ShipperError;
use super::shipped::Shipped;
use crate::recorder::{Head, Links};
use crate::session::{SessionId, now_ms};

/// A cursor file is written anew at this size, bytes.
const FILE_MAX: u64 = 32 * 1024;
/// What the file of a session under way ends with.
const CURSOR: &str = ".cursor";
/// What the file of a session that is wholly shipped ends with.
const SHIPPED: &str = ".shipped";

/// Where Linux says which boot this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Where a session stands: shipped up to `line`, planned up to `until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The run; later ones have higher numbers.
    pub(super) run: u64,
    /// Number of the next segment.
    pub(super) segment: u64,
    /// Number of the next line.
    pub(super) line: u64,
    /// The chain before the next line.
    pub(super) head: Head,
    /// Where the next segment ends, if it was planned: line and chain.
    pub(super) until: Option<(u64, Head)>,
    /// Whether what was planned is a frame of the sealed recording as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) packed: bool,
    /// Number of the next event of the transcript.
    pub(super) sequence: u64,
}

impl Cursor {
    /// The cursor of a session of which nothing has been shipped.
    pub(super) fn fresh() -> Self {
        let head = Links::new().head();
        Self { run: now_ms(), segment: 0, line: 0, head, until: None, packed: false, sequence: 0 }
    }
}

/// A cursor as it is on disk.
#[derive(Serialize, Deserialize)]
struct Saved<C> {
    #[serde(flatten)]
    cursor: C,
    /// The boot of the machine that it was written in.
    #[serde(default)]
    boot: String,
}

/// The folder of the cursors.
#[derive(Debug, Clone)]
pub(super) struct Cursors {
    dir: PathBuf,
    boot: String,
}

impl Cursors {
    /// Makes the folder if it is not there.
    pub(super) fn open(dir: &Path) -> Result<Self, ShipperError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(ShipperError::io(format!("make {}", dir.display())))?;
        // Without one every start begins new runs: more to ship, nothing wrong.
        let boot = fs::read_to_string(BOOT).unwrap_or_else(|_| now_ms().to_string()).trim().to_owned();
        Ok(Self { dir: dir.to_owned(), boot })
    }

    /// Where a session stands; a fresh cursor if nothing usable is there.
    pub(super) fn load(&self, id: &SessionId) -> Result<Cursor, ShipperError> {
        let path = self.path(id, CURSOR);
        let mut text = String::new();
        match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map(drop).map_err(ShipperError::io(format!("read {}", path.display())))?,
        }
        // The last line may be torn.
        let last = text.lines().rev().find_map(|line| serde_json::from_str::<Saved<Cursor>>(line).ok());
        let Some(Saved { cursor, boot }) = last else { return Ok(Cursor::fresh()) };
        if boot == self.boot {
            return Ok(cursor);
        }
        tracing::info!(session = %id, "the machine was started anew; the session is shipped again from its beginning");
        let fresh = Cursor::fresh();
        Ok(Cursor { run: fresh.run.max(cursor.run + 1), ..fresh })
    }

    /// Writes where a session stands, with one `write(2)`.
    pub(super) fn save(&self, id: &SessionId, cursor: &Cursor) -> Result<(), ShipperError> {
        let path = self.path(id, CURSOR);
        let saved = Saved { cursor, boot: self.boot.clone() };
        let mut line = serde_json::to_vec(&saved).map_err(io::Error::other);
        if let Ok(line) = &mut line {
            line.push(b'\n');
        }
        let written = line.and_then(|line| {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
            if file.metadata()?.len() > FILE_MAX {
                return self.replace(&path, &line);
            }
            file.write_all(&line)
        });
        written.map_err(ShipperError::io(format!("write {}", path.display())))
    }

    /// Notes that all of a sealed session is shipped.
    pub(super) fn finish(&self, id: &SessionId, shipped: &Shipped) -> Result<(), ShipperError> {
        let (from, to) = (self.path(id, CURSOR), self.path(id, SHIPPED));
        let note = serde_json::to_vec(shipped).map_err(io::Error::other);
        let noted = note.and_then(|note| self.replace(&to, &note)).and_then(|()| fs::remove_file(&from));
        noted.map_err(ShipperError::io(format!("write {}", to.display())))
    }

    /// What was noted of a session that is wholly shipped.
    pub(super) fn shipped(&self, id: &SessionId) -> Option<Shipped> {
        Shipped::read(&self.path(id, SHIPPED))
    }

    /// Whether all of a session is shipped.
    pub(super) fn is_finished(&self, id: &SessionId) -> bool {
        self.path(id, SHIPPED).exists()
    }

    /// Forgets a session whose recording is gone from the spool.
    pub(super) fn forget(&self, id: &SessionId) {
        // What is left behind costs an empty file and is harmless.
        let _ = fs::remove_file(self.path(id, SHIPPED));
    }

    fn replace(&self, path: &Path, line: &[u8]) -> io::Result<()> {
        let draft = path.with_extension("draft");
        fs::write(&draft, line)?;
        fs::rename(draft, path)
    }

    fn path(&self, id: &SessionId, suffix: &str) -> PathBuf {
        self.dir.join(format!("{id}{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors() -> (tempfile::TempDir, Cursors, SessionId) {
        let dir = tempfile::tempdir().unwrap();
        let cursors = Cursors::open(&dir.path().join("shipper")).unwrap();
        (dir, cursors, SessionId::mint("alice"))
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_last() {
        let (_dir, cursors, id) = cursors();
        let mut cursor = cursors.load(&id).unwrap();
        for line in 0..1000 {
            cursor.line = line;
            cursors.save(&id, &cursor).unwrap();
        }
        assert_eq!(cursors.load(&id).unwrap(), cursor);
        let size = fs::metadata(cursors.path(&id, CURSOR)).unwrap().len();
        assert!(size <= FILE_MAX + 1000, "the file grew to {size} bytes");
    }

    #[test]
    fn a_cursor_of_an_earlier_boot_begins_a_new_run() {
        let (_dir, mut cursors, id) = cursors();
        let cursor = Cursor { line: 7, run: now_ms() + 5000, ..Cursor::fresh() };
        cursors.save(&id, &cursor).unwrap();
        assert_eq!(cursors.load(&id).unwrap(), cursor);
        cursors.boot = "another".into();
        let again = cursors.load(&id).unwrap();
        assert_eq!((again.line, again.segment, again.run), (0, 0, cursor.run + 1));
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let (_dir, cursors, id) = cursors();
        let cursor = Cursor { line: 7, ..Cursor::fresh() };
        cursors.save(&id, &cursor).unwrap();
        let mut file = OpenOptions::new().append(true).open(cursors.path(&id, CURSOR)).unwrap();
        file.write_all(b"{\"run\":1,\"segm").unwrap();
        assert_eq!(cursors.load(&id).unwrap(), cursor);
    }

    #[test]
    fn what_is_wholly_shipped_stays_so() {
        let (_dir, cursors, id) = cursors();
        cursors.save(&id, &Cursor::fresh()).unwrap();
        assert!(!cursors.is_finished(&id));
        let note = Shipped { log_group: "/postern".into(), recording: true };
        cursors.finish(&id, &note).unwrap();
        assert!(cursors.is_finished(&id));
        assert_eq!(cursors.shipped(&id), Some(note));
    }
}
