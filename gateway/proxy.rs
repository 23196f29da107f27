//! Which proxy leads out, and how is a connection got through it?
//!
//! The environment decides, as for every AWS tool: `HTTPS_PROXY` names an
//! HTTP proxy, `NO_PROXY` what is reached without it. Only TLS passes it, in
//! a tunnel, so it learns names and sizes and nothing else. This machine is
//! always reached directly.

use std::fmt;
use std::io;
use std::time::Duration;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::session::printable;

/// The variables, the first one that says something first.
const PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const BYPASS: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// What no proxy is asked for, whatever `NO_PROXY` says.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";
/// How long a proxy may take to open a tunnel; it dials itself.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest answer to CONNECT that is read, bytes.
const ANSWER_MAX: usize = 8 * 1024;
/// Longest part of a proxy's words that is shown, characters.
const SHOWN_MAX: usize = 120;
/// Where a proxy listens that names no port.
const PORT: u16 = 80;

/// What `HTTPS_PROXY` and `NO_PROXY` say.
pub struct Proxies {
    matcher: Matcher,
    /// The proxy's URL, with its password: for clients that tunnel themselves.
    url: Option<String>,
    bypass: String,
    variable: &'static str,
    is_usable: bool,
}

/// The proxy that is asked for one host; shown without its password.
#[derive(Clone)]
pub struct Proxy {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
    variable: &'static str,
}

/// Why there is no way through the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The variable does not name an HTTP proxy.
    #[error("{0} does not name an HTTP proxy: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
    Unusable(&'static str),
    /// It cannot be reached.
    #[error("the proxy {proxy} cannot be reached: {why}")]
    Unreachable {
        /// Which one.
        proxy: String,
        /// What the network said.
        why: io::Error,
    },
    /// It says no.
    #[error("the proxy {proxy} opened no way to {to}: it answered {answer}{advice}")]
    Refused {
        /// Which one.
        proxy: String,
        /// Where it should have led.
        to: String,
        /// Its status line, or what was wrong with it.
        answer: String,
        /// What can be done about it, if that is known.
        advice: &'static str,
    },
}

impl Proxies {
    /// What the environment says now.
    pub fn from_env() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The same with the variables of whoever asks.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, variable(name).filter(|text| !text.is_empty())?)))
        };
        let (name, url) = first(PROXY).map_or((PROXY[0], None), |(name, text)| (name, Some(text)));
        let url = url.map(|text| if text.contains("://") { text } else { format!("http://{text}") });
        let bypass = first(BYPASS).map(|(_, text)| bypassed(&text)).unwrap_or_default();
        let bypass = format!("{bypass}{THIS_MACHINE}");
        let is_usable = url.as_deref().is_none_or(is_http);
        let matcher = Matcher::builder().https(url.clone().unwrap_or_default()).no(bypass.clone()).build();
        Self { matcher, url, bypass, variable: name, is_usable }
    }

    /// Whether the environment names a proxy, for whichever host.
    pub fn is_set(&self) -> bool {
        self.url.is_some()
    }

    /// The proxy on the way to a host, if there is one.
    ///
    /// `host` is a name or an address, IPv6 with or without brackets.
    pub fn to(&self, host: &str, port: u16) -> Result<Option<Proxy>, ProxyError> {
        if self.url.is_none() {
            return Ok(None);
        }
        if !self.is_usable {
            // Without a scheme that it knows the matcher finds nothing, so the list is asked alone.
            let others = Matcher::builder().https("http://proxy").no(self.bypass.clone()).build();
            let is_meant = uri(host, port).is_some_and(|uri| others.intercept(&uri).is_some());
            return if is_meant { Err(ProxyError::Unusable(self.variable)) } else { Ok(None) };
        }
        let found = uri(host, port).and_then(|uri| self.matcher.intercept(&uri));
        Ok(found.and_then(|found| {
            Some(Proxy {
                host: bare(found.uri().host()?).to_owned(),
                port: found.uri().port_u16().unwrap_or(PORT),
                authorization: found.basic_auth().cloned(),
                variable: self.variable,
            })
        }))
    }

    /// A connection to a host, through its proxy if there is one.
    ///
    /// What fails on the way is an [`io::Error`] around a [`ProxyError`].
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        match self.to(host, port).map_err(io::Error::other)? {
            None => TcpStream::connect((bare(host), port)).await,
            Some(proxy) => proxy.tunnel(host, port).await.map_err(io::Error::other),
        }
    }

    /// The HTTP client of the AWS SDK that goes the same way.
    pub fn sdk_client(&self, context: TlsContext) -> SharedHttpClient {
        let usable = self.url.as_deref().filter(|_| self.is_usable);
        let Some(config) = usable.and_then(|url| ProxyConfig::https(url).ok()) else {
            return Builder::new().tls_provider(ring()).tls_context(context).build_https();
        };
        let config = config.no_proxy(&self.bypass);
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder().proxy_config(config.clone());
            builder.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder.tls_provider(ring()).tls_context(context.clone()).build()
        })
    }

    /// The same for any other HTTP client, which reads no variable itself then.
    pub fn of_http(&self, client: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        let usable = self.url.as_deref().filter(|_| self.is_usable);
        let proxy = usable.and_then(|url| reqwest::Proxy::https(url).ok());
        let proxy = proxy.map(|proxy| proxy.no_proxy(reqwest::NoProxy::from_string(&self.bypass)));
        let client = client.no_proxy();
        match proxy {
            Some(proxy) => client.proxy(proxy),
            None => client,
        }
    }
}

