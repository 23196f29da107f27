//! The list of sessions, sent again whenever it is another one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::ConsoleError;
use super::sessions::{Wanted, page};
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::error::{ApiError, Blame, Code};
use crate::lifecycle::SessionQuery;

/// Lists followed at once on this node: each is looked up for its person.
const FOLLOWERS_MAX: usize = 500;
/// Of one person: a browser follows only what it shows.
const OF_ONE_MAX: usize = 12;
/// Pause after a look, however much happens meanwhile.
const PAUSE: Duration = Duration::from_millis(300);
/// A look without a word of a change: bytes move, and so do other nodes.
const LOOK: Duration = Duration::from_secs(3);
/// A blank line after this long without any: who waits knows we are there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Who follows a list now: principal ids and how often.
#[derive(Default)]
pub(super) struct Followers(Arc<Mutex<HashMap<String, usize>>>);

/// A place among them, given back when dropped.
struct Place {
    of: String,
    all: Arc<Mutex<HashMap<String, usize>>>,
}

impl Followers {
    fn place(&self, principal: &str) -> Option<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.get(principal).copied().unwrap_or_default();
        if own >= OF_ONE_MAX || all.values().sum::<usize>() >= FOLLOWERS_MAX {
            return None;
        }
        all.insert(principal.to_owned(), own + 1);
        Some(Place { of: principal.to_owned(), all: Arc::clone(&self.0) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.of)),
        }
    }
}

/// One list that is followed.
struct Followed {
    console: Arc<Console>,
    visitor: Visitor,
    query: SessionQuery,
    changes: watch::Receiver<u64>,
    told: Option<Bytes>,
    said: Instant,
    _place: Place,
}

/// `GET session-list`: a line of JSON, and one more whenever it changes.
///
/// It ends when the browser is signed out, here or anywhere, and when this
/// gateway is being stopped; the page asks anew.
pub(super) async fn follow(
    State(console): Shared,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ConsoleError> {
    let query = wanted.query()?;
    let place = console.followers.place(&visitor.asker.principal.id).ok_or_else(|| {
        let sentence = "as many lists are followed as may be; close some tabs and try again";
        ApiError::new(Code::Throttling, Blame::Client, sentence)
    })?;
    let changes = console.lifecycle.session_changes();
    let changes = changes.ok_or_else(|| ApiError::gateway("the gateway is being stopped"))?;
    let followed =
        Followed { console, visitor, query, changes, told: None, said: Instant::now(), _place: place };
    let lines = unfold(followed, |mut followed| async move {
        let line = followed.next().await?;
        Some((Ok::<_, Infallible>(line), followed))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

impl Followed {
    /// The next line; None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.told.is_some() {
                sleep(PAUSE).await;
                // Late is as good as a change: it is looked at either way.
                let _ = timeout(LOOK, self.changes.changed()).await;
            }
            self.changes.borrow_and_update();
            self.console.lifecycle.session_changes()?;
            self.console.lifecycle.visitor(&self.visitor.kept).await.ok().flatten()?;
            let list = page(&self.console, &self.visitor, self.query.clone()).await.ok()?;
            let line = Bytes::from(format!("{list}\n"));
            if self.told.as_ref() != Some(&line) {
                self.said = Instant::now();
                self.told = Some(line.clone());
                return Some(line);
            }
            if self.said.elapsed() >= SIGN_OF_LIFE {
                self.said = Instant::now();
                return Some(Bytes::from_static(b"\n"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_has_so_many_lists_and_gives_them_back() {
        let followers = Followers::default();
        let mut places: Vec<_> = (0..OF_ONE_MAX).map(|_| followers.place("alice").unwrap()).collect();
        assert!(followers.place("alice").is_none());
        let other = followers.place("bob").unwrap();
        places.pop();
        assert!(followers.place("alice").is_some(), "a place was not given back");
        drop((places, other));
        assert!(followers.0.lock().unwrap().is_empty());
    }
}
