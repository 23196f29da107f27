//! Signing in with a code from a proved identity, and out again.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, ConsoleError, body};
use super::visitor::{Visitor, check_origin, forget_cookie, is_same, set_cookie};
use super::{People, Shared};
use crate::error::{ApiError, Code};
use crate::front_door::{ENTERING, Peer, cookies};
use crate::registry::Visit;
use crate::session::now_ms;

/// How long somebody picked in a demo stays signed in, milliseconds.
const PICKED_FOR: u64 = 8 * 60 * 60 * 1000;

/// A code of `postern console`, one for this browser alone from the
/// provider, or in a demo its key and a name.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum SignIn {
    Code { code: String },
    Begun { begun: String },
    Picked { key: String, name: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SignOut {
    everywhere: bool,
}

/// `GET ways`: how one signs in here besides by a link.
pub(super) async fn ways(State(console): Shared) -> Json<Value> {
    Json(json!({"provider": console.provider}))
}

/// `POST people`: whom one may be in a demo, for whoever has its key.
pub(super) async fn people(State(console): Shared, headers: HeaderMap, request: Request) -> Answer {
    check_origin(&Method::POST, &headers, &console.origin)?;
    let Key { key } = body(request).await?;
    let people = with_key(console.people.as_ref(), &key)?;
    let cast: Vec<Value> = people
        .cast
        .iter()
        .map(|(person, may)| json!({"name": person.name, "arn": person.arn, "may": may}))
        .collect();
    Ok(Json(json!({ "people": cast })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    code: String,
}

/// `POST whose`: whom a link would sign in, asked before it does.
///
/// Else a link of somebody else signs a browser in without a word, and what
/// is done in it from then on is theirs.
pub(super) async fn whose(State(console): Shared, headers: HeaderMap, request: Request) -> Answer {
    check_origin(&Method::POST, &headers, &console.origin)?;
    let Link { code } = body(request).await?;
    let Visit { principal, .. } = console.lifecycle.whose_code(&code).await?;
    Ok(Json(json!({"name": principal.name, "arn": principal.arn})))
}

/// `POST sign-in`: the browser gets its cookie.
pub(super) async fn sign_in(
    State(console): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ConsoleError> {
    check_origin(&Method::POST, &headers, &console.origin)?;
    let (kept, visit) = match body(request).await? {
        SignIn::Code { code } => console.lifecycle.visit_with(&code).await?,
        SignIn::Begun { begun } => {
            let browser = only(cookies(&headers, ENTERING)).unwrap_or_default();
            console.lifecycle.visit_bound(&begun, browser).await?
        }
        SignIn::Picked { key, name } => {
            let people = with_key(console.people.as_ref(), &key)?;
            let found = people.cast.iter().find(|(person, _)| person.name == name);
            let (principal, _) = found.ok_or(ConsoleError::NotFound)?;
            let visit = Visit { principal: principal.clone(), until_ms: now_ms() + PICKED_FOR };
            (console.lifecycle.visit_as(&visit).await?, visit)
        }
    };
    tracing::info!(principal = %visit.principal.arn, peer = %peer.0.ip(), "signed in to the console");
    Ok(([(header::SET_COOKIE, set_cookie(&kept, &visit))], Json(json!({"ok": true}))).into_response())
}

/// `POST sign-out`: this browser, or all of the person's.
pub(super) async fn sign_out(
    State(console): Shared,
    visitor: Visitor,
    request: Request,
) -> Result<Response, ConsoleError> {
    let SignOut { everywhere } = body(request).await?;
    let everybody = everywhere.then_some(&visitor.asker.principal);
    console.lifecycle.end_visit(&visitor.kept, everybody).await?;
    Ok(([(header::SET_COOKIE, forget_cookie())], Json(json!({"ok": true}))).into_response())
}

/// `GET me`: who is signed in, and what the page has to know.
pub(super) async fn me(State(console): Shared, visitor: Visitor) -> Answer {
    let principal = &visitor.asker.principal;
    Ok(Json(json!({
        "name": principal.name,
        "arn": principal.arn,
        "account": principal.account,
        "role": principal.role,
        "until_ms": visitor.visit.until_ms,
        "now_ms": now_ms(),
        "token": visitor.token(),
        "administers": console.lifecycle.may_administer(&visitor.asker),
        "demo": console.people.is_some(),
        "gateway": console.origin,
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

/// The one value; of two, one is a stranger's.
fn only<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    values.next().filter(|_| values.next().is_none())
}

fn with_key<'a>(people: Option<&'a People>, key: &str) -> Result<&'a People, ConsoleError> {
    let found = people.filter(|people| is_same(people.key.expose().as_bytes(), key.as_bytes()));
    let sentence = "this address is not the one that the demo printed; copy it from there";
    found.ok_or_else(|| ApiError::client(Code::AccessDenied, sentence).into())
}
