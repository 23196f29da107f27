//! A CloudWatch Logs on port 0 that keeps AWS's quotas, and fails on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use postern::session::now_ms;
use serde_json::{Value, json};
use sigv4::{Presented, Request, Rules, verify};
use time::OffsetDateTime;

use super::house::{BROKER_KEY, REGION};

/// What AWS takes in one batch, bytes.
const BATCH_BYTES: usize = 1_048_576;
/// What AWS adds to each event.
const OVERHEAD: usize = 26;
const BATCH_EVENTS: usize = 10_000;
const EVENT_BYTES: usize = 1_048_576;
const HOUR_MS: i64 = 3_600_000;
/// One page of GetLogEvents.
const PAGE_BYTES: usize = 1_048_576;
const PAGE_EVENTS: usize = 10_000;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Throttled,
    /// A 500 and nothing done.
    Broken,
    /// The connection is cut before anything is done.
    Cut,
    /// It is done, and the connection is cut before the answer.
    DoneAndCut,
    /// The keys have expired.
    Expired,
    /// The keys may not do it.
    Denied,
    /// The stream is said not to be there, and is then created again.
    Missing,
}

/// One event as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub at_ms: i64,
    pub message: String,
    /// When it came, by the test's own clock.
    pub came: Instant,
}

#[derive(Default)]
struct Inside {
    groups: BTreeMap<String, Group>,
    faults: VecDeque<(&'static str, Fault)>,
    /// Every call fails so while it is set.
    outage: Option<Fault>,
    /// After so many more batches none is taken any more.
    full: Option<(u64, Fault)>,
    /// A pseudo-random fault in so many calls of a hundred.
    weather: Option<(u64, u64)>,
    calls: BTreeMap<String, u64>,
    /// When the last streams were created.
    created: VecDeque<Instant>,
    /// What the gateway did that AWS would not have taken.
    violations: Vec<String>,
    /// How far this AWS's clock is ahead of ours.
    ahead_ms: i64,
}

#[derive(Default, Clone)]
pub struct Group {
    pub streams: BTreeMap<String, Vec<Stored>>,
    pub about: Value,
    pub retention_days: Option<i64>,
}

/// The fake; it stops with the test's runtime.
#[derive(Clone)]
pub struct FakeLogs {
    pub url: String,
    inside: Arc<Mutex<Inside>>,
}

impl FakeLogs {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { url, inside: Arc::default() };
        let app = axum::Router::new().fallback(answer).with_state(fake.clone());
        let app = app.layer(axum::extract::DefaultBodyLimit::max(16 << 20));
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    /// Makes a log group, as an operator would have.
    pub fn make_group(&self, name: &str) {
        self.inside().groups.insert(name.to_owned(), Group::default());
    }

    pub fn group(&self, name: &str) -> Option<Group> {
        self.inside().groups.get(name).cloned()
    }

    /// The next call of that operation goes wrong.
    pub fn fail(&self, operation: &'static str, fault: Fault) {
        self.inside().faults.push_back((operation, fault));
    }

    /// Every call goes wrong from now on, or none.
    pub fn outage(&self, fault: Option<Fault>) {
        self.inside().outage = fault;
    }

    /// So many more batches are taken and then none, or all again.
    ///
    /// What is stored can be read.
    pub fn full_after(&self, batches: Option<u64>) {
        self.inside().full = batches.map(|batches| (batches, Fault::Broken));
    }

    /// So many calls of a hundred go wrong, each time the same ones.
    pub fn weather(&self, seed: u64, percent: u64) {
        self.inside().weather = Some((seed.max(1), percent));
    }

    pub fn clock_ahead(&self, ms: i64) {
        self.inside().ahead_ms = ms;
    }

    pub fn calls(&self, operation: &str) -> u64 {
        self.inside().calls.get(operation).copied().unwrap_or(0)
    }

    /// What is in a stream, in the order in which it is read.
    pub fn stream(&self, group: &str, stream: &str) -> Vec<Stored> {
        let inside = self.inside();
        inside.groups.get(group).and_then(|group| group.streams.get(stream)).cloned().unwrap_or_default()
    }

    /// The events of a stream, parsed, those that came twice once.
    pub fn events(&self, group: &str, stream: &str, name: &str) -> Vec<Value> {
        let mut seen = std::collections::HashSet::new();
        let mut events: Vec<Value> = Vec::new();
        for stored in self.stream(group, stream) {
            let event: Value = serde_json::from_str(&stored.message).unwrap();
            if event["eventName"] == name && seen.insert(stored.message) {
                events.push(event);
            }
        }
        events.sort_by_key(|event| event["seq"].as_u64());
        events
    }

    /// Changes what is stored, as no API of AWS can.
    pub fn tamper(&self, group: &str, stream: &str, change: impl FnOnce(&mut Vec<Stored>)) {
        change(self.inside().groups.get_mut(group).unwrap().streams.get_mut(stream).unwrap());
    }

