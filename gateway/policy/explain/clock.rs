//! When would it be another answer? Moments that policies tell apart.

use std::sync::Arc;

use cedar_policy::{Context, Request};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Date, Duration, OffsetDateTime};

use super::super::Policy;
use super::super::situation::{Ready, Situation};
use super::change::Change;
use super::clauses::Clause;

/// How far apart the moments are that are looked at first.
const STEP: Duration = Duration::minutes(15);
/// So many of them: eight days, so that every weekday is among them.
const STEPS: i32 = 8 * 24 * 4;

/// The first moment after now at which the clauses are as is wanted.
///
/// If there is none, the last one before now that a policy names.
pub(super) fn moment(
    policy: &Policy,
    (situation, ready): (&Situation, &Ready),
    clauses: &[&Clause],
    wanted: impl Fn(&[&Clause], &Ready) -> bool,
) -> Option<Change> {
    let now = now_of(situation)?;
    let holds = |at: OffsetDateTime| {
        at_time(policy, (situation, ready), at).is_some_and(|ready| wanted(clauses, &ready))
    };
    let change = |at: OffsetDateTime| Some(Change::Time { at: at.format(&Rfc3339).ok()?, past: at < now });
    // Whole quarters: people say 8:00, not 8:07:31.
    let start = now - Duration::seconds(now.unix_timestamp().rem_euclid(STEP.whole_seconds()));
    let found = (1..=STEPS).map(|step| start + STEP * step).find(|at| holds(*at));
    if let Some(found) = found {
        let minutes = (1..STEP.whole_minutes()).map(|minute| found - STEP + Duration::minutes(minute));
        let first = minutes.filter(|at| *at > now).find(|at| holds(*at));
        return change(first.unwrap_or(found));
    }
    let mut named: Vec<OffsetDateTime> = Vec::new();
    for clause in clauses {
        let mut texts = Vec::new();
        literals(&clause.body, &mut texts);
        let moments = texts.iter().filter_map(|text| parse(text));
        named.extend(moments.flat_map(|at| [at, at - Duration::minutes(1), at + Duration::minutes(1)]));
    }
    named.retain(|at| holds(*at));
    let next = named.iter().filter(|at| **at > now).min();
    next.or_else(|| named.iter().max()).and_then(|at| change(*at))
}

/// The situation's own time, as Cedar reads it again: whole seconds of UTC.
pub(super) fn now_of(situation: &Situation) -> Option<OffsetDateTime> {
    let now = situation.request.context.get("now")?;
    let now = parse(now.get("__extn").and_then(|extension| extension.get("arg")).unwrap_or(now).as_str()?)?;
    now.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).ok()
}

/// A moment as Cedar writes it: a date alone is its midnight.
pub(in super::super) fn parse(text: &str) -> Option<OffsetDateTime> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment);
    }
    let format = time::macros::format_description!("[year]-[month]-[day]");
    Some(Date::parse(text, format).ok()?.midnight().assume_utc())
}

/// The same request at another time; the entities are as they are.
fn at_time(policy: &Policy, (situation, ready): (&Situation, &Ready), at: OffsetDateTime) -> Option<Ready> {
    let mut context = situation.request.context.clone();
    context.insert("now".to_owned(), written(at)?.into());
    context.insert("weekday".to_owned(), at.weekday().number_from_monday().into());
    let (principal, action, resource) =
        (ready.request.principal()?, ready.request.action()?, ready.request.resource()?);
    let context = Context::from_json_value(Value::Object(context), Some((&policy.schema, action))).ok()?;
    let request = Request::new(principal.clone(), action.clone(), resource.clone(), context, None).ok()?;
    Some(Ready { request, entities: Arc::clone(&ready.entities) })
}

/// As Cedar reads it.
fn written(at: OffsetDateTime) -> Option<String> {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    at.to_offset(time::UtcOffset::UTC).format(format).ok()
}

fn literals(expression: &Value, into: &mut Vec<String>) {
    match expression {
        Value::Object(object) => {
            for (key, value) in object {
                if key == "datetime" {
                    into.extend(value.get(0).and_then(|text| text.get("Value")?.as_str()).map(str::to_owned));
                }
                literals(value, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| literals(value, into)),
        _ => {}
    }
}
