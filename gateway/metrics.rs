//! Every metric: its name, unit, help and labels, in one table.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// From 10 µs (a message through the relay) to 10 s (a stuck peer).
const LATENCY_BUCKETS: &[f64] =
    &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 2.5, 10.0];

/// The gateway's metrics; one per process, shared by reference.
pub struct Metrics {
    registry: Registry,
    /// Sessions now, by `state` (connected, disconnected).
    pub sessions: IntGaugeVec,
    /// Sessions started, by `kind`.
    pub sessions_started: IntCounterVec,
    /// Sessions ended, by `reason`.
    pub sessions_ended: IntCounterVec,
    /// Sessions of an earlier process, by `result` (adopted, denied, ended).
    pub sessions_adopted: IntCounterVec,
    /// API calls, by `operation` and `code` (`ok` or the AWS code).
    pub api_requests: IntCounterVec,
    /// Sign-ins, by `result`.
    pub sign_ins: IntCounterVec,
    /// Policy decisions, by `action` and `result`.
    pub decisions: IntCounterVec,
    /// What comes of policies and alert rules while sessions run.
    pub watch: WatchMetrics,
    /// Time to one policy decision, seconds.
    pub decision_seconds: Histogram,
    /// Payload bytes relayed, by `direction` (input, output).
    pub relay_bytes: IntCounterVec,
    /// Messages relayed, by `direction` (input, output).
    pub relay_messages: IntCounterVec,
    /// Messages not relayed, by `reason`.
    pub relay_dropped: IntCounterVec,
    /// Connections open in port sessions now.
    pub flows: IntGauge,
    /// Connections of port sessions ended, by `result`.
    ///
    /// `client`, `target`, `session` ended it; or it was `refused`.
    pub flows_ended: IntCounterVec,
    /// From a message read to it handed to the other leg, seconds.
    pub relay_seconds: Histogram,
    /// How long acknowledges waited for the recording, seconds.
    pub acknowledge_wait_seconds: Histogram,
    /// Sessions told that their output waits for its place of storage.
    pub held_back_sessions: IntGauge,
    /// How long sessions were held back in all, seconds.
    ///
    /// Counted when one goes on or ends.
    pub held_back_seconds: IntCounter,
    /// From an event handed over to it written, seconds.
    pub recorder_write_seconds: Histogram,
    /// Time of one flush of the journal to disk, seconds.
    pub recorder_flush_seconds: Histogram,
    /// Recorded bytes, by `stage` (lines, compressed, sealed).
    pub recorder_bytes: IntCounterVec,
    /// Recordings ended, by `result` (sealed, failed, recovered).
    pub recordings: IntCounterVec,
    /// Recordings put into the catalogue, by `result` (indexed, failed).
    pub catalogued: IntCounterVec,
    /// Recordings and the archive, by `result`.
    ///
    /// `archived`; `retried` later; `failed` for good; `deleted` in time;
    /// `damaged`: asked for, and not what was archived.
    pub archived: IntCounterVec,
    /// Bytes of recordings put into the archive.
    pub archived_bytes: IntCounter,
    /// Sealed recordings that are not in the archive yet.
    pub archive_backlog: IntGauge,
    /// Recorder errors; any makes `/readyz` say no.
    pub recorder_errors: IntCounter,
    /// What comes of shipping to CloudWatch Logs.
    pub shipper: ShipperMetrics,
    /// Failed calls and dials upstream, by `operation` and `blame`.
    pub upstream_errors: IntCounterVec,
    /// Time of calls and dials upstream, seconds, by `operation`.
    pub upstream_seconds: HistogramVec,
    /// Things waiting, by `queue`.
    pub queue_depth: IntGaugeVec,
    /// Connections open on the listener.
    pub connections: IntGauge,
}

/// What comes of shipping to CloudWatch Logs.
pub struct ShipperMetrics {
    /// Events that CloudWatch Logs stored.
    pub events: IntCounter,
    /// Bytes of those events.
    pub bytes: IntCounter,
    /// Batches that CloudWatch Logs stored.
    pub batches: IntCounter,
    /// Failed attempts to ship, by `kind`.
    pub errors: IntCounterVec,
    /// Bytes that wait to be shipped.
    pub backlog_bytes: IntGauge,
    /// How long the oldest of them has waited, seconds.
    pub backlog_seconds: IntGauge,
}

impl ShipperMetrics {
    fn new(table: &Table<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            events: table.counter("shipped_events_total", "Events that CloudWatch Logs stored.")?,
            bytes: table.counter("shipped_bytes_total", "Bytes of events that it stored.")?,
            batches: table.counter("shipped_batches_total", "Batches that it stored.")?,
            errors: table.counters(
                "shipped_errors_total",
                "Failed attempts to ship to CloudWatch Logs.",
                &["kind"],
            )?,
            backlog_bytes: table.gauge("shipped_backlog_bytes", "Bytes that wait to be shipped.")?,
            backlog_seconds: table
                .gauge("shipped_backlog_seconds", "How long the oldest of them has waited.")?,
        })
    }
}

/// What comes of policies and alert rules while sessions run.
pub struct WatchMetrics {
    /// Times the policy folder was read again, by `result`.
    ///
    /// `in_force`: another set is; `refused`: it did not pass, the old stays.
    pub policy_loads: IntCounterVec,
    /// Whether the policy folder as it is now was refused: 1 or 0.
    pub policy_refused: IntGauge,
    /// Running sessions asked about again, by `result`.
    pub sessions_asked_again: IntCounterVec,
    /// Alerts raised, by `rule`.
    pub alerts: IntCounterVec,
    /// Alerts for SNS, by `result`.
    ///
    /// `published`; `retried` later; `dropped`, too many waited; `expired`,
    /// waited too long.
    pub alerts_published: IntCounterVec,
    /// Sessions that run past the gateway now.
    pub shadow_sessions: IntGauge,
    /// Sessions that were seen to run past the gateway.
    pub shadow_sessions_seen: IntCounter,
}

