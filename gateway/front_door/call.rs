//! A signed call: body read within bounds, signature checked, caller known.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use time::OffsetDateTime;

use super::{Front, Peer};
use crate::error::{ApiError, Code};
use crate::identity::Caller;
use crate::lifecycle::Asker;

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
        let asker = Asker { principal: caller.principal.clone(), source_ip: peer.0.ip() };
        Ok(Self { asker, caller, headers: parts.headers, body })
    }

    /// A header as text, if it is there once and printable.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
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
