//! A stand-in with SDK clients, and a small data-channel client.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_ssm::config::{BehaviorVersion, Region};
use aws_smithy_http_client::tls;
use bytes::Bytes;
use data_channel::sequence::{Incoming, Outgoing};
use data_channel::{
    Acknowledge, ChannelClosed, Cipher, Draft, HandshakeRequest, HandshakeResponse, Message, MessageType,
    OpenDataChannel, PayloadType, Size,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use uuid::Uuid;

use crate::local_ssm::{Habits, LocalConfig, LocalIdentity, LocalSsm, LocalTarget, Running};

/// Longest any test waits for one thing; reached only when it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const REGION: &str = "eu-west-1";
pub(super) const ROLE: &str = "arn:aws:iam::111122223333:role/ops/Sessions";
pub(super) const ALICE: &str = "arn:aws:iam::111122223333:user/alice";
pub(super) const WEB: &str = "mi-0123456789abcdef0";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

pub(super) fn config() -> LocalConfig {
    let mut config = LocalConfig::new(([127, 0, 0, 1], 0).into(), "111122223333", REGION);
    config.identities.push(LocalIdentity {
        access_key_id: "AKIDALICE".into(),
        secret_access_key: SECRET.into(),
        session_token: None,
        arn: ALICE.into(),
        user_id: "AIDAALICE".into(),
    });
    config.roles.push(ROLE.into());
    let mut web = LocalTarget::new(WEB, "web-1");
    web.shell = ["/bin/bash", "--noprofile", "--norc"].map(String::from).to_vec();
    web.tags.insert("env".into(), "prod".into());
    web.environment.insert("PS1".into(), "$ ".into());
    config.targets.push(web);
    config.habits = Habits { keep_sent: true, ..Habits::default() };
    config
}

pub(super) async fn start() -> Running {
    LocalSsm::start(config()).await.unwrap()
}

pub(super) fn alice() -> Credentials {
    Credentials::new("AKIDALICE", SECRET, None, None, "test")
}

fn http_client() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(ring).build_https()
}

pub(super) fn ssm(running: &Running, keys: Credentials) -> aws_sdk_ssm::Client {
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(running.url())
        .credentials_provider(keys)
        .http_client(http_client())
        .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
        .build();
    aws_sdk_ssm::Client::from_conf(config)
}

pub(super) fn sts(running: &Running, keys: Credentials) -> aws_sdk_sts::Client {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
        .region(aws_sdk_sts::config::Region::new(REGION))
        .endpoint_url(running.url())
        .credentials_provider(keys)
        .http_client(http_client())
        .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
        .build();
    aws_sdk_sts::Client::from_conf(config)
}

/// Starts a session for alice and connects to it.
pub(super) async fn connect(running: &Running, document: Option<(&str, &str)>) -> Client {
    match document {
        None => connect_with(running, None, &[]).await,
        Some((name, command)) => connect_with(running, Some(name), &[("command", command)]).await,
    }
}

/// Starts a session with any document and parameters.
pub(super) async fn connect_with(
    running: &Running,
    document: Option<&str>,
    parameters: &[(&str, &str)],
) -> Client {
    let mut call = ssm(running, alice()).start_session().target(WEB);
    call = call.set_document_name(document.map(str::to_owned));
    for (name, value) in parameters {
        call = call.parameters(*name, vec![(*value).to_owned()]);
    }
    let opened = call.send().await.unwrap();
    Client::dial(opened.session_id().unwrap(), opened.stream_url().unwrap(), opened.token_value().unwrap())
        .await
}

/// A data-channel client that a test drives.
pub(super) struct Client {
    pub(super) session: String,
    pub(super) client_id: String,
    /// What it says it is in the handshake.
    pub(super) client_version: String,
    socket: WebSocketStream<TcpStream>,
    outgoing: Outgoing,
    incoming: Incoming,
    epoch: Instant,
    output: Vec<u8>,
    /// Payloads in order, with their types.
    pub(super) received: Vec<(PayloadType, Vec<u8>)>,
    pub(super) acknowledges: BTreeSet<i64>,
    /// Numbers to acknowledge only from the second time on.
    pub(super) ignore_once: BTreeSet<i64>,
    /// Whom to ask for the key of an encrypted session, and the key.
    pub(super) keys: Option<aws_sdk_kms::Client>,
    pub(super) cipher: Option<Cipher>,
}

impl Client {
    pub(super) async fn dial(session: &str, url: &str, token: &str) -> Self {
        let client_id = Uuid::new_v4().to_string();
        let socket = open(url, token, &client_id).await;
        Self {
            session: session.to_owned(),
            client_id,
            client_version: "1.2.764.0".to_owned(),
            socket,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            epoch: Instant::now(),
            output: Vec::new(),
            received: Vec::new(),
            acknowledges: BTreeSet::new(),
            ignore_once: BTreeSet::new(),
            keys: None,
            cipher: None,
        }
    }

