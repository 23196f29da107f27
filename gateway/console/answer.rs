//! Calls and answers of the pages: JSON, and errors for people.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{ApiError, Code};
use crate::front_door::{parse, read_body};

/// Why a page does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    /// Nobody is signed in, or not any more.
    #[error("you are not signed in, or not any more; sign in again")]
    SignedOut,
    /// The request does not come from a page of ours.
    #[error("open the console at {0}/console/ and try again: this request came from elsewhere")]
    Foreign(String),
    /// There is nothing at that address.
    #[error("there is nothing here")]
    NotFound,
    /// Policy, the request or the gateway is in the way.
    #[error("{}", .0.message)]
    Refused(#[from] ApiError),
}

impl IntoResponse for ConsoleError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::SignedOut => (401, "SignedOut"),
            Self::Foreign(_) => (403, "Foreign"),
            Self::NotFound => (404, "NotFound"),
            Self::Refused(error) => match error.code {
                Code::AccessDenied => (403, error.code.as_str()),
                Code::DoesNotExist => (404, error.code.as_str()),
                Code::Throttling => (429, error.code.as_str()),
                code => (code.status(), code.as_str()),
            },
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({"error": code, "message": self.to_string()}))).into_response()
    }
}

/// What a call answers with.
pub(super) type Answer = Result<Json<Value>, ConsoleError>;

/// The bytes of a request, within bounds.
pub(super) async fn bytes(request: Request) -> Result<Bytes, ConsoleError> {
    Ok(read_body(request.into_body()).await?)
}

/// The JSON of a request, within bounds.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, ConsoleError> {
    Ok(parse(&bytes(request).await?)?)
}

pub(super) async fn not_found() -> Response {
    ConsoleError::NotFound.into_response()
}
