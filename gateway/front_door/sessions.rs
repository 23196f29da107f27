//! `DescribeSessions`: its filters checked, its rows in AWS's words.

use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Front;
use super::call::{Call, noun};
use super::operations::{invalid, page_size, parse, seconds, with_known, with_token};
use crate::error::{ApiError, Code};
use crate::lifecycle::SessionQuery;
use crate::registry::{Filter, SessionRecord, Span, State};
use crate::session::{SessionId, Target};

/// Fewest and most rows of one page, as in AWS.
const PAGE: RangeInclusive<usize> = 1..=200;
/// Rows of one page, if the caller does not say.
const PAGE_USUAL: usize = 50;
/// Most filters of one call, as in AWS.
const FILTERS_MAX: usize = 6;
/// Longest value of a filter, characters, as in AWS.
const VALUE_MAX: usize = 400;
/// What AWS calls the access of all sessions that were not asked for first.
const STANDARD: &str = "Standard";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeSessions {
    state: String,
    max_results: Option<i64>,
    next_token: Option<String>,
    filters: Option<Vec<SessionFilter>>,
}

#[derive(Deserialize)]
struct SessionFilter {
    key: String,
    value: String,
}

/// Answers one call; policy leaves out what the caller may not see.
pub(super) async fn describe(front: &Front, call: &Call) -> Result<Value, ApiError> {
    let input: DescribeSessions = parse(&call.body)?;
    let span = match input.state.as_str() {
        "Active" => Span::Active,
        "History" => Span::History,
        _ => return Err(invalid("State must be Active or History")),
    };
    let limit = page_size(input.max_results, PAGE, PAGE_USUAL)?;
    let mut wanted = Wanted { filter: Filter { span: Some(span), ..Filter::default() }, none: false };
    let filters = input.filters.as_deref();
    if filters.is_some_and(|filters| filters.is_empty() || filters.len() > FILTERS_MAX) {
        return Err(invalid(format!("Filters must be 1 to {FILTERS_MAX}; leave them out for all sessions")));
    }
    let mut keys: Vec<&str> = Vec::new();
    for filter in filters.unwrap_or_default() {
        wanted.narrow(filter)?;
        if keys.contains(&filter.key.as_str()) {
            return Err(invalid(format!("the filter {} is there twice; give each once", filter.key)));
        }
        keys.push(&filter.key);
    }
    // A token is looked at even where nothing can be found.
    let query = SessionQuery { filter: wanted.filter, limit, token: input.next_token };
    let page = front.lifecycle.sessions(&call.asker, query).await?;
    if wanted.none {
        return Ok(json!({"Sessions": []}));
    }
    let sessions: Vec<Value> = page.rows.iter().map(session_json).collect();
    Ok(with_token(json!({"Sessions": sessions}), page.next))
}

/// What the filters leave.
struct Wanted {
    filter: Filter,
    /// Nothing can match.
    none: bool,
}

impl Wanted {
    fn narrow(&mut self, wanted: &SessionFilter) -> Result<(), ApiError> {
        let (value, filter) = (wanted.value.as_str(), &mut self.filter);
        if value.is_empty() || value.chars().count() > VALUE_MAX {
            let key = &wanted.key;
            return Err(invalid(format!(
                "the value of the filter {key} must be 1 to {VALUE_MAX} characters"
            )));
        }
        match wanted.key.as_str() {
            "InvokedAfter" => filter.invoked_after_ms = Some(time_ms(value)?),
            "InvokedBefore" => filter.invoked_before_ms = Some(time_ms(value)?),
            "Target" => filter.target = Some(noun(Target::parse(value))?),
            "Owner" => filter.owner = Some(value.to_owned()),
            "SessionId" => filter.id = Some(noun(SessionId::parse(value))?),
            "Status" => filter.state = Some(State::parse(value).ok_or_else(not_a_status)?),
            "AccessType" if value == STANDARD => {}
            // Such sessions are AWS's own; none goes through a gateway.
            "AccessType" if value == "JustInTime" => self.none = true,
            "AccessType" => return Err(invalid("AccessType must be Standard or JustInTime")),
            key => {
                let sentence = format!(
                    "there is no filter {key}; known are InvokedAfter, InvokedBefore, Target, Owner, Status, \
                     SessionId, AccessType"
                );
                return Err(ApiError::client(Code::InvalidFilterKey, sentence));
            }
        }
        Ok(())
    }
}

fn session_json(record: &SessionRecord) -> Value {
    let session = json!({
        "SessionId": record.id,
        "Target": record.target,
        "Status": record.state.as_str(),
        "StartDate": seconds(record.started_ms),
        "DocumentName": record.document,
        "Owner": record.principal.arn,
        "AccessType": STANDARD,
    });
    let optional = [
        ("Reason", record.reason.clone().map(Value::from)),
        ("EndDate", record.ended_ms.map(|ms| Value::from(seconds(ms)))),
        ("Details", record.end_reason.clone().map(Value::from)),
    ];
    with_known(session, optional)
}

fn not_a_status() -> ApiError {
    invalid("Status must be Connected, Connecting, Disconnected, Terminated, Terminating or Failed")
}

fn time_ms(text: &str) -> Result<u64, ApiError> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    let ms = parsed.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    ms.ok_or_else(|| invalid("a time must look like 2026-11-22T08:00:00Z"))
}
