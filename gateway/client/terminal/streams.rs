//! Standard input and output, each on a thread of its own.

use std::io::{self, Read, Write};

use bytes::Bytes;
use data_channel::message::CHUNK;
use tokio::sync::mpsc;

/// Chunks read ahead: 32 KB of a paste.
const READ_AHEAD: usize = 32;
/// Chunks that may wait for a slow terminal: 4 MB of output.
const WRITE_BEHIND: usize = 4096;

/// Something to be shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Shown {
    /// On standard output.
    Out(Bytes),
    /// On standard error.
    Err(Bytes),
}

/// What is typed, as it is; the channel closes at end of file.
///
/// The thread ends with the program: a blocked read cannot be called off.
pub fn input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || read(io::stdin(), &sender));
    receiver
}

/// Where output goes; `done` resolves when all of it is written.
///
/// The sender closes early when nobody reads the output any more.
pub fn output() -> (mpsc::Sender<Shown>, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(WRITE_BEHIND);
    (sender, tokio::task::spawn_blocking(move || write(receiver)))
}

fn read(mut from: impl Read, into: &mpsc::Sender<Bytes>) {
    let mut buffer = [0u8; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let chunk = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                if into.blocking_send(chunk).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal that is gone reads like the end of a file.
            Err(_) => return,
        }
    }
}

fn write(mut from: mpsc::Receiver<Shown>) {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    while let Some(first) = from.blocking_recv() {
        let mut next = Some(first);
        // What has come meanwhile is shown at once, with one flush.
        while let Some(shown) = next {
            let written = match &shown {
                Shown::Out(bytes) => out.write_all(bytes),
                Shown::Err(bytes) => out.flush().and_then(|()| err.write_all(bytes)),
            };
            if written.is_err() {
                return;
            }
            next = from.try_recv().ok();
        }
        if out.flush().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_is_passed_byte_for_byte_in_chunks() {
        let typed: Vec<u8> = (0..5000u32).map(|n| (n % 256) as u8).collect();
        let (sender, mut receiver) = mpsc::channel(1);
        let source = io::Cursor::new(typed.clone());
        std::thread::spawn(move || read(source, &sender));
        let mut got = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            assert!(chunk.len() <= CHUNK);
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, typed);
    }
}
