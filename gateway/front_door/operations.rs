//! Each operation of the SSM API: its input parsed, its answer in AWS's words.

use std::collections::BTreeMap;

use axum::body::Bytes;
use ring::digest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Front;
use super::call::{Call, noun};
use crate::error::{ApiError, Code};
use crate::identity::Use;
use crate::lifecycle::{Invocation, SessionQuery, Ticket};
use crate::registry::{Filter, SessionRecord, Span, State};
use crate::session::{Document, Instance, SessionId, SessionRequest, Target, reason};

/// The header by which SDKs mark repeats of one call.
const INVOCATION: &str = "amz-sdk-invocation-id";
/// Longest invocation id kept, characters; a UUID has 36.
const INVOCATION_MAX: usize = 64;
/// Bounds of a document's parameters.
const PARAMETERS_MAX: usize = 20;
const PARAMETER_BYTES_MAX: usize = 16 * 1024;

/// The input of StartSession.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartSession {
    target: String,
    document_name: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OneSession {
    session_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OneTarget {
    target: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeSessions {
    state: String,
    max_results: Option<usize>,
    next_token: Option<String>,
    #[serde(default)]
    filters: Vec<SessionFilter>,
}

#[derive(Deserialize)]
struct SessionFilter {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeInstances {
    max_results: Option<usize>,
    next_token: Option<String>,
    #[serde(default)]
    filters: Vec<InstanceFilter>,
    #[serde(default)]
    instance_information_filter_list: Vec<OldInstanceFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceFilter {
    key: String,
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldInstanceFilter {
    key: String,
    value_set: Vec<String>,
}

pub(super) async fn start_session(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let request = session_request(parse(&call.body)?)?;
    let invocation = call.header(INVOCATION).filter(|id| !id.is_empty() && id.len() <= INVOCATION_MAX);
    // The invocation id is not signed, so a call captured earlier must not open a session with a new one.
    let used = front.seen.take(&call.caller, OffsetDateTime::now_utc());
    let first = used == Use::First;
    let body = body_digest(&call.body);
    let repeated = invocation.is_some_and(|id| front.lifecycle.has_started(&call.asker, id, body));
    if used == Use::TooMany && !repeated {
        let sentence = "too many sessions were asked for within ten minutes; try again later";
        return Err(ApiError::client(Code::Throttling, sentence));
    }
    // Two equal calls of one second have one signature, so a fresh one may serve two invocations.
    let another = invocation.is_some() && used == Use::Again;
    if !first && !repeated && !another {
        let sentence = "this request was used before; sign a new one";
        return Err(ApiError::client(Code::InvalidSignature, sentence));
    }
    let invocation = invocation.map(|id| Invocation { id: id.to_owned(), body, is_copy: !first });
    let ticket = front.lifecycle.start(&call.asker, request, invocation).await?;
    Ok(ticket_json(&ticket))
}

pub(super) async fn resume_session(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let input: OneSession = parse(&call.body)?;
    let id = noun(SessionId::parse(&input.session_id))?;
    // Without a token a stock client says "timed out" and ends; on an error it would hang.
    let none = json!({"SessionId": id});
    // A call captured earlier must not move the session to whoever has it.
    let used = front.seen.take(&call.caller, OffsetDateTime::now_utc());
    if !matches!(used, Use::First | Use::Again) {
        tracing::warn!(session = %id, principal = %call.asker.principal.arn, ?used, "resume refused by its signature");
        return Ok(none);
    }
    Ok(front.lifecycle.resume(&call.asker, &id).await?.map_or(none, |ticket| ticket_json(&ticket)))
}

pub(super) async fn terminate_session(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let input: OneSession = parse(&call.body)?;
    let id = noun(SessionId::parse(&input.session_id))?;
    front.lifecycle.end(&call.asker, &id, None).await?;
    Ok(json!({"SessionId": id}))
}

pub(super) async fn get_connection_status(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let input: OneTarget = parse(&call.body)?;
    let target = noun(Target::parse(&input.target))?;
    let connected = front.lifecycle.connected(&call.asker, &target).await?;
    Ok(json!({"Target": target, "Status": if connected { "connected" } else { "notconnected" }}))
}

pub(super) async fn describe_sessions(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let input: DescribeSessions = parse(&call.body)?;
    let span = match input.state.as_str() {
        "Active" => Span::Active,
        "History" => Span::History,
        _ => return Err(ApiError::client(Code::Validation, "State must be Active or History")),
    };
    let mut filter = Filter { span: Some(span), ..Filter::default() };
    for wanted in &input.filters {
        narrow(&mut filter, wanted)?;
    }
    let limit = input.max_results.unwrap_or(50);
    let page = front
        .lifecycle
        .sessions(&call.asker, SessionQuery { filter, limit, token: input.next_token })
        .await?;
    let sessions: Vec<Value> = page.rows.iter().map(session_json).collect();
    Ok(with_token(json!({"Sessions": sessions}), page.next))
}

pub(super) async fn describe_instances(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let mut input: DescribeInstances = parse(&call.body)?;
    let old = input.instance_information_filter_list.drain(..);
    input.filters.extend(old.map(|old| InstanceFilter { key: old.key, values: old.value_set }));
    let mut instances = front.lifecycle.instances(&call.asker).await?;
    for wanted in &input.filters {
        check_instance_filter(wanted)?;
        instances.retain(|instance| matches_filter(instance, wanted));
    }
    instances.sort_by(|a, b| a.target.cmp(&b.target));
    let limit = input.max_results.unwrap_or(50).clamp(1, 50);
    let after = input.next_token;
    let rest = instances.iter().filter(|i| after.as_deref().is_none_or(|after| i.target.as_str() > after));
    let mut page: Vec<&Instance> = rest.take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|last| last.target.to_string());
    let list: Vec<Value> = page.into_iter().map(instance_json).collect();
    Ok(with_token(json!({"InstanceInformationList": list}), next))
}

/// What a StartSession asks for, its nouns parsed and its size bounded.
pub fn session_request(input: StartSession) -> Result<SessionRequest, ApiError> {
    let size: usize = input
        .parameters
        .iter()
        .map(|(name, values)| name.len() + values.iter().map(String::len).sum::<usize>())
        .sum();
    if input.parameters.len() > PARAMETERS_MAX || size > PARAMETER_BYTES_MAX {
        return Err(ApiError::client(Code::Validation, "the document's parameters are too many or too long"));
    }
    Ok(SessionRequest {
        target: noun(Target::parse(&input.target))?,
        document: match input.document_name {
            Some(name) => noun(Document::parse(&name))?,
            None => Document::shell(),
        },
        parameters: input.parameters,
        reason: noun(input.reason.as_deref().map_or(Ok(None), reason))?,
    })
}

fn narrow(filter: &mut Filter, wanted: &SessionFilter) -> Result<(), ApiError> {
    let value = wanted.value.as_str();
    match wanted.key.as_str() {
        "InvokedAfter" => filter.invoked_after_ms = Some(time_ms(value)?),
        "InvokedBefore" => filter.invoked_before_ms = Some(time_ms(value)?),
        "Target" => filter.target = Some(noun(Target::parse(value))?),
        "Owner" => filter.owner = Some(value.to_owned()),
        "SessionId" => filter.id = Some(noun(SessionId::parse(value))?),
        "Status" => {
            let state = State::parse(value);
            filter.state = Some(
                state.ok_or_else(|| ApiError::client(Code::Validation, "the Status is not one of SSM's"))?,
            );
        }
        key => {
            let sentence = format!(
                "there is no filter {key}; known are InvokedAfter, InvokedBefore, Target, Owner, Status, SessionId"
            );
            return Err(ApiError::client(Code::InvalidFilterKey, sentence));
        }
    }
    Ok(())
}

fn check_instance_filter(wanted: &InstanceFilter) -> Result<(), ApiError> {
    let known = ["InstanceIds", "PingStatus", "PlatformTypes"];
    if known.contains(&wanted.key.as_str()) || wanted.key.starts_with("tag:") || wanted.key == "tag-key" {
        return Ok(());
    }
    let sentence = format!(
        "there is no filter {}; known are InstanceIds, PingStatus, PlatformTypes, tag-key and tag:NAME",
        wanted.key
    );
    Err(ApiError::client(Code::InvalidFilterKey, sentence))
}

fn matches_filter(instance: &Instance, wanted: &InstanceFilter) -> bool {
    let is = |value: &str| wanted.values.iter().any(|wanted| wanted == value);
    match wanted.key.as_str() {
        "InstanceIds" => is(instance.target.as_str()),
        "PingStatus" => is(ping_status(instance)),
        "PlatformTypes" => instance.platform.as_deref().is_some_and(is),
        "tag-key" => instance.tags.keys().any(|key| is(key)),
        key => key.strip_prefix("tag:").and_then(|key| instance.tags.get(key)).is_some_and(|value| is(value)),
    }
}

fn ticket_json(ticket: &Ticket) -> Value {
    json!({"SessionId": ticket.session, "TokenValue": ticket.token, "StreamUrl": ticket.stream_url})
}

fn session_json(record: &SessionRecord) -> Value {
    let mut session = json!({
        "SessionId": record.id,
        "Target": record.target,
        "Status": record.state.as_str(),
        "StartDate": seconds(record.started_ms),
        "DocumentName": record.document,
        "Owner": record.principal.arn,
        "AccessType": "Standard",
    });
    let optional = [
        ("Reason", record.reason.clone().map(Value::from)),
        ("EndDate", record.ended_ms.map(|ms| Value::from(seconds(ms)))),
        ("Details", record.end_reason.clone().map(Value::from)),
    ];
    for (key, value) in optional {
        if let (Some(object), Some(value)) = (session.as_object_mut(), value) {
            object.insert(key.to_owned(), value);
        }
    }
    session
}

fn instance_json(instance: &Instance) -> Value {
    json!({
        "InstanceId": instance.target,
        "PingStatus": ping_status(instance),
        "PlatformType": instance.platform.as_deref().unwrap_or("Linux"),
        "AgentVersion": instance.agent_version.as_deref().unwrap_or(""),
        "ComputerName": instance.name.as_deref().unwrap_or(""),
        "Name": instance.name.as_deref().unwrap_or(""),
        "ResourceType": if instance.target.as_str().starts_with("mi-") { "ManagedInstance" } else { "EC2Instance" },
    })
}

fn ping_status(instance: &Instance) -> &'static str {
    if instance.online { "Online" } else { "ConnectionLost" }
}

fn with_token(mut answer: Value, next: Option<String>) -> Value {
    if let (Some(object), Some(next)) = (answer.as_object_mut(), next) {
        object.insert("NextToken".to_owned(), next.into());
    }
    answer
}

/// Reads a call's JSON; the error says what is wrong where.
pub fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}".as_slice() } else { body };
    serde_json::from_slice(body).map_err(|error| {
        ApiError::client(Code::Validation, format!("the request's JSON is not valid: {error}"))
    })
}

fn body_digest(body: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    out
}

fn time_ms(text: &str) -> Result<u64, ApiError> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let ms = parsed.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    ms.ok_or_else(|| ApiError::client(Code::Validation, "a time must look like 2026-11-22T08:00:00Z"))
}

/// Times of the SSM API are seconds with a fraction.
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
