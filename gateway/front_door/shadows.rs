//! The sessions that run past the gateway; for those who administer it.

use std::sync::Arc;

use axum::extract::State;
use serde_json::json;

use super::Front;
use super::call::{Answer, Call, Told};

/// `GET /v1/shadow-sessions`: those that the last look has found.
pub(super) async fn list(State(front): State<Arc<Front>>, call: Call) -> Answer {
    front.lifecycle.admit_administration(&call.asker).await?;
    Ok(Told(json!(*front.shadows.seen())))
}