impl Proxy {
    /// Asks for a tunnel; bounded in time and in what is read.
    async fn tunnel(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let unreachable = |why| ProxyError::Unreachable { proxy: self.to_string(), why };
        let opening = async {
            let mut tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
            let answer = self.ask(&mut tcp, &authority(host, port)).await.map_err(unreachable)?;
            self.judge(&answer, authority(host, port)).map(|()| tcp)
        };
        let late = || Err(unreachable(io::ErrorKind::TimedOut.into()));
        timeout(TUNNEL_TIMEOUT, opening).await.unwrap_or_else(|_| late())
    }

    /// Sends CONNECT and reads as far as the blank line.
    async fn ask(&self, tcp: &mut TcpStream, to: &str) -> io::Result<Vec<u8>> {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        tcp.write_all(&request).await?;
        let mut answer = Vec::new();
        // Nobody speaks behind the answer before we do: TLS begins with us.
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") && answer.len() < ANSWER_MAX {
            if tcp.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        Ok(answer)
    }

    fn judge(&self, answer: &[u8], to: String) -> Result<(), ProxyError> {
        let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = printable(&String::from_utf8_lossy(line));
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
        if answer.ends_with(b"\r\n\r\n")
            && status.is_some_and(|code| code.len() == 3 && code.starts_with('2'))
        {
            return Ok(());
        }
        let advice = match status {
            Some("407") => "; give it a user and a password: http://USER:PASSWORD@HOST:PORT",
            Some("403") => "; ask whoever runs it to allow this, or name the host in NO_PROXY",
            _ => "",
        };
        let answer = match line.is_empty() {
            true => "nothing".to_owned(),
            false => format!("\"{}\"", line.chars().take(SHOWN_MAX).collect::<String>()),
        };
        Err(ProxyError::Refused { proxy: self.to_string(), to, answer, advice })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", printable(&authority(&self.host, self.port)), self.variable)
    }
}

fn ring() -> Provider {
    Provider::rustls(CryptoMode::Ring)
}

/// How the matcher is asked about a host.
fn uri(host: &str, port: u16) -> Option<Uri> {
    format!("https://{}/", authority(host, port)).parse().ok()
}

fn authority(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_http(url: &str) -> bool {
    let url = url.parse::<Uri>().ok();
    url.is_some_and(|url| url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty()))
}

