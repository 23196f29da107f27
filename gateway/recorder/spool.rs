//! The directory that recordings are in, and the names of its files.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::{RecorderError, seek_table};
use crate::session::SessionId;

/// What a recording's file name ends with, after the session id.
pub const RECORDING_SUFFIX: &str = ".cast.zst";
/// What a sealed file is called until it is whole.
const DRAFT_SUFFIX: &str = ".sealing";
/// What a file without a readable header is set aside as.
const BROKEN_SUFFIX: &str = ".broken";
/// Where journal segments are, in the spool.
const JOURNAL: &str = "journal";

/// The spool directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// Makes the directory (mode 0700) if it is not there.
    pub fn open(dir: &Path) -> Result<Self, RecorderError> {
        let what = format!("make the spool {}", dir.display());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir.join(JOURNAL));
        made.map_err(RecorderError::io(what))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// A spool to read from; nothing is made.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// What its file system has left for this process, bytes.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let about = rustix::fs::statvfs(&self.dir)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Where the recording of a session is, open or sealed.
    pub fn path(&self, id: &SessionId) -> PathBuf {
        self.dir.join(format!("{id}{RECORDING_SUFFIX}"))
    }

    /// Where a copy of a recording may be while it is looked at.
    pub fn scratch_path(&self, id: &SessionId) -> PathBuf {
        self.dir.join(format!(".{id}.copy"))
    }

    /// The session ids of every recording in the spool, unordered.
    pub fn ids(&self) -> io::Result<Vec<SessionId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(RECORDING_SUFFIX));
            ids.extend(stem.and_then(|stem| SessionId::parse(stem).ok()));
        }
        Ok(ids)
    }

    /// Takes the spool for this process until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, RecorderError> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(RecorderError::io(format!("open {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(RecorderError::InUse(self.dir.clone())),
            Err(TryLockError::Error(error)) => {
                Err(RecorderError::io(format!("lock {}", path.display()))(error))
            }
        }
    }

    /// Makes the file of a new recording with its first bytes.
    pub(super) fn create(&self, id: &SessionId, bytes: &[u8]) -> Result<(), RecorderError> {
        let path = self.path(id);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = made.and_then(|mut file| {
            file.write_all(bytes).inspect_err(|_| {
                let _ = fs::remove_file(&path);
            })
        });
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(RecorderError::Exists(id.clone()))
            }
            Err(error) => Err(RecorderError::io(format!("make {}", path.display()))(error)),
        }
    }

    /// Where a recording is written while it is being sealed.
    pub(super) fn draft_path(&self, id: &SessionId) -> PathBuf {
        self.dir.join(format!("{id}{RECORDING_SUFFIX}{DRAFT_SUFFIX}"))
    }

    /// Puts a whole draft in place of the open file.
    pub(super) fn place(&self, id: &SessionId) -> io::Result<()> {
        fs::rename(self.draft_path(id), self.path(id))
    }

    /// Sets a file aside that no recording can be read from.
    pub(super) fn set_aside(&self, id: &SessionId) -> io::Result<()> {
        let path = self.path(id);
        Checkpoint::remove(&path);
        fs::rename(&path, self.dir.join(format!("{id}{RECORDING_SUFFIX}{BROKEN_SUFFIX}")))
    }

    /// Removes half-written sealed files of an earlier process.
    pub(super) fn remove_drafts(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let drafts = |name: &str| name.ends_with(DRAFT_SUFFIX) || Checkpoint::is_draft(name);
            if entry.file_name().to_str().is_some_and(drafts) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes checkpoints of recordings that `open` does not have.
    ///
    /// Somebody could put another open file beside one, and have that sealed.
    pub(super) fn remove_stray_checkpoints(&self, open: &HashSet<SessionId>) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(recording) = name.to_str().and_then(Checkpoint::recording_of) else { continue };
            let id = recording.strip_suffix(RECORDING_SUFFIX).and_then(|id| SessionId::parse(id).ok());
            if id.is_none_or(|id| !open.contains(&id)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Where recordings are.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Where journal segments are.
    pub(super) fn journal_directory(&self) -> PathBuf {
        self.dir.join(JOURNAL)
    }

    /// Where journal segment `number` is.
    pub(super) fn journal_path(&self, number: u64) -> PathBuf {
        self.journal_directory().join(format!("{number:016x}.journal"))
    }

    /// The numbers of the journal segments, ascending.
    pub(super) fn journal_numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(self.dir.join(JOURNAL))? {
            let name = entry?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".journal"));
            numbers.extend(stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Whether a recording is sealed: it ends with a seek table.
pub fn is_sealed(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length < seek_table::FOOTER as u64 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-(seek_table::FOOTER as i64)))?;
    let mut footer = [0; seek_table::FOOTER];
    file.read_exact(&mut footer)?;
    Ok(seek_table::frames_in_footer(&footer).is_some())
}
