//! A data channel is opened: upgrade, first text, token.

use std::sync::Arc;
use std::time::Duration;

use data_channel::{ChannelClosed, OpenDataChannel};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sigv4::Rules;
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Service;
use super::agent::now_ms;
use super::answer::{self, Answer};
use super::listener::{Alive, signed_parts, signed_request};
use super::sessions::Order;
use super::ssm::api_error;
use super::wire::{Heard, Wire};
use crate::error::ApiError;

/// How long a client may take to show its token; real ones do so at once.
const TOKEN_WAIT: Duration = Duration::from_secs(15);
/// What a client is told whose token is not good: never why.
const NOT_ADMITTED: &str = "The token is not valid for this session.";

impl Service {
    /// Answers the upgrade; the token is asked for afterwards.
    ///
    /// A signature that is there must be right; one that is missing is
    /// accepted, as older plugins sign nothing.
    pub(super) fn open_channel(
        self: &Arc<Self>,
        request: &mut Request<Incoming>,
        id: &str,
        alive: Alive,
    ) -> Answer {
        let Some(key) = websocket_key(request.method(), request.headers()) else {
            return answer::bare(StatusCode::BAD_REQUEST);
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let Ok(accept) = accept else { return answer::bare(StatusCode::BAD_REQUEST) };
        let signed = request.headers().contains_key(header::AUTHORIZATION)
            || request.uri().query().is_some_and(|query| query.contains("X-Amz-Signature"));
        if signed && let Err(error) = self.verify_upgrade(request, id) {
            let mut refused = answer::refusal(&error);
            *refused.status_mut() = StatusCode::FORBIDDEN;
            return refused;
        }
        let upgrade = hyper::upgrade::on(request);
        let (service, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            service.admit(upgrade, &id).await;
            drop(alive);
        });
        let mut switching = answer::bare(StatusCode::SWITCHING_PROTOCOLS);
        let headers = switching.headers_mut();
        headers.clear();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        // Exactly this word: plugins refuse a list.
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        switching
    }

    fn verify_upgrade(&self, request: &Request<Incoming>, id: &str) -> Result<(), ApiError> {
        let headers = signed_parts(request.headers());
        let signed = signed_request(request.method().as_str(), request.uri(), &headers, &[]);
        let rules = Rules { query: true, ..Rules::plain("ssmmessages") };
        let caller = self.callers.verify(&signed, &rules, OffsetDateTime::now_utc());
        let caller = caller.map_err(|refusal| api_error(&refusal))?;
        let session = self.arn(&format!("session/{id}"));
        self.permit(&caller, "ssmmessages:OpenDataChannel", &session)
    }

    async fn admit(&self, upgrade: OnUpgrade, id: &str) {
        let Ok(upgraded) = upgrade.await else { return };
        let mut wire = Box::new(Wire::new(upgraded).await);
        let mut shutdown = self.shutdown.clone();
        let opened = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            opened = timeout(TOKEN_WAIT, first_text(&mut wire)) => opened,
        };
        let Ok(Some(opened)) = opened else { return wire.close(CloseCode::Policy, "").await };
        let session = self.sessions.find(id);
        let admitted = session.filter(|s| s.admits(&opened.token_value, &opened.client_id));
        match admitted {
            Some(session) => {
                // A session that ended meanwhile drops the connection.
                session.order(Order::Attach(wire));
            }
            None => {
                wire.send(ChannelClosed::message(id, NOT_ADMITTED, now_ms()));
                wire.close(CloseCode::Normal, "").await;
            }
        }
    }
}

async fn first_text(wire: &mut Wire) -> Option<OpenDataChannel> {
    loop {
        match wire.hear().await {
            Heard::Text(text) => return OpenDataChannel::parse(&text).ok(),
            // A plugin's first ping may overtake its text.
            Heard::Alive | Heard::Room => {}
            Heard::Binary(_) | Heard::Gone => return None,
        }
    }
}

/// The key of a WebSocket upgrade, if the request is one.
fn websocket_key<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let has = |name: header::HeaderName, word: &str| {
        let words = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        words.flat_map(|value| value.split(',')).any(|have| have.trim().eq_ignore_ascii_case(word))
    };
    let asked = method == Method::GET
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asked)
}
