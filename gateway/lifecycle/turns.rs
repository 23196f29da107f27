//! Places that one person may take some of, and everybody together no more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{ApiError, Blame, Code};

/// Places for work or for watching, per person and in all.
pub struct Turns {
    all: Arc<Semaphore>,
    each: usize,
    /// Those of each person who has one or waits for one, by principal id.
    people: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_person: OwnedSemaphorePermit,
}

impl Turns {
    /// So many for each person, and so many in all.
    pub fn new(each: usize, all: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, people: Mutex::default() }
    }

    /// A place at once, or a refusal that says whose are all taken.
    pub fn take(&self, who: &str, what: &str) -> Result<Turn, ApiError> {
        let of_person = self.of(who).try_acquire_owned().map_err(|_| self.yours(what))?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| everybodys(what))?;
        Ok(Turn { _of_all: of_all, _of_person: of_person })
    }

    /// The same, after waiting for one that becomes free.
    pub async fn wait(&self, who: &str, what: &str, limit: Duration) -> Result<Turn, ApiError> {
        let own = timeout(limit, self.of(who).acquire_owned()).await;
        let of_person = own.ok().and_then(Result::ok).ok_or_else(|| self.yours(what))?;
        let any = timeout(limit, Arc::clone(&self.all).acquire_owned()).await;
        let of_all = any.ok().and_then(Result::ok).ok_or_else(|| everybodys(what))?;
        Ok(Turn { _of_all: of_all, _of_person: of_person })
    }

    fn of(&self, who: &str) -> Arc<Semaphore> {
        let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = people.get(who).and_then(Weak::upgrade) {
            return known;
        }
        people.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.each));
        people.insert(who.to_owned(), Arc::downgrade(&places));
        places
    }

    fn yours(&self, what: &str) -> ApiError {
        let sentence = format!("you have {} {what} at once, the most allowed; let one end first", self.each);
        ApiError::client(Code::Throttling, sentence)
    }
}

fn everybodys(what: &str) -> ApiError {
    let sentence = format!("this gateway has as many {what} at once as it may; try again later");
    ApiError::new(Code::Throttling, Blame::Gateway, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_takes_some_and_leaves_the_others_theirs() {
        let turns = Turns::new(2, 3);
        let first = turns.take("alice", "things").unwrap();
        let _second = turns.take("alice", "things").unwrap();
        assert!(turns.take("alice", "things").unwrap_err().message.contains("you have 2 things"));
        let _third = turns.take("bob", "things").unwrap();
        assert!(turns.take("carol", "things").unwrap_err().message.contains("this gateway has"));
        drop(first);
        turns.take("carol", "things").unwrap();
        turns.take("alice", "things").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_place_that_becomes_free_or_is_told() {
        let turns = Turns::new(1, 8);
        let only = turns.take("alice", "things").unwrap();
        let limit = Duration::from_secs(5);
        assert!(turns.wait("alice", "things", limit).await.is_err());
        let (waited, ()) = tokio::join!(turns.wait("alice", "things", limit), async { drop(only) });
        waited.unwrap();
        assert_eq!(turns.people.lock().unwrap().len(), 1);
        turns.take("bob", "things").unwrap();
        assert_eq!(turns.people.lock().unwrap().len(), 1, "who has no place is not remembered");
    }
}
