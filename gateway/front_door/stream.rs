//! The stream URL: upgrade, opening message, and into the session.
//!
//! A stock client hangs for ever on an HTTP error here, so a request that
//! is a WebSocket upgrade is always accepted, and refused afterwards with a
//! `channel_closed` message whose text the client prints.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_channel::control::{ChannelClosed, OpenDataChannel};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::call::signer;
use super::hasty::Hasty;
use super::{Front, Peer};
use crate::lifecycle::{ClientSocket, ClientStream, Seat};
use crate::session::{Principal, SessionId, now_ms, printable};
use crate::socket::websocket_config;

/// Time for the upgrade and the opening message.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// Largest opening message, bytes; a real one has under 1 KB.
const OPEN_MAX: usize = 4096;
/// Time for a refused client to read why.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// The service that a signed upgrade is signed for.
const SERVICE: &str = "ssmmessages";

/// Answers the upgrade; the rest happens on the upgraded connection.
pub(super) async fn upgrade(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    Path(session): Path<String>,
    request: Request,
) -> Response {
    let (mut parts, _) = request.into_parts();
    let Some(accept) = accept_key(&parts) else {
        return (
            StatusCode::UPGRADE_REQUIRED,
            "this is the stream URL of a session; it speaks WebSocket 13\n",
        )
            .into_response();
    };
    // Browsers name the page that dials; other programs name none.
    if parts.headers.get(header::ORIGIN).is_some_and(|origin| origin != front.origin.as_str()) {
        return (StatusCode::FORBIDDEN, "this stream is for pages of this gateway only\n").into_response();
    }
    let Some(on_upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    // Signed by newer plugins only, so it cannot be required; but a signature that is there must be good.
    let signed =
        parts.headers.contains_key(header::AUTHORIZATION).then(|| signer(&front, &parts, b"", SERVICE));
    let signer = match signed {
        None => Ok(None),
        Some(Ok(caller)) => Ok(Some(caller.principal)),
        Some(Err(error)) => Err(error.message),
    };
    let opening = Opening { front, session, signer };
    tokio::spawn(async move {
        if tokio::time::timeout(OPEN_WITHIN + REFUSED_WITHIN, opening.run(on_upgrade)).await.is_err() {
            tracing::debug!(peer = %peer.0, "a stream was not opened in time");
        }
    });
    let headers = [
        // Exactly this word: gorilla/websocket takes no list here.
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The answer to `Sec-WebSocket-Key`, if this is an upgrade to version 13.
fn accept_key(parts: &axum::http::request::Parts) -> Option<HeaderValue> {
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let has = |value: &str, word: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
    let upgrade = parts.method == Method::GET
        && has(text(header::CONNECTION)?, "upgrade")
        && has(text(header::UPGRADE)?, "websocket")
        && text(header::SEC_WEBSOCKET_VERSION)? == "13";
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY)?;
    upgrade.then(|| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())?
}

/// A stream between its upgrade and its session.
struct Opening {
    front: Arc<Front>,
    session: String,
    signer: Result<Option<Principal>, String>,
}

impl Opening {
    async fn run(self, on_upgrade: OnUpgrade) {
        let Some(mut socket) = websocket(on_upgrade).await else { return };
        let opened = match tokio::time::timeout(OPEN_WITHIN, opening_message(&mut socket)).await {
            Ok(Some(opened)) => opened,
            Ok(None) | Err(_) => {
                return refuse(socket, &self.session, "the opening message is missing or not valid").await;
            }
        };
        match self.seat(&opened).await {
            Ok(seat) => {
                let back = seat.take(socket).await;
                // A session that is left goes on elsewhere: hanging up makes the client look there.
                if let Some(socket) = back.filter(|_| !self.front.lifecycle.is_leaving()) {
                    refuse(socket, &self.session, "the session has ended").await;
                }
            }
            Err(_) if self.front.lifecycle.is_leaving() => {}
            Err(sentence) => refuse(socket, &self.session, &sentence).await,
        }
    }

    async fn seat(&self, opened: &OpenDataChannel) -> Result<Seat, String> {
        let Ok(id) = SessionId::parse(&self.session) else {
            return Err("there is no such session".to_owned());
        };
        let signer = self.signer.as_ref().map_err(Clone::clone)?;
        let seat = self.front.lifecycle.attach(&id, &opened.token_value, &opened.client_id).await?;
        if signer.as_ref().is_some_and(|signer| signer.id != seat.principal().id) {
            return Err("the connection is signed by somebody else than the session's owner".to_owned());
        }
        Ok(seat)
    }
}

/// Takes the TLS stream back from the HTTP library, which is done with it.
async fn websocket(on_upgrade: OnUpgrade) -> Option<ClientSocket> {
    let upgraded: Upgraded = on_upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Hasty<ClientStream>>>().ok()?;
    let (stream, read) = (parts.io.into_inner().into_inner(), parts.read_buf.to_vec());
    Some(WebSocketStream::from_partially_read(stream, read, Role::Server, Some(websocket_config())).await)
}

/// The first text message; pings may come before it.
async fn opening_message(socket: &mut ClientSocket) -> Option<OpenDataChannel> {
    while let Some(Ok(frame)) = socket.next().await {
        match frame {
            Frame::Text(text) if text.len() <= OPEN_MAX => return OpenDataChannel::parse(&text).ok(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            _ => return None,
        }
    }
    None
}

/// Says why in the only way that clients show, and waits for the hang-up.
async fn refuse(mut socket: ClientSocket, session: &str, sentence: &str) {
    let message = ChannelClosed::message(&printable(session), sentence, now_ms());
    let said = async {
        socket.send(Frame::Binary(message)).await.ok()?;
        while let Some(Ok(_)) = socket.next().await {}
        Some(())
    };
    let _ = tokio::time::timeout(REFUSED_WITHIN, said).await;
}