    /// Asserts that AWS would have taken all that was sent.
    pub fn assert_kept_to_quotas(&self) {
        assert_eq!(self.inside().violations, Vec::<String>::new());
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }
}

impl Inside {
    fn fault(&mut self, operation: &str) -> Option<Fault> {
        if let Some(fault) = self.outage {
            return Some(fault);
        }
        if let Some((left, fault)) = self.full.as_mut().filter(|_| operation == "PutLogEvents") {
            let Some(less) = left.checked_sub(1) else { return Some(*fault) };
            *left = less;
        }
        if let Some(at) = self.faults.iter().position(|(of, _)| *of == operation) {
            return self.faults.remove(at).map(|(_, fault)| fault);
        }
        let (state, percent) = self.weather.as_mut()?;
        // xorshift64: the same faults for the same seed.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let all = [Fault::Throttled, Fault::Broken, Fault::Cut, Fault::DoneAndCut, Fault::Expired];
        (*state % 100 < *percent).then(|| all[(*state >> 32) as usize % all.len()])
    }

    fn call(&mut self, operation: &str, input: &Value) -> (u16, Value) {
        let group = input["logGroupName"].as_str().unwrap_or_default().to_owned();
        let stream = input["logStreamName"].as_str().unwrap_or_default().to_owned();
        let done = match operation {
            "DescribeLogGroups" => Ok(self.describe(input)),
            "CreateLogGroup" => self.create_group(&group, input),
            "PutRetentionPolicy" => self.group(&group).map(|group| {
                group.retention_days = input["retentionInDays"].as_i64();
                json!({})
            }),
            "CreateLogStream" => self.create_stream(&group, &stream),
            "PutLogEvents" => self.put(&group, &stream, input),
            "GetLogEvents" => self.get(&group, &stream, input),
            other => panic!("the fake knows no {other}"),
        };
        match done {
            Ok(answer) => (200, answer),
            Err((code, message)) => {
                if code == "InvalidParameterException" {
                    self.violations.push(format!("{operation}: {message}"));
                }
                (400, json!({"__type": code, "message": message}))
            }
        }
    }

    fn describe(&self, input: &Value) -> Value {
        let prefix = input["logGroupNamePrefix"].as_str().unwrap_or_default();
        let found = self.groups.iter().filter(|(name, _)| name.starts_with(prefix));
        let groups: Vec<Value> = found
            .map(|(name, group)| {
                json!({"logGroupName": name, "retentionInDays": group.retention_days,
                       "kmsKeyId": group.about["kmsKeyId"], "logGroupClass": group.about["logGroupClass"]})
            })
            .collect();
        json!({"logGroups": groups})
    }

    fn group(&mut self, name: &str) -> Result<&mut Group, Refusal> {
        let missing = ("ResourceNotFoundException", "The specified log group does not exist.".to_owned());
        self.groups.get_mut(name).ok_or(missing)
    }

    fn stream(&mut self, group: &str, stream: &str) -> Result<&mut Vec<Stored>, Refusal> {
        let missing = ("ResourceNotFoundException", "The specified log stream does not exist.".to_owned());
        self.group(group)?.streams.get_mut(stream).ok_or(missing)
    }

    fn create_group(&mut self, name: &str, input: &Value) -> Answer {
        if self.groups.contains_key(name) {
            return Err(("ResourceAlreadyExistsException", "The log group exists".into()));
        }
        self.groups.insert(name.to_owned(), Group { about: input.clone(), ..Group::default() });
        Ok(json!({}))
    }

    fn create_stream(&mut self, group: &str, stream: &str) -> Answer {
        let now = Instant::now();
        self.created.retain(|at| now.duration_since(*at) < Duration::from_secs(1));
        if self.created.len() >= 50 {
            self.violations.push("more than 50 CreateLogStream in a second".into());
            return Err(("ThrottlingException", "Rate exceeded".into()));
        }
        self.created.push_back(now);
        let streams = &mut self.group(group)?.streams;
        if streams.contains_key(stream) {
            return Err(("ResourceAlreadyExistsException", "The log stream exists".into()));
        }
        streams.insert(stream.to_owned(), Vec::new());
        Ok(json!({}))
    }

