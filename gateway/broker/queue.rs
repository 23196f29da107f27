//! The line before StartSession: AWS takes three a second per account.
//!
//! Whoever asks for many sessions at once waits for them alone: turns go
//! round among the people who wait, not among their calls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::BrokerError;
use crate::metrics::Metrics;

/// Longest wait in line; with it a whole start stays under the 60 s at
/// which an AWS client gives up and asks again.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Deals out turns at an even rate, to one person after the other.
pub(super) struct StartQueue {
    line: Option<Arc<Line>>,
    waiting: IntGauge,
}

struct Line {
    pace: Pace,
    /// More than that could not have their turn in time.
    longest: usize,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct Pace {
    interval: Duration,
    /// A second's worth may go at once after a quiet time.
    burst: Duration,
}

struct State {
    /// When the next turn would be at an even rate.
    next: Instant,
    /// Each person with the calls that wait, the next one first.
    people: VecDeque<Person>,
    dealing: bool,
}

struct Person {
    id: String,
    calls: VecDeque<oneshot::Sender<()>>,
}

impl StartQueue {
    /// A line that lets that many through a second; 0 lets all through.
    pub(super) fn new(per_second: u32, metrics: Arc<Metrics>) -> Self {
        let line = (per_second > 0).then(|| {
            let interval = Duration::from_secs(1) / per_second;
            let waited = u64::from(per_second) * WAIT_MAX.as_secs();
            Arc::new(Line {
                pace: Pace { interval, burst: interval * (per_second - 1) },
                longest: usize::try_from(waited).unwrap_or(usize::MAX),
                state: Mutex::new(State { next: Instant::now(), people: VecDeque::new(), dealing: false }),
            })
        });
        Self { line, waiting: metrics.queue_depth.with_label_values(&["start_session"]) }
    }

    /// Waits for this person's turn; an error if none comes within 15 s.
    pub(super) async fn turn(&self, person: &str) -> Result<(), BrokerError> {
        let Some(line) = &self.line else { return Ok(()) };
        let Some(turn) = line.join(person)? else { return Ok(()) };
        let _waiting = Waiting::new(&self.waiting);
        match timeout(WAIT_MAX, turn).await {
            Ok(Ok(())) => Ok(()),
            // Too late, or put out of a full line by somebody who had less in it.
            _ => Err(BrokerError::Busy),
        }
    }
}

impl Line {
    /// Takes a turn at once, or a place in line.
    fn join(self: &Arc<Self>, person: &str) -> Result<Option<oneshot::Receiver<()>>, BrokerError> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.people.is_empty() && state.due(self.pace) <= now {
            state.take(self.pace, now);
            return Ok(None);
        }
        if state.waiting() >= self.longest {
            state.make_room(person)?;
        }
        let (call, turn) = oneshot::channel();
        match state.people.iter_mut().find(|known| known.id == person) {
            Some(known) => known.calls.push_back(call),
            None => state.people.push_back(Person { id: person.to_owned(), calls: VecDeque::from([call]) }),
        }
        if !state.dealing {
            state.dealing = true;
            tokio::spawn(Arc::clone(self).deal());
        }
        Ok(Some(turn))
    }

