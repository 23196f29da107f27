//! Watching a session by its recording while it is written.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Lifecycle;
use super::admission::Asker;
use super::turns::Turn;
use crate::error::{ApiError, Code};
use crate::policy::{Action, Resource};
use crate::recorder::read::{LineReader, ReadError};
use crate::registry::SessionRecord;
use crate::session::{SessionId, now_ms};

/// Watchers at once on this node: each decodes its recording.
pub(super) const WATCHERS_MAX: usize = 64;
/// Of one person; more than anybody reads at once.
pub(super) const EACH_MAX: usize = 12;
/// How often the file is looked at; the recorder adds to it every second.
const LOOK: Duration = Duration::from_millis(250);
/// How often policy is asked whether the watcher may go on.
const ASK: Duration = Duration::from_secs(15);
/// A blank line after this long without any: who waits knows we are there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Lines handed on at a time, bytes.
const PIECE: usize = 64 * 1024;

/// A recording on its way to a watcher.
pub struct Following {
    lifecycle: Arc<Lifecycle>,
    asker: Asker,
    record: SessionRecord,
    lines: Option<Growing>,
    /// When the watcher's own keys or visit end, ms since the Unix epoch.
    until_ms: u64,
    asked: Instant,
    said: Instant,
    _turn: Turn,
}

impl Lifecycle {
    /// The lines of a recording as they are written, if policy allows.
    ///
    /// It takes the right to replay it and, while it runs, to watch it; it
    /// ends when the watcher is shut out, and at `until_ms` at the latest.
    pub async fn follow(
        self: &Arc<Self>,
        asker: &Asker,
        id: &SessionId,
        until_ms: u64,
    ) -> Result<Following, ApiError> {
        let record = self.admitted_to_replay(asker, id).await?;
        let Some(found) = self.here(id)? else {
            let sentence = "the session is over: replay its recording";
            return Err(ApiError::client(Code::Validation, sentence));
        };
        if let Some(live) = self.live.get(id) {
            self.admit_on_session(Action::WatchSession, asker, &live).await?;
        }
        let turn = self.watchers.take(&asker.principal.id, "watchers")?;
        let lines = Growing::open(found.path).map_err(|error| {
            tracing::error!(session = %id, %error, "the recording could not be opened");
            ApiError::gateway("the gateway could not open the recording")
        })?;
        let (asked, said) = (Instant::now(), Instant::now());
        let (lifecycle, asker) = (Arc::clone(self), asker.clone());
        Ok(Following { lifecycle, asker, record, lines: Some(lines), until_ms, asked, said, _turn: turn })
    }
}

