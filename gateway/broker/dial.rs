//! The dial of a data channel: TCP, TLS, signed upgrade, opening text.

use std::net::IpAddr;
use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use data_channel::OpenDataChannel;
use futures_util::SinkExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use rustls_pki_types::ServerName;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::error::clean;
use super::{Broker, BrokerError, Keys, Operation, Upstream, UpstreamStream};
use crate::socket::{Socket, websocket_config};

/// The service name in the signature of a dial.
const SERVICE: &str = "ssmmessages";
/// An open data channel.
pub type UpstreamSocket = WebSocketStream<UpstreamStream>;

/// Who the gateway says it is when it opens a data channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIds {
    /// A UUID, kept over the dials of one session.
    pub client_id: String,
    /// The client's version, four numbers, 1.2.332.0 or later.
    pub client_version: String,
}

impl Broker {
    /// Opens the data channel within 10 s; redirects are not followed.
    ///
    /// No answer follows the opening text: a wrong token shows as a close.
    pub async fn dial(&self, upstream: &Upstream, client: &ClientIds) -> Result<UpstreamSocket, BrokerError> {
        self.dials.run(Operation::Dial, self.dial_once(upstream, client)).await
    }

    async fn dial_once(
        &self,
        upstream: &Upstream,
        client: &ClientIds,
    ) -> Result<UpstreamSocket, BrokerError> {
        let address = Address::parse(&upstream.stream_url)?;
        let mut socket = match self.open(&address, &upstream.keys, Plus::Space).await {
            Err(BrokerError::AccessDenied { .. }) if address.has_raw_plus() => {
                self.open(&address, &upstream.keys, Plus::Itself).await?
            }
            opened => opened?,
        };
        let version = Some(client.client_version.as_str()).filter(|version| !version.is_empty());
        let open = OpenDataChannel::new(upstream.token.expose(), &client.client_id, version);
        socket.send(Message::text(open.to_text())).await.map_err(upgrade_error)?;
        Ok(socket)
    }

    async fn open(&self, address: &Address, keys: &Keys, plus: Plus) -> Result<UpstreamSocket, BrokerError> {
        let signature = signature(address, keys, &self.place.region, plus)?;
        let request = upgrade(address, signature)?;
        let stream = self.connect(address).await?;
        let opened = client_async_with_config(request, stream, Some(websocket_config())).await;
        opened.map(|(socket, _)| socket).map_err(upgrade_error)
    }

    async fn connect(&self, address: &Address) -> Result<UpstreamStream, BrokerError> {
        let tcp = self.proxies.connect(address.host(), address.port).await.map_err(unreachable)?;
        let tcp = Socket::new(tcp).map_err(unreachable)?;
        if !address.tls {
            // The name said loopback; what it led to has to be, too.
            let peer = tcp.tcp().peer_addr().map_err(unreachable)?;
            return if peer.ip().is_loopback() { Ok(UpstreamStream::Plain(tcp)) } else { Err(BAD_URL) };
        }
        let name = ServerName::try_from(address.host().to_owned()).map_err(|_| BAD_URL)?;
        let stream = self.tls.connect(name, tcp).await.map_err(unreachable)?;
        Ok(UpstreamStream::Tls(Box::new(stream)))
    }
}

const BAD_URL: BrokerError = BrokerError::Malformed { operation: Operation::Dial, what: "StreamUrl" };

/// Whether a host in a URL is this machine, by its name or number.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An IPv6 host without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A stream URL that may be dialled.
#[derive(Debug)]
struct Address {
    uri: Uri,
    port: u16,
    tls: bool,
}

