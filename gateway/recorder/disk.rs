//! What makes a file durable, and in tests can fail to.

use std::fs::File;
use std::io;
use std::path::Path;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The disk that the spool is on.
#[derive(Default)]
pub(super) struct Disk {
    /// Every flush fails.
    #[cfg(test)]
    pub(super) broken: AtomicBool,
    /// How many there were.
    #[cfg(test)]
    pub(super) flushes: AtomicU64,
    /// Flushes take until it is false again.
    #[cfg(test)]
    pub(super) slow: AtomicBool,
}

impl Disk {
    /// `fdatasync(2)`: the file's bytes survive the machine.
    pub(super) fn flush(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        {
            self.flushes.fetch_add(1, Ordering::AcqRel);
            while self.slow.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            if self.broken.load(Ordering::Acquire) {
                return Err(io::Error::other("input/output error"));
            }
        }
        file.sync_data()
    }

    /// The names in a directory survive the machine.
    pub(super) fn flush_names(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}