/// The list as the matcher reads it, with a comma behind each word.
///
/// `*.example.com` is `.example.com`, as in the AWS CLI's plugin; a port is
/// dropped, for the clients of the SDK match none.
fn bypassed(list: &str) -> String {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let word = if word.starts_with("*.") { word.trim_start_matches('*') } else { word };
            let port = word.rsplit_once(':').filter(|(host, port)| {
                let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                is_number && (!host.contains(':') || host.ends_with(']'))
            });
            format!("{},", bare(port.map_or(word, |(host, _)| host)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    fn of(proxy: &'static str, bypass: &'static str) -> Proxies {
        Proxies::read(|name| match name {
            "HTTPS_PROXY" => Some(proxy.to_owned()),
            "no_proxy" => Some(bypass.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_list_says_what_is_reached_directly() {
        let list = "example.com, .inner.test,*.star.test,10.0.0.0/8,192.0.2.7,gw.test:8443,[2001:db8::7]:443";
        let proxies = of("http://proxy:3128", list);
        for host in [
            "example.com",
            "EXAMPLE.com",
            "a.example.com",
            "a.inner.test",
            "a.star.test",
            "10.1.2.3",
            "192.0.2.7",
            "gw.test",
            "2001:db8::7",
            "localhost",
            "127.0.0.1",
            "127.8.8.8",
            "[::1]",
            "::1",
        ] {
            assert!(proxies.to(host, 443).unwrap().is_none(), "{host} went through the proxy");
        }
        for host in [
            "example.org",
            "notexample.com",
            "11.1.2.3",
            "192.0.2.8",
            "2001:db8::8",
            "ssm.eu-west-1.amazonaws.com",
        ] {
            assert!(proxies.to(host, 443).unwrap().is_some(), "{host} did not go through the proxy");
        }
        assert!(of("http://proxy:3128", "*").to("example.com", 443).unwrap().is_none());
    }

    #[test]
    fn the_first_variable_that_says_something_counts() {
        let proxies = Proxies::read(|name| match name {
            "HTTPS_PROXY" => Some(String::new()),
            "https_proxy" => Some("proxy.test".to_owned()),
            "HTTP_PROXY" | "ALL_PROXY" => Some("http://other:1".to_owned()),
            _ => None,
        });
        let proxy = proxies.to("example.com", 443).unwrap().unwrap();
        assert_eq!(proxy.to_string(), "proxy.test:80 (from https_proxy)");
        assert!(Proxies::read(|_| None).to("example.com", 443).unwrap().is_none());
    }

    #[test]
    fn what_is_no_http_proxy_is_an_error_only_where_it_is_meant() {
        for bad in ["socks5://proxy:1080", "https://proxy:3128", "http://", "http://a b"] {
            let proxies = of(bad, "inner.test");
            let error = proxies.to("example.com", 443).err().map(|error| error.to_string());
            assert!(error.is_some_and(|text| text.starts_with("HTTPS_PROXY does not name")), "{bad}");
            assert!(proxies.to("inner.test", 443).unwrap().is_none(), "{bad}");
            assert!(proxies.to("localhost", 443).unwrap().is_none(), "{bad}");
        }
    }

    /// A proxy that hears one request and answers it.
    async fn proxy(answer: &'static [u8]) -> (Proxies, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 1024];
            let read = tcp.read(&mut heard).await.unwrap();
            tcp.write_all(answer).await.unwrap();
            heard.truncate(read);
            String::from_utf8(heard).unwrap()
        });
        let url = format!("http://alice:p%40ss@127.0.0.1:{port}");
        (Proxies::read(|name| (name == "HTTPS_PROXY").then(|| url.clone())), heard)
    }

    #[tokio::test]
    async fn a_proxy_is_told_the_name_and_the_password() {
        let (proxies, heard) = proxy(b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n").await;
        proxies.connect("gateway.test", 8443).await.unwrap();
        let authorization = "Proxy-Authorization: Basic YWxpY2U6cEBzcw==";
        let expected = format!(
            "CONNECT gateway.test:8443 HTTP/1.1\r\nHost: gateway.test:8443\r\n{authorization}\r\n\r\n"
        );
        assert_eq!(heard.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn whatever_a_proxy_answers_is_told_without_the_password() {
        for (answer, told) in [
            (
                &b"HTTP/1.1 407 Who\x1b[2J are you\r\n\r\n"[..],
                "\"HTTP/1.1 407 Who[2J are you\"; give it a user",
            ),
            (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "\"HTTP/1.1 403 Forbidden\"; ask"),
            (b"SSH-2.0-OpenSSH_9\r\n", "\"SSH-2.0-OpenSSH_9\""),
            (b"HTTP/1.1 200 OK\r\n\r\nalready", "\"HTTP/1.1 200 OK\""),
            (b"HTTP/1.1 200 OK\r\n", "\"HTTP/1.1 200 OK\""),
            (b"", "nothing"),
        ] {
            let (proxies, _) = proxy(answer).await;
            let error = proxies.connect("gateway.test", 443).await.unwrap_err().to_string();
            assert!(error.contains("(from HTTPS_PROXY) opened no way to gateway.test:443"), "{error}");
            assert!(error.contains(told), "{error}");
            assert!(
                !error.contains("p@ss") && !error.contains("p%40ss") && !error.contains("alice"),
                "{error}"
            );
        }
    }
}
