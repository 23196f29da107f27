//! The AWS side of one session: opened, dialled again, terminated.

use std::sync::Arc;

use data_channel::encryption::DataKey;
use uuid::Uuid;

use super::Lifecycle;
use super::admission::Asker;
use super::patience::{Patience, REDIAL_FOR, REDIAL_PAUSE, REDIAL_PAUSE_MAX};
use crate::broker::{ClientIds, UpstreamRef, UpstreamSocket, UpstreamStream};
use crate::error::ApiError;
use crate::relay;
use crate::session::{SessionId, SessionRequest};

/// What the gateway says it is upstream: after the last gate of the agent.
///
/// What the agent decides on is the client's own version, which passes
/// through in the handshake.
const CLIENT_VERSION: &str = "1.2.707.0";

/// A session that is open upstream.
pub(super) struct Opened {
    pub(super) upstream: UpstreamRef,
    pub(super) client: ClientIds,
    /// Its first connection, if there is one yet.
    pub(super) socket: Option<UpstreamSocket>,
    /// The key of an encrypted session that another process opened.
    pub(super) data_key: Option<DataKey>,
    /// What an earlier process did, if it opened the session.
    pub(super) resumed: Option<relay::Resumed>,
    /// Why it may not go on; its user is only told so.
    pub(super) dismissed: Option<relay::Ending>,
}

impl Lifecycle {
    pub(super) async fn open_upstream(
        &self,
        asker: &Asker,
        request: &SessionRequest,
        id: &SessionId,
        run_as: Option<String>,
    ) -> Result<Opened, ApiError> {
        let upstream = self.rooms.broker.start(&asker.principal, request, id, run_as).await?;
        let client =
            ClientIds { client_id: Uuid::new_v4().to_string(), client_version: CLIENT_VERSION.to_owned() };
        match self.rooms.broker.dial(&upstream, &client).await {
            Ok(socket) => {
                let upstream = upstream.reference();
                Ok(Opened {
                    upstream,
                    client,
                    socket: Some(socket),
                    resumed: None,
                    data_key: None,
                    dismissed: None,
                })
            }
            Err(error) => {
                self.terminate_upstream(&upstream.reference()).await;
                Err(error.into())
            }
        }
    }

    /// Resumes and dials upstream with back-off until it is back or over.
    ///
    /// A connection that is accepted and closed at once, as one with a wrong
    /// token is, counts as lost too: its pauses grow until it is given up.
    pub(super) fn redialler(
        self: &Arc<Self>,
        upstream: Arc<UpstreamRef>,
        client: ClientIds,
    ) -> relay::Redial<UpstreamStream> {
        let this = Arc::clone(self);
        let mut patience = Patience::new(tokio::time::Instant::now());
        Box::new(move || {
            let (this, upstream, client) = (Arc::clone(&this), Arc::clone(&upstream), client.clone());
            let pause = patience.lost(tokio::time::Instant::now());
            Box::pin(async move {
                let Some(pause) = pause else { return Err("AWS closes it again and again".to_owned()) };
                tokio::time::sleep(pause).await;
                this.redial(&upstream, &client).await
            })
        })
    }

    async fn redial(&self, upstream: &UpstreamRef, client: &ClientIds) -> relay::Redialled<UpstreamStream> {
        let give_up = tokio::time::Instant::now() + REDIAL_FOR;
        let mut pause = REDIAL_PAUSE;
        loop {
            let error = match self.rooms.broker.resume(upstream).await {
                Ok(None) => return Ok(None),
                Ok(Some(resumed)) => match self.rooms.broker.dial(&resumed, client).await {
                    Ok(socket) => return Ok(Some(socket)),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tracing::warn!(session = %upstream.session_id, %error, "upstream is lost; dialling again");
            if tokio::time::Instant::now() + pause > give_up {
                return Err(error.to_string());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REDIAL_PAUSE_MAX);
        }
    }

    pub(super) async fn terminate_upstream(&self, upstream: &UpstreamRef) {
        if let Err(error) = self.rooms.broker.terminate(upstream).await {
            tracing::warn!(session = %upstream.session_id, %error, "the session could not be terminated upstream");
        }
    }
}
