//! The sessions that run past the gateway; for those who administer it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

use super::call::Call;
use super::rest::respond;
use super::{Front, Peer};

/// `GET /v1/shadow-sessions`: those that the last look has found.
pub(super) async fn list(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let work = async {
        let call = Call::verify(&front, peer, request).await?;
        front.lifecycle.admit_administration(&call.asker).await?;
        Ok(json!(*front.shadows.seen()))
    };
    respond(work.await)
}