impl Following {
    /// The next lines; waits for them. `None`: there will be no more.
    ///
    /// Where it cannot be read it fails: nobody takes that for the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        loop {
            if !self.may() {
                return None;
            }
            // Asked first: what is written before the end is read after it.
            let runs = self.runs();
            let lines = match self.read().await? {
                Ok(lines) => lines,
                Err(error) => return Some(Err(error)),
            };
            if !lines.is_empty() {
                self.said = Instant::now();
                return Some(Ok(lines.into()));
            }
            if !runs {
                return None;
            }
            if self.said.elapsed() >= SIGN_OF_LIFE {
                self.said = Instant::now();
                return Some(Ok(Bytes::from_static(b"\n")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The lines that are there now, empty if there are none yet.
    ///
    /// `None`: they cannot be read, so there will be no more.
    pub async fn so_far(&mut self) -> Option<Bytes> {
        self.read().await?.ok().map(Bytes::from)
    }

    /// Whether the session runs here.
    fn runs(&self) -> bool {
        self.lifecycle.live.get(&self.record.id).is_some() && !self.lifecycle.draining.load(Ordering::Acquire)
    }

    /// Whether it may still be watched: policy is asked now and then.
    fn may(&mut self) -> bool {
        let person = &self.asker.principal;
        if self.lifecycle.is_shut_out(person) || now_ms() >= self.until_ms {
            tracing::info!(session = %self.record.id, principal = %person.arn, "is shut out or signed out");
            return false;
        }
        if self.asked.elapsed() < ASK {
            return true;
        }
        self.asked = Instant::now();
        let SessionRecord { id, principal, instance, .. } = &self.record;
        let recording = Resource::Recording { id, owner: principal, instance };
        let session = Resource::Session { id, owner: principal, instance };
        let may = self.lifecycle.quietly(&self.asker, Action::ReplayRecording, recording)
            && self.lifecycle.quietly(&self.asker, Action::WatchSession, session);
        if !may {
            tracing::info!(session = %id, principal = %self.asker.principal.arn, "may not watch any more");
        }
        may
    }

    /// The whole lines that are there, up to a piece; `None`: it failed before.
    async fn read(&mut self) -> Option<Result<Vec<u8>, ReadError>> {
        let mut lines = self.lines.take()?;
        let read = tokio::task::spawn_blocking(move || {
            let piece = lines.piece();
            (lines, piece)
        });
        let piece = match read.await {
            Ok((lines, Ok(piece))) => {
                self.lines = Some(lines);
                return Some(Ok(piece));
            }
            Ok((_, failed)) => failed,
            Err(error) => Err(ReadError::Io(error.into())),
        };
        let failed = |error: &_| {
            tracing::error!(session = %self.record.id, %error, "a recording cannot be watched");
        };
        Some(piece.inspect_err(failed))
    }
}

/// The lines of a file that grows, and that another may be put in place of.
///
/// Whoever goes on with a recording writes its lines anew, and so does the
/// seal: the file that was opened then never grows again.
struct Growing {
    path: PathBuf,
    is: (u64, u64),
    reader: LineReader<File>,
    /// Bytes of lines that were given.
    given: u64,
}

impl Growing {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let is = which(&file.metadata()?);
        Ok(Self { path, is, reader: LineReader::new(file), given: 0 })
    }

    /// The whole lines that are there, up to a piece.
    fn piece(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            let lines = self.lines()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            let Some(mut anew) = self.replaced()? else { return Ok(lines) };
            // It may have grown between the two looks, and grows no more.
            let last = self.lines()?;
            if !last.is_empty() {
                return Ok(last);
            }
            anew.skip(self.given)?;
            *self = anew;
        }
    }

    fn lines(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut lines = Vec::new();
        while lines.len() < PIECE {
            match self.reader.next_line()? {
                Some(line) => lines.extend_from_slice(line),
                None => break,
            }
        }
        self.given += lines.len() as u64;
        Ok(lines)
    }

    /// What stands in the file's place now, if it is another one.
    fn replaced(&self) -> io::Result<Option<Self>> {
        match std::fs::metadata(&self.path) {
            Ok(now) if which(&now) == self.is => Ok(None),
            Ok(_) => match Self::open(self.path.clone()) {
                Ok(anew) => Ok((anew.is != self.is).then_some(anew)),
                Err(error) => missing(error),
            },
            Err(error) => missing(error),
        }
    }

    /// Passes over lines that were given out of the file before.
    fn skip(&mut self, bytes: u64) -> Result<(), ReadError> {
        while self.given < bytes {
            let Some(line) = self.reader.next_line()? else {
                let why = "the file in its place lacks lines that were there";
                return Err(ReadError::Io(io::Error::other(why)));
            };
            self.given += line.len() as u64;
        }
        let other = || io::Error::other("the file in its place has other lines");
        if self.given == bytes { Ok(()) } else { Err(ReadError::Io(other())) }
    }
}

fn which(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// It has gone to the archive, say: what was opened has everything.
fn missing<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_was_written_anew_is_read_on_where_the_old_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (path, draft) = (folder.path().join("a.cast"), folder.path().join("a.draft"));
        std::fs::write(&path, "{}\n[1]\n").unwrap();
        let mut growing = Growing::open(path.clone()).unwrap();
        assert_eq!(growing.piece().unwrap(), b"{}\n[1]\n");
        assert_eq!(growing.piece().unwrap(), b"");
        // Written by whoever stopped, and not read yet when the next one came.
        let mut old = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        old.write_all(b"[2]\n").unwrap();
        std::fs::write(&draft, zstd::encode_all(&b"{}\n[1]\n[2]\n[3]\n"[..], 3).unwrap()).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        assert_eq!(growing.piece().unwrap(), b"[2]\n");
        assert_eq!(growing.piece().unwrap(), b"[3]\n");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(growing.piece().unwrap(), b"");
        // Nobody is shown something else in place of what is missing.
        std::fs::write(&path, "{}\n").unwrap();
        assert!(growing.piece().is_err());
    }
}
