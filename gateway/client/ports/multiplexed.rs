//! Many connections in one session: the client's end of smux version 1.
//!
//! Version 1 has no windows. A connection whose program does not read holds
//! up the others once 4 MiB lie unread; then the session stops reading, and
//! the far side stops sending. Memory stays bounded, nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_channel::smux::{self, FIRST_STREAM, Frames, Piece};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::stream::{Streams, Up};
use super::{Connection, Heard, Notice, Over, Tell, hear};
use crate::client::ClientError;
use crate::client::channel::{Command, Line};

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 512;
/// Reads of connections that may wait for the session: 512 KB.
const WAITING: usize = 32;
/// Reads that go into the session at once: 64 KB.
const TOGETHER: usize = 4;
/// Between two signs of life, for old agents.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Streams that a session can number.
const LAST_STREAM: u32 = u32::MAX - 2;

/// Carries connections until the session ends, or none can come any more.
pub(super) async fn carry(
    line: &mut Line,
    connections: &mut mpsc::Receiver<Connection>,
    keep_alive: bool,
    tell: Tell<'_>,
) -> Result<Over, ClientError> {
    let streams = Arc::new(Streams::new());
    let (outbox, ups) = mpsc::channel(WAITING);
    let commands = line.commands.clone();
    tokio::select! {
        over = downward(line, &streams, tell) => over,
        () = upward(ups, commands, keep_alive) => Ok(Over::Silent),
        () = accept(connections, &streams, outbox, tell) => Ok(Over::Left),
    }
}

/// What the far side says, to the connections.
async fn downward(line: &mut Line, streams: &Streams, tell: Tell<'_>) -> Result<Over, ClientError> {
    let mut frames = Frames::default();
    while let Some(event) = line.event().await {
        let bytes = match hear(event, tell) {
            Heard::Bytes(bytes) => bytes,
            Heard::Nothing => continue,
            Heard::End(ending) => return Ok(Over::Told(ending)),
        };
        let mut rest = bytes.as_ref();
        while let Some(piece) = next(&mut frames, &mut rest)? {
            match piece {
                Piece::Data(stream, data) => streams.give(stream, bytes.slice_ref(data)).await,
                Piece::Frame(header) if header.command == smux::Command::Close => {
                    streams.close(header.stream);
                }
                // Signs of life mean nothing here, and only we open streams.
                Piece::Frame(_) => {}
            }
        }
    }
    Ok(Over::Silent)
}

fn next<'a>(frames: &mut Frames, rest: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ClientError> {
    frames
        .next(rest)
        .map_err(|error| ClientError::Channel(format!("the target cannot be understood: {error}")))
}

/// What connections say, to the far side.
async fn upward(mut ups: mpsc::Receiver<Up>, commands: mpsc::Sender<Command>, keep_alive: bool) {
    let mut batch = Vec::with_capacity(TOGETHER);
    let mut ticks = interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut bytes = Vec::new();
        tokio::select! {
            _ = ups.recv_many(&mut batch, TOGETHER) => {}
            _ = ticks.tick(), if keep_alive => smux::encode(smux::Command::KeepAlive, 0, &mut bytes),
        }
        for up in batch.drain(..) {
            match up {
                Up::Open(stream) => smux::encode(smux::Command::Open, stream, &mut bytes),
                Up::Data(stream, data) => smux::encode_data(stream, &data, &mut bytes),
                Up::Close(stream) => smux::encode(smux::Command::Close, stream, &mut bytes),
            }
        }
        if commands.send(Command::Input(Bytes::from(bytes))).await.is_err() {
            // The channel's last events tell why it ended.
            std::future::pending::<()>().await;
        }
    }
}

/// Makes streams of connections; ends when the last one has ended.
async fn accept(
    connections: &mut mpsc::Receiver<Connection>,
    streams: &Arc<Streams>,
    outbox: mpsc::Sender<Up>,
    tell: Tell<'_>,
) {
    let mut carried = JoinSet::new();
    let mut stream = FIRST_STREAM;
    let mut more = true;
    while more || !carried.is_empty() {
        tokio::select! {
            connection = connections.recv(), if more && carried.len() < CONNECTIONS => {
                let Some(connection) = connection.filter(|_| stream < LAST_STREAM) else {
                    more = false;
                    continue;
                };
                tell(Notice::Accepted);
                let work = streams.open(stream, connection, outbox.clone());
                if outbox.send(Up::Open(stream)).await.is_err() {
                    return;
                }
                carried.spawn(work);
                stream += 2;
            }
            Some(_) = carried.join_next(), if !carried.is_empty() => tell(Notice::Finished),
        }
    }
}
