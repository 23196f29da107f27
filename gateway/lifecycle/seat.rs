//! Whose is the stream? A client's place in a session that runs.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::ClientSocket;
use super::live::Live;
use crate::relay::Control;
use crate::session::Principal;

/// A client's admitted place in a session.
pub struct Seat {
    pub(super) live: Arc<Live>,
}

impl Seat {
    /// The session's owner; a signed upgrade must be by the same.
    pub fn principal(&self) -> &Principal {
        &self.live.principal
    }

    /// Hands the socket to the session's relay; back if it just ended.
    pub async fn take(self, socket: ClientSocket) -> Option<ClientSocket> {
        match self.live.orders.send(Control::Attach(Box::new(socket))).await {
            Err(mpsc::error::SendError(Control::Attach(socket))) => Some(*socket),
            _ => None,
        }
    }
}