    /// Gives out turns until nobody waits any more.
    async fn deal(self: Arc<Self>) {
        loop {
            let due = {
                let mut state = self.lock();
                state.forget_gone();
                if state.people.is_empty() {
                    state.dealing = false;
                    return;
                }
                state.due(self.pace)
            };
            sleep_until(due).await;
            self.lock().give(self.pace);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When the next turn may be taken.
    fn due(&self, pace: Pace) -> Instant {
        self.next.checked_sub(pace.burst).unwrap_or(self.next)
    }

    fn take(&mut self, pace: Pace, now: Instant) {
        self.next = self.next.max(now) + pace.interval;
    }

    /// One call of the next person has its turn; then others have theirs.
    fn give(&mut self, pace: Pace) {
        while let Some(mut person) = self.people.pop_front() {
            let given = person.calls.pop_front().is_some_and(|call| call.send(()).is_ok());
            if !person.calls.is_empty() {
                self.people.push_back(person);
            }
            if given {
                return self.take(pace, Instant::now());
            }
        }
    }

    fn waiting(&self) -> usize {
        self.people.iter().map(|person| person.calls.len()).sum()
    }

    /// Calls that are not waited for any more hold up nobody.
    fn forget_gone(&mut self) {
        self.people.iter_mut().for_each(|person| person.calls.retain(|call| !call.is_closed()));
        self.people.retain(|person| !person.calls.is_empty());
    }

    /// Puts out the last call of whoever has the most, if that is not them.
    fn make_room(&mut self, person: &str) -> Result<(), BrokerError> {
        self.forget_gone();
        let own = self.people.iter().find(|known| known.id == person).map_or(0, |known| known.calls.len());
        let most = self.people.iter_mut().max_by_key(|known| known.calls.len());
        match most {
            Some(most) if most.calls.len() > own + 1 => {
                most.calls.pop_back();
                Ok(())
            }
            _ => Err(BrokerError::Busy),
        }
    }
}

/// Counts one that waits, also if it gives up.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    fn queue(per_second: u32) -> Arc<StartQueue> {
        Arc::new(StartQueue::new(per_second, Arc::new(Metrics::new().unwrap())))
    }

    /// Asks for a turn; who had one is told, with the time since the start.
    fn ask(
        queue: &Arc<StartQueue>,
        person: &'static str,
        told: &mpsc::UnboundedSender<(&'static str, u128)>,
    ) -> JoinHandle<bool> {
        let (queue, told, began) = (Arc::clone(queue), told.clone(), Instant::now());
        tokio::spawn(async move {
            let had = queue.turn(person).await.is_ok();
            if had {
                told.send((person, began.elapsed().as_millis())).unwrap();
            }
            had
        })
    }

    async fn all(mut told: mpsc::UnboundedReceiver<(&'static str, u128)>) -> Vec<(&'static str, u128)> {
        let mut had = Vec::new();
        while let Some(one) = told.recv().await {
            had.push(one);
        }
        had
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_line_lets_a_seconds_worth_through_then_paces() {
        let (queue, (told, had)) = (queue(4), mpsc::unbounded_channel());
        tokio::time::advance(Duration::from_secs(9)).await;
        for _ in 0..6 {
            ask(&queue, "alice", &told);
            tokio::task::yield_now().await;
        }
        drop(told);
        let times: Vec<u128> = all(had).await.into_iter().map(|(_, at)| at / 250 * 250).collect();
        assert_eq!(times, [0, 0, 0, 0, 250, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_many_does_not_hold_up_who_asks_for_one() {
        let (queue, (told, had)) = (queue(1), mpsc::unbounded_channel());
        for _ in 0..10 {
            ask(&queue, "alice", &told);
            tokio::task::yield_now().await;
        }
        for person in ["bob", "carol"] {
            ask(&queue, person, &told);
            tokio::task::yield_now().await;
        }
        drop(told);
        let order: Vec<&str> = all(had).await.into_iter().map(|(person, _)| person).collect();
        assert_eq!(order[..5], ["alice", "alice", "bob", "carol", "alice"]);
        assert_eq!(order.len(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_refuses_and_has_room_for_who_has_little_in_it() {
        let (queue, (told, _had)) = (queue(1), mpsc::unbounded_channel());
        let alices: Vec<_> = (0..20).map(|_| ask(&queue, "alice", &told)).collect();
        tokio::task::yield_now().await;
        let bob = ask(&queue, "bob", &told);
        assert!(bob.await.unwrap(), "bob found no room");
        let mut had = 0;
        for alice in alices {
            had += usize::from(alice.await.unwrap());
        }
        // One at once, and one a second for fifteen seconds, of which bob had one.
        assert!((14..=15).contains(&had), "{had}");
        assert!(queue.turn("alice").await.is_ok(), "the line is usable again");
    }

    #[tokio::test]
    async fn no_rate_means_no_line() {
        let queue = queue(0);
        for _ in 0..1000 {
            assert!(queue.turn("alice").await.is_ok());
        }
    }
}
