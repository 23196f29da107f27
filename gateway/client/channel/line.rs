//! A data channel at work, held by whoever talks through it.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Carries, Channel, Command, Dialer, End, Event};
use crate::client::{ClientError, Gateway, Opened};

/// Events on their way out: 256 KB of output.
const EVENTS: usize = 256;
/// Commands on their way in: keys, or 1 MB of a port's bytes.
const COMMANDS: usize = 16;

/// A data channel at work: commands go in, events come out.
///
/// It ends with this value; the session itself goes on until it is ended.
pub struct Line {
    /// What is to be sent; dropped with the line, never alone.
    pub commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    peeked: Option<Event>,
    task: JoinHandle<Result<End, ClientError>>,
    /// Who can end the session, and its id.
    owner: Option<(Arc<Gateway>, String)>,
}

impl Line {
    /// The channel of a session that a gateway has just started.
    pub fn through(gateway: &Arc<Gateway>, opened: Opened, carries: Carries) -> Result<Self, ClientError> {
        let dialer = Dialer::new(gateway.trust.tls()?, Some(Arc::clone(gateway)));
        let (gateway, id) = (Arc::clone(gateway), opened.session_id.clone());
        let owner = Some((Arc::clone(&gateway), id.clone()));
        let resume = move || {
            let (gateway, id) = (Arc::clone(&gateway), id.clone());
            async move { gateway.resume_session(&id).await }
        };
        let mut line = Self::open(opened, dialer, resume, carries);
        line.owner = owner;
        Ok(line)
    }

    /// A channel on a task of its own; `resume` asks for a new token.
    pub fn open<R, F>(opened: Opened, dialer: Dialer, resume: R, carries: Carries) -> Self
    where
        R: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<Option<Opened>, ClientError>> + Send + 'static,
    {
        let (commands, take_commands) = mpsc::channel(COMMANDS);
        let (give_events, events) = mpsc::channel(EVENTS);
        let channel = Channel::new(opened, dialer, resume, carries, (take_commands, give_events));
        Self { commands, events, peeked: None, task: tokio::spawn(channel.run()), owner: None }
    }

    /// What the far side said next; `None` once the channel has ended.
    ///
    /// May be dropped half-way and called again.
    pub async fn event(&mut self) -> Option<Event> {
        match self.peeked.take() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// The next event, left where it is.
    pub async fn peek(&mut self) -> Option<&Event> {
        if self.peeked.is_none() {
            self.peeked = self.events.recv().await;
        }
        self.peeked.as_ref()
    }

    /// What has been said already, if anything.
    pub fn try_event(&mut self) -> Option<Event> {
        self.peeked.take().or_else(|| self.events.try_recv().ok())
    }

    /// Ends the session; it would end by itself later too.
    pub async fn say_farewell(&self) {
        if let Some((gateway, id)) = &self.owner {
            let _ = gateway.say_farewell(id).await;
        }
    }

    /// How the channel ended; ask once there are no more events.
    pub async fn end(&mut self) -> Result<End, ClientError> {
        match (&mut self.task).await {
            Ok(end) => end,
            Err(_) => Err(ClientError::Channel("the data channel broke down".to_owned())),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}
