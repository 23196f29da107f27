//! Work that decides who must leave, on threads that nobody else can take.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Does work on a thread of its own; `None` if it panicked.
///
/// The runtime's threads for blocking work are for everybody: whoever fills
/// them must not keep a revocation from being obeyed. The caller waits for
/// the end, so there are as many of these threads as callers.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let work = Arc::new(Mutex::new(Some(work)));
    let (done, result) = oneshot::channel();
    let theirs = Arc::clone(&work);
    let thread = std::thread::Builder::new().name("postern-policy".to_owned());
    let started = thread.spawn(move || {
        if let Some(work) = take(&theirs) {
            // Nobody may wait for it any more.
            let _ = done.send(work());
        }
    });
    if let Err(error) = started {
        // Slower for the relays, but done.
        tracing::error!(%error, "no thread can be started, so policy is asked on one of the relays'");
        return take(&work).map(|work| work());
    }
    result.await.ok()
}

fn take<W>(work: &Mutex<Option<W>>) -> Option<W> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn whoever_takes_every_thread_for_blocking_work_does_not_hold_up_policy() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let stalled = runtime.spawn_blocking(move || held.recv());
        assert_eq!(runtime.block_on(apart(|| 1 + 1)), Some(2));
        drop(release);
        assert!(runtime.block_on(stalled).unwrap().is_err());
    }

    #[tokio::test]
    async fn work_that_panics_is_told_as_such() {
        assert_eq!(apart(|| -> u8 { panic!("on purpose") }).await, None);
    }
}