    /// Resumes the session on a new connection; numbers go on.
    pub(super) async fn resume(&mut self, running: &Running) {
        let resumed = ssm(running, alice()).resume_session().session_id(&self.session).send().await.unwrap();
        let (url, token) = (resumed.stream_url().unwrap(), resumed.token_value().unwrap());
        self.socket = open(url, token, &self.client_id).await;
        self.outgoing.reconnected();
        while let Some(raw) = self.outgoing.due(self.epoch.elapsed()) {
            self.socket.send(tungstenite::Message::Binary(raw)).await.unwrap();
        }
    }

    pub(super) async fn send(&mut self, payload_type: PayloadType, payload: &[u8]) {
        let sealed = self.sealed(payload_type, payload);
        let payload = sealed.as_deref().unwrap_or(payload);
        let draft = Draft {
            message_type: MessageType::InputStreamData,
            created_ms: 1,
            sequence: 0,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type,
            payload,
        };
        let raw = self.outgoing.send(draft, self.epoch.elapsed()).unwrap();
        // A connection that was cut is noticed when reading.
        let _ = self.socket.send(tungstenite::Message::Binary(raw)).await;
    }

    pub(super) async fn send_raw(&mut self, message: tungstenite::Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(super) async fn type_line(&mut self, line: &str) {
        self.send(PayloadType::Output, format!("{line}\r").as_bytes()).await;
    }

    /// Starts a job; the ids of the shell and of the job.
    pub(super) async fn pids_of(&mut self, job: &str) -> Vec<String> {
        // Quotes keep the marks out of the line's echo.
        self.type_line(&format!("{job} echo p''ids=$$,$!,e''nd")).await;
        self.until(",end").await;
        let text = self.text();
        text.rsplit("pids=").next().unwrap().split(',').take(2).map(str::to_owned).collect()
    }

    pub(super) async fn resize(&mut self, cols: u16, rows: u16) {
        self.send(PayloadType::Size, &Size { cols, rows }.encode()).await;
    }

    /// Everything received as terminal output so far.
    pub(super) fn output(&self) -> &[u8] {
        &self.output
    }

    pub(super) fn of_type(&self, wanted: PayloadType) -> Vec<u8> {
        let fitting = self.received.iter().filter(|(kind, _)| *kind == wanted);
        fitting.flat_map(|(_, payload)| payload.clone()).collect()
    }

    /// Reads until the output holds the text.
    pub(super) async fn until(&mut self, text: &str) {
        let mut seen = 0;
        loop {
            let output = self.output.get(seen..).unwrap_or_default();
            if output.windows(text.len()).any(|window| window == text.as_bytes()) {
                return;
            }
            seen = self.output.len().saturating_sub(text.len());
            let next = self.next().await;
            assert!(matches!(next, Next::Data), "{next:?} before {text:?}: {}", self.state());
        }
    }

    /// Reads until the session is closed; what the user is told.
    pub(super) async fn closed(&mut self) -> String {
        loop {
            match self.next().await {
                Next::Closed(output) => {
                    self.gone().await;
                    // Answers the close.
                    let _ = self.socket.next().await;
                    return output;
                }
                Next::Data | Next::Pong => {}
                Next::Gone => panic!("gone before it was closed: {}", self.state()),
            }
        }
    }

    /// Reads until the connection is gone.
    pub(super) async fn gone(&mut self) {
        while !matches!(self.next().await, Next::Gone) {}
    }

    /// Reads until a payload of this type has come.
    pub(super) async fn until_type(&mut self, wanted: PayloadType) {
        while !self.received.iter().any(|(kind, _)| *kind == wanted) {
            let next = self.next().await;
            assert!(matches!(next, Next::Data), "{next:?} before {wanted:?}: {}", self.state());
        }
    }

    /// Waits until the agent has read all that was sent so far.
    pub(super) async fn barrier(&mut self) {
        // The first pong may overtake acknowledges, the second cannot.
        for _ in 0..2 {
            self.send_raw(tungstenite::Message::Ping(Bytes::new())).await;
            while !matches!(self.next().await, Next::Pong) {}
        }
    }

    /// How many messages sent are not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.outgoing.waiting()
    }

    /// Sends again what is due.
    pub(super) async fn send_due(&mut self) {
        while let Some(raw) = self.outgoing.due(self.epoch.elapsed()) {
            let _ = self.socket.send(tungstenite::Message::Binary(raw)).await;
        }
    }