    fn put(&mut self, group: &str, stream: &str, input: &Value) -> Answer {
        let events: Vec<Stored> = input["logEvents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| Stored {
                at_ms: event["timestamp"].as_i64().unwrap(),
                message: event["message"].as_str().unwrap().to_owned(),
                came: Instant::now(),
            })
            .collect();
        let invalid = |message: String| Err(("InvalidParameterException", message));
        let bytes: usize = events.iter().map(|event| event.message.len() + OVERHEAD).sum();
        if events.is_empty() || events.len() > BATCH_EVENTS || bytes > BATCH_BYTES {
            return invalid(format!("{} events of {bytes} bytes", events.len()));
        }
        if let Some(event) = events.iter().find(|event| event.message.len() + OVERHEAD > EVENT_BYTES) {
            return invalid(format!("an event of {} bytes", event.message.len()));
        }
        if events.iter().any(|event| event.message.is_empty()) {
            return invalid("an empty event".into());
        }
        if !events.is_sorted_by_key(|event| event.at_ms) {
            return invalid(
                "Log events in a single PutLogEvents request must be in chronological order.".into(),
            );
        }
        let now = i64::try_from(now_ms()).unwrap() + self.ahead_ms;
        let kept = self.group(group)?.retention_days.map_or(14, |days| days.min(14)) * 24 * HOUR_MS;
        let old = events.iter().take_while(|event| event.at_ms < now - kept).count();
        let new = events.iter().take_while(|event| event.at_ms <= now + 2 * HOUR_MS).count();
        let good = &events[old..new.max(old)];
        if let (Some(first), Some(last)) = (good.first(), good.last())
            && last.at_ms - first.at_ms > 24 * HOUR_MS
        {
            return invalid("The batch of log events spans more than 24 hours.".into());
        }
        let stored = self.stream(group, stream)?;
        stored.extend_from_slice(good);
        stored.sort_by_key(|event| event.at_ms);
        let mut answer = json!({"nextSequenceToken": "ignored"});
        if good.len() < events.len() {
            let mut info = json!({});
            if old > 0 {
                info["tooOldLogEventEndIndex"] = old.into();
            }
            if new < events.len() {
                info["tooNewLogEventStartIndex"] = new.into();
            }
            answer["rejectedLogEventsInfo"] = info;
        }
        Ok(answer)
    }

    /// A page; the first one is empty, as AWS's may be.
    fn get(&mut self, group: &str, stream: &str, input: &Value) -> Answer {
        let events = self.stream(group, stream)?;
        let Some(token) = input["nextToken"].as_str() else {
            return Ok(json!({"events": [], "nextForwardToken": "f/0"}));
        };
        let from: usize = token.trim_start_matches("f/").parse().unwrap();
        let mut bytes = 0;
        let page: Vec<Value> = events
            .iter()
            .skip(from)
            .take(PAGE_EVENTS)
            .take_while(|event| {
                bytes += event.message.len() + OVERHEAD;
                bytes <= PAGE_BYTES
            })
            .map(|event| json!({"timestamp": event.at_ms, "message": event.message}))
            .collect();
        let next = from + page.len();
        Ok(json!({"events": page, "nextForwardToken": format!("f/{next}")}))
    }
}

type Refusal = (&'static str, String);
type Answer = Result<Value, Refusal>;

async fn answer(State(fake): State<FakeLogs>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    check_signature(&uri, &headers, &body);
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.strip_prefix("Logs_20140328.").unwrap();
    let input: Value = serde_json::from_slice(&body).unwrap();
    let mut inside = fake.inside();
    *inside.calls.entry(operation.to_owned()).or_default() += 1;
    let (status, body) = match inside.fault(operation) {
        None => inside.call(operation, &input),
        Some(Fault::Throttled) => (400, json!({"__type": "ThrottlingException", "message": "Rate exceeded"})),
        Some(Fault::Broken) => (500, json!({"__type": "InternalFailure"})),
        Some(Fault::Expired) => {
            (400, json!({"__type": "ExpiredTokenException", "message": "The security token is expired"}))
        }
        Some(Fault::Denied) => {
            let message = format!("not authorized to perform: logs:{operation}");
            (400, json!({"__type": "AccessDeniedException", "message": message}))
        }
        Some(Fault::Missing) => (400, json!({"__type": "ResourceNotFoundException", "message": "gone"})),
        Some(Fault::Cut) => return cut(),
        Some(Fault::DoneAndCut) => {
            inside.call(operation, &input);
            return cut();
        }
    };
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/x-amz-json-1.1")], body.to_string()).into_response()
}

/// A body that breaks off at once: the connection is closed under the answer.
fn cut() -> Response {
    let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
    axum::body::Body::from_stream(broken).into_response()
}

fn check_signature(uri: &Uri, headers: &HeaderMap, body: &[u8]) {
    let pairs: Vec<(&str, &[u8])> = headers.iter().map(|(k, v)| (k.as_str(), v.as_bytes())).collect();
    let request =
        Request { method: "POST", path: uri.path(), query: uri.query().unwrap_or(""), headers: &pairs, body };
    let presented = Presented::read(&request).unwrap();
    assert_eq!((presented.access_key_id.as_str(), presented.region.as_str()), (BROKER_KEY.0, REGION));
    verify(&request, &presented, BROKER_KEY.1, OffsetDateTime::now_utc(), &Rules::plain("logs")).unwrap();
}
