//! The built pages, out of the program itself.

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// Name and content of every file; those worth it with a `.gz` beside them.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/console_pages.rs"));
/// The page that all addresses of the console show.
const INDEX: &str = "index.html";
/// Files whose name changes with their content lie here.
const LASTING: &str = "assets/";

const NOT_BUILT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Postern</title>\
    <h1>The console is not in this build</h1><p>The gateway runs, but its pages were not built into it. \
    Build them with <code>make console</code> (it needs Node.js 18 or newer), then build postern again.";

/// Whether the pages are in this program.
pub(super) fn are_built() -> bool {
    file(INDEX).is_some()
}

/// A file of the pages; for any other address the page itself.
pub(super) async fn page(uri: Uri, headers: HeaderMap) -> Response {
    let name = uri.path().trim_start_matches('/');
    let found = file(name).map(|content| (name, content));
    if found.is_none() && (name.starts_with(LASTING) || name.contains('.')) {
        return (StatusCode::NOT_FOUND, "there is no such file\n").into_response();
    }
    let Some((name, content)) = found.or_else(|| file(INDEX).map(|content| (INDEX, content))) else {
        return (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], NOT_BUILT)
            .into_response();
    };
    let caching = match name.starts_with(LASTING) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let about = [
        (header::CONTENT_TYPE, content_type(name)),
        (header::CACHE_CONTROL, caching),
        (header::VARY, "accept-encoding"),
    ];
    match file(&format!("{name}.gz")).filter(|_| takes_gzip(&headers)) {
        Some(packed) => (about, [(header::CONTENT_ENCODING, "gzip")], packed).into_response(),
        None => (about, content).into_response(),
    }
}

fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, content)| *content)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|word| word.split(';').next().is_some_and(|word| word.trim() == "gzip"))
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" => "application/json",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        _ => "text/plain; charset=utf-8",
    }
}
