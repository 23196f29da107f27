//! The keys of encrypted sessions: made by KMS, noted for a later process.

use std::sync::Arc;

use data_channel::encryption::DataKey;
use data_channel::handshake::KmsAction;

use super::Lifecycle;
use crate::broker::UpstreamRef;
use crate::registry::SealedKey;
use crate::relay;
use crate::session::SessionId;

impl Lifecycle {
    /// Has KMS make the key of an encrypted session, with its own keys.
    pub(super) fn data_keys(
        self: &Arc<Self>,
        upstream: &Arc<UpstreamRef>,
        id: &SessionId,
    ) -> relay::DataKeys {
        let (this, upstream, id) = (Arc::clone(self), Arc::clone(upstream), id.clone());
        Box::new(move |wish| {
            let (this, upstream, id) = (Arc::clone(&this), Arc::clone(&upstream), id.clone());
            Box::pin(async move { this.new_data_key(&upstream, &id, wish).await })
        })
    }

    /// The key of an encrypted session that is taken over; none if it is not.
    ///
    /// What was said in a handshake that was not over is gone with the
    /// process that said it, so such a session cannot go on.
    pub(super) async fn reopened_data_key(
        &self,
        upstream: &UpstreamRef,
        id: &SessionId,
        handshake_is_over: bool,
    ) -> Result<Option<DataKey>, String> {
        let registered = self.rooms.registry.session_key(id).await.map_err(|error| {
            tracing::error!(session = %id, %error, "the session's key could not be looked up");
            "the gateway was restarted and could not look up the session's key; start it again".to_owned()
        })?;
        let Some(SealedKey { kms_key_id, challenge, sealed }) = registered else { return Ok(None) };
        if !handshake_is_over {
            return Err(
                "the gateway was restarted while the session was being opened; start it again".to_owned()
            );
        }
        let key =
            self.rooms.broker.open_data_key(upstream, &KmsAction { kms_key_id, challenge }, &sealed).await;
        key.map(Some).map_err(|refusal| {
            tracing::warn!(session = %id, %refusal, "the session's data key could not be opened again");
            refusal.sentence()
        })
    }

    async fn new_data_key(
        &self,
        upstream: &UpstreamRef,
        id: &SessionId,
        wish: KmsAction,
    ) -> Result<DataKey, String> {
        let key = self.rooms.broker.data_key(upstream, &wish).await.map_err(|refusal| {
            tracing::warn!(session = %id, %refusal, "no data key for the session");
            refusal.sentence()
        })?;
        let (kms_key_id, challenge) = (wish.kms_key_id, wish.challenge);
        let sealed = SealedKey { kms_key_id, challenge, sealed: key.sealed.clone() };
        // A node that takes the session over must know that it is encrypted.
        self.rooms.registry.add_session_key(id, &sealed).await.map_err(|error| {
            tracing::error!(session = %id, %error, "the session's sealed key could not be registered");
            "the gateway could not register the session's key; try again".to_owned()
        })?;
        Ok(key)
    }
}
