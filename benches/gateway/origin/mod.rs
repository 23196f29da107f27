//! The far side: a minimal SSM and STS, and scripted agents, over TLS.
//!
//! It runs in a process of its own so that its CPU is not the proxies'.

mod agent;
mod aws;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use self::agent::Agents;
use crate::corpus::Corpus;
use crate::trust::Trust;

/// An agent's side of a data channel.
type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What all connections share.
struct Origin {
    port: u16,
    agents: Agents,
}

/// Serves until its standard input ends, which it does with the parent.
pub fn main(folder: &Path, port: u16, corpus: Corpus) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(&Trust::at(folder), port, corpus))
}

async fn serve(trust: &Trust, port: u16, corpus: Corpus) -> anyhow::Result<()> {
    // Before anybody may connect.
    let agents = Agents::new(corpus)?;
    let acceptor = TlsAcceptor::from(trust.server()?);
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let listener: TcpListener = socket.listen(1024)?;
    let origin = Arc::new(Origin { port, agents });
    let router = Router::new().fallback(answer).with_state(origin);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(acceptor.clone(), stream, router.clone()));
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, router: Router) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let stream = acceptor.accept(stream).await.ok()?;
    let service = TowerToHyperService::new(router);
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await.ok()
}

async fn answer(State(origin): State<Arc<Origin>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Some(key) = parts.headers.get(header::SEC_WEBSOCKET_KEY) {
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let (Ok(accept), Some(upgrade)) = (accept, parts.extensions.remove::<OnUpgrade>()) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        tokio::spawn(async move {
            if let Some(socket) = upgraded(upgrade).await {
                origin.agents.play(socket).await;
            }
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
        ];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    let Ok(body) = axum::body::to_bytes(body, 64 * 1024).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    aws::answer(origin.port, &parts.headers, &body)
}

async fn upgraded(upgrade: OnUpgrade) -> Option<Socket> {
    let upgraded: Upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
    let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    // As the real agent: each message is written by itself, in a TLS record of its own.
    let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(0);
    Some(WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await)
}
