//! A connection whose peer must take what it asked for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that fails when nothing could be written for too long.
///
/// HTTP alone sets no limit there: a peer that asks and never reads would
/// keep its place for ever. Data channels leave this with their upgrade.
pub(super) struct Hasty<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits, and anew after each that got on.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Hasty<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waits: None }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = None;
            return polled;
        }
        let limit = self.limit;
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep(limit)));
        waits.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hasty<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hasty<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_let_go() {
        let (near, _far) = duplex(10);
        let begun = Instant::now();
        let failed = Hasty::new(near, LIMIT).write_all(&[7; 11]).await.unwrap_err();
        assert_eq!((failed.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_gets_everything_and_a_quiet_connection_stays() {
        let (near, mut far) = duplex(10);
        let mut near = Hasty::new(near, LIMIT);
        let reading = tokio::spawn(async move {
            let mut taken = Vec::new();
            while taken.len() < 100 {
                // Virtual time: a peer that takes ten bytes every twenty seconds.
                sleep(Duration::from_secs(20)).await;
                let mut some = [0; 10];
                let read = far.read(&mut some).await.unwrap();
                taken.extend_from_slice(&some[..read]);
            }
            (taken, far)
        });
        near.write_all(&[7; 100]).await.unwrap();
        let (taken, _far) = reading.await.unwrap();
        assert_eq!(taken, [7; 100]);
        sleep(LIMIT * 10).await;
        near.write_all(b"more").await.unwrap();
    }
}
