//! Which signatures were used already, for calls that must happen once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use ring::digest;
use time::{Duration, OffsetDateTime};

use super::Caller;

/// How long a signature is remembered: twice the window it is valid in.
const REMEMBERED: Duration = Duration::minutes(2 * sigv4::WINDOW.whole_minutes());
/// Most signatures remembered; one is about 100 bytes, so 6 MB in all.
const REMEMBERED_MAX: usize = 65_536;

type Print = [u8; 32];

/// Signatures used in the last ten minutes; a full table refuses.
///
/// It is this node's memory: over several nodes only the idempotency of the
/// call itself keeps a replay from doing anything twice.
#[derive(Default)]
pub struct SeenSignatures {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    prints: HashSet<Print>,
    order: VecDeque<(OffsetDateTime, Print)>,
}

impl SeenSignatures {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this caller's signature is used for the first time.
    pub fn first_use(&self, caller: &Caller, now: OffsetDateTime) -> bool {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [caller.access_key_id.as_bytes(), b"/", caller.signature.as_bytes()] {
            hash.update(part);
        }
        let Ok(print) = Print::try_from(hash.finish().as_ref()) else { return false };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, oldest)) = seen.order.pop_front_if(|(at, _)| now - *at > REMEMBERED) {
            seen.prints.remove(&oldest);
        }
        if seen.order.len() >= REMEMBERED_MAX || !seen.prints.insert(print) {
            return false;
        }
        seen.order.push_back((now, print));
        true
    }
}
