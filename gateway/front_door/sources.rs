//! Who has how many connections: nobody takes all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::identity::source;

/// A line in the log for those turned away, at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The open connections of each source; there are no more entries than those.
pub(super) struct Sources {
    each: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    told: Option<Instant>,
}

/// One connection of a source, until it is dropped.
pub(super) struct Counted {
    of: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Sources {
    /// So many for each IPv4 address or IPv6 /64; 0: as many as there are.
    pub(super) fn new(each: usize) -> Self {
        let each = if each == 0 { usize::MAX } else { each };
        Self { each, open: Arc::default(), told: None }
    }

    /// Counts a connection; none if its source has too many.
    pub(super) fn count(&mut self, peer: IpAddr) -> Option<Counted> {
        let of = source(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(of).or_default();
        if *count < self.each {
            *count += 1;
            return Some(Counted { of, open: Arc::clone(&self.open) });
        }
        drop(open);
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(
                source = %of,
                each = self.each,
                "connections are turned away: their source has as many as listen.connections_per_source allows"
            );
        }
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_has_so_many_connections_and_others_theirs() {
        let mut sources = Sources::new(2);
        let first = sources.count(address("2001:db8::1")).unwrap();
        let _second = sources.count(address("2001:db8::2")).unwrap();
        assert!(sources.count(address("2001:db8::3")).is_none());
        let other = sources.count(address("192.0.2.1")).unwrap();
        drop(first);
        sources.count(address("2001:db8::3")).unwrap();
        drop(other);
        assert_eq!(sources.open.lock().unwrap().len(), 1, "who has none is not remembered");
    }

    #[test]
    fn without_a_limit_nobody_is_turned_away() {
        let mut sources = Sources::new(0);
        let counted: Vec<_> = (0..1000).map(|_| sources.count(address("192.0.2.1"))).collect();
        assert!(counted.iter().all(Option::is_some));
    }
}
