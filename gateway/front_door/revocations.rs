//! Shutting out and letting in again; for those who administer the gateway.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::json;

use super::Front;
use super::call::{Answer, Call, Told, noun};
use super::operations::parse;
use crate::error::{ApiError, Code};
use crate::registry::Revoked;
use crate::session::{SessionId, Target, clean_reason, now_ms};

/// Longest name of a principal or role, bytes: an ARN is 2048 at the most.
const NAME_MAX: usize = 2048;

/// The body of `POST /v1/revocations`.
#[derive(Debug, Deserialize)]
struct RevokeBody {
    #[serde(flatten)]
    revoked: Revoked,
    #[serde(default)]
    reason: String,
    /// For how long; until it is lifted if absent.
    seconds: Option<u64>,
}

/// `GET /v1/revocations`: those in force.
pub(super) async fn list(State(front): State<Arc<Front>>, call: Call) -> Answer {
    Ok(Told(json!({"revocations": front.lifecycle.revocations(&call.asker).await?})))
}

/// `POST /v1/revocations`: shuts somebody or something out.
pub(super) async fn revoke(State(front): State<Arc<Front>>, call: Call) -> Answer {
    let body: RevokeBody = parse(&call.body)?;
    check(&body.revoked)?;
    let until = body.seconds.map(|seconds| now_ms().saturating_add(seconds.saturating_mul(1000)));
    let about = (clean_reason(&body.reason), until);
    Ok(Told(json!(front.lifecycle.revoke(&call.asker, body.revoked, about).await?)))
}

/// `POST /v1/revocations/{id}/lift`: lets them in again.
pub(super) async fn lift(State(front): State<Arc<Front>>, Path(id): Path<String>, call: Call) -> Answer {
    front.lifecycle.lift(&call.asker, &id).await?;
    Ok(Told(json!({"id": id, "lifted": true})))
}

/// A typing error must not look like a revocation.
fn check(revoked: &Revoked) -> Result<(), ApiError> {
    match revoked {
        Revoked::Session(id) => noun(SessionId::parse(id)).map(drop),
        Revoked::Target(id) => noun(Target::parse(id)).map(drop),
        Revoked::Principal(name) | Revoked::Role(name) => {
            let fits = !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control);
            let sentence = "name a principal by its ARN or id, a role by its ARN or name";
            if fits { Ok(()) } else { Err(ApiError::client(Code::Validation, sentence)) }
        }
    }
}
