//! Port sessions: connections of this machine, carried to the target.

mod listener;
mod mode;
mod multiplexed;
mod single;
mod stream;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use data_channel::{Flag, HandshakeRequest};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use listener::{Connection, Listener, Place};
pub use mode::{Mode, Properties, is_port};

use crate::client::channel::{Command, Event, Line};
use crate::client::{ClientError, Ending};

/// How long the far side may take to end a session that we end.
const PARTING: Duration = Duration::from_secs(2);

/// Something that a person may want to know while a session lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A connection was taken.
    Accepted,
    /// A connection has ended.
    Finished,
    /// The far side could not reach the destination; the session goes on.
    Refused,
    /// A sentence of the agent, safe to show.
    Message(String),
    /// The data channel's connection was lost; it is being made anew.
    Lost,
    /// The data channel is back.
    Back,
}

/// Hears of notices while a session is carried.
pub type Tell<'a> = &'a (dyn Fn(Notice) + Send + Sync);

/// What a session turned out to be.
pub enum Begun {
    /// It carries a port.
    Port(PortSession),
    /// It is a terminal's; nothing of it was taken.
    Other(Line),
    /// It was over before it began.
    Over(Ending),
}

/// A session that carries a port, past its handshake.
pub struct PortSession {
    /// The session's id.
    pub id: String,
    /// What its document says.
    pub properties: Properties,
    mode: Mode,
    agent: String,
    line: Line,
}

impl PortSession {
    /// Waits for the handshake, which tells a port from a terminal.
    pub async fn begin(id: String, mut line: Line) -> Result<Begun, ClientError> {
        loop {
            let told = match line.peek().await {
                Some(Event::Handshake(asked)) if is_port(asked) => {
                    let asked = asked.clone();
                    line.event().await;
                    return Ok(Begun::Port(Self::after(&asked, id, line)));
                }
                Some(Event::Closed(_) | Event::Unsupported(_) | Event::Lost | Event::Back) => {
                    line.event().await
                }
                Some(_) => return Ok(Begun::Other(line)),
                None => return Ok(Begun::Over(Ending::of(&line.end().await?))),
            };
            match told {
                Some(Event::Closed(text)) => {
                    return Ok(Begun::Over(Ending::Closed { text, exit_code: None }));
                }
                Some(Event::Unsupported(text)) => return Ok(Begun::Over(Ending::Unsupported(text))),
                _ => {}
            }
        }
    }

    fn after(asked: &HandshakeRequest, id: String, line: Line) -> Self {
        let (mode, properties) = Mode::of(asked);
        Self { id, properties, mode, agent: asked.agent_version.clone(), line }
    }

    /// How connections are carried.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Carries connections until the session ends or `stop` is ready.
    ///
    /// In [`Mode::Standard`] the first connection is the only one. When no
    /// more can come this side ends the session.
    pub async fn carry(
        mut self,
        mut connections: mpsc::Receiver<Connection>,
        stop: impl Future<Output = ()>,
        tell: Tell<'_>,
    ) -> Result<Ending, ClientError> {
        let ended = {
            let line = &mut self.line;
            let carried = async {
                match self.mode {
                    Mode::Multiplexed { keep_alive } => {
                        multiplexed::carry(line, &mut connections, keep_alive, tell).await
                    }
                    Mode::Basic => single::carry_one_by_one(line, &mut connections, tell).await,
                    Mode::Standard => single::carry_one(line, &mut connections, tell).await,
                }
            };
            tokio::select! {
                ended = carried => ended,
                () = stop => Ok(Over::Left),
            }
        };
        let over = match ended {
            Ok(over) => over,
            Err(error) => {
                self.part().await;
                return Err(error);
            }
        };
        match over {
            Over::Told(ending) => Ok(ending),
            Over::Silent => self.line.end().await.map(|end| Ending::of(&end)),
            Over::Left => {
                self.part().await;
                Ok(Ending::Left)
            }
        }
    }

    /// Carries this program's standard input and output as the only connection.
    pub async fn carry_standard(
        self,
        stop: impl Future<Output = ()>,
        tell: Tell<'_>,
    ) -> Result<Ending, ClientError> {
        let (connections, take_connections) = mpsc::channel(1);
        // An empty queue takes one.
        let _ = connections.try_send(Connection::standard());
        self.carry(take_connections, stop, tell).await
    }

    /// Ends a session that nothing was carried in.
    pub async fn end(self) {
        self.part().await;
    }

    /// Ends the session behind the last byte, or without the far side.
    async fn part(mut self) {
        let knows = mode::knows_the_flag(&self.agent);
        if !knows || !timeout(PARTING, flag_down(&mut self.line)).await.unwrap_or_default() {
            self.line.say_farewell().await;
        }
    }
}

/// Asks the far side to end the session; true once it says that it has.
async fn flag_down(line: &mut Line) -> bool {
    if line.commands.send(Command::Flag(Flag::TerminateSession)).await.is_err() {
        return false;
    }
    while let Some(event) = line.event().await {
        if matches!(event, Event::Closed(_)) {
            return true;
        }
    }
    false
}

/// Why carrying ended.
enum Over {
    /// The far side said so.
    Told(Ending),
    /// The data channel ended without a word.
    Silent,
    /// Nobody on this side needs the session any more.
    Left,
}

/// What an event means to a connection.
enum Heard {
    Bytes(Bytes),
    Nothing,
    End(Ending),
}

fn hear(event: Event, tell: Tell<'_>) -> Heard {
    match event {
        Event::Output(bytes) => return Heard::Bytes(bytes),
        Event::Closed(text) => return Heard::End(Ending::Closed { text, exit_code: None }),
        Event::Unsupported(text) => return Heard::End(Ending::Unsupported(text)),
        Event::Flag(Flag::ConnectToPortError) => tell(Notice::Refused),
        Event::Message(text) => tell(Notice::Message(text)),
        Event::Lost => tell(Notice::Lost),
        Event::Back => tell(Notice::Back),
        Event::Handshake(_) | Event::Flag(_) | Event::StdErr(_) | Event::ExitCode(..) => {}
    }
    Heard::Nothing
}

#[cfg(test)]
mod tests;
