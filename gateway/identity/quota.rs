//! How often somebody may do something, in memory of fixed size.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use time::{Duration, OffsetDateTime};

/// The time in which things are counted: a challenge's life.
const WINDOW: Duration = Duration::minutes(2);
/// Most counted at once; a count is about 100 bytes, so 1 MB in all.
const COUNTED_MAX: usize = 8192;

/// Least time between two looks for what is over: each goes through all.
const SWEEP: Duration = Duration::SECOND;

/// Counts takes per key and window; a full table refuses who is new.
pub(super) struct Quota<K> {
    limit: u32,
    counts: Mutex<Counts<K>>,
}

struct Counts<K> {
    of: HashMap<K, Count>,
    swept: Option<OffsetDateTime>,
}

struct Count {
    since: OffsetDateTime,
    taken: u32,
}

impl<K: Hash + Eq> Quota<K> {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, counts: Mutex::new(Counts { of: HashMap::new(), swept: None }) }
    }

    /// Takes one, unless the limit of this window is reached.
    pub(super) fn take(&self, key: K, now: OffsetDateTime) -> bool {
        self.count(key, now).unwrap_or(false)
    }

    /// The same; none if the table is full and does not know the key.
    pub(super) fn count(&self, key: K, now: OffsetDateTime) -> Option<bool> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |count: &Count| now - count.since >= WINDOW;
        if counts.of.len() >= COUNTED_MAX && !counts.of.contains_key(&key) {
            if counts.swept.is_none_or(|swept| now - swept >= SWEEP) {
                counts.swept = Some(now);
                counts.of.retain(|_, count| !over(count));
            }
            if counts.of.len() >= COUNTED_MAX {
                return None;
            }
        }
        let count = counts.of.entry(key).or_insert(Count { since: now, taken: 0 });
        if over(count) {
            *count = Count { since: now, taken: 0 };
        }
        let free = count.taken < self.limit;
        count.taken += u32::from(free);
        Some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn a_limit_holds_for_one_window_and_one_key() {
        let quota = Quota::new(2);
        assert!(quota.take("a", NOW) && quota.take("a", NOW));
        assert!(!quota.take("a", NOW + Duration::seconds(119)));
        assert!(quota.take("b", NOW));
        assert!(quota.take("a", NOW + WINDOW));
    }

    #[test]
    fn a_full_table_refuses_newcomers_until_somebody_is_over() {
        let quota = Quota::new(2);
        for key in 0..COUNTED_MAX {
            assert!(quota.take(key, NOW));
        }
        assert!(!quota.take(COUNTED_MAX, NOW));
        assert!(quota.take(0, NOW), "one who is counted already may go on");
        assert!(quota.take(COUNTED_MAX, NOW + WINDOW));
    }
}
