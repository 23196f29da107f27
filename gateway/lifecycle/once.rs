//! StartSession once: a repeated call gets the first call's answer.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::{Asker, Lifecycle, Ticket};
use crate::error::{ApiError, Code};
use crate::session::SessionRequest;

/// How long an answer is kept: the CLI repeats within a minute or two.
const KEPT: Duration = Duration::from_secs(120);
/// Answers kept at the most; the oldest goes first.
const KEPT_MAX: usize = 10_000;

/// What makes two calls one, and whether this is the first one's very bytes.
pub struct Invocation {
    /// `amz-sdk-invocation-id`.
    pub id: String,
    /// Digest of the body.
    pub body: [u8; 32],
    /// The same bytes were here before: whoever has a copy of the call gets
    /// the first answer, as a fresh token would move the session to them.
    pub is_copy: bool,
}

/// Principal id, `amz-sdk-invocation-id` and digest of the body.
pub(super) type CallKey = (String, String, [u8; 32]);

type Cell<T> = Arc<OnceCell<T>>;

/// The answers of recent calls by their key.
pub(super) struct Once<T> {
    calls: Mutex<Calls<T>>,
}

struct Calls<T> {
    by_key: HashMap<CallKey, Cell<T>>,
    by_age: VecDeque<(Instant, CallKey)>,
}

impl<T: Clone> Once<T> {
    pub(super) fn new() -> Self {
        Self { calls: Mutex::new(Calls { by_key: HashMap::new(), by_age: VecDeque::new() }) }
    }

    /// Runs `call` unless a call of this key ran or is running.
    pub(super) async fn run<F: Future<Output = T>>(&self, key: CallKey, now: Instant, call: F) -> T {
        let cell = self.cell(key, now);
        cell.get_or_init(|| call).await.clone()
    }

    /// Forgets a call, so that a repeat runs anew.
    pub(super) fn forget(&self, key: &CallKey) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).by_key.remove(key);
    }

    /// Whether a call of this key ran within the time that answers are kept.
    pub(super) fn knows(&self, key: &CallKey) -> bool {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.by_key.contains_key(key)
    }

    fn cell(&self, key: CallKey, now: Instant) -> Cell<T> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((born, _)) = calls.by_age.front() {
            if now.duration_since(*born) < KEPT && calls.by_age.len() < KEPT_MAX {
                break;
            }
            if let Some((_, old)) = calls.by_age.pop_front() {
                calls.by_key.remove(&old);
            }
        }
        if let Some(cell) = calls.by_key.get(&key) {
            return Arc::clone(cell);
        }
        let cell = Cell::default();
        calls.by_key.insert(key.clone(), Arc::clone(&cell));
        calls.by_age.push_back((now, key));
        cell
    }
}

impl Lifecycle {
    /// Opens a session unless a call of this key has opened one.
    pub(super) async fn open_once(
        self: &Arc<Self>,
        asker: &Asker,
        request: SessionRequest,
        call: Invocation,
    ) -> Result<Ticket, ApiError> {
        let (now, key) = (Instant::now(), (asker.principal.id.clone(), call.id, call.body));
        let mut is_first = false;
        let open = async {
            is_first = true;
            self.open(asker, request).await
        };
        match self.started.run(key.clone(), now, open).await {
            Ok(ticket) if is_first || call.is_copy => Ok(ticket),
            // The first token may be used up or too old by now.
            Ok(ticket) => self.ticket(&ticket.session, asker),
            Err(error) => {
                // What may go better a second later is not answered from memory.
                if matches!(
                    error.code,
                    Code::Throttling | Code::ServiceUnavailable | Code::InternalServerError
                ) {
                    self.started.forget(&key);
                }
                Err(error)
            }
        }
    }

    /// Whether such a call was made within the last two minutes.
    pub fn has_started(&self, asker: &Asker, id: &str, body: [u8; 32]) -> bool {
        self.started.knows(&(asker.principal.id.clone(), id.to_owned(), body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(invocation: &str) -> CallKey {
        ("AIDAALICE".to_owned(), invocation.to_owned(), [0; 32])
    }

    #[tokio::test]
    async fn a_repeated_call_runs_once() {
        let (once, now) = (Once::new(), Instant::now());
        assert_eq!(once.run(key("a"), now, async { 1 }).await, 1);
        assert_eq!(once.run(key("a"), now, async { 2 }).await, 1);
        assert_eq!(once.run(key("b"), now, async { 3 }).await, 3);
    }

    #[tokio::test]
    async fn an_answer_is_forgotten_after_two_minutes() {
        let (once, now) = (Once::new(), Instant::now());
        assert_eq!(once.run(key("a"), now, async { 1 }).await, 1);
        assert!(once.knows(&key("a")));
        assert_eq!(once.run(key("a"), now + KEPT, async { 2 }).await, 2);
    }
}
