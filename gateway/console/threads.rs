//! Work on recordings, on threads that block: whose turn it is, how long.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::SendTimeoutError};

use crate::error::ApiError;
use crate::lifecycle::{Turn, Turns};
use crate::session::Principal;

/// Reads of recordings at once: of one person, and in all. The runtime has
/// 512 threads for these and everything else that blocks.
const READS: (usize, usize) = (4, 32);
/// Downloads at once, which take as long as their browser.
const DOWNLOADS: (usize, usize) = (4, 64);
/// Passes over whole recordings at once: each keeps a core busy.
const PASSES: (usize, usize) = (1, 2);
/// How long somebody waits for one, behind other long recordings.
const PASS_WITHIN: Duration = Duration::from_secs(120);
/// How long somebody waits for a read.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// How long a download waits for a browser that takes nothing.
const STALLED: Duration = Duration::from_secs(30);
/// Pieces of a download that wait for the browser.
const PIECES: usize = 4;

/// The threads that this console's visitors may take.
pub(super) struct Threads {
    reads: Turns,
    passes: Turns,
    downloads: Turns,
}

impl Threads {
    pub(super) fn new() -> Self {
        let turns = |(each, all)| Turns::new(each, all);
        Self { reads: turns(READS), passes: turns(PASSES), downloads: turns(DOWNLOADS) }
    }

    /// Does work that reads a recording, once it is the person's turn.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        principal: &Principal,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        on_thread(self.reads.wait(&principal.id, "recordings being read", READ_WITHIN).await?, work).await
    }

    /// The same for work that goes through all of it.
    pub(super) async fn pass<T: Send + 'static>(
        &self,
        principal: &Principal,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        on_thread(self.passes.wait(&principal.id, "recordings being opened", PASS_WITHIN).await?, work).await
    }

    /// A place among the downloads.
    pub(super) fn download(&self, principal: &Principal) -> Result<Turn, ApiError> {
        self.downloads.take(&principal.id, "downloads")
    }
}

async fn on_thread<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    // The work goes on when nobody waits for it any more: so does its turn.
    let done = tokio::task::spawn_blocking(move || (work(), turn).0).await;
    done.map_err(|_| ApiError::gateway("the recording could not be read"))
}

/// A body that keeps what it needs until it is gone.
pub(super) fn keeping(body: Body, kept: impl Send + 'static) -> Body {
    Body::from_stream(futures_util::StreamExt::map(body.into_data_stream(), move |piece| {
        let _ = &kept;
        piece
    }))
}

/// What is written, piece by piece, as fast as the browser takes it.
///
/// A browser that takes nothing for 30 seconds gets no more. What could not
/// be written to its end is a broken download, not a short one.
pub(super) fn written<E: std::fmt::Display>(
    turn: Turn,
    write: impl FnOnce(&mut Pieces) -> Result<(), E> + Send + 'static,
) -> Body {
    Body::from_stream(futures_util::stream::unfold(pieces(STALLED, turn, write), Taken::next))
}

fn pieces<E: std::fmt::Display>(
    stalled: Duration,
    turn: impl Send + 'static,
    write: impl FnOnce(&mut Pieces) -> Result<(), E> + Send + 'static,
) -> Taken {
    let (sender, receiver) = mpsc::channel(PIECES);
    let whole = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&whole);
    let mut out = Pieces { sender, runtime: Handle::current(), stalled };
    tokio::task::spawn_blocking(move || {
        match write(&mut out) {
            Ok(()) => told.store(true, Ordering::Release),
            Err(error) => tracing::warn!(%error, "a download broke off"),
        }
        drop((out, turn));
    });
    Taken { receiver, whole, broken: false }
}

/// Where a download is written to; blocks until there is room.
pub(super) struct Pieces {
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    stalled: Duration,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        match self.runtime.block_on(self.sender.send_timeout(piece, self.stalled)) {
            Ok(()) => Ok(bytes.len()),
            Err(SendTimeoutError::Timeout(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(SendTimeoutError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The pieces on their way to the browser.
struct Taken {
    receiver: mpsc::Receiver<Bytes>,
    whole: Arc<AtomicBool>,
    broken: bool,
}

impl Taken {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        match self.receiver.recv().await {
            Some(piece) => Some((Ok(piece), self)),
            None if self.broken || self.whole.load(Ordering::Acquire) => None,
            None => {
                self.broken = true;
                Some((Err(io::Error::other("the recording could not be read, or was not taken")), self))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream::unfold};

    use super::*;

    async fn taken(taken: Taken) -> Vec<io::Result<Bytes>> {
        unfold(taken, Taken::next).collect().await
    }

    #[tokio::test]
    async fn a_download_that_is_not_taken_ends_and_gives_its_turn_back() {
        let turns = Turns::new(1, 1);
        let turn = turns.take("alice", "downloads").unwrap();
        let (ended, end) = tokio::sync::oneshot::channel();
        let pieces = pieces(Duration::from_millis(10), turn, move |out| {
            let written = (0..100).try_for_each(|_| out.write_all(b"piece"));
            let _ = ended.send(written.as_ref().map_err(io::Error::kind).copied());
            written
        });
        assert_eq!(end.await.unwrap(), Err(io::ErrorKind::TimedOut));
        turns.wait("alice", "downloads", Duration::from_secs(30)).await.unwrap();
        let taken = taken(pieces).await;
        assert_eq!(taken.len(), PIECES + 1);
        assert!(taken.last().unwrap().is_err(), "it looks whole");
    }

    #[tokio::test]
    async fn a_download_that_is_taken_is_whole() {
        let pieces = pieces(STALLED, (), |out| (0..100).try_for_each(|_| out.write_all(b"piece")));
        let taken = taken(pieces).await;
        assert_eq!(taken.len(), 100);
        assert!(taken.iter().all(Result::is_ok));
    }
}
