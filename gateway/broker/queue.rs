//! The line before StartSession: AWS takes three a second per account.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntGauge;

use super::BrokerError;
use crate::metrics::Metrics;

/// Longest wait in line; with it a whole start stays under the 60 s at
/// which an AWS client gives up and asks again.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Deals out turns at an even rate, first come first served.
pub(super) struct StartQueue {
    pace: Option<Pace>,
    next: Mutex<Instant>,
    waiting: IntGauge,
}

#[derive(Clone, Copy)]
struct Pace {
    interval: Duration,
    /// A second's worth may go at once after a quiet time.
    burst: Duration,
}

impl StartQueue {
    /// A line that lets that many through a second; 0 lets all through.
    pub(super) fn new(per_second: u32, metrics: Arc<Metrics>) -> Self {
        let pace = (per_second > 0).then(|| {
            let interval = Duration::from_secs(1) / per_second;
            Pace { interval, burst: interval * (per_second - 1) }
        });
        let waiting = metrics.queue_depth.with_label_values(&["start_session"]);
        Self { pace, next: Mutex::new(Instant::now()), waiting }
    }

    /// Waits for a turn; says at once if none comes within 15 s.
    pub(super) async fn turn(&self) -> Result<(), BrokerError> {
        let wait = self.reserve(Instant::now())?;
        if !wait.is_zero() {
            let _waiting = Waiting::new(&self.waiting);
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Takes a place; gives the time until its turn.
    fn reserve(&self, now: Instant) -> Result<Duration, BrokerError> {
        let Some(pace) = self.pace else { return Ok(Duration::ZERO) };
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (*next).max(now);
        let wait = place.saturating_duration_since(now).saturating_sub(pace.burst);
        if wait > WAIT_MAX {
            return Err(BrokerError::Busy);
        }
        *next = place + pace.interval;
        Ok(wait)
    }
}

/// Counts one that waits, also if it gives up.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(per_second: u32) -> StartQueue {
        StartQueue::new(per_second, Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn a_quiet_line_lets_a_seconds_worth_through_then_paces() {
        let (queue, now) = (queue(4), Instant::now() + Duration::from_secs(9));
        let waits: Vec<u128> = (0..6).map(|_| queue.reserve(now).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500]);
        assert_eq!(queue.reserve(now + Duration::from_secs(5)).unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_full_line_refuses_at_once_and_stays_usable() {
        let (queue, now) = (queue(1), Instant::now() + Duration::from_secs(9));
        let taken = (0..100).filter(|_| queue.reserve(now).is_ok()).count();
        assert_eq!(taken, 16);
        assert!(matches!(queue.reserve(now), Err(BrokerError::Busy)));
        assert!(queue.reserve(now + Duration::from_secs(2)).is_ok());
    }

    #[test]
    fn no_rate_means_no_line() {
        let (queue, now) = (queue(0), Instant::now());
        assert!((0..1000).all(|_| queue.reserve(now).unwrap().is_zero()));
    }
}
