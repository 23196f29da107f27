//! An STS for tests, which verifies signatures as the real one does.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use sigv4::sts_proof::caller_identity_request;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{Challenge, Identity, IdentityConfig, IdentityError, KeyRing, StsProof};

pub(super) const KEY: &str = "ASIAEXAMPLEALICE0001";
pub(super) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(super) const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVz";
pub(super) const SERVER: &str = "https://gw.example.com:8443";
pub(super) const REGION: &str = "eu-west-1";

/// What the stub answers next.
#[derive(Clone)]
pub(super) enum Answer {
    /// Verifies, then names alice or says what is wrong.
    Honest,
    /// Exactly this, whatever was asked.
    Fixed { status: u16, content_type: &'static str, body: String },
}

impl Answer {
    pub(super) fn xml(body: impl Into<String>) -> Self {
        Self::Fixed { status: 200, content_type: "text/xml", body: body.into() }
    }
}

/// What the stub was asked.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A running STS on a port of its own.
pub(super) struct Stub {
    pub(super) url: String,
    pub(super) ca_bundle: PathBuf,
    script: Script,
    task: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn now() -> OffsetDateTime {
    sigv4::parse_amz_date("20261122T101500Z").unwrap()
}

pub(super) fn peer() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

impl Stub {
    pub(super) async fn plain() -> Self {
        Self::start(Path::new("/nonexistent"), None).await
    }

    /// With TLS; its certificate is written into the folder.
    pub(super) async fn tls(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let path = folder.join("sts-ca.pem");
        std::fs::write(&path, made.cert.pem()).unwrap();
        Self::start(&path, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(ca_bundle: &Path, tls: Option<TlsAcceptor>) -> Self {
        let script = Script::default();
        let router = Router::new().fallback(answer).with_state(script.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                match &tls {
                    None => drop(tokio::spawn(serve(socket, router.clone()))),
                    Some(tls) => {
                        let (accepting, router) = (tls.accept(socket), router.clone());
                        tokio::spawn(async move {
                            if let Ok(socket) = accepting.await {
                                serve(socket, router).await;
                            }
                        });
                    }
                }
            }
        });
        Self { url, ca_bundle: ca_bundle.to_owned(), script, task }
    }

    /// Answers in this order, then honestly.
    pub(super) fn will_answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.answers.lock().unwrap().extend(answers);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.script.asked.lock().unwrap().clone()
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

async fn answer(
    State(script): State<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    script.asked.lock().unwrap().push(Asked { headers: headers.clone(), body: body.clone() });
    let next = script.answers.lock().unwrap().pop_front().unwrap_or(Answer::Honest);
    let (status, content_type, body) = match next {
        Answer::Honest => honest(&method, &uri, &headers, &body),
        Answer::Fixed { status, content_type, body } => (status, content_type, body),
    };
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("location", "http://127.0.0.1:1/")
        .header("x-amzn-requestid", "01234567-89ab-cdef-0123-456789abcdef")
        .body(Body::from(body))
        .unwrap()
}

fn honest(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> (u16, &'static str, String) {
    let pairs: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = sigv4::Request {
        method: method.as_str(),
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        headers: &pairs,
        body,
    };
    let checked = sigv4::Presented::read(&request).and_then(|presented| {
        let known = presented.access_key_id == KEY && presented.security_token.as_deref() == Some(TOKEN);
        let secret = if known { SECRET } else { "nobody's" };
        sigv4::verify(&request, &presented, secret, now(), &sigv4::Rules::plain("sts"))
    });
    let host = headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    let asks_for_us = host.as_deref() == Some("sts.eu-west-1.amazonaws.com");
    match checked {
        Ok(()) if asks_for_us && body.starts_with(b"Action=GetCallerIdentity&") => {
            (200, "text/xml", identity_of(ALICE, "AROAEXAMPLEALICE:alice", "111122223333"))
        }
        _ => (403, "text/xml", error_answer("SignatureDoesNotMatch")),
    }
}

pub(super) const ALICE: &str = "arn:aws:sts::111122223333:assumed-role/Admin/alice";

pub(super) fn identity_of(arn: &str, user_id: &str, account: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{arn}</Arn><UserId>{user_id}</UserId><Account>{account}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
}

pub(super) fn error_answer(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>m</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    )
}

/// A gateway's identity in front of a stub.
pub(super) struct Door {
    pub(super) identity: Identity,
    pub(super) stub: Stub,
    pub(super) folder: tempfile::TempDir,
}

impl Door {
    pub(super) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut IdentityConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stub = Stub::plain().await;
        let mut config = IdentityConfig::new(SERVER, vec!["111122223333".to_owned()]);
        config.sts_endpoint_url = Some(stub.url.clone());
        change(&mut config);
        let ring = Arc::new(KeyRing::open(&folder.path().join("keys")).unwrap());
        Self { identity: Identity::new(config, ring).unwrap(), stub, folder }
    }

    pub(super) fn challenge(&self) -> Challenge {
        self.identity.issue_challenge(peer(), now()).unwrap()
    }

    pub(super) async fn prove(&self, proof: &StsProof) -> Result<super::Issued, IdentityError> {
        self.identity.prove(proof, peer(), now()).await
    }

    /// Signs in as alice.
    pub(super) async fn alice(&self) -> super::Issued {
        let challenge = self.challenge();
        self.prove(&proof(&challenge.server, &challenge.challenge, SECRET)).await.unwrap()
    }
}

/// The proof of a client that signs for this server and challenge.
pub(super) fn proof(server: &str, challenge: &str, secret: &str) -> StsProof {
    let amz_date = sigv4::amz_date(now());
    let request = caller_identity_request(REGION, server, challenge, &amz_date, Some(TOKEN)).unwrap();
    StsProof {
        region: REGION.to_owned(),
        access_key_id: KEY.to_owned(),
        signature: request.signature(secret),
        amz_date,
        session_token: Some(TOKEN.to_owned()),
        challenge: challenge.to_owned(),
    }
}
