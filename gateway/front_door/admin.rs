//! The admin listener: metrics, health and readiness, plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;

/// What the admin pages show.
#[derive(Clone)]
pub struct Admin {
    /// The metrics behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Knows whether sessions can start.
    pub lifecycle: Arc<Lifecycle>,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until told to stop.
pub async fn serve_admin(socket: TcpListener, admin: Admin, mut stop: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(admin);
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(socket, router).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.lifecycle.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
