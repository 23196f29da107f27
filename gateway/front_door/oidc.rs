//! Sign-in at the company's identity provider: browsers, and device codes.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::call::{cookies, json as answer, read_body, unix_ms};
use super::login::{answered, need_console, onward, refuse};
use super::{Front, Peer};
use crate::error::{ApiError, Code};
use crate::identity::{Polled, Proven};

/// Keeps what a sign-in needs until its end, in the browser that began it.
///
/// Sent along when the provider sends the browser back, so not `Strict`.
const COOKIE: &str = "__Host-postern-sign-in";
/// How long the browser keeps it, seconds.
const COOKIE_SECONDS: u32 = 600;
/// What a code from the provider is good together with, in one browser.
pub const ENTERING: &str = "__Host-postern-entering";
/// As long as the code, seconds.
const ENTERING_SECONDS: u32 = 120;

type Shared = State<Arc<Front>>;

/// `GET /v1/login/oidc`: to the provider's page, and back to `return_to`.
pub(super) async fn begin(
    State(front): Shared,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(error) = need_console(&front) {
        return page_refusal(&front, &error);
    }
    let query = query.unwrap_or_default();
    let return_to = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "return_to");
    let return_to = return_to.map_or_else(|| "/".to_owned(), |(_, path)| path.into_owned());
    match front.identity.begin_oidc(&return_to, peer.0.ip(), OffsetDateTime::now_utc()).await {
        Ok(begun) => {
            let cookie = format!(
                "{COOKIE}={}; Path=/; Max-Age={COOKIE_SECONDS}; Secure; HttpOnly; SameSite=Lax",
                begun.cookie
            );
            sent_on(&begun.location, &[&cookie])
        }
        Err(error) => page_refusal(&front, &error.into()),
    }
}

/// `GET /v1/login/oidc/callback`: where the provider sends browsers back to.
pub(super) async fn callback(
    State(front): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let (query, now) = (query.unwrap_or_default(), OffsetDateTime::now_utc());
    match front.identity.finish_oidc(&query, cookie(&headers).unwrap_or_default(), now).await {
        Ok(proven) => {
            front.metrics.sign_ins.with_label_values(&["ok"]).inc();
            tracing::info!(principal = %proven.principal.arn, peer = %peer.0.ip(), "signed in in a browser");
            entered(&front, &proven).await.unwrap_or_else(|error| page_refusal(&front, &error))
        }
        Err(error) => page_refusal(&front, &error.into()),
    }
}

/// `POST /v1/login/device`: a code to be typed into a browser.
pub(super) async fn device(State(front): Shared, Extension(peer): Extension<Peer>) -> Response {
    match front.identity.begin_device(peer.0.ip(), OffsetDateTime::now_utc()).await {
        Ok(code) => answer(StatusCode::OK, &json!(code)),
        Err(error) => refuse(&front, &error.into()),
    }
}

/// What a client asks with, again and again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Handle {
    handle: String,
}

/// `POST /v1/login/device/keys`: gateway-issued keys, once it was typed.
pub(super) async fn device_keys(
    State(front): Shared,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let work = async {
        let body = read_body(request.into_body()).await?;
        let handle: Handle = serde_json::from_slice(&body).map_err(|_| {
            ApiError::client(Code::Validation, "the question is not the JSON that `postern login` sends")
        })?;
        let now = OffsetDateTime::now_utc();
        Ok(front.identity.ask_device(&handle.handle, peer.0.ip(), now).await?)
    };
    match work.await {
        Ok(Polled::Pending(seconds)) => {
            answer(StatusCode::ACCEPTED, &json!({"pending": true, "interval": seconds}))
        }
        Ok(Polled::Issued(issued)) => answered(&front, peer, Ok(*issued)).await,
        Err(error) => refuse(&front, &error),
    }
}

/// On to the console, with a code that is good once and in this browser.
///
/// Its cookie is not set here: it is never sent along from another site, and
/// the browser has just come from one. What is set is good for the code alone:
/// a link with somebody else's code signs nobody in.
async fn entered(front: &Front, proven: &Proven) -> Result<Response, ApiError> {
    need_console(front)?;
    let (code, browser) = front.lifecycle.bound_visit_code(&proven.principal, unix_ms(proven.until)).await?;
    let entering = format!(
        "{ENTERING}={browser}; Path=/; Max-Age={ENTERING_SECONDS}; Secure; HttpOnly; SameSite=Strict"
    );
    let url = format!("{}/console/enter{}#begun={code}", front.origin, onward(&proven.return_to));
    Ok(sent_on(&url, &[&forgotten(), &entering]))
}

fn page_refusal(front: &Front, error: &ApiError) -> Response {
    front.metrics.sign_ins.with_label_values(&["refused"]).inc();
    tracing::info!(code = error.code.as_str(), message = %error.message, "sign-in in a browser refused");
    let status = match error.code {
        Code::ServiceUnavailable | Code::InternalServerError => StatusCode::SERVICE_UNAVAILABLE,
        Code::DoesNotExist => StatusCode::NOT_FOUND,
        _ => StatusCode::FORBIDDEN,
    };
    page(status, format!("You are not signed in: {}.\n", error.message))
}

/// Plain text, whatever is in it; the cookie of the sign-in is done with.
fn page(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'".to_owned()),
        (header::SET_COOKIE, forgotten()),
    ];
    (status, headers, text).into_response()
}

fn forgotten() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax")
}

fn sent_on(location: &str, cookies: &[&str]) -> Response {
    let value = |text: &str| HeaderValue::from_str(text).ok();
    let set: Option<Vec<HeaderValue>> = cookies.iter().copied().map(value).collect();
    let (Some(location), Some(set)) = (value(location), set) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let set = AppendHeaders(set.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
    (StatusCode::SEE_OTHER, headers, set).into_response()
}

/// The sealed cookie; none if there are two, of which one is a stranger's.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut ours = cookies(headers, COOKIE);
    ours.next().filter(|_| ours.next().is_none())
}
