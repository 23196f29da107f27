//! How do callers reach us? TLS, the AWS API, sign-in and the stream.

mod admin;
mod api;
mod call;
mod hasty;
mod instances;
mod ledger;
mod listener;
mod login;
mod oidc;
mod operations;
mod recording;
mod rest;
mod revocations;
mod search;
mod sessions;
mod shadows;
mod sources;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::identity::{Identity, SeenSignatures};
use crate::lifecycle::{Lifecycle, Shadows};
use crate::metrics::Metrics;

pub use admin::{Admin, serve_admin};
pub use call::{cookies, noun, read_body};
pub use listener::{Listener, Tls, TlsError};
pub use oidc::ENTERING;
pub use operations::{StartSession, parse, session_request};
pub use recording::{chunks, lines_of};
pub use rest::{one_session, session_json, span};
pub use search::search_page;

/// Everything a request handler needs.
pub struct Front {
    /// Who is calling?
    pub identity: Identity,
    /// Signatures of StartSession calls already answered.
    pub seen: SeenSignatures,
    /// What happens to sessions.
    pub lifecycle: Arc<Lifecycle>,
    /// Counts calls and connections.
    pub metrics: Arc<Metrics>,
    /// Which sessions run past the gateway?
    pub shadows: Arc<Shadows>,
    /// What browsers call it: `https://host:port`, without a path.
    pub origin: String,
    /// Whether there are pages for browsers.
    pub console: bool,
    /// Public keys that recordings are signed with, as JSON.
    pub recording_keys: serde_json::Value,
}

/// The peer's address, put into every request by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The routes of the public listener.
pub fn router(front: Arc<Front>) -> Router {
    Router::new()
        .route("/", post(api::call))
        .route("/v1/login/challenge", get(login::challenge))
        .route("/v1/login/sts", post(login::sts))
        .route("/v1/login/web-identity", post(login::web_identity))
        .route("/v1/login/oidc", get(oidc::begin))
        .route("/v1/login/oidc/callback", get(oidc::callback))
        .route("/v1/login/device", post(oidc::device))
        .route("/v1/login/device/keys", post(oidc::device_keys))
        .route("/v1/login/browser", post(login::browser))
        .route("/v1/data-channel/{session}", get(stream::upgrade))
        .route("/v1/access", get(rest::access))
        .route("/v1/sessions", get(rest::sessions))
        .route("/v1/sessions/{session}", get(rest::session))
        .route("/v1/sessions/{session}/end", post(rest::end))
        .route("/v1/sessions/{session}/recording", get(recording::recording))
        .route("/v1/sessions/{session}/outline", get(recording::outline))
        .route("/v1/sessions/{session}/hold", post(rest::hold))
        .route("/v1/revocations", get(revocations::list).post(revocations::revoke))
        .route("/v1/revocations/{id}/lift", post(revocations::lift))
        .route("/v1/shadow-sessions", get(shadows::list))
        .route("/v1/search", post(search::search))
        .route("/v1/decisions", get(ledger::decisions))
        .route("/v1/decisions/{id}", get(ledger::decision))
        .route("/v1/audit", get(ledger::audit))
        .route("/v1/recording-keys", get(rest::recording_keys))
        .route("/healthz", get(admin::healthz))
        .fallback(api::not_found)
        .with_state(front)
}
