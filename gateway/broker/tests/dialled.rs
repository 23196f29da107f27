//! Dials against a real WebSocket server, plain and behind TLS.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Uri};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::super::{Broker, BrokerConfig, BrokerError, ClientIds, Upstream, UpstreamStream};
use super::fake_aws::{FakeAws, verified};
use super::{alice, broker, own_id, shell_on};
use crate::proxy::Proxies;

const PATH: &str = "/v1/data-channel/alice@example.com-0abc?role=publish_subscribe&cell-number=AB/C%2Bd==";

struct Seen {
    uri: Uri,
    headers: HeaderMap,
    opening: serde_json::Value,
}

/// Accepts one data channel, tells what it saw, sends one message.
async fn channel<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Seen {
    let mut seen = None;
    #[allow(clippy::result_large_err)]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        seen = Some((request.uri().clone(), request.headers().clone()));
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, look).await.unwrap();
    let opening = socket.next().await.unwrap().unwrap();
    let opening = serde_json::from_str(opening.to_text().unwrap()).unwrap();
    socket.send(Message::binary(vec![7u8; 1200])).await.unwrap();
    let (uri, headers) = seen.unwrap();
    Seen { uri, headers, opening }
}

async fn started(aws: &FakeAws, broker: &Broker, stream_url: String) -> Upstream {
    let upstream = broker.start(&alice(), &shell_on("i-0123456789abcdef0"), &own_id(), None).await.unwrap();
    assert!(aws.key(upstream.keys.access_key_id()).is_some());
    Upstream { stream_url, ..upstream }
}

fn client() -> ClientIds {
    ClientIds { client_id: "0b9f1c2e-0000-4000-8000-000000000000".into(), client_version: "1.2.707.0".into() }
}

#[tokio::test]
async fn a_dial_is_signed_and_opens_with_the_token() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { channel(listener.accept().await.unwrap().0).await });
    let upstream = started(&aws, &broker, format!("ws://localhost:{port}{PATH}")).await;
    let mut socket = broker.dial(&upstream, &client()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data().len(), 1200);
    assert!(matches!(socket.get_ref(), UpstreamStream::Plain(_)));
    assert!(socket.get_ref().tcp().nodelay().unwrap());

    let seen = server.await.unwrap();
    assert_eq!(seen.uri, PATH, "the stream URL is used byte for byte");
    assert_eq!(seen.headers["host"], format!("localhost:{port}"));
    let key = verified(&aws, "ssmmessages", &seen.uri, &seen.headers, None);
    assert_eq!(key.name, "alice@example.com");
    let opening = &seen.opening;
    assert_eq!(opening["MessageSchemaVersion"], "1.0");
    assert_eq!(opening["TokenValue"], "first token");
    assert_eq!(opening["ClientId"], client().client_id);
    assert_eq!(opening["ClientVersion"], "1.2.707.0");
    assert_eq!(opening["RequestId"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn odd_characters_of_a_stream_url_stay_as_they_are() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { channel(listener.accept().await.unwrap().0).await });
    let path = "/v1//data-channel/./a,b+c@d?role=publish_subscribe&cell-number=A+B/C==&x=%7e%2f";
    let upstream = started(&aws, &broker, format!("ws://127.0.0.1:{port}{path}")).await;
    broker.dial(&upstream, &client()).await.unwrap();
    assert_eq!(server.await.unwrap().uri, path);
}

#[tokio::test]
async fn a_raw_plus_that_is_refused_as_a_space_is_signed_as_a_plus() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        answer_with(&listener, "403 Forbidden").await;
        channel(listener.accept().await.unwrap().0).await
    });
    let path = "/v1/data-channel/x?role=publish_subscribe&cell-number=A+B/C==";
    let upstream = started(&aws, &broker, format!("ws://127.0.0.1:{port}{path}")).await;
    broker.dial(&upstream, &client()).await.unwrap();
    let seen = server.await.unwrap();
    assert_eq!(seen.uri, path);
    verified(&aws, "ssmmessages", &seen.uri, &seen.headers, None);
}

