//! The public listener: TLS, limits, one HTTP/1.1 connection a task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::Peer;
use super::hasty::Hasty;
use super::sources::{Counted, Sources};
use crate::lifecycle::ClientStream;
use crate::metrics::Metrics;
use crate::socket::Socket;

/// Connections at the most; a session holds one, file descriptors three.
const CONNECTIONS_MAX: usize = 20_000;
/// Time for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's headers, also between two requests.
const HEADERS: Duration = Duration::from_secs(30);
/// How long a peer may take nothing of an answer.
const WRITES: Duration = Duration::from_secs(30);
/// Read buffer of one HTTP connection, bytes; bounds the headers.
const HTTP_BUFFER: usize = 32 * 1024;
/// Waiting connections that the kernel keeps for us.
const BACKLOG: u32 = 1024;

/// Why TLS cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no certificate or key.
    #[error("cannot use {path}: {why}")]
    File {
        /// The file's path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not fit.
    #[error("the certificate and the key do not fit: {0}")]
    Pair(#[from] rustls::Error),
}

/// Where the certificate chain and its key lie, PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The chain, leaf first.
    pub certificate: std::path::PathBuf,
    /// The key of the leaf.
    pub key: std::path::PathBuf,
}

impl Tls {
    /// TLS 1.2 and 1.3, HTTP/1.1 only: all SSM clients speak it.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let file =
            |path: &std::path::Path, why: String| TlsError::File { path: path.display().to_string(), why };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| file(&self.certificate, e.to_string()))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| file(&self.key, e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The bound public listener.
pub struct Listener {
    socket: TcpListener,
    acceptor: TlsAcceptor,
    permits: Arc<Semaphore>,
    sources: Sources,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Binds; port 0 takes a free one.
    ///
    /// `per_source` is how many connections one address may have, 0 for any.
    pub fn bind(
        (address, per_source): (SocketAddr, usize),
        tls: Arc<rustls::ServerConfig>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Ok(Self {
            socket,
            acceptor: TlsAcceptor::from(tls),
            permits,
            sources: Sources::new(per_source),
            metrics,
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` says so; running upgrades go on.
    pub async fn serve(mut self, router: Router, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = async {
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                (permit, self.socket.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Ok(permit) = permit else { return };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(counted) = self.sources.count(peer.ip()) else { continue };
                    let connection = Connection {
                        acceptor: self.acceptor.clone(),
                        router: router.clone(),
                        peer,
                        stop: stop.clone(),
                        open: Open::new((permit, counted), &self.metrics),
                    };
                    tokio::spawn(connection.serve(stream));
                }
                // Out of file descriptors: a pause lets some close; a loop would only burn the CPU.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// A connection's place among the open ones.
struct Open {
    _places: (OwnedSemaphorePermit, Counted),
    gauge: prometheus::IntGauge,
}

impl Open {
    fn new(places: (OwnedSemaphorePermit, Counted), metrics: &Metrics) -> Self {
        let gauge = metrics.connections.clone();
        gauge.inc();
        Self { _places: places, gauge }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
    open: Open,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream) {
        let Ok(stream) = Socket::new(stream) else { return };
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await else {
            return;
        };
        // An upgraded connection outlives this task, and goes on counting.
        let stream = Hasty::new(ClientStream::new(stream, self.open), WRITES);
        let router = self.router.layer(axum::Extension(Peer(self.peer)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .max_buf_size(HTTP_BUFFER)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
            .with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = self.stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        // A request under way may finish; what is idle ends at once.
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_without_a_place_for_anybody_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let tls = Tls { certificate: folder.path().join("tls.pem"), key: folder.path().join("tls.key") };
        std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
        std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let at = (SocketAddr::from(([127, 0, 0, 1], 0)), 0);
        let listener = Listener::bind(at, tls.server_config().unwrap(), metrics).unwrap();
        let listener = Listener { permits: Arc::new(Semaphore::new(0)), ..listener };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(Router::new(), stopped));
        stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(30), serving).await.expect("it goes on").unwrap();
    }
}
