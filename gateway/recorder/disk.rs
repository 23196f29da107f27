//! What makes a file durable, and in tests can fail to.

use std::fs::File;
use std::io;
#[cfg(test)]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The disk that the spool is on.
#[derive(Default)]
pub(super) struct Disk {
    /// Every flush fails.
    #[cfg(test)]
    pub(super) broken: AtomicBool,
    /// Those of names do.
    #[cfg(test)]
    pub(super) forgets_names: AtomicBool,
    /// How many there were.
    #[cfg(test)]
    pub(super) flushes: AtomicU64,
    /// Flushes take until it is false again.
    #[cfg(test)]
    pub(super) slow: AtomicBool,
    /// The same for those of a whole file system.
    #[cfg(test)]
    pub(super) slow_all: AtomicBool,
}

impl Disk {
    /// `fdatasync(2)`: the file's bytes survive the machine.
    pub(super) fn flush(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.test(&self.slow)?;
        file.sync_data()
    }

    /// `syncfs(2)`: so does all that is on its file system.
    ///
    /// Since Linux 5.8 it tells of writes that failed while `file` was open.
    pub(super) fn flush_all(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.test(&self.slow_all)?;
        rustix::fs::syncfs(file).map_err(io::Error::from)
    }

    /// The names in a directory survive the machine.
    pub(super) fn flush_names(&self, directory: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.forgets_names.load(Ordering::Acquire) {
            return Err(io::Error::other("input/output error"));
        }
        directory.sync_all()
    }

    #[cfg(test)]
    fn test(&self, slow: &AtomicBool) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::AcqRel);
        while slow.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        if self.broken.load(Ordering::Acquire) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }
}
