//! A signed call: body read within bounds, signature checked, caller known.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use time::OffsetDateTime;

use super::{Front, Peer};
use crate::error::{ApiError, Code};
use crate::identity::Caller;
use crate::lifecycle::Asker;
use crate::session::InvalidNoun;

/// Largest body of any call, bytes; the largest real one is a few KB.
pub(super) const BODY_MAX: usize = 64 * 1024;
/// Time for a body to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(20);
/// The service that API calls are signed for.
const SERVICE: &str = "ssm";

/// A call whose signature has been verified.
pub(super) struct Call {
    pub(super) asker: Asker,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// Reads the body and verifies the signature over everything.
    pub(super) async fn verify(front: &Front, peer: Peer, request: Request) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read_body(body).await?;
        let caller = signer(front, &parts, &body, SERVICE)?;
        let asker = Asker {
            principal: caller.principal.clone(),
            source_ip: peer.0.ip(),
            proved_until_ms: unix_ms(caller.expires_at),
            visit: None,
        };
        Ok(Self { asker, caller, headers: parts.headers, body })
    }

    /// A header as text, if it is there once and printable.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl FromRequest<Arc<Front>> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, front: &Arc<Front>) -> Result<Self, Refusal> {
        // The listener puts it into every request.
        let peer = request.extensions().get::<Peer>().copied();
        let peer = peer.ok_or_else(|| ApiError::gateway("the connection has no address"))?;
        Ok(Self::verify(front, peer, request).await?)
    }
}

/// A moment in ms since the Unix epoch, as records have it.
pub(super) fn unix_ms(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp()).unwrap_or_default().saturating_mul(1000)
}

/// What a call of ours answers with.
pub(super) type Answer = Result<Told, Refusal>;

/// The answer to a call that was done.
pub(super) struct Told(pub(super) Value);

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// The answer to a call that was not.
pub(super) struct Refusal(ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        refusal(&self.0)
    }
}

/// What the query of a call asks for; it is read after the signature.
pub(super) fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    let asked = query.map(|Query(asked)| asked);
    asked.map_err(|error| ApiError::client(Code::Validation, error.to_string()))
}

/// A noun of a path, query or body.
pub fn noun<T>(parsed: Result<T, InvalidNoun>) -> Result<T, ApiError> {
    parsed.map_err(|error| ApiError::client(Code::Validation, error.to_string()))
}

/// The values of a cookie, of which a stranger may have added some.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(known, _)| *known == name).map(|(_, value)| value)
}

/// Reads a body of at most 64 KB within 20 seconds.
pub async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    let reading = axum::body::to_bytes(body, BODY_MAX);
    match tokio::time::timeout(BODY_WITHIN, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(ApiError::client(Code::Validation, "the body is broken or larger than 64 KB")),
        Err(_) => Err(ApiError::client(Code::Validation, "the body did not arrive within 20 seconds")),
    }
}

/// Who signed the request, if it was meant for this gateway.
pub(super) fn signer(
    front: &Front,
    parts: &axum::http::request::Parts,
    body: &[u8],
    service: &str,
) -> Result<Caller, ApiError> {
    let headers: Vec<(&str, &[u8])> =
        parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = sigv4::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &headers,
        body,
    };
    front.identity.caller(&request, service, OffsetDateTime::now_utc()).map_err(ApiError::from)
}

/// An error as the AWS SDKs read it.
pub(super) fn refusal(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &serde_json::json!({"__type": error.code.as_str(), "message": error.message}))
}

/// A JSON answer in the AWS content type, with a request id.
pub(super) fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/x-amz-json-1.1".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::HeaderName::from_static("x-amzn-requestid"), id),
    ];
    (status, headers, body.to_string()).into_response()
}
