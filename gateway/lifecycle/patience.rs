//! How long a lost upstream leg is dialled again, and with what pauses.

use std::time::Duration;

use tokio::time::Instant;

/// How long a lost upstream leg is dialled again before giving up.
pub(super) const REDIAL_FOR: Duration = Duration::from_secs(300);
/// First pause between two dials; it doubles up to 5 s.
pub(super) const REDIAL_PAUSE: Duration = Duration::from_millis(200);
pub(super) const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A leg that lived this long was a good one.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How often a session's upstream leg was lost lately.
pub(super) struct Patience {
    last: Instant,
    pause: Duration,
    unstable_since: Option<Instant>,
}

impl Patience {
    /// A leg that was opened at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, pause: Duration::ZERO, unstable_since: None }
    }

    /// The leg is lost: the pause before dialling, or `None` to give up.
    pub(super) fn lost(&mut self, now: Instant) -> Option<Duration> {
        let short_lived = now.duration_since(self.last) < STABLE_AFTER + self.pause;
        self.last = now;
        if !short_lived {
            self.pause = Duration::ZERO;
            self.unstable_since = None;
            return Some(Duration::ZERO);
        }
        let since = *self.unstable_since.get_or_insert(now);
        if now.duration_since(since) > REDIAL_FOR {
            return None;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).clamp(REDIAL_PAUSE, REDIAL_PAUSE_MAX);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hourly_close_is_dialled_again_at_once() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        for hour in 1..50 {
            assert_eq!(patience.lost(start + Duration::from_secs(hour * 3600)), Some(Duration::ZERO));
        }
    }

    #[test]
    fn a_leg_that_is_closed_at_once_is_given_up_after_growing_pauses() {
        let mut now = Instant::now();
        let mut patience = Patience::new(now);
        let mut dials = 0;
        while let Some(pause) = patience.lost(now) {
            now += pause + Duration::from_millis(50);
            dials += 1;
        }
        assert!((50..100).contains(&dials), "{dials} dials");
    }
}