impl Address {
    /// Takes `wss://`, and `ws://` to this machine.
    fn parse(url: &str) -> Result<Self, BrokerError> {
        let uri: Uri = url.parse().map_err(|_| BAD_URL)?;
        let authority = uri.authority().ok_or(BAD_URL)?;
        let tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") if is_loopback(authority.host()) => false,
            _ => return Err(BAD_URL),
        };
        if authority.as_str().contains('@') {
            return Err(BAD_URL);
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { port, tls, uri })
    }

    fn host(&self) -> &str {
        bare(self.uri.host().unwrap_or(""))
    }

    fn has_raw_plus(&self) -> bool {
        self.uri.query().is_some_and(|query| query.contains('+'))
    }

    /// The URL with which the signer comes to the wanted reading.
    fn signed_url(&self, plus: Plus) -> String {
        let url = self.uri.to_string();
        match (plus, url.split_once('?')) {
            (Plus::Itself, Some((path, query))) => format!("{path}?{}", query.replace('+', "%2B")),
            _ => url,
        }
    }

    fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

/// The upgrade request; its URL is the one that AWS gave.
fn upgrade(address: &Address, signature: HeaderMap) -> Result<Request<()>, BrokerError> {
    let host = HeaderValue::from_str(address.authority()).map_err(|_| BAD_URL)?;
    let key = HeaderValue::from_str(&generate_key()).map_err(|_| BAD_URL)?;
    let mut request = Request::new(());
    *request.uri_mut() = address.uri.clone();
    let headers = request.headers_mut();
    headers.insert("host", host);
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    headers.insert("sec-websocket-key", key);
    headers.extend(signature);
    Ok(request)
}

/// What a raw `+` in the query means to the one who verifies.
///
/// AWS's plugin and SDKs sign it as a space, AWS's text says nothing, some
/// verifiers take it for itself. A cell number in base64 often holds one, so
/// a dial that is refused as a space is tried once more as a plus.
#[derive(Debug, Clone, Copy)]
enum Plus {
    Space,
    Itself,
}

/// The signature over host, date and security token.
fn signature(address: &Address, keys: &Keys, region: &str, plus: Plus) -> Result<HeaderMap, BrokerError> {
    let unsigned = |_| BrokerError::Credentials("the dial cannot be signed".to_owned());
    let identity = keys.0.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| BrokerError::Credentials("the dial cannot be signed".to_owned()))?
        .into();
    let headers = [("host", address.authority())];
    let request =
        SignableRequest::new("GET", address.signed_url(plus), headers.into_iter(), SignableBody::empty());
    let signed = sign(request.map_err(unsigned)?, &params).map_err(unsigned)?;
    let (instructions, _) = signed.into_parts();
    let mut headers = HeaderMap::new();
    for header in instructions.into_parts().0 {
        let name = HeaderName::from_static(header.name());
        let mut value = HeaderValue::from_str(header.value())
            .map_err(|_| BrokerError::Credentials("the keys hold odd characters".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn unreachable(error: std::io::Error) -> BrokerError {
    BrokerError::Unreachable { operation: Operation::Dial, why: clean(&error.to_string()) }
}

fn upgrade_error(error: tungstenite::Error) -> BrokerError {
    let operation = Operation::Dial;
    match error {
        // The body is not kept: it is the peer's, and of any length.
        tungstenite::Error::Http(answer) if matches!(answer.status().as_u16(), 401 | 403) => {
            let message = format!("the upgrade was answered with {}", answer.status());
            BrokerError::AccessDenied { operation, message }
        }
        tungstenite::Error::Http(answer) => {
            let code = answer.status().as_u16().to_string();
            BrokerError::Refused { operation, code, message: "the upgrade was refused".to_owned() }
        }
        other => BrokerError::Unreachable { operation, why: clean(&other.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_never_leaves_this_machine() {
        for good in ["ws://127.0.0.1:8/x", "ws://[::1]:8/x", "ws://localhost/x", "wss://example.com/x"] {
            assert!(Address::parse(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "ws://example.com/x",
            "ws://localhost.example.com/x",
            "http://127.0.0.1/x",
            "wss://user@example.com/x",
            "/x",
            "",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_default_port_follows_the_scheme() {
        assert_eq!(Address::parse("wss://example.com/x").unwrap().port, 443);
        assert_eq!(Address::parse("ws://localhost/x").unwrap().port, 80);
        assert_eq!(Address::parse("ws://[::1]:81/x").unwrap().host(), "::1");
    }
}
