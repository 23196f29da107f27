//! Starting sessions on a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::channel::{Carries, Line};
use crate::client::ports::{Begun, PortSession};
use crate::client::{ClientError, Ending, Gateway};
use crate::session::{Document, SessionRequest, Target};

/// Starts sessions on one machine, for one reason.
#[derive(Clone)]
pub struct Starter {
    /// Where they are started.
    pub gateway: Arc<Gateway>,
    /// On which machine.
    pub target: Target,
    /// Why, control characters removed.
    pub reason: Option<String>,
}

impl Starter {
    /// Starts a session with a document; its id and its data channel.
    pub async fn start(
        &self,
        document: Document,
        parameters: BTreeMap<String, Vec<String>>,
        carries: Carries,
    ) -> Result<(String, Line), ClientError> {
        let (target, reason) = (self.target.clone(), self.reason.clone());
        let request = SessionRequest { target, document, parameters, reason };
        let opened = self.gateway.start_session(&request).await?;
        let id = opened.session_id.clone();
        Ok((id, Line::through(&self.gateway, opened, carries)?))
    }

    /// Starts a session that carries a port, past its handshake.
    pub async fn port(
        &self,
        document: Document,
        parameters: BTreeMap<String, Vec<String>>,
    ) -> Result<PortSession, ClientError> {
        let (id, line) = self.start(document, parameters, Carries::Port).await?;
        let why = match PortSession::begin(id.clone(), line).await {
            Ok(Begun::Port(session)) => return Ok(session),
            Ok(Begun::Over(ending)) => ClientError::Channel(never_began(&ending)),
            Ok(Begun::Other(_)) => {
                ClientError::Channel("the target opened a shell where a port was asked for".to_owned())
            }
            Err(error) => error,
        };
        self.gateway.say_farewell(&id).await;
        Err(why)
    }
}

fn never_began(ending: &Ending) -> String {
    match ending {
        Ending::Closed { text, .. } | Ending::Unsupported(text) if !text.is_empty() => text.clone(),
        _ => "the session ended before it began".to_owned(),
    }
}
