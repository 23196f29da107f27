//! The relay's metrics with their labels resolved once, and byte counts.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::metrics::Metrics;

/// The relay's metrics, labels resolved so that a message costs no lookup.
pub struct Meters {
    pub(super) output_bytes: IntCounter,
    pub(super) output_messages: IntCounter,
    pub(super) input_bytes: IntCounter,
    pub(super) input_messages: IntCounter,
    pub(super) relay_seconds: Histogram,
    pub(super) acknowledge_wait_seconds: Histogram,
    dropped: IntCounterVec,
}

impl Meters {
    /// Resolves the labels.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            output_bytes: metrics.relay_bytes.with_label_values(&["output"]),
            output_messages: metrics.relay_messages.with_label_values(&["output"]),
            input_bytes: metrics.relay_bytes.with_label_values(&["input"]),
            input_messages: metrics.relay_messages.with_label_values(&["input"]),
            relay_seconds: metrics.relay_seconds.clone(),
            acknowledge_wait_seconds: metrics.acknowledge_wait_seconds.clone(),
            dropped: metrics.relay_dropped.clone(),
        }
    }

    /// Counts a message that was not relayed.
    pub(super) fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }
}

/// Payload bytes of one session, each way.
#[derive(Debug, Default)]
pub struct Counters {
    input: AtomicU64,
    output: AtomicU64,
}

impl Counters {
    /// Goes on counting.
    pub fn from(input: u64, output: u64) -> Self {
        Self { input: input.into(), output: output.into() }
    }

    pub(super) fn add_input(&self, bytes: usize) {
        self.input.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_output(&self, bytes: usize) {
        self.output.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes from the client so far.
    pub fn input(&self) -> u64 {
        self.input.load(Ordering::Relaxed)
    }

    /// Bytes from the target so far.
    pub fn output(&self) -> u64 {
        self.output.load(Ordering::Relaxed)
    }
}