    /// Reads until every message sent is acknowledged.
    pub(super) async fn acknowledged(&mut self) {
        while self.outgoing.waiting() > 0 {
            assert!(matches!(self.next().await, Next::Data));
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The last of the output and what is not acknowledged, for a failure.
    fn state(&self) -> String {
        let tail = self.output.get(self.output.len().saturating_sub(200)..).unwrap_or_default();
        let (waiting, next) = (self.outgoing.waiting(), self.outgoing.next_sequence());
        format!("{waiting} of {next} sent wait; {:?}", String::from_utf8_lossy(tail))
    }

    pub(super) async fn next(&mut self) -> Next {
        let heard = timeout(PATIENCE, self.heard()).await;
        let Ok(heard) = heard else { panic!("nothing comes; {}", self.state()) };
        let raw = match heard {
            Some(Ok(tungstenite::Message::Binary(raw))) => raw,
            Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => return Next::Gone,
            Some(Ok(tungstenite::Message::Pong(_))) => return Next::Pong,
            Some(Ok(_)) => return Next::Data,
        };
        let message = Message::parse(raw).unwrap();
        assert!(message.digest_matches());
        match message.message_type() {
            MessageType::Acknowledge => {
                let sequence = Acknowledge::parse(message.payload()).unwrap().sequence;
                self.acknowledges.insert(sequence);
                self.outgoing.acknowledged(sequence, self.epoch.elapsed());
            }
            MessageType::ChannelClosed => {
                return Next::Closed(ChannelClosed::parse(message.payload()).unwrap().output);
            }
            MessageType::OutputStreamData => self.take(message).await,
            other => panic!("an agent's client never gets {other:?}"),
        }
        Next::Data
    }

    /// What comes next; meanwhile what is due is sent again.
    async fn heard(&mut self) -> Option<Result<tungstenite::Message, tungstenite::Error>> {
        loop {
            let rto = self.outgoing.rto();
            if let Ok(heard) = timeout(rto, self.socket.next()).await {
                return heard;
            }
            self.send_due().await;
        }
    }

    async fn take(&mut self, message: Message) {
        if self.ignore_once.remove(&message.sequence()) {
            return;
        }
        let acknowledge = Acknowledge::of(&message).encode(1);
        let mut delivered = Vec::new();
        let arrival = self.incoming.receive(message, &mut delivered);
        if arrival.wants_acknowledge() {
            let _ = self.socket.send(tungstenite::Message::Binary(acknowledge)).await;
        }
        for message in delivered {
            let Some(message) = self.opened(message).await else { continue };
            if message.payload_type() == PayloadType::HandshakeRequest {
                let request = HandshakeRequest::parse(message.payload()).unwrap();
                let answer = HandshakeResponse::answering(&request, &self.client_version);
                self.send(PayloadType::HandshakeResponse, &answer.encode()).await;
            }
            if message.payload_type() == PayloadType::Output {
                self.output.extend_from_slice(message.payload());
            }
            self.received.push((message.payload_type(), message.payload().to_vec()));
        }
    }
}

#[derive(Debug)]
pub(super) enum Next {
    Data,
    Pong,
    Closed(String),
    Gone,
}

/// Dials a stream URL and shows the token.
pub(super) async fn open(url: &str, token: &str, client_id: &str) -> WebSocketStream<TcpStream> {
    let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap().to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let text = OpenDataChannel::new(token, client_id, Some("1.2.764.0")).to_text();
    socket.send(tungstenite::Message::text(text)).await.unwrap();
    socket
}

/// Whether a process is there; one that is dead and not yet reaped is not.
pub(super) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A certificate for 127.0.0.1 and the server that shows it.
pub(super) fn tls_server() -> (Arc<rustls::ServerConfig>, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(server), made.cert.pem().into_bytes())
}

/// An SSM client that trusts one certificate.
pub(super) fn ssm_trusting(running: &Running, pem: &[u8]) -> aws_sdk_ssm::Client {
    let store = tls::TrustStore::empty().with_pem_certificate(pem.to_vec());
    let context = tls::TlsContext::builder().with_trust_store(store).build().unwrap();
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(ring).tls_context(context).build_https();
    let config = ssm(running, alice()).config().to_builder().http_client(http).build();
    aws_sdk_ssm::Client::from_conf(config)
}

/// Dials a stream URL over TLS and shows the token.
pub(super) async fn open_tls(
    url: &str,
    token: &str,
    pem: &[u8],
) -> WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = url.strip_prefix("wss://").unwrap().split('/').next().unwrap().to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let text = OpenDataChannel::new(token, "client", Some("1.2.764.0")).to_text();
    socket.send(tungstenite::Message::text(text)).await.unwrap();
    socket
}
