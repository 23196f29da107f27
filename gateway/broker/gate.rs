//! Bounds on what goes upstream: how many at once, how long, and counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{BrokerError, Operation};
use crate::metrics::Metrics;

/// Calls at once: a few slow seconds of AWS must not pile up sockets.
const CALLS_MAX: usize = 32;
/// One call with its retries; AWS clients give up after 60 s without answer.
const CALL_TIME: Duration = Duration::from_secs(20);
/// Dials at once, when AWS has cut every data channel of a node.
const DIALS_MAX: usize = 64;
/// One dial: name, TCP, TLS, upgrade.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// A bounded way upstream.
pub(super) struct Gate {
    permits: Semaphore,
    time: Duration,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// The gate of API calls.
    pub(super) fn calls(metrics: Arc<Metrics>) -> Self {
        Self { permits: Semaphore::new(CALLS_MAX), time: CALL_TIME, metrics }
    }

    /// The gate of dials.
    pub(super) fn dials(metrics: Arc<Metrics>) -> Self {
        Self { permits: Semaphore::new(DIALS_MAX), time: DIAL_TIME, metrics }
    }

    /// Runs a call when there is room; its time includes the waiting.
    pub(super) async fn run<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let started = Instant::now();
        let late = BrokerError::TimedOut { operation };
        let bounded = async {
            // The semaphore is never closed; if it were, nothing may pass.
            let _permit = self.permits.acquire().await.map_err(|_| late.clone())?;
            call.await
        };
        let result = timeout(self.time, bounded).await.unwrap_or(Err(late.clone()));
        let label = operation.label();
        self.metrics.upstream_seconds.with_label_values(&[label]).observe(started.elapsed().as_secs_f64());
        if let Err(error) = &result {
            self.metrics.upstream_errors.with_label_values(&[label, error.blame().as_str()]).inc();
        }
        result
    }
}
