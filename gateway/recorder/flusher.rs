//! The flusher thread: recordings' files onto the disk, all with one call.
//!
//! A closed segment of the journal is needed until the files of its sessions
//! that are obliged to `disk` are on it. Nobody's acknowledge waits for that,
//! so it is not the syncer that does it: a thousand files take a while.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};

use super::checkpoint::Checkpoint;
use super::lines::SharedLines;
use super::{House, RecorderError};

/// So many files are flushed one by one; more take the whole file system.
const FEW: usize = 4;

/// What the flusher is told.
pub(super) enum ToFlusher {
    /// The journal waits for a recording's file.
    File(SharedLines),
    /// Flush what there is and end.
    Close,
}

/// Starts the thread.
pub(super) fn spawn(house: Arc<House>, inbox: Receiver<ToFlusher>) -> Result<JoinHandle<()>, RecorderError> {
    let files = Files::new(&house)?;
    let thread = thread::Builder::new().name("flusher".into());
    thread.spawn(move || run(&files, &inbox)).map_err(RecorderError::io("start a thread"))
}

fn run(files: &Files, inbox: &Receiver<ToFlusher>) {
    let mut open = true;
    while open {
        let mut waiting = Vec::new();
        let mut told = inbox.recv().map_err(|_| TryRecvError::Disconnected);
        loop {
            match told {
                Ok(ToFlusher::File(lines)) => waiting.push(lines),
                Ok(ToFlusher::Close) | Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
                Err(TryRecvError::Empty) => break,
            }
            told = inbox.try_recv();
        }
        files.flush(waiting);
    }
}

/// Flushes recordings' files.
pub(super) struct Files {
    house: Arc<House>,
    /// The spool, open for as long as this lives: the system tells of an error
    /// on the file system once for every file that was open when it happened.
    spool: File,
}

impl Files {
    pub(super) fn new(house: &Arc<House>) -> Result<Self, RecorderError> {
        let directory = house.spool.directory();
        let spool =
            File::open(directory).map_err(RecorderError::io(format!("open {}", directory.display())))?;
        Ok(Self { house: Arc::clone(house), spool })
    }

    /// Flushes recordings as far as they go, new ones with their names.
    pub(super) fn flush(&self, files: Vec<SharedLines>) {
        if files.len() <= FEW {
            return self.one_by_one(files);
        }
        let ends: Vec<u64> = files.iter().map(|lines| lines.compressed()).collect();
        let flushed = self.house.disk.flush_all(&self.spool);
        for (lines, end) in files.into_iter().zip(ends) {
            self.done(&lines, end, flushed.as_ref());
        }
    }

    fn one_by_one(&self, files: Vec<SharedLines>) {
        if files.is_empty() {
            return;
        }
        let new_names = files.iter().any(|lines| lines.flushed() == 0);
        let named = if new_names { self.house.disk.flush_names(&self.spool) } else { Ok(()) };
        for lines in files {
            let end = lines.compressed();
            let path = self.house.spool.path(lines.id());
            let disk = &self.house.disk;
            let flushed = File::open(&path).and_then(|file| disk.flush(&file));
            let flushed = flushed.and_then(|()| match lines.flushed() {
                0 => File::open(Checkpoint::begun_path(&path)).and_then(|file| disk.flush(&file)),
                _ => Ok(()),
            });
            self.done(&lines, end, flushed.as_ref().and(named.as_ref()));
        }
    }

    fn done(&self, lines: &SharedLines, end: u64, flushed: Result<&(), &io::Error>) {
        match flushed {
            Ok(()) => lines.set_flushed(end),
            Err(error) => {
                let path = self.house.spool.path(lines.id());
                let why = format!("{} cannot be flushed to disk: {error}", path.display());
                self.house.report(&why);
                lines.fail(&why);
            }
        }
    }
}
