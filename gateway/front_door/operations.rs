//! Each operation of the SSM API: its input parsed, its answer in AWS's words.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use axum::body::Bytes;
use ring::digest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Front;
use super::call::{Call, noun};
use crate::error::{ApiError, Code};
use crate::identity::Use;
use crate::lifecycle::{Invocation, Ticket};
use crate::session::{Document, SessionId, SessionRequest, Target, reason};

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

fn ticket_json(ticket: &Ticket) -> Value {
    json!({"SessionId": ticket.session, "TokenValue": ticket.token, "StreamUrl": ticket.stream_url})
}

/// How many rows a page has; outside of what AWS takes is an error.
pub(super) fn page_size(
    asked: Option<i64>,
    fits: RangeInclusive<usize>,
    usual: usize,
) -> Result<usize, ApiError> {
    let Some(asked) = asked else { return Ok(usual) };
    usize::try_from(asked).ok().filter(|size| fits.contains(size)).ok_or_else(|| {
        invalid(format!("MaxResults is {asked}; it must be {} to {}", fits.start(), fits.end()))
    })
}

/// A value that the operation does not take.
pub(super) fn invalid(sentence: impl AsRef<str>) -> ApiError {
    ApiError::client(Code::Validation, sentence)
}

/// The answer with the token of the next page, if there is one.
pub(super) fn with_token(answer: Value, next: Option<String>) -> Value {
    with_known(answer, [("NextToken", next.map(Value::from))])
}

/// An object with those of the fields that are known, as in AWS.
pub(super) fn with_known<const N: usize>(mut object: Value, fields: [(&str, Option<Value>); N]) -> Value {
    for (key, value) in fields {
        if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
            object.insert(key.to_owned(), value);
        }
    }
    object
}

/// Times of the SSM API are seconds with a fraction.
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Reads a call's JSON; the error says what is wrong where.
pub fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}".as_slice() } else { body };
    let unreadable = |sentence: String| ApiError::client(Code::Serialization, sentence);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        Some(b'[') => {
            return Err(unreadable("the request's body must be a JSON object, not a list".to_owned()));
        }
        _ => return Err(unreadable("the request's body must be a JSON object, {...}".to_owned())),
    }
    serde_json::from_slice(body).map_err(|error| {
        let told = in_words_of_json(&error.to_string());
        // As AWS tells them apart: what is no value of that kind, and a value that is none of those.
        let (code, what) = match error.classify() {
            Category::Data if told.starts_with("missing field") => {
                (Code::Validation, "the request is not complete")
            }
            Category::Data if told.starts_with("invalid type") => {
                (Code::Serialization, "the request's JSON does not fit")
            }
            Category::Data => (Code::Validation, "the request's JSON does not fit"),
            _ => (Code::Serialization, "the request's body is not JSON"),
        };
        ApiError::client(code, format!("{what}: {told}"))
    })
}

/// An error of serde without the names of our types.
fn in_words_of_json(error: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut all = error.split(' ').peekable();
    while let Some(word) = all.next() {
        match word {
            "struct" | "enum" => {
                all.next();
                words.push("an object");
            }
            "a" if all.next_if(|next| *next == "map").is_some() => words.push("an object"),
            "a" if all.next_if(|next| *next == "sequence").is_some() => words.push("a list"),
            word => words.push(word),
        }
    }
    words.join(" ")
}

fn body_digest(body: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_json_names_no_type_of_ours() {
        let told =
            in_words_of_json("invalid type: map, expected struct SessionFilter with 2 elements at line 1");
        assert_eq!(told, "invalid type: map, expected an object with 2 elements at line 1");
        assert_eq!(in_words_of_json("expected a sequence or a map"), "expected a list or an object");
    }
}
