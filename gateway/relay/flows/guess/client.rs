//! What a client says first: TLS, HTTP, PostgreSQL, RDP, Redis, SSH.

use rustls::server::Acceptor;

use super::{Guess, Verdict, guess, ssh, text};

/// Methods of HTTP/1 that a client begins with.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// What every HTTP/2 client begins with (RFC 9113, 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// PostgreSQL's request for TLS: length 8, code 80877103.
const POSTGRESQL_TLS: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
/// PostgreSQL's protocol 3.0, where a start packet has its version.
const POSTGRESQL_3: &[u8] = &[0, 3, 0, 0];
/// Longest list of offered protocols that is kept.
const ALPN_MAX: usize = 8;
/// Where the variable part of RDP's first packet begins.
const RDP_VARIABLE: usize = 11;

/// What at least eight first bytes of a client say.
pub(super) fn verdict(bytes: &[u8]) -> Verdict {
    match bytes {
        [0x16, 0x03, 0..=4, _, _, 0x01, ..] => tls(bytes, guess("tls")),
        [b'S', b'S', b'H', b'-', ..] => ssh(bytes),
        [0, 0, _, _, rest @ ..] => postgresql(bytes, rest),
        [0x03, 0x00, 0, length, indicator, 0xE0, ..] => rdp(bytes, *length, *indicator),
        [b'*', b'0'..=b'9', ..] => redis(bytes),
        _ if bytes.starts_with(HTTP2) => Verdict::Known(guess("http2")),
        _ if HTTP2.starts_with(bytes) => Verdict::More,
        _ => http(bytes),
    }
}

/// Reads a ClientHello with the parser of the TLS library.
fn tls(bytes: &[u8], otherwise: Guess) -> Verdict {
    let (mut acceptor, mut rest) = (Acceptor::default(), bytes);
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(read) if read > 0 => {}
            _ => return Verdict::Known(otherwise),
        }
    }
    match acceptor.accept() {
        Ok(None) => Verdict::AtLeast(otherwise),
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let server_name = hello.server_name().map(|name| text(name.as_bytes()));
            let alpn = hello.alpn().into_iter().flatten().take(ALPN_MAX).map(text).collect();
            Verdict::Known(Guess { server_name, alpn, ..otherwise })
        }
        // It has the form of a hello and something that this parser refuses.
        Err(_) => Verdict::Known(otherwise),
    }
}

fn postgresql(bytes: &[u8], rest: &[u8]) -> Verdict {
    if let Some(after) = bytes.strip_prefix(POSTGRESQL_TLS) {
        return match after {
            [0x16, 0x03, ..] => tls(after, guess("postgresql")),
            _ => Verdict::AtLeast(guess("postgresql")),
        };
    }
    match rest.strip_prefix(POSTGRESQL_3) {
        Some(parameters) if parameters.starts_with(b"user\0") => Verdict::Known(guess("postgresql")),
        Some(parameters) if b"user\0".starts_with(parameters) => Verdict::More,
        _ => Verdict::Nothing,
    }
}

/// X.224 begins other protocols too; a cookie or a negotiation is RDP's.
fn rdp(bytes: &[u8], length: u8, indicator: u8) -> Verdict {
    if indicator.checked_add(5) != Some(length) {
        return Verdict::Nothing;
    }
    let Some(variable) = bytes.get(RDP_VARIABLE..usize::from(length)) else { return Verdict::More };
    let negotiation = matches!(variable, [0x01, _, 0x08, 0x00, ..]);
    if negotiation || variable.starts_with(b"Cookie: mstshash=") {
        return Verdict::Known(guess("rdp"));
    }
    Verdict::Nothing
}

