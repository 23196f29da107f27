//! Watching a session by its recording while it is written.

use std::fs::File;
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
    reader: Option<LineReader<File>>,
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
        let file = File::open(&found.path).map_err(|error| {
            tracing::error!(session = %id, %error, "the recording could not be opened");
            ApiError::gateway("the gateway could not open the recording")
        })?;
        let (asked, said) = (Instant::now(), Instant::now());
        let reader = Some(LineReader::new(file));
        let (lifecycle, asker) = (Arc::clone(self), asker.clone());
        Ok(Following { lifecycle, asker, record, reader, until_ms, asked, said, _turn: turn })
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
        let mut reader = self.reader.take()?;
        let read = tokio::task::spawn_blocking(move || {
            let lines = lines(&mut reader);
            (reader, lines)
        });
        let lines = match read.await {
            Ok((reader, Ok(lines))) => {
                self.reader = Some(reader);
                return Some(Ok(lines));
            }
            Ok((_, failed)) => failed,
            Err(error) => Err(ReadError::Io(error.into())),
        };
        let failed = |error: &_| {
            tracing::error!(session = %self.record.id, %error, "a recording cannot be watched");
        };
        Some(lines.inspect_err(failed))
    }
}

fn lines(reader: &mut LineReader<File>) -> Result<Vec<u8>, ReadError> {
    let mut lines = Vec::new();
    while lines.len() < PIECE {
        match reader.next_line()? {
            Some(line) => lines.extend_from_slice(line),
            None => break,
        }
    }
    Ok(lines)
}
