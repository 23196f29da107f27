//! The one listener: connections in, requests to SSM, STS or a channel.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Service;
use super::answer::{self, Answer};
use crate::error::{ApiError, Code};

/// Most connections at a time: 200 sessions and the calls around them.
const CONNECTIONS_MAX: usize = 1_024;
/// Longest request body, bytes; the longest real ones hold a command.
const BODY_MAX: usize = 128 << 10;
/// Longest request head, bytes, as at AWS.
const HEAD_MAX: usize = 16 << 10;
/// How long a TLS handshake or a request's body may take.
const SLOW: Duration = Duration::from_secs(10);
/// How long a connection may wait for its next request: clients keep idle
/// ones for reuse and should be the first to give up.
const IDLE: Duration = Duration::from_secs(120);
/// Pause after a failed accept: out of file descriptors, usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A guard that a task holds while it lives.
pub(super) type Alive = mpsc::Sender<()>;

/// Accepts connections until the stand-in stops.
pub(super) async fn run(
    service: Arc<Service>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    alive: Alive,
) {
    let tls = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut shutdown = service.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (service, tls, alive) = (Arc::clone(&service), tls.clone(), alive.clone());
        let mut shutdown = shutdown.clone();
        tokio::spawn(async move {
            let served = connection(service, stream, tls, alive);
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                () = served => {}
            }
            drop(permit);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, permit))
}

async fn connection(service: Arc<Service>, stream: TcpStream, tls: Option<TlsAcceptor>, alive: Alive) {
    // Keystrokes are small and must not wait for company.
    let _ = stream.set_nodelay(true);
    match tls {
        None => requests(service, stream, alive).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(SLOW, tls.accept(stream)).await {
                requests(service, stream, alive).await;
            }
        }
    }
}

async fn requests<S>(service: Arc<Service>, stream: S, alive: Alive)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request| {
        let (service, alive) = (Arc::clone(&service), alive.clone());
        async move { Ok::<_, Infallible>(route(service, request, alive).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEAD_MAX);
    // A client that breaks off is no news.
    let _ = server.serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
}

async fn route(service: Arc<Service>, mut request: Request<Incoming>, alive: Alive) -> Answer {
    let path = request.uri().path();
    if let Some(id) = path.strip_prefix("/v1/data-channel/").map(str::to_owned) {
        return service.open_channel(&mut request, &id, alive);
    }
    if request.method() == Method::GET
        && let Some(published) = service.federation.published(path)
    {
        return published;
    }
    if request.method() != Method::POST || path != "/" {
        return answer::bare(StatusCode::NOT_FOUND);
    }
    let (head, body) = request.into_parts();
    let Some(body) = whole(body).await else { return answer::bare(StatusCode::PAYLOAD_TOO_LARGE) };
    let now = OffsetDateTime::now_utc();
    let headers = signed_parts(&head.headers);
    let request = signed_request(head.method.as_str(), &head.uri, &headers, &body);
    match head.headers.get("x-amz-target").map(|target| target.to_str().unwrap_or_default()) {
        Some(target) => match target.split_once('.') {
            Some(("AmazonSSM", operation)) => service.ssm(operation, &request, now, &alive),
            Some(("TrentService", operation)) => service.kms(operation, &request, now),
            Some(("ResourceGroupsTaggingAPI_20170126", operation)) => {
                service.tagging(operation, &request, now)
            }
            _ => answer::refusal(&ApiError::client(Code::UnknownOperation, "no such operation")),
        },
        None => service.sts(&request, now),
    }
}

async fn whole(body: Incoming) -> Option<Bytes> {
    let collected = timeout(SLOW, Limited::new(body, BODY_MAX).collect()).await.ok()?;
    Some(collected.ok()?.to_bytes())
}

/// The headers as a signature sees them.
pub(super) fn signed_parts(headers: &http::HeaderMap) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// The request as a signature sees it.
pub(super) fn signed_request<'a>(
    method: &'a str,
    uri: &'a Uri,
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
) -> sigv4::Request<'a> {
    sigv4::Request { method, path: uri.path(), query: uri.query().unwrap_or_default(), headers, body }
}
