//! The SSM API: AWS JSON 1.1 calls, dispatched by `X-Amz-Target`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::call::{Call, json, refusal};
use super::{Front, Peer, instances, operations as ops, sessions};
use crate::error::{ApiError, Code};

/// The prefix of every operation's `X-Amz-Target`.
const TARGET_PREFIX: &str = "AmazonSSM.";

/// Answers one API call.
pub(super) async fn call(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let operation = operation_of(&request);
    let answer = answer(&front, peer, operation, request).await;
    let code = answer.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    front.metrics.api_requests.with_label_values(&[operation.label(), code]).inc();
    match answer {
        Ok(body) => json(StatusCode::OK, &body),
        Err(error) => {
            tracing::info!(operation = operation.label(), code = error.code.as_str(), blame = error.blame.as_str(), message = %error.message, "call refused");
            refusal(&error)
        }
    }
}

/// Anything that is not one of our paths.
pub(super) async fn not_found() -> Response {
    let sentence = "there is nothing here; the SSM API is POST / of this host";
    let error = ApiError::client(Code::UnknownOperation, sentence);
    let mut response = refusal(&error);
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// The operations of the SSM API that the gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    StartSession,
    ResumeSession,
    TerminateSession,
    DescribeSessions,
    GetConnectionStatus,
    DescribeInstanceInformation,
    Unknown,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::StartSession => "StartSession",
            Self::ResumeSession => "ResumeSession",
            Self::TerminateSession => "TerminateSession",
            Self::DescribeSessions => "DescribeSessions",
            Self::GetConnectionStatus => "GetConnectionStatus",
            Self::DescribeInstanceInformation => "DescribeInstanceInformation",
            Self::Unknown => "unknown",
        }
    }
}

fn operation_of(request: &Request) -> Operation {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let known = [
        Operation::StartSession,
        Operation::ResumeSession,
        Operation::TerminateSession,
        Operation::DescribeSessions,
        Operation::GetConnectionStatus,
        Operation::DescribeInstanceInformation,
    ];
    let name = target.and_then(|target| target.strip_prefix(TARGET_PREFIX));
    known.into_iter().find(|operation| Some(operation.label()) == name).unwrap_or(Operation::Unknown)
}

async fn answer(
    front: &Front,
    peer: Peer,
    operation: Operation,
    request: Request,
) -> Result<Value, ApiError> {
    let call = Call::verify(front, peer, request).await?;
    match operation {
        Operation::StartSession => ops::start_session(front, &call).await,
        Operation::ResumeSession => ops::resume_session(front, &call).await,
        Operation::TerminateSession => ops::terminate_session(front, &call).await,
        Operation::DescribeSessions => sessions::describe(front, &call).await,
        Operation::GetConnectionStatus => ops::get_connection_status(front, &call).await,
        Operation::DescribeInstanceInformation => instances::describe(front, &call).await,
        Operation::Unknown => Err(ApiError::client(
            Code::UnknownOperation,
            "this gateway answers StartSession, ResumeSession, TerminateSession, DescribeSessions, \
             GetConnectionStatus and DescribeInstanceInformation",
        )),
    }
}
