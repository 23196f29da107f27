//! A thread that calls at points in time, more exactly than the runtime does.
//!
//! The runtime's timers have a grain of one millisecond: sessions paced by
//! them would speak in chorus, and a proxy would find them all at once.

use std::collections::BinaryHeap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Called with the time it was due; false ends the plan.
type Call = Box<dyn FnMut(Instant) -> bool + Send>;

/// Hands plans to the thread; the thread ends with the last handle.
#[derive(Clone)]
pub struct Pacer {
    plans: Sender<Plan>,
}

struct Plan {
    due: Instant,
    every: Duration,
    call: Call,
}

impl Pacer {
    /// Starts the thread.
    pub fn start() -> Self {
        let (plans, inbox) = channel();
        std::thread::spawn(move || run(&inbox));
        Self { plans }
    }

    /// Calls at `first` and then every so often until the call says no more.
    pub fn every(&self, first: Instant, every: Duration, call: impl FnMut(Instant) -> bool + Send + 'static) {
        let _ = self.plans.send(Plan { due: first, every, call: Box::new(call) });
    }

    /// Calls once.
    pub fn once(&self, at: Instant, mut call: impl FnMut(Instant) + Send + 'static) {
        self.every(at, Duration::ZERO, move |due| {
            call(due);
            false
        });
    }
}

fn run(inbox: &Receiver<Plan>) {
    // The kernel's default slack of 50 µs would put neighbours together.
    let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1000");
    let mut plans: BinaryHeap<Plan> = BinaryHeap::new();
    loop {
        let wait = plans
            .peek()
            .map_or(Duration::from_secs(60), |plan| plan.due.saturating_duration_since(Instant::now()));
        if !wait.is_zero() {
            match inbox.recv_timeout(wait) {
                Ok(plan) => plans.push(plan),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if plans.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
        while plans.peek().is_some_and(|plan| plan.due <= Instant::now()) {
            let Some(mut plan) = plans.pop() else { break };
            if (plan.call)(plan.due) {
                plan.due += plan.every;
                plans.push(plan);
            }
        }
    }
}

impl Ord for Plan {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The earliest is the greatest.
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Plan {}
