//! Cuts events into batches that PutLogEvents takes whole, and writes them.

/// Largest batch, bytes: messages and [`OVERHEAD`] for each.
///
/// AWS's own limit is 1,048,576; some room is left for what it counts.
const BATCH_BYTES: usize = 1_000_000;
/// What AWS adds to each event of a batch, bytes.
const OVERHEAD: usize = 26;
/// Most events of a batch.
const BATCH_EVENTS: usize = 10_000;
/// Longest time between the first and the last event of a batch.
const SPAN_MS: i64 = 24 * HOUR_MS - 1;
/// AWS refuses events that are older; a day less, so as not to race it.
const OLDEST_MS: i64 = 13 * 24 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;
/// What a body has around an event, and around all of them, bytes.
const EVENT_ROOM: usize = 48;
const BODY_ROOM: usize = 1024;

/// One event of a log stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEvent {
    /// When it happened, milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
    /// JSON.
    pub(super) message: String,
}

/// The times that AWS takes now; events outside are moved to the edge.
///
/// What happened when is in the event itself, so nothing is lost by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    oldest_ms: i64,
    newest_ms: i64,
}

impl Window {
    /// The window at `now_ms` of a group that keeps events so many days.
    pub(super) fn at(now_ms: i64, retention_days: Option<u32>) -> Self {
        let kept = retention_days.map_or(OLDEST_MS, |days| i64::from(days) * 24 * HOUR_MS - HOUR_MS);
        Self { oldest_ms: now_ms - OLDEST_MS.min(kept), newest_ms: now_ms }
    }

    fn clamp(self, at_ms: i64) -> i64 {
        at_ms.clamp(self.oldest_ms, self.newest_ms)
    }
}

/// Orders events by time and cuts them so that every quota is kept.
///
/// Events of the same time stay in the order they came in.
pub(super) fn batches(mut events: Vec<LogEvent>, window: Window) -> Vec<Vec<LogEvent>> {
    for event in &mut events {
        event.at_ms = window.clamp(event.at_ms);
    }
    events.sort_by_key(|event| event.at_ms);
    let mut batches: Vec<Vec<LogEvent>> = Vec::new();
    let (mut bytes, mut first_ms) = (0, 0);
    for event in events {
        let size = event.message.len() + OVERHEAD;
        match batches.last_mut() {
            Some(batch)
                if batch.len() < BATCH_EVENTS
                    && bytes + size <= BATCH_BYTES
                    && event.at_ms - first_ms <= SPAN_MS =>
            {
                bytes += size;
                batch.push(event);
            }
            _ => {
                (bytes, first_ms) = (size, event.at_ms);
                batches.push(vec![event]);
            }
        }
    }
    batches
}

/// The body of PutLogEvents for a batch.
///
/// The SDK would copy and escape each message byte by byte. A message is
/// JSON already, so all there is to escape is quotes and backslashes.
pub(super) fn body(group: &str, stream: &str, batch: &[LogEvent]) -> serde_json::Result<Vec<u8>> {
    let bytes: usize = batch.iter().map(|event| event.message.len() + EVENT_ROOM).sum();
    let mut body = Vec::with_capacity(bytes + bytes / 16 + BODY_ROOM);
    body.extend_from_slice(b"{\"logGroupName\":");
    serde_json::to_writer(&mut body, group)?;
    body.extend_from_slice(b",\"logStreamName\":");
    serde_json::to_writer(&mut body, stream)?;
    body.extend_from_slice(b",\"logEvents\":[");
    for (number, event) in batch.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"timestamp\":");
        serde_json::to_writer(&mut body, &event.at_ms)?;
        body.extend_from_slice(b",\"message\":\"");
        escape(event.message.as_bytes(), &mut body);
        body.extend_from_slice(b"\"}");
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

/// Escapes JSON for a JSON string; it has no raw control characters.
fn escape(mut json: &[u8], into: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr2(b'"', b'\\', json) {
        let (before, rest) = json.split_at(at);
        into.extend_from_slice(before);
        into.push(b'\\');
        let (special, after) = rest.split_at(1);
        into.extend_from_slice(special);
        json = after;
    }
    into.extend_from_slice(json);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: i64 = 24 * HOUR_MS;

    fn event(at_ms: i64, size: usize) -> LogEvent {
        LogEvent { at_ms, message: "x".repeat(size) }
    }

    proptest! {
        #[test]
        fn every_batch_is_within_every_quota_and_nothing_is_lost(
            made in prop::collection::vec((-20 * DAY_MS..DAY_MS, 1_usize..240_000), 0..40),
        ) {
            let now = 1_800_000_000_000;
            let events: Vec<_> = made.iter().map(|(ago, size)| event(now + ago, *size)).collect();
            let cut = batches(events.clone(), Window::at(now, None));
            prop_assert_eq!(cut.iter().map(Vec::len).sum::<usize>(), events.len());
            for batch in &cut {
                let bytes: usize = batch.iter().map(|e| e.message.len() + 26).sum();
                prop_assert!(bytes <= 1_048_576 && batch.len() <= 10_000);
                prop_assert!(batch.is_sorted_by_key(|e| e.at_ms));
                prop_assert!(batch[batch.len() - 1].at_ms - batch[0].at_ms < DAY_MS);
                prop_assert!(batch.iter().all(|e| e.at_ms <= now && e.at_ms > now - 14 * DAY_MS));
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_says_what_the_batch_says(texts in prop::collection::vec(any::<String>(), 0..20), stream in any::<String>()) {
            let message = |text: &String| serde_json::json!({ "text": text }).to_string();
            let batch: Vec<_> = texts.iter().map(|text| LogEvent { at_ms: -5, message: message(text) }).collect();
            let made: serde_json::Value = serde_json::from_slice(&body("/a", &stream, &batch).unwrap()).unwrap();
            let events: Vec<_> = texts
                .iter()
                .map(|text| serde_json::json!({"timestamp": -5, "message": message(text)}))
                .collect();
            let expected =
                serde_json::json!({"logGroupName": "/a", "logStreamName": stream, "logEvents": events});
            prop_assert_eq!(made, expected);
        }
    }

    #[test]
    fn many_small_events_are_cut_by_their_number() {
        let events = vec![event(5, 1); 20_001];
        let cut = batches(events, Window::at(10, None));
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000, 1]);
    }

    #[test]
    fn an_event_older_than_the_group_keeps_is_moved() {
        let now = 1_800_000_000_000;
        let cut = batches(vec![event(now - 3 * DAY_MS, 1)], Window::at(now, Some(1)));
        assert!(cut[0][0].at_ms > now - DAY_MS);
    }

    #[test]
    fn events_of_one_time_keep_their_order() {
        let made = |text: &str| LogEvent { at_ms: 5, message: text.into() };
        let cut = batches(vec![event(9, 1), made("a"), made("b")], Window::at(10, None));
        let order: Vec<_> = cut[0].iter().map(|e| e.message.as_str()).collect();
        assert_eq!(order, ["a", "b", "x"]);
    }
}
