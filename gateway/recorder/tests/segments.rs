//! Segments that are written over, and what is left of the ones before.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::super::journal::{self, Index, Journal};
use super::*;

/// Lines of one record, bytes: 64 of them fill a segment.
const LARGE: usize = 1 << 20;

struct Desk {
    journal: Journal,
    spool: Spool,
    _dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(&dir.path().join("spool")).unwrap();
        let lock = spool.lock().unwrap();
        Self { journal: Journal::open(spool.clone(), 1, lock).unwrap(), spool, _dir: dir }
    }

    fn append(&mut self, position: u64, lines: &[u8]) {
        self.journal.prepare(0).unwrap();
        let mut record = Vec::new();
        let number = self.journal.segment().number;
        journal::encode(number, &session("a-1"), position, lines, &mut record);
        self.journal.append(&record).unwrap();
    }

    /// Writes until the next record goes to another segment.
    fn fill(&mut self) {
        let lines = vec![b'x'; LARGE];
        for position in 0..64 {
            self.append(position * LARGE as u64, &lines);
        }
    }

    fn file(&self, number: u64) -> Option<fs::Metadata> {
        fs::metadata(self.spool.journal_path(number)).ok()
    }

    fn positions(&self) -> Vec<u64> {
        let index = Index::read(&self.spool).unwrap();
        index.places(&session("a-1")).iter().map(|place| place.position).collect()
    }
}

#[test]
fn a_segment_is_written_over_and_nothing_of_it_is_read_again() {
    let mut desk = Desk::new();
    desk.fill();
    let first = desk.file(1).unwrap().ino();
    desk.append(7, b"to the second\n");
    desk.journal.tidy(Instant::now(), |_| ()).unwrap();
    desk.fill();
    // As long as what was there, so that the next old record begins where the new one ends.
    desk.append(9, &vec![b'y'; LARGE]);
    let third = desk.file(3).unwrap();
    assert_eq!(third.ino(), first, "the third segment is the first one, written over");
    assert!(third.len() > 60 * LARGE as u64, "what was there is still there");
    assert!(desk.file(1).is_none());
    let positions = desk.positions();
    assert_eq!(positions.first(), Some(&7));
    assert_eq!(positions.last(), Some(&9));
    assert_eq!(positions.len(), 1 + 64 + 1, "of the first segment nothing is read");
}

#[test]
fn a_segment_that_nobody_writes_over_is_deleted() {
    let mut desk = Desk::new();
    desk.fill();
    desk.append(7, b"to the second\n");
    let now = Instant::now();
    desk.journal.tidy(now, |_| ()).unwrap();
    assert!(desk.file(1).is_some(), "it waits for the next one");
    desk.journal.tidy(now + Duration::from_secs(5), |_| ()).unwrap();
    assert!(desk.file(1).is_none());
}

#[test]
fn what_may_be_broken_is_not_written_over() {
    let mut desk = Desk::new();
    desk.append(1, b"to the first\n");
    desk.journal.prepare(1).unwrap();
    assert_eq!(desk.journal.segment().number, 2);
    desk.journal.tidy(Instant::now(), |_| ()).unwrap();
    assert!(desk.file(1).is_none());
}