/// An array of bulk strings: `*1\r\n$4\r\nPING\r\n`.
fn redis(bytes: &[u8]) -> Verdict {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let is_count = |line: &[u8], sign: u8| match line {
        [first, digits @ .., b'\r'] => {
            *first == sign && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    let (array, first) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    match is_count(array, b'*') && is_count(first, b'$') {
        true => Verdict::Known(guess("redis")),
        false if bytes.len() < 32 && bytes.iter().filter(|byte| **byte == b'\n').count() < 2 => Verdict::More,
        false => Verdict::Nothing,
    }
}

fn http(bytes: &[u8]) -> Verdict {
    let head = String::from_utf8_lossy(bytes);
    let Some(method) = METHODS
        .into_iter()
        .find(|method| head.strip_prefix(method).is_some_and(|rest| rest.starts_with(' ')))
    else {
        return Verdict::Nothing;
    };
    let Some((line, mut rest)) = head.split_once("\r\n") else { return Verdict::More };
    if !line.ends_with(" HTTP/1.1") && !line.ends_with(" HTTP/1.0") {
        return Verdict::Nothing;
    }
    let known = Guess { method: Some(method.to_owned()), ..guess("http") };
    while let Some((line, after)) = rest.split_once("\r\n") {
        rest = after;
        if line.is_empty() {
            return Verdict::Known(known);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("host")
        {
            return Verdict::Known(Guess { host: Some(text(value.trim().as_bytes())), ..known });
        }
    }
    Verdict::AtLeast(known)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Look;
    use super::*;
    use crate::recorder::Direction;

    /// The hello of the TLS library's own client.
    fn hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut config = config;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// What is guessed, in pieces of `cut` bytes.
    fn look(bytes: &[u8], cut: usize) -> Option<Guess> {
        let mut look = Look::at(Direction::Up);
        let found = bytes.chunks(cut).find_map(|piece| look.more(piece));
        found.or_else(|| look.last())
    }

    #[test]
    fn a_tls_client_tells_the_name_it_asks_for() {
        let bytes = hello("db.example.com", &[b"h2", b"http/1.1"]);
        for cut in [1, 7, 100, 4096] {
            let guess = look(&bytes, cut).unwrap();
            assert_eq!(guess.protocol, "tls");
            assert_eq!(guess.server_name.as_deref(), Some("db.example.com"));
            assert_eq!(guess.alpn, ["h2", "http/1.1"]);
        }
        // Cut in the middle it is TLS for certain, and nothing more.
        assert_eq!(look(&bytes[..60], 60), Some(guess("tls")));
    }

    #[test]
    fn postgresql_is_known_with_and_without_tls() {
        let start = b"\0\0\0\x20\0\x03\0\0user\0alice\0database\0shop\0\0";
        assert_eq!(look(start, 3).unwrap().protocol, "postgresql");
        let tls = [POSTGRESQL_TLS, &hello("db.example.com", &[])].concat();
        let guess = look(&tls, 8).unwrap();
        assert_eq!(
            (guess.protocol.as_str(), guess.server_name.as_deref()),
            ("postgresql", Some("db.example.com"))
        );
    }

    #[test]
    fn other_clients_are_known_by_their_first_words() {
        let request = b"GET /a HTTP/1.1\r\nAccept: */*\r\nhost: web\x1b.example.com\r\n\r\n";
        let guess = look(request, 5).unwrap();
        assert_eq!((guess.method.as_deref(), guess.host.as_deref()), (Some("GET"), Some("web.example.com")));
        let rdp = b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0";
        assert_eq!(look(rdp, 19).unwrap().protocol, "rdp");
        assert_eq!(look(b"*1\r\n$4\r\nPING\r\n", 2).unwrap().protocol, "redis");
        assert_eq!(look(HTTP2, 9).unwrap().protocol, "http2");
        let guess = look(b"SSH-2.0-OpenSSH_9.9\r\n\0\0\x05", 4).unwrap();
        assert_eq!(guess.version.as_deref(), Some("SSH-2.0-OpenSSH_9.9"));
    }

    #[test]
    fn what_is_not_certain_is_not_guessed() {
        for bytes in [
            &b"GETTING there, and more"[..],
            b"GET /a SMTP/1.1\r\nhost: x\r\n",
            b"\0\0\0\x08\0\0\0\0\0\0",
            b"\x03\0\0\x16\x11\xe0\0\0\0\x01\0\xc0\x01\x0a\xc1\x02\x01\0\xc2\x02\x01\x02",
            b"*4 stars\r\nand more and more and more",
            b"\x16\x03\x01",
            &[0xff; 5000],
        ] {
            assert_eq!(look(bytes, 10), None, "{bytes:?}");
        }
    }
}