/// Answers one upgrade without upgrading.
async fn answer_with(listener: &TcpListener, status: &str) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    let _ = stream.read(&mut [0; 4096]).await;
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// A CA, and a server for two names that it vouches for.
fn authority() -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned(), "ssmmessages.test".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&server_key, &issuer).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn broker_that_trusts(ca: &str, aws: &FakeAws) -> Broker {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, ca).unwrap();
    broker(BrokerConfig { ca_bundle: Some(bundle), ..aws.config() }).await
}

/// A proxy that leads one CONNECT to a port of this machine; what it heard.
async fn tunnel(to: u16) -> (Proxies, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async move {
        let mut near = listener.accept().await.unwrap().0;
        let mut heard = vec![0; 1024];
        let read = near.read(&mut heard).await.unwrap();
        near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        String::from_utf8_lossy(&heard[..read]).into_owned()
    };
    let heard = tokio::spawn(serve);
    (Proxies::read(|name| (name == "HTTPS_PROXY").then(|| url.clone())), heard)
}

#[tokio::test]
async fn a_dial_goes_through_the_proxy_of_the_environment() {
    let (ca, acceptor) = authority();
    let (port, server) = tls_server(acceptor).await;
    let aws = FakeAws::start().await;
    let mut broker = broker_that_trusts(&ca, &aws).await;
    let (proxies, heard) = tunnel(port).await;
    broker.proxies = proxies;
    let upstream = started(&aws, &broker, format!("wss://ssmmessages.test{PATH}")).await;
    let mut socket = broker.dial(&upstream, &client()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data().len(), 1200);
    assert_eq!(server.await.unwrap().unwrap().headers["host"], "ssmmessages.test");
    assert!(heard.await.unwrap().starts_with("CONNECT ssmmessages.test:443 HTTP/1.1\r\n"));
}

async fn tls_server(acceptor: TlsAcceptor) -> (u16, JoinHandle<Option<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        let stream = acceptor.accept(listener.accept().await.unwrap().0).await.ok()?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Some(channel(stream).await)
    };
    (port, tokio::spawn(serve))
}

#[tokio::test]
async fn a_data_channel_behind_tls_is_trusted_by_the_bundle() {
    let (ca, acceptor) = authority();
    let (port, server) = tls_server(acceptor).await;
    let aws = FakeAws::start().await;
    let broker = broker_that_trusts(&ca, &aws).await;
    let upstream = started(&aws, &broker, format!("wss://localhost:{port}{PATH}")).await;
    let mut socket = broker.dial(&upstream, &client()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data().len(), 1200);
    let seen = server.await.unwrap().unwrap();
    verified(&aws, "ssmmessages", &seen.uri, &seen.headers, None);
}

#[tokio::test]
async fn an_unknown_authority_gets_no_token() {
    let (_, acceptor) = authority();
    let (port, server) = tls_server(acceptor).await;
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let upstream = started(&aws, &broker, format!("wss://localhost:{port}{PATH}")).await;
    let error = broker.dial(&upstream, &client()).await.unwrap_err();
    assert!(matches!(error, BrokerError::Unreachable { .. }), "{error}");
    assert!(server.await.unwrap().is_none());
}

#[tokio::test]
async fn an_upgrade_that_is_refused_or_redirected_is_an_error() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    for (line, is_expected) in [
        (
            "403 Forbidden",
            (|error| matches!(error, BrokerError::AccessDenied { .. })) as fn(&BrokerError) -> bool,
        ),
        (
            "302 Found\r\nlocation: wss://elsewhere.example/",
            |error| matches!(error, BrokerError::Refused { code, .. } if code == "302"),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { answer_with(&listener, line).await });
        let upstream = started(&aws, &broker, format!("ws://127.0.0.1:{port}/x")).await;
        let error = broker.dial(&upstream, &client()).await.unwrap_err();
        assert!(is_expected(&error), "{error}");
    }
}

#[tokio::test]
async fn a_stream_url_without_tls_off_this_machine_is_not_dialled() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let upstream = started(&aws, &broker, "ws://192.0.2.1/x".into()).await;
    let error = broker.dial(&upstream, &client()).await.unwrap_err();
    assert!(matches!(error, BrokerError::Malformed { what: "StreamUrl", .. }), "{error}");
}
