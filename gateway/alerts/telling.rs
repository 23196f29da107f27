//! What is told of an alert, and under which id.

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::Raised;
use crate::asciicast::Header;
use crate::registry::WaitingAlert;
use crate::session::now_ms;

/// Longest subject that SNS takes, ASCII characters.
const SUBJECT_MAX: usize = 100;
/// Bytes of a digest that make an id.
const ID_BYTES: usize = 16;

/// Something to be told, at least once and always with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling(pub(super) WaitingAlert);

impl Telling {
    /// What is said; `what` makes the id, which goes into the body.
    ///
    /// The subject loses what SNS does not take.
    pub fn new(subject: &str, what: &[&str], mut body: Value) -> Self {
        let id = id(what);
        if let Some(fields) = body.as_object_mut() {
            fields.insert("id".to_owned(), Value::String(id.clone()));
        }
        let subject = subject.chars().filter(char::is_ascii).take(SUBJECT_MAX).collect();
        Self(WaitingAlert { id, at_ms: now_ms(), subject, body: body.to_string() })
    }

    /// A session's alert.
    ///
    /// What meets a rule with the same text in the same millisecond of a
    /// session is one thing to be told.
    pub(super) fn of(alert: &Raised, header: Option<&Header>) -> Self {
        let subject = format!("Postern alert {} in {}", alert.rule, alert.session);
        let time_ms = alert.time_ms.to_string();
        let what = [alert.session.as_str(), &alert.rule, &time_ms, &alert.text];
        Self::new(&subject, &what, body(alert, header))
    }
}

/// The same for the same words, in each process.
fn id(what: &[&str]) -> String {
    let mut digest = Context::new(&SHA256);
    for word in what {
        digest.update(word.as_bytes());
        // No text has it, so two lists of words cannot look the same.
        digest.update(&[0]);
    }
    let digest = digest.finish();
    HEXLOWER.encode(digest.as_ref().get(..ID_BYTES).unwrap_or(digest.as_ref()))
}

/// What is said of an alert, and of the session by its header.
fn body(alert: &Raised, header: Option<&Header>) -> Value {
    let said = |name| header.and_then(|header| header.said(name));
    let at = header
        .and_then(|header| u64::try_from(header.timestamp).ok())
        .map(|began| began * 1000 + alert.time_ms);
    json!({
        "alert": &*alert.rule,
        "text": alert.text,
        "session": alert.session,
        "principal": said("principal"),
        "target": said("target"),
        "node": said("node"),
        "time_ms": at,
        "offset_ms": alert.time_ms,
        "replay": format!("postern replay {} --at {}s", alert.session, alert.time_ms / 1000),
    })
}
