//! Where is recording X?

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::asciicast::Header;
use crate::recorder::read::{LineReader, ReadError};
use crate::recorder::{Spool, is_sealed};
use crate::session::SessionId;

/// Why the store cannot say where a recording is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it cannot be read.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A recording's header cannot be read.
    #[error("{path} has no readable header: {why}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Finds recordings in a spool directory, open and sealed.
#[derive(Debug, Clone)]
pub struct Store {
    spool: Spool,
    dir: PathBuf,
}

/// A recording that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The session.
    pub id: SessionId,
    /// The file: `<id>.cast.zst`.
    pub path: PathBuf,
    /// Whether it is final and signed; if not, the session may be running.
    pub sealed: bool,
    /// Size of the file.
    pub bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

impl Store {
    /// A store over that directory, which need not be there yet.
    pub fn new(dir: &Path) -> Self {
        Self { spool: Spool::at(dir), dir: dir.to_owned() }
    }

    /// The recording of a session, if there is one.
    pub fn find(&self, id: &SessionId) -> Result<Option<Found>, StoreError> {
        let path = self.spool.path(id);
        let found = fs::metadata(&path).and_then(|about| {
            let (sealed, modified) = (is_sealed(&path)?, about.modified()?);
            Ok(Found { id: id.clone(), path: path.clone(), sealed, bytes: about.len(), modified })
        });
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    /// Every recording, by session id.
    pub fn list(&self) -> Result<Vec<Found>, StoreError> {
        let mut ids = match self.spool.ids() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|source| StoreError::Io { path: self.dir.clone(), source })?,
        };
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.find(id).transpose()).collect()
    }
}

impl Found {
    /// The recording's lines, also while it is being written.
    pub fn open(&self) -> Result<LineReader<File>, StoreError> {
        let file = File::open(&self.path);
        let file = file.map_err(|source| StoreError::Io { path: self.path.clone(), source })?;
        Ok(LineReader::new(file))
    }

    /// The recording's header line.
    pub fn header(&self) -> Result<Header, StoreError> {
        let broken = |why: String| StoreError::Header { path: self.path.clone(), why };
        match self.open()?.next_line() {
            Ok(Some(line)) => Header::parse(line).map_err(|error| broken(error.to_string())),
            Ok(None) => Err(broken("it is empty".into())),
            Err(ReadError::Io(source)) => Err(StoreError::Io { path: self.path.clone(), source }),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
