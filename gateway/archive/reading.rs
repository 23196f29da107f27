//! An archived recording on its way, held against its manifest as it comes.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::GetResult;
use ring::digest::{Context, SHA256};

use super::place::Place;
use super::{ArchiveError, Manifest};

/// Bytes that are read before an answer begins: most recordings are shorter.
const AHEAD_BYTES: usize = 256 * 1024;

/// An archived recording that is being read.
///
/// The last piece is given only once all of them are known to be what the
/// manifest says; of one that was altered an error comes in its place.
pub struct Reading {
    /// Its manifest, signed by a key that is trusted.
    pub manifest: Box<Manifest>,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    place: Arc<Place>,
    seen: Context,
    bytes: u64,
    held: Option<Bytes>,
    ahead: VecDeque<Bytes>,
    over: bool,
}

impl Reading {
    pub(super) fn new(manifest: Manifest, found: GetResult, place: Arc<Place>) -> Self {
        Self {
            manifest: Box::new(manifest),
            stream: found.into_stream(),
            place,
            seen: Context::new(&SHA256),
            bytes: 0,
            held: None,
            ahead: VecDeque::new(),
            over: false,
        }
    }

    /// Its size, bytes.
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes
    }

    /// Reads the beginning, so that damage there is found before an answer.
    pub async fn begin(&mut self) -> Result<(), ArchiveError> {
        let mut bytes = 0;
        while bytes < AHEAD_BYTES {
            match self.read().await {
                Some(Ok(piece)) => {
                    bytes += piece.len();
                    self.ahead.push_back(piece);
                }
                Some(Err(error)) => {
                    self.ahead.clear();
                    return Err(error);
                }
                None => break,
            }
        }
        Ok(())
    }

    /// The next bytes; `None` at the end, and after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, ArchiveError>> {
        match self.ahead.pop_front() {
            Some(piece) => Some(Ok(piece)),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Option<Result<Bytes, ArchiveError>> {
        while !self.over {
            match self.stream.next().await {
                Some(Ok(piece)) => {
                    self.seen.update(&piece);
                    self.bytes += piece.len() as u64;
                    if self.bytes > self.manifest.bytes {
                        return Some(Err(self.altered()));
                    }
                    if let Some(ready) = self.held.replace(piece) {
                        return Some(Ok(ready));
                    }
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Some(Err(self.place.failed(&error)));
                }
                None => {
                    let sha256 = HEXLOWER.encode(self.seen.clone().finish().as_ref());
                    if (self.bytes, &sha256) != (self.manifest.bytes, &self.manifest.sha256) {
                        return Some(Err(self.altered()));
                    }
                    self.over = true;
                    return self.held.take().map(Ok);
                }
            }
        }
        None
    }

    /// Writes all of it somewhere; what was written counts only if it is `Ok`.
    pub async fn copy(mut self, to: &mut impl Write) -> Result<(), ArchiveError> {
        while let Some(piece) = self.next().await {
            let written = to.write_all(&piece?);
            written.map_err(|why| ArchiveError::File { path: "a copy of a recording".to_owned(), why })?;
        }
        Ok(())
    }

    fn altered(&mut self) -> ArchiveError {
        self.over = true;
        let why = format!(
            "its bytes are not the {} that its manifest has (SHA-256 {})",
            self.manifest.bytes, self.manifest.sha256
        );
        ArchiveError::Unproved { session: self.manifest.session.clone(), why }
    }
}
