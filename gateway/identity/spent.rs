//! What was used once and is good for nothing more, until it is over anyway.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ring::digest;
use time::{Duration, OffsetDateTime};

use super::IdentityError;

/// Most remembered at once, so that a thousand sources at their limit do not
/// fill it; one is about 100 bytes, so 13 MB in all.
const SPENT_MAX: usize = 131_072;
/// Least time between two looks for what is over: each goes through all.
const SWEEP: Duration = Duration::SECOND;

/// Tokens and states that were used; a full table refuses.
///
/// It is this node's memory: what is used twice on two nodes is not found.
#[derive(Default)]
pub(super) struct Spent {
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    until: HashMap<[u8; 32], OffsetDateTime>,
    swept: Option<OffsetDateTime>,
}

impl Spent {
    /// Spends what these words name; an error if it was spent before.
    pub(super) fn spend(
        &self,
        words: &[&str],
        until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<(), IdentityError> {
        let mut hash = digest::Context::new(&digest::SHA256);
        for word in words {
            hash.update(&word.len().to_be_bytes());
            hash.update(word.as_bytes());
        }
        let Ok(print) = <[u8; 32]>::try_from(hash.finish().as_ref()) else {
            return Err(IdentityError::Token("it cannot be remembered"));
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.until.len() >= SPENT_MAX && used.swept.is_none_or(|swept| now - swept >= SWEEP) {
            used.swept = Some(now);
            used.until.retain(|_, until| now < *until);
        }
        let spent = &mut used.until;
        if spent.get(&print).is_some_and(|until| now < *until) {
            return Err(IdentityError::Token("it was used before"));
        }
        if spent.len() >= SPENT_MAX {
            return Err(IdentityError::TooMany("sign-ins at once"));
        }
        spent.insert(print, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn a_thing_is_spent_once_until_it_is_over() {
        let (spent, until) = (Spent::default(), NOW + Duration::minutes(1));
        assert!(spent.spend(&["a", "bc"], until, NOW).is_ok());
        assert!(spent.spend(&["ab", "c"], until, NOW).is_ok());
        assert!(spent.spend(&["a", "bc"], until, NOW).is_err());
        assert!(spent.spend(&["a", "bc"], until + Duration::minutes(1), until).is_ok());
    }

    #[test]
    fn a_full_table_refuses_until_something_is_over() {
        let (spent, until) = (Spent::default(), NOW + Duration::minutes(1));
        for each in 0..SPENT_MAX {
            assert!(spent.spend(&[&each.to_string()], until, NOW).is_ok());
        }
        assert!(matches!(spent.spend(&["more"], until, NOW), Err(IdentityError::TooMany(_))));
        assert!(spent.spend(&["more"], until, until).is_ok());
    }
}
