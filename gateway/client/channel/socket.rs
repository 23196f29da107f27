//! One WebSocket to a stream URL, opened and introduced.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use data_channel::OpenDataChannel;
use futures_util::SinkExt;
use reqwest::Url;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::client::channel::CLIENT_VERSION;
use crate::client::error::{shown, with_causes};
use crate::client::gateway::sign_request;
use crate::client::profile::is_loopback;
use crate::client::{ClientError, Gateway, Opened};
use crate::proxy::Proxies;

/// Longest wait for a connection, TLS and upgrade together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for keys to sign the upgrade with; it also works unsigned.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read at once: a message has about one kilobyte.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes that are written at once when much is sent: one flush of messages.
const WRITE_BUFFER: usize = 32 * 1024;
/// Largest message taken, bytes; real ones have 1.2 KB.
const MESSAGE_MAX: usize = 1 << 20;
/// The service that stream URLs belong to, for signatures.
const SERVICE: &str = "ssmmessages";

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An open data channel.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Opens data channels for one session.
pub struct Dialer {
    tls: Arc<rustls::ClientConfig>,
    signer: Option<Arc<Gateway>>,
    client_id: String,
}

impl Dialer {
    /// A dialer with an id of its own, kept over all connections.
    pub fn new(tls: rustls::ClientConfig, signer: Option<Arc<Gateway>>) -> Self {
        Self { tls: Arc::new(tls), signer, client_id: data_channel::Uuid::new_v4().to_string() }
    }

    /// Connects, upgrades and shows the token.
    pub async fn dial(&self, opened: &Opened) -> Result<Socket, ClientError> {
        let url = stream_url(&opened.stream_url)?;
        let request = self.upgrade(&url, &opened.stream_url).await?;
        let place = url.origin().ascii_serialization();
        let failed = |error| refusal(&place, &error);
        let dialled = timeout(DIAL_TIMEOUT, self.connect(&url, request)).await;
        let late = || tungstenite::Error::Io(std::io::ErrorKind::TimedOut.into());
        let mut socket = dialled.unwrap_or_else(|_| Err(late())).map_err(failed)?;
        let open = OpenDataChannel::new(&opened.token, &self.client_id, Some(CLIENT_VERSION));
        let sent = socket.send(Frame::text(open.to_text())).await;
        sent.map_err(failed)?;
        Ok(socket)
    }

    async fn connect(&self, url: &Url, request: http::Request<()>) -> Result<Socket, tungstenite::Error> {
        let host =
            url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let tcp = Proxies::from_env().connect(&host, port).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match url.scheme() {
            "ws" => Box::new(tcp),
            _ => {
                let name = ServerName::try_from(host)
                    .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
                Box::new(TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?)
            }
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        Ok(client_async_with_config(request, stream, Some(config)).await?.0)
    }

    /// The upgrade request, signed when there are keys to sign with.
    ///
    /// Plugins before 1.2.688 send it unsigned, so it need not be; a URL that
    /// is signed itself must not be signed again.
    async fn upgrade(&self, url: &Url, text: &str) -> Result<http::Request<()>, ClientError> {
        let request = text.into_client_request();
        let mut request = request.map_err(|e| ClientError::Answer(shown(&e.to_string())))?;
        let is_presigned = url.query_pairs().any(|(key, _)| key.to_ascii_lowercase().starts_with("x-amz-"));
        let Some(gateway) = self.signer.as_ref().filter(|_| !is_presigned) else { return Ok(request) };
        match timeout(KEYS_TIMEOUT, gateway.credentials()).await {
            Ok(Ok(keys)) => sign_upgrade(&mut request, url, keys, &gateway.profile.region)?,
            _ => tracing::debug!("no keys to sign the data channel with"),
        }
        Ok(request)
    }
}

fn sign_upgrade(
    request: &mut http::Request<()>,
    url: &Url,
    keys: Credentials,
    region: &str,
) -> Result<(), ClientError> {
    // The signature is over https: the scheme is no part of it.
    let mut signed = http::Request::get(url.as_str()).body(Vec::new());
    let signed = signed.as_mut().map_err(|e| ClientError::Answer(shown(&e.to_string())))?;
    sign_request(signed, url, keys, region, SERVICE)?;
    for name in ["authorization", "x-amz-date", "x-amz-security-token"] {
        if let Some(value) = signed.headers().get(name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    Ok(())
}

/// A stream URL is wss, or ws to this machine.
fn stream_url(text: &str) -> Result<Url, ClientError> {
    let wrong = |why: &str| ClientError::Answer(format!("the stream URL {why}"));
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    match url.scheme() {
        "wss" => Ok(url),
        "ws" if is_loopback(&url) => Ok(url),
        "ws" => Err(wrong("is not encrypted")),
        _ => Err(wrong("is not a WebSocket")),
    }
}

fn refusal(place: &str, error: &tungstenite::Error) -> ClientError {
    let url = place.to_owned();
    match error {
        tungstenite::Error::Http(answer) => {
            let why = format!("the data channel was refused with HTTP {}", answer.status());
            ClientError::Unreachable { url, why }
        }
        // Trying again does not help against a certificate.
        tungstenite::Error::Io(io) if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            ClientError::Trust(format!(
                "the data channel to {place} is not trusted: {}; set `ca_bundle` in the profile, or SSL_CERT_FILE",
                with_causes(io)
            ))
        }
        other => ClientError::Unreachable { url, why: with_causes(other) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_crosses_a_network_in_clear() {
        for good in ["wss://gw/v1/data-channel/x?cell-number=a+/=", "ws://127.0.0.1:1/x", "ws://[::1]:1/x"] {
            assert!(stream_url(good).is_ok(), "{good} was refused");
        }
        for bad in ["ws://gw/x", "https://gw/x", "ws://127.0.0.1.example.com/x", ""] {
            assert!(stream_url(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn the_upgrade_is_signed_for_the_message_service() {
        let text = "wss://gw.example.com:8443/v1/data-channel/x?role=publish_subscribe";
        let mut request = text.into_client_request().unwrap();
        let keys = Credentials::new("GWSA1", "secret", Some("token".to_owned()), None, "test");
        sign_upgrade(&mut request, &Url::parse(text).unwrap(), keys, "eu-west-1").unwrap();
        let authorization = request.headers().get("authorization").unwrap().to_str().unwrap();
        assert!(authorization.contains("/eu-west-1/ssmmessages/aws4_request"), "{authorization}");
        assert!(
            authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"),
            "{authorization}"
        );
    }
}
