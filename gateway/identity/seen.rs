//! Which signatures were used already, for calls that must happen once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use ring::digest;
use time::{Duration, OffsetDateTime};

use super::Caller;

/// How long a signature is remembered: twice the window it is valid in.
const REMEMBERED: Duration = Duration::minutes(2 * sigv4::WINDOW.whole_minutes());
/// How long after its first use, by our clock, a signature may be that of
/// another call of the same second; nobody's own clock counts here.
const SAME_MOMENT: Duration = Duration::seconds(5);
/// Most signatures remembered; one is about 150 bytes, so 10 MB in all.
const REMEMBERED_MAX: usize = 65_536;
/// Most of one principal: seven calls a second, and sixteen who do that.
const EACH_MAX: usize = 4096;

type Print = [u8; 32];

/// What a signature is to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is used for the first time.
    First,
    /// It was used a moment ago: clocks tell seconds, so two equal calls of
    /// one second share a signature.
    Again,
    /// It was used before.
    Repeat,
    /// It cannot be remembered: too many were used lately.
    TooMany,
}

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
    /// When each was used first.
    prints: HashMap<Print, OffsetDateTime>,
    order: VecDeque<(OffsetDateTime, Print, Print)>,
    /// How many of them each principal has.
    each: HashMap<Print, usize>,
}

impl Seen {
    fn forget_old(&mut self, now: OffsetDateTime) {
        while let Some((_, oldest, who)) = self.order.pop_front_if(|(at, ..)| now - *at > REMEMBERED) {
            self.prints.remove(&oldest);
            if let Some(count) = self.each.get_mut(&who) {
                *count -= 1;
                if *count == 0 {
                    self.each.remove(&who);
                }
            }
        }
    }
}

impl SeenSignatures {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// What this caller's signature is now; from now on it was used.
    pub fn take(&self, caller: &Caller, now: OffsetDateTime) -> Use {
        let print = digest_of(&[&caller.access_key_id, "/", &caller.signature]);
        let who = digest_of(&[&caller.principal.id]);
        let (Some(print), Some(who)) = (print, who) else { return Use::TooMany };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget_old(now);
        if let Some(first) = seen.prints.get(&print) {
            return if (now - *first).abs() <= SAME_MOMENT { Use::Again } else { Use::Repeat };
        }
        let own = seen.each.get(&who).copied().unwrap_or_default();
        if seen.order.len() >= REMEMBERED_MAX || own >= EACH_MAX {
            return Use::TooMany;
        }
        seen.prints.insert(print, now);
        seen.each.insert(who, own + 1);
        seen.order.push_back((now, print, who));
        Use::First
    }
}

fn digest_of(parts: &[&str]) -> Option<Print> {
    let mut hash = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    Print::try_from(hash.finish().as_ref()).ok()
}
