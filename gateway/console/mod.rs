//! What does a browser see? The pages, and what they ask for.
//!
//! A browser is signed in by an identity that was proved elsewhere. Every
//! call is the visitor's, and policy decides on it as on any other; the
//! terminal in a page is an ordinary client of the stream URL.

mod answer;
mod changes;
mod config;
mod copies;
mod decisions;
mod explain;
mod live;
mod pages;
mod places;
mod policies;
mod recordings;
mod replays;
mod sessions;
mod sign_in;
mod targets;
mod threads;
mod visitor;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::lifecycle::Lifecycle;
use crate::recorder::PublicKey;

pub use config::{ConsoleConfig, People};

use changes::Followers;
use replays::Replays;
use threads::Threads;

/// Everything that the pages and their calls need.
pub struct Console {
    lifecycle: Arc<Lifecycle>,
    origin: String,
    keys: Vec<PublicKey>,
    people: Option<People>,
    provider: bool,
    replays: Replays,
    followers: Followers,
    threads: Threads,
}

impl Console {
    /// A console that is reached at an origin: `https://host:port`.
    ///
    /// `folder` takes copies of recordings that are not on this node.
    pub fn new(
        lifecycle: Arc<Lifecycle>,
        (config, origin): (ConsoleConfig, String),
        keys: Vec<PublicKey>,
        folder: PathBuf,
    ) -> Arc<Self> {
        if !pages::are_built() {
            tracing::warn!("the console's pages are not in this program: `make console` builds them");
        }
        let replays = Replays::new(folder);
        let (people, provider) = (config.people, config.provider);
        let (followers, threads) = (Followers::default(), Threads::new());
        Arc::new(Self { lifecycle, origin, keys, people, provider, replays, followers, threads })
    }
}

type Shared = axum::extract::State<Arc<Console>>;

/// The routes below `/console`, and the way there from `/`.
pub fn routes(console: Arc<Console>) -> Router {
    let policy = content_policy(&console.origin);
    let api = Router::new()
        .route("/ways", get(sign_in::ways))
        .route("/people", post(sign_in::people))
        .route("/whose", post(sign_in::whose))
        .route("/sign-in", post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/me", get(sign_in::me))
        .route("/targets", get(targets::targets))
        .route("/access", post(targets::access))
        .route("/sessions", get(sessions::sessions).post(sessions::start))
        .route("/session-list", get(changes::follow))
        .route("/sessions/{session}", get(sessions::session))
        .route("/sessions/{session}/places", get(places::places))
        .route("/sessions/{session}/resume", post(sessions::resume))
        .route("/sessions/{session}/end", post(sessions::end))
        .route("/sessions/{session}/chain", get(decisions::chain))
        .route("/sessions/{session}/watch", get(live::watch))
        .route("/sessions/{session}/screen", get(live::screen))
        .route("/sessions/{session}/replay", get(replays::index))
        .route("/sessions/{session}/replay/{scene}", get(replays::scene))
        .route("/sessions/{session}/find", get(recordings::find))
        .route("/sessions/{session}/connections", get(recordings::connections))
        .route("/sessions/{session}/verify", get(recordings::verify))
        .route("/sessions/{session}/download/{format}", get(recordings::download))
        .route("/search", post(recordings::search))
        .route("/decisions", get(decisions::decisions))
        .route("/policies", get(policies::policies))
        .route("/explain", post(explain::explain))
        .fallback(answer::not_found);
    let pages = Router::new()
        .nest("/api", api)
        .fallback(get(pages::page))
        .layer(map_response(move |response: Response| {
            let policy = policy.clone();
            async move { armoured(response, policy) }
        }))
        .with_state(console);
    let home = get(|| async { (StatusCode::SEE_OTHER, [(header::LOCATION, "/console/")]).into_response() });
    // One route for them all: each connection pays for every route that there is.
    Router::new().route("/", home).nest_service("/console", pages)
}

/// What a page of ours may load and do, and that nobody may frame it.
///
/// The player's terminal is WebAssembly; style elements are made by the
/// terminals, no markup of ours holds any style or script.
fn content_policy(origin: &str) -> HeaderValue {
    let stream = origin.replacen("https://", "wss://", 1);
    let text = format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; font-src 'self' data:; connect-src 'self' {stream}; worker-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// An answer with what keeps browsers from doing more than they should.
fn armoured(mut response: Response, policy: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in ARMOUR {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

const ARMOUR: [(header::HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        header::HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];
