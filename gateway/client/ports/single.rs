//! One connection at a time, its bytes as they are.

use bytes::{Bytes, BytesMut};
use data_channel::Flag;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{Connection, Heard, Notice, Over, Tell, hear};
use crate::client::ClientError;
use crate::client::channel::{Command, Line};

/// Bytes read from a connection at once.
const READ: usize = 16 * 1024;
/// Bytes of output written to a connection at once.
const WRITE: usize = 64 * 1024;
/// Bytes of a destination that speaks first, kept for the first connection.
const EARLY: usize = 256 * 1024;

/// The standard streams: the session is that one connection.
pub(super) async fn carry_one(
    line: &mut Line,
    connections: &mut mpsc::Receiver<Connection>,
    tell: Tell<'_>,
) -> Result<Over, ClientError> {
    let Some(connection) = connections.recv().await else { return Ok(Over::Left) };
    carry(line, connection, BytesMut::new(), tell).await
}

/// A listener's connections: the next one may come when one has ended.
pub(super) async fn carry_one_by_one(
    line: &mut Line,
    connections: &mut mpsc::Receiver<Connection>,
    tell: Tell<'_>,
) -> Result<Over, ClientError> {
    // The agent dials when the session begins, and what it hears then is for
    // whoever connects first.
    let mut early = Some(BytesMut::new());
    loop {
        let may_hear = early.as_ref().is_none_or(|early| early.len() < EARLY);
        let connection = tokio::select! {
            next = connections.recv() => match next {
                Some(connection) => connection,
                None => return Ok(Over::Left),
            },
            event = line.event(), if may_hear => {
                match event.map(|event| hear(event, tell)) {
                    None => return Ok(Over::Silent),
                    Some(Heard::End(ending)) => return Ok(Over::Told(ending)),
                    Some(Heard::Bytes(bytes)) => if let Some(early) = &mut early {
                        early.extend_from_slice(&bytes);
                    },
                    Some(Heard::Nothing) => {}
                }
                continue;
            }
        };
        tell(Notice::Accepted);
        match carry(line, connection, early.take().unwrap_or_default(), tell).await? {
            Over::Left => tell(Notice::Finished),
            over => return Ok(over),
        }
        let hang_up = Command::Flag(Flag::DisconnectToPort);
        if line.commands.send(hang_up).await.is_err() {
            return Ok(Over::Silent);
        }
    }
}

/// Carries one connection; [`Over::Left`] when it has ended on this side.
async fn carry(
    line: &mut Line,
    connection: Connection,
    early: BytesMut,
    tell: Tell<'_>,
) -> Result<Over, ClientError> {
    let Connection { mut reader, mut writer } = connection;
    if !early.is_empty() && (writer.write_all(&early).await.is_err() || writer.flush().await.is_err()) {
        return Ok(Over::Left);
    }
    let commands = line.commands.clone();
    let upward = async {
        let mut buffer = BytesMut::with_capacity(READ);
        while reader.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            let bytes: Bytes = buffer.split().freeze();
            if commands.send(Command::Input(bytes)).await.is_err() {
                // The events tell how the channel ended.
                std::future::pending::<()>().await;
            }
            buffer.reserve(READ);
        }
    };
    let downward = async {
        loop {
            let (bytes, over) = gather(line, tell).await;
            if !bytes.is_empty() && (writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err())
            {
                return Over::Left;
            }
            if let Some(over) = over {
                return over;
            }
        }
    };
    tokio::select! {
        () = upward => Ok(Over::Left),
        over = downward => Ok(over),
    }
}

/// Waits for bytes and takes what else has come meanwhile.
async fn gather(line: &mut Line, tell: Tell<'_>) -> (BytesMut, Option<Over>) {
    let mut bytes = BytesMut::new();
    let mut next = line.event().await;
    loop {
        match next.map(|event| hear(event, tell)) {
            None if bytes.is_empty() => return (bytes, Some(Over::Silent)),
            // Nothing more for now, or the end that is found next.
            None => return (bytes, None),
            Some(Heard::End(ending)) => return (bytes, Some(Over::Told(ending))),
            Some(Heard::Bytes(more)) => bytes.extend_from_slice(&more),
            Some(Heard::Nothing) => {}
        }
        if bytes.len() >= WRITE {
            return (bytes, None);
        }
        next = match line.try_event() {
            Some(event) => Some(event),
            None if bytes.is_empty() => line.event().await,
            None => return (bytes, None),
        };
    }
}