impl WatchMetrics {
    fn new(table: &Table<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            policy_loads: table.counters(
                "policy_loads_total",
                "Times the policy folder was read again after a change.",
                &["result"],
            )?,
            policy_refused: table.gauge(
                "policy_refused",
                "Whether the policy folder as it is now was refused and an older set is in force.",
            )?,
            sessions_asked_again: table.counters(
                "sessions_asked_again_total",
                "Running sessions that policy was asked about again.",
                &["result"],
            )?,
            alerts: table.counters("alerts_total", "Alerts raised.", &["rule"])?,
            alerts_published: table.counters("alerts_published_total", "Alerts for SNS.", &["result"])?,
            shadow_sessions: table.gauge(
                "shadow_sessions",
                "Sessions at SSM that did not come through the gateway and run now.",
            )?,
            shadow_sessions_seen: table.counter(
                "shadow_sessions_seen_total",
                "Sessions at SSM that did not come through the gateway.",
            )?,
        })
    }
}

impl Metrics {
    /// Registers every metric; fails only on a duplicate name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let table = Table { registry: &registry };
        let build = table.gauges("build_info", "Version of this build, always 1.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            sessions: table.gauges("sessions", "Sessions now, by state.", &["state"])?,
            sessions_started: table.counters("sessions_started_total", "Sessions started.", &["kind"])?,
            sessions_ended: table.counters("sessions_ended_total", "Sessions ended.", &["reason"])?,
            sessions_adopted: table.counters(
                "sessions_adopted_total",
                "Sessions of an earlier process.",
                &["result"],
            )?,
            api_requests: table.counters(
                "api_requests_total",
                "API calls answered.",
                &["operation", "code"],
            )?,
            sign_ins: table.counters("sign_ins_total", "Sign-ins, by result.", &["result"])?,
            decisions: table.counters("decisions_total", "Policy decisions.", &["action", "result"])?,
            watch: WatchMetrics::new(&table)?,
            decision_seconds: table.histogram("decision_seconds", "Time to one policy decision.")?,
            relay_bytes: table.counters("relay_bytes_total", "Payload bytes relayed.", &["direction"])?,
            relay_messages: table.counters("relay_messages_total", "Messages relayed.", &["direction"])?,
            relay_dropped: table.counters(
                "relay_dropped_messages_total",
                "Messages not relayed.",
                &["reason"],
            )?,
            flows: table.gauge("flows", "Connections open in port sessions now.")?,
            flows_ended: table.counters(
                "flows_ended_total",
                "Connections of port sessions ended, by result.",
                &["result"],
            )?,
            relay_seconds: table.histogram("relay_seconds", "From a message read to it handed on.")?,
            acknowledge_wait_seconds: table
                .histogram("acknowledge_wait_seconds", "How long acknowledges waited for the recording.")?,
            held_back_sessions: table
                .gauge("held_back_sessions", "Sessions whose output waits for its place of storage.")?,
            held_back_seconds: table
                .counter("held_back_seconds_total", "How long sessions were held back for it, in all.")?,
            recorder_write_seconds: table
                .histogram("recorder_write_seconds", "From an event handed over to it written.")?,
            recorder_flush_seconds: table
                .histogram("recorder_flush_seconds", "Time of one flush of the journal to disk.")?,
            recorder_bytes: table.counters("recorder_bytes_total", "Recorded bytes.", &["stage"])?,
            recordings: table.counters("recordings_total", "Recordings ended, by result.", &["result"])?,
            catalogued: table.counters(
                "catalogue_recordings_total",
                "Recordings put into the catalogue, by result.",
                &["result"],
            )?,
            archived: table.counters(
                "archived_recordings_total",
                "Recordings and the archive, by result.",
                &["result"],
            )?,
            archived_bytes: table
                .counter("archived_bytes_total", "Bytes of recordings put into the archive.")?,
            archive_backlog: table
                .gauge("archive_backlog", "Sealed recordings that are not in the archive yet.")?,
            recorder_errors: table.counter("recorder_errors_total", "Recorder errors.")?,
            shipper: ShipperMetrics::new(&table)?,
            upstream_errors: table.counters(
                "upstream_errors_total",
                "Failed calls and dials upstream.",
                &["operation", "blame"],
            )?,
            upstream_seconds: table.histograms(
                "upstream_seconds",
                "Time of calls and dials upstream.",
                &["operation"],
            )?,
            queue_depth: table.gauges("queue_depth", "Things waiting, by queue.", &["queue"])?,
            connections: table.gauge("connections", "Connections open on the listener.")?,
            registry,
        })
    }

    /// The Prometheus text exposition.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Makes and registers metrics under the `postern_` prefix.
struct Table<'a> {
    registry: &'a Registry,
}

impl Table<'_> {
    fn keep<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.keep(IntGauge::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.keep(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep(IntCounter::with_opts(opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.keep(Histogram::with_opts(latency(name, help))?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.keep(HistogramVec::new(latency(name, help), labels)?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("postern")
}

fn latency(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace("postern").buckets(LATENCY_BUCKETS.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_prefix_and_help() {
        let metrics = Metrics::new().unwrap();
        metrics.relay_bytes.with_label_values(&["output"]).inc_by(7);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(text.contains("postern_relay_bytes_total{direction=\"output\"} 7"));
        assert!(text.lines().filter(|l| !l.starts_with('#')).all(|l| l.starts_with("postern_")));
    }
}
