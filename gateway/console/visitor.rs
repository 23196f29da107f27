//! Who asks: the person signed in in this browser, from a page of ours.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};

use super::Console;
use super::answer::ConsoleError;
use crate::front_door::{Peer, cookies};
use crate::lifecycle::{Asker, known_as};
use crate::registry::Visit;
use crate::session::now_ms;

/// The cookie: for this host and path `/` only, over TLS only.
const COOKIE: &str = "__Host-postern";
/// The header that repeats what only a page of ours was told.
const TOKEN_HEADER: &str = "x-postern-token";

/// A person at a page of ours, checked for this one request.
pub(super) struct Visitor {
    pub(super) asker: Asker,
    pub(super) visit: Visit,
    pub(super) kept: String,
}

impl Visitor {
    /// What changing requests must repeat in a header.
    ///
    /// Other sites can make a browser send its cookie, not know this.
    pub(super) fn token(&self) -> String {
        token_of(&self.kept)
    }
}

impl FromRequestParts<Arc<Console>> for Visitor {
    type Rejection = ConsoleError;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, ConsoleError> {
        check_origin(&parts.method, &parts.headers, &console.origin)?;
        let kept = cookie(&parts.headers).ok_or(ConsoleError::SignedOut)?;
        let visit = console.lifecycle.visitor(kept).await?.ok_or(ConsoleError::SignedOut)?;
        if changes(&parts.method) {
            let repeated = parts.headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
            if !is_same(repeated, token_of(kept).as_bytes()) {
                return Err(ConsoleError::Foreign(console.origin.clone()));
            }
        }
        let peer = parts.extensions.get::<Peer>().ok_or(ConsoleError::SignedOut)?;
        let asker = Asker {
            principal: visit.principal.clone(),
            source_ip: peer.0.ip(),
            proved_until_ms: visit.until_ms,
            visit: Some(known_as(kept)),
        };
        Ok(Self { asker, kept: kept.to_owned(), visit })
    }
}

/// Refuses what a page of another site makes a browser ask for.
pub(super) fn check_origin(method: &Method, headers: &HeaderMap, ours: &str) -> Result<(), ConsoleError> {
    let foreign = || Err(ConsoleError::Foreign(ours.to_owned()));
    match headers.get(header::ORIGIN) {
        Some(origin) if origin != ours => return foreign(),
        None if changes(method) => return foreign(),
        _ => {}
    }
    // Browsers say so themselves, also where they send no origin.
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => foreign(),
    }
}

/// The cookie of a browser that was signed in.
pub(super) fn set_cookie(kept: &str, visit: &Visit) -> String {
    let seconds = visit.until_ms.saturating_sub(now_ms()) / 1000;
    format!("{COOKIE}={kept}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict")
}

/// What makes a browser forget the cookie.
pub(super) fn forget_cookie() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookies(headers, COOKIE).next()
}

fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

fn token_of(kept: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, format!("token of {kept}").as_bytes()).as_ref())
}

/// Compares without telling by its time how much was right.
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    digest(&SHA256, a).as_ref() == digest(&SHA256, b).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://gw.example.com";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_page_of_another_site_gets_and_changes_nothing() {
        for bad in [
            headers(&[("origin", "https://evil.example")]),
            headers(&[("origin", "null")]),
            headers(&[("origin", "https://gw.example.com.evil.example")]),
            headers(&[("origin", OURS), ("sec-fetch-site", "cross-site")]),
            headers(&[("origin", OURS), ("sec-fetch-site", "same-site")]),
        ] {
            assert!(check_origin(&Method::POST, &bad, OURS).is_err(), "{bad:?}");
            assert!(check_origin(&Method::GET, &bad, OURS).is_err(), "{bad:?}");
        }
        assert!(check_origin(&Method::POST, &headers(&[]), OURS).is_err());
        assert!(check_origin(&Method::GET, &headers(&[]), OURS).is_ok());
        let good = headers(&[("origin", OURS), ("sec-fetch-site", "same-origin")]);
        assert!(check_origin(&Method::POST, &good, OURS).is_ok());
    }

    #[test]
    fn the_cookie_is_found_among_others_and_only_by_its_whole_name() {
        let value = |line: &'static str| cookie(&headers(&[("cookie", line)])).map(str::to_owned);
        assert_eq!(value("a=b; __Host-postern=secret; c=d").as_deref(), Some("secret"));
        assert_eq!(value("x__Host-postern=secret; __Host-postern2=other"), None);
    }
}
