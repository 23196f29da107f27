//! HTTPS by hand: every byte of a request is the test's own.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use sigv4::{Keys, Scope, sign};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::house::REGION;
use super::within;

/// The way to one gateway's listener.
#[derive(Clone)]
pub struct Door {
    pub address: SocketAddr,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Door {
    /// A TLS connection over which nothing was said yet.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = within("a connection", TcpStream::connect(self.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        within("a TLS handshake", connector.connect(name, stream)).await.unwrap()
    }

    /// Sends bytes and reads the answer to the end of the connection.
    pub async fn exchange(&self, raw: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // An early refusal may close while we still write; the answer counts.
        let _ = stream.write_all(raw).await;
        let _ = stream.flush().await;
        let mut bytes = Vec::new();
        let _ = within("an answer", stream.read_to_end(&mut bytes)).await;
        Answer::parse(&bytes)
    }
}

/// What the gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// 0 when it hung up without a word.
    pub status: u16,
    pub headers: String,
    /// The same with the case that it came in.
    pub raw_headers: String,
    /// Every `Set-Cookie` as it came.
    pub cookies: Vec<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
        let raw_headers = String::from_utf8_lossy(&bytes[..split]).into_owned();
        let cookie = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("set-cookie").then(|| value.to_owned())
        };
        let cookies = raw_headers.lines().filter_map(cookie).collect();
        let headers = raw_headers.to_ascii_lowercase();
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let body = bytes.get(split + 4..).unwrap_or_default();
        let chunked = headers.contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_vec() };
        Self { status, body, headers, raw_headers, cookies }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The AWS error code, empty if there is none.
    pub fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["__type"].as_str().unwrap_or_default().to_owned()
    }

    /// The sentence for the user.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of a call that must have worked.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The sentence of a call that must have failed like this.
    #[track_caller]
    pub fn refused(&self, code: &str) -> String {
        assert_eq!(self.code(), code, "{} {}", self.status, self.text());
        self.message()
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    whole
}

/// One request in the making; everything about it can be spoilt.
#[derive(Clone)]
pub struct Call {
    pub method: &'static str,
    /// Path and query as they go over the wire.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn post(path: &str, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { method: "POST", path: path.to_owned(), headers: Vec::new(), body }
    }

    /// One operation of the SSM API.
    pub fn ssm(operation: &str, body: &Value) -> Self {
        Self::post("/", body)
            .with("content-type", "application/x-amz-json-1.1")
            .with("x-amz-target", &format!("AmazonSSM.{operation}"))
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces a header, or leaves it out.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    pub fn value(&self, name: &str) -> String {
        self.headers.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }

    /// Signs everything that is there.
    pub fn signed(mut self, door: &Door, keys: &Keys<'_>, service: &str, now: OffsetDateTime) -> Self {
        self.headers.push(("host".to_owned(), door.address.to_string()));
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let request =
            sigv4::Request { method: self.method, path, query, headers: &headers, body: &self.body };
        let signed = sign(&request, keys, &Scope { region: REGION, service }, now);
        let added: Vec<_> = signed.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.headers.extend(added);
        self
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self, door: &Door) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            text.push_str(&format!("host: {}\r\n", door.address));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", self.body.len()));
        [text.as_bytes(), &self.body].concat()
    }

    pub async fn send(&self, door: &Door) -> Answer {
        door.exchange(&self.bytes(door)).await
    }
}
