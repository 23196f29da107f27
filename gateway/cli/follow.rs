//! `postern replay --follow`: a running session, over restarts of its gateway.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::time::Instant;

use super::recording::{Fetched, download, tell};
use crate::client::{ClientError, Gateway, Profile};
use crate::recorder::read::LineReader;
use crate::replay::ReplayError;
use crate::session::SessionId;

/// How long a gateway may be away, or give nothing new, once it broke off.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often it is asked then.
const ASK: Duration = Duration::from_millis(500);
/// Lines of a finished recording taken at a time, bytes.
const PIECE: usize = 256 * 1024;

/// Shows a running session until it ends or the person has seen enough.
pub(super) async fn follow(session: &str, profile: Option<&str>) -> anyhow::Result<()> {
    let id = SessionId::parse(session).context("only a session can be followed, by its id")?;
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    let lines = lines(&gateway, &id).await?;
    let (copy, file) = Fetched::new(&id)?;
    let (grew, grown) = sync_channel(1);
    let (path, on_terminal) = (copy.path.clone(), std::io::stdout().is_terminal());
    let mut shown = tokio::task::spawn_blocking(move || show(&path, &grown, on_terminal));
    let got = Got { file, bytes: 0, inside: false };
    let mut fetching = Fetching { gateway, id, got, grew, notice: None };
    let broke_off = tokio::select! {
        fetched = fetching.drain(lines) => fetched.err(),
        shown = &mut shown => return Ok(shown??),
    };
    let notice = fetching.notice;
    drop(fetching);
    shown.await??;
    // Not before: the terminal was the session's.
    tell(notice);
    broke_off.map_or(Ok(()), Err)
}

fn show(path: &Path, grown: &Receiver<()>, on_terminal: bool) -> Result<(), ReplayError> {
    match crate::replay::follow(path, grown, on_terminal) {
        // `postern replay ID --follow | head` is no error.
        Err(ReplayError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn lines(gateway: &Gateway, id: &SessionId) -> Result<reqwest::Response, ClientError> {
    gateway.get(&format!("/v1/sessions/{id}/recording?follow=true")).await
}

struct Fetching {
    gateway: Gateway,
    id: SessionId,
    got: Got,
    grew: SyncSender<()>,
    /// What the person should know in the end.
    notice: Option<&'static str>,
}

impl Fetching {
    /// Takes lines until the session is over, from whoever has it.
    async fn drain(&mut self, mut lines: reqwest::Response) -> anyhow::Result<()> {
        let mut last_new = Instant::now();
        loop {
            if self.take(lines).await? {
                last_new = Instant::now();
            }
            lines = loop {
                match self.again().await {
                    Ok(None) => return self.rest(last_new).await,
                    Ok(Some(lines)) => break lines,
                    Err(error) if error.is_passing() && last_new.elapsed() < AWAY_MAX => {}
                    Err(error) => {
                        return Err(error).context("the gateway broke off, and the session may go on");
                    }
                }
                tokio::time::sleep(ASK).await;
            };
            if last_new.elapsed() >= AWAY_MAX {
                bail!("the gateway broke off, and shows nothing more of the session, which goes on");
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Takes what comes; whether any of it was new.
    async fn take(&mut self, mut lines: reqwest::Response) -> anyhow::Result<bool> {
        let (mut skip, before) = (self.got.begin(), self.got.bytes);
        // Whoever breaks off is asked again.
        while let Ok(Some(piece)) = lines.chunk().await {
            self.add(&piece, &mut skip)?;
        }
        Ok(self.got.bytes > before)
    }

    fn add(&mut self, piece: &[u8], skip: &mut u64) -> std::io::Result<()> {
        if self.got.take(piece, skip)? {
            // Full: it will look anyway. Gone: the other branch tells why.
            let _ = self.grew.try_send(());
        }
        Ok(())
    }

    /// The lines that nobody sent before the session was over.
    async fn rest(&mut self, last_new: Instant) -> anyhow::Result<()> {
        loop {
            let Err(error) = self.whole().await else { return Ok(()) };
            let is_passing = error.downcast_ref::<ClientError>().is_some_and(ClientError::is_passing);
            if !is_passing || last_new.elapsed() >= AWAY_MAX {
                return Err(error).context(
                    "the session is over, and may have shown more: the rest of its recording cannot be fetched",
                );
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Takes what is new of the whole recording.
    async fn whole(&mut self) -> anyhow::Result<()> {
        let (whole, file) = Fetched::new(&self.id)?;
        self.notice = download(&self.id, &self.gateway, file).await?;
        let mut lines = LineReader::new(File::open(&whole.path)?);
        let (mut skip, mut read) = (self.got.begin(), 0);
        while let Some(line) = lines.next_line()? {
            read += line.len();
            match skip.checked_sub(line.len() as u64) {
                Some(left) => skip = left,
                None => self.add(line, &mut skip)?,
            }
            if read >= PIECE {
                // Whoever wants to leave is heard meanwhile.
                read = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// The lines once more, from the first one; none if the session is over.
    async fn again(&self) -> Result<Option<reqwest::Response>, ClientError> {
        let session: Value = self.gateway.get_json(&format!("/v1/sessions/{}", self.id)).await?;
        let state = session.get("state").and_then(Value::as_str).unwrap_or_default();
        match state {
            "Terminated" | "Failed" => Ok(None),
            _ => match lines(&self.gateway, &self.id).await {
                // It ended just now, and its recording has left the spool.
                Err(ClientError::Api { code, .. }) if code == "ValidationException" => Ok(None),
                other => other.map(Some),
            },
        }
    }
}

/// What was taken of a recording's lines so far.
struct Got {
    file: File,
    bytes: u64,
    /// The last byte of a stream was inside a line.
    inside: bool,
}

impl Got {
    /// Another stream begins; so many bytes of it are known.
    fn begin(&mut self) -> u64 {
        self.inside = false;
        self.bytes
    }

    /// Takes a piece of a stream; whether there was anything new in it.
    ///
    /// Blank lines are a sign of life of this stream, and not the recording's.
    fn take(&mut self, piece: &[u8], skip: &mut u64) -> std::io::Result<bool> {
        let mut new = Vec::with_capacity(piece.len());
        for byte in piece {
            let blank = *byte == b'\n' && !self.inside;
            self.inside = *byte != b'\n';
            match (blank, *skip) {
                (true, _) => {}
                (false, 0) => new.push(*byte),
                (false, _) => *skip -= 1,
            }
        }
        self.file.write_all(&new)?;
        self.bytes += new.len() as u64;
        Ok(!new.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn a_stream_that_begins_anew_goes_on_where_the_last_one_broke_off() {
        let mut got = Got { file: tempfile::tempfile().unwrap(), bytes: 0, inside: false };
        let mut skip = got.begin();
        assert!(got.take(b"{}\n\n[1]\n", &mut skip).unwrap());
        assert!(!got.take(b"\n\n", &mut skip).unwrap());
        assert!(got.take(b"[2", &mut skip).unwrap());
        let mut skip = got.begin();
        assert!(!got.take(b"{}\n[1", &mut skip).unwrap());
        assert!(got.take(b"]\n[2]\n\n", &mut skip).unwrap());
        let mut all = String::new();
        got.file.rewind().unwrap();
        got.file.read_to_string(&mut all).unwrap();
        assert_eq!((all.as_str(), got.bytes), ("{}\n[1]\n[2]\n", 11));
    }
}
