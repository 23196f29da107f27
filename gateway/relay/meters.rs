//! The relay's metrics with their labels resolved once, and byte counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::metrics::Metrics;

/// The relay's metrics, labels resolved so that a message costs no lookup.
pub struct Meters {
    pub(super) output_bytes: IntCounter,
    pub(super) output_messages: IntCounter,
    pub(super) input_bytes: IntCounter,
    pub(super) input_messages: IntCounter,
    pub(super) relay_seconds: Histogram,
    pub(super) acknowledge_wait_seconds: Histogram,
    pub(super) held_back: IntGauge,
    pub(super) held_back_seconds: IntCounter,
    dropped: IntCounterVec,
    flows: IntGauge,
    flows_ended: IntCounterVec,
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
            held_back: metrics.held_back_sessions.clone(),
            held_back_seconds: metrics.held_back_seconds.clone(),
            dropped: metrics.relay_dropped.clone(),
            flows: metrics.flows.clone(),
            flows_ended: metrics.flows_ended.clone(),
        }
    }

    /// Counts a message that was not relayed.
    pub(super) fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }

    /// Connections that began in an earlier process are open here.
    pub(super) fn flows_go_on(&self, open: usize) {
        self.flows.add(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Counts a connection of a port session that began.
    pub(super) fn flow_opened(&self) {
        self.flows.inc();
    }

    /// Counts a connection of a port session that ended.
    pub(super) fn flow_ended(&self, result: &str) {
        self.flows.dec();
        self.flows_ended.with_label_values(&[result]).inc();
    }
}

/// Payload bytes of one session, each way, and its connections.
#[derive(Debug, Default)]
pub struct Counters {
    input: AtomicU64,
    output: AtomicU64,
    opened: AtomicU64,
    ended: AtomicU64,
    /// The number after the last input message that the agent took; 0: none.
    taken: AtomicI64,
    /// The number after the last output message that a client acknowledged.
    shown: AtomicI64,
}

impl Counters {
    /// Goes on counting.
    pub fn from(input: u64, output: u64) -> Self {
        Self { input: input.into(), output: output.into(), ..Self::default() }
    }

    pub(super) fn add_input(&self, bytes: usize) {
        self.input.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_output(&self, bytes: usize) {
        self.output.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn flows_go_on(&self, began: u64, open: u64) {
        self.opened.store(began, Ordering::Relaxed);
        self.ended.store(began.saturating_sub(open), Ordering::Relaxed);
    }

    pub(super) fn flow_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn flow_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn input_taken(&self, sequence: i64) {
        self.taken.fetch_max(sequence.saturating_add(1), Ordering::Relaxed);
    }

    pub(super) fn output_shown(&self, sequence: i64) {
        self.shown.fetch_max(sequence.saturating_add(1), Ordering::Relaxed);
    }

    /// The output message from which on no client has acknowledged any.
    ///
    /// As clients count; none if this process has heard of none.
    pub fn next_output(&self) -> Option<i64> {
        Some(self.shown.load(Ordering::Relaxed)).filter(|next| *next > 0)
    }

    /// The number of the next input message, if this process has seen one.
    pub fn next_input(&self) -> Option<i64> {
        Some(self.taken.load(Ordering::Relaxed)).filter(|next| *next > 0)
    }

    /// Connections of a port session that began so far.
    pub fn connections(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections of a port session that are open now.
    pub fn connections_open(&self) -> u64 {
        self.connections().saturating_sub(self.ended.load(Ordering::Relaxed))
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
