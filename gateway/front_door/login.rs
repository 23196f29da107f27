//! Sign-in: a challenge, and the proof of an IAM identity over it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::byte_serialize;
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::call::{Answer, Call, Told, json as answer, read_body, refusal, unix_ms};
use super::{Front, Peer};
use crate::error::{ApiError, Code};
use crate::identity::{Issued, StsProof, Use};

/// Where the console's pages are.
const PAGES: &str = "/console/";

/// `GET /v1/login/challenge`: 32 bytes to sign, once, within 2 minutes.
pub(super) async fn challenge(State(front): State<Arc<Front>>, Extension(peer): Extension<Peer>) -> Response {
    match front.identity.issue_challenge(peer.0.ip(), OffsetDateTime::now_utc()) {
        Ok(challenge) => answer(StatusCode::OK, &json!(challenge)),
        Err(error) => refuse(&front, &error.into()),
    }
}

/// `POST /v1/login/sts`: gateway-issued keys for a proved IAM identity.
pub(super) async fn sts(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let issued = prove(&front, peer, request).await;
    answered(&front, peer, issued).await
}

pub(super) async fn answered(front: &Front, peer: Peer, issued: Result<Issued, ApiError>) -> Response {
    match issued {
        Ok(issued) => {
            front.metrics.sign_ins.with_label_values(&["ok"]).inc();
            let method = issued.principal.method.as_str();
            tracing::info!(principal = %issued.principal.arn, method, peer = %peer.0.ip(), "signed in");
            front.lifecycle.proved(&issued.principal, unix_ms(issued.expiration)).await;
            answer(StatusCode::OK, &json!(issued))
        }
        Err(error) => refuse(front, &error),
    }
}

/// The body of `POST /v1/login/web-identity`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebIdentity {
    token: String,
}

/// `POST /v1/login/web-identity`: keys for whom a token of STS names.
pub(super) async fn web_identity(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let work = async {
        let body = read_body(request.into_body()).await?;
        let WebIdentity { token } = serde_json::from_slice(&body).map_err(|_| {
            ApiError::client(Code::Validation, "the sign-in is not the JSON that `postern credentials` sends")
        })?;
        let now = OffsetDateTime::now_utc();
        Ok(front.identity.prove_web_identity(&token, peer.0.ip(), now).await?)
    };
    answered(&front, peer, work.await).await
}

/// `POST /v1/login/browser`: a link that signs one browser in, once.
pub(super) async fn browser(State(front): State<Arc<Front>>, call: Call) -> Answer {
    // Who captured a call must not sign a browser in with it.
    if front.seen.take(&call.caller, OffsetDateTime::now_utc()) != Use::First {
        let sentence = "this request was used before; sign a new one";
        return Err(ApiError::client(Code::InvalidSignature, sentence).into());
    }
    need_console(&front)?;
    let until_ms = unix_ms(call.caller.expires_at);
    let code = front.lifecycle.visit_code(&call.asker.principal, until_ms).await?;
    // What follows the # stays in the browser: no log on the way has it.
    Ok(Told(json!({"url": format!("{}/console/enter#{code}", front.origin), "until_ms": until_ms})))
}

async fn prove(front: &Front, peer: Peer, request: Request) -> Result<Issued, ApiError> {
    let body = read_body(request.into_body()).await?;
    let proof: StsProof = serde_json::from_slice(&body).map_err(|_| {
        ApiError::client(Code::Validation, "the sign-in is not the JSON that `postern credentials` sends")
    })?;
    Ok(front.identity.prove(&proof, peer.0.ip(), OffsetDateTime::now_utc()).await?)
}

/// Where the pages say where to go on to, if that is one of the console's.
pub(super) fn onward(page: &str) -> String {
    let is_page = page.starts_with(PAGES) && page != PAGES;
    let to = |page: &str| format!("?to={}", byte_serialize(page.as_bytes()).collect::<String>());
    if is_page { to(page) } else { String::new() }
}

/// Refuses what would lead to pages that are switched off.
pub(super) fn need_console(front: &Front) -> Result<(), ApiError> {
    let sentence = "this gateway has no pages for browsers: its operator has switched the console off \
                    ([console] enabled); use the command line, `postern login` signs it in";
    if front.console { Ok(()) } else { Err(ApiError::client(Code::DoesNotExist, sentence)) }
}

pub(super) fn refuse(front: &Front, error: &ApiError) -> Response {
    front.metrics.sign_ins.with_label_values(&["refused"]).inc();
    tracing::info!(code = error.code.as_str(), message = %error.message, "sign-in refused");
    refusal(error)
}
