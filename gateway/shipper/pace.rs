//! How fast AWS may be asked, and how long to leave it alone.

use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

/// CreateLogStream calls a second; AWS's quota is 50 for all nodes together.
const STREAMS_PER_SECOND: f64 = 20.0;
/// Streams that may be created at once after a quiet time.
const STREAMS_AT_ONCE: f64 = 20.0;
/// The first wait after a failure.
const WAIT_MIN: Duration = Duration::from_millis(200);
/// The longest wait: an outage's end is noticed within this time.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Gives each call its time, so many a second.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    since: Instant,
}

impl Bucket {
    /// A full bucket for CreateLogStream.
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: STREAMS_AT_ONCE, since: now }
    }

    /// Takes a token; says how long to wait before the call.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.tokens = (self.tokens + passed * STREAMS_PER_SECOND).min(STREAMS_AT_ONCE) - 1.0;
        self.since = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / STREAMS_PER_SECOND)
    }
}

/// The waits of one thing that is tried again and again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// When to try again after another failure.
    ///
    /// Doubles with each failure up to 30 s; a random half of it is taken
    /// off. Failures of calls that were under way together count once.
    pub(super) fn failed(&mut self, now: Instant) -> Instant {
        if let Some(until) = self.until.filter(|until| now < *until) {
            return until;
        }
        let whole = WAIT_MIN.saturating_mul(1 << self.failures.min(10)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        let until = now + whole.mul_f64(0.5 + 0.5 * chance());
        self.until = Some(until);
        until
    }

    /// It went well.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// How long to leave it alone from now on.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// A number from 0 to 1; without randomness everybody waits as long.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_created_at_most_twenty_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let waits: Vec<_> = (0..60).map(|_| bucket.take(start)).collect();
        assert_eq!(waits[19], Duration::ZERO);
        assert_eq!(waits[20], Duration::from_millis(50));
        assert_eq!(waits[59], Duration::from_secs(2));
        assert_eq!(bucket.take(start + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn waits_grow_to_half_a_minute_and_one_success_ends_them() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        for failure in 0..20_u32 {
            let until = backoff.failed(now);
            assert_eq!(backoff.failed(now), until, "failures at one time count once");
            let whole = WAIT_MIN.saturating_mul(1 << failure.min(10)).min(WAIT_MAX);
            assert!(until - now <= whole && until - now >= whole / 2, "{failure}: {:?}", until - now);
            now = until;
        }
        backoff.succeeded();
        assert_eq!((backoff.wait(now), backoff.failures()), (Duration::ZERO, 0));
    }
}
