//! What waits for a session's carrier: lines, or word that there are some.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::recorder::{Batch, Checkpoint};

/// Lines of one session that are kept for it; more is read from the spool.
const KEPT_MAX: usize = 256 * 1024;
/// Lines wait so long for others, so that not every key is a call.
const LINGER: Duration = Duration::from_millis(700);

/// One session's post.
pub(super) struct Post {
    state: Mutex<Waiting>,
    news: Notify,
}

struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// There is more in the spool than in `batches`.
    spool: bool,
    /// Since when something waits to be taken.
    since: Option<Instant>,
    /// Since when something waits to be stored.
    oldest: Option<Instant>,
    hurry: bool,
    /// What was signed last.
    checkpoint: Option<Arc<Checkpoint>>,
}

/// What a carrier takes.
pub(super) struct Taken {
    pub(super) batches: Vec<Batch>,
    /// There may be lines in the spool that are not in `batches`.
    pub(super) spool: bool,
}

impl Post {
    /// The post of a session of which nothing was offered yet.
    pub(super) fn new() -> Self {
        let (batches, since) = (VecDeque::new(), Some(Instant::now()));
        let state =
            Waiting { batches, bytes: 0, spool: true, since, oldest: since, hurry: true, checkpoint: None };
        Self { state: Mutex::new(state), news: Notify::new() }
    }

    /// Lines were written.
    pub(super) fn offer(&self, batch: Batch) {
        let mut state = self.state();
        state.bytes += batch.lines.len();
        if state.spool || state.bytes > KEPT_MAX {
            state.give_up_lines();
        } else {
            state.batches.push_back(batch);
        }
        self.tell(state);
    }

    /// The recording was signed where it stands.
    pub(super) fn prove(&self, checkpoint: Arc<Checkpoint>) {
        let mut state = self.state();
        state.checkpoint = Some(checkpoint);
        self.tell(state);
    }

    /// What was signed last, if it is about no more than so many lines.
    pub(super) fn take_checkpoint(&self, lines: u64) -> Option<Arc<Checkpoint>> {
        self.state().checkpoint.take_if(|checkpoint| checkpoint.lines <= lines)
    }

    /// Something is in the spool that was not offered.
    pub(super) fn look_at_spool(&self, hurry: bool) {
        let mut state = self.state();
        state.give_up_lines();
        state.hurry |= hurry;
        self.tell(state);
    }

    /// Nothing waits for others any more.
    pub(super) fn hurry(&self) {
        self.state().hurry = true;
        self.news.notify_one();
    }

    /// Waits until there is something, and it has waited long enough.
    pub(super) async fn wait(&self) {
        loop {
            let due = {
                let state = self.state();
                let enough = state.hurry || state.bytes > KEPT_MAX;
                state.since.map(|since| if enough { since } else { since + LINGER })
            };
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.news.notified() => {}
                    }
                }
                None => self.news.notified().await,
            }
        }
    }

    /// Takes all there is.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.state();
        state.since = None;
        (state.bytes, state.hurry) = (0, false);
        Taken { batches: state.batches.drain(..).collect(), spool: std::mem::take(&mut state.spool) }
    }

    /// What was taken is stored.
    pub(super) fn stored(&self) {
        let mut state = self.state();
        state.oldest = state.since;
    }

    /// Since when something waits to be stored, how many bytes of it are
    /// here, and whether there is more in the spool.
    pub(super) fn backlog(&self) -> Option<(Instant, usize, bool)> {
        let state = self.state();
        state.oldest.map(|oldest| (oldest, state.bytes, state.spool))
    }

    fn tell(&self, mut state: MutexGuard<'_, Waiting>) {
        let since = *state.since.get_or_insert_with(Instant::now);
        state.oldest.get_or_insert(since);
        drop(state);
        self.news.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn give_up_lines(&mut self) {
        self.batches.clear();
        self.spool = true;
    }
}
