//! A question that somebody makes up, and why it is answered so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Shared;
use super::answer::{Answer, body};
use super::targets::own_answer;
use super::visitor::Visitor;
use crate::error::{ApiError, Code};
use crate::front_door::noun;
use crate::lifecycle::{Explained, Supposed};
use crate::policy::{Action, Change, Explanation};
use crate::session::{Document, reason};

/// The words of the form; an empty one is as if it were not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    who: Option<String>,
    action: Action,
    resource: Option<String>,
    document: Option<String>,
    command: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    reason: Option<String>,
    mfa: Option<bool>,
    source_ip: Option<IpAddr>,
    at: Option<String>,
}

/// `POST explain`: everything to who administers, hints to everybody else.
pub(super) async fn explain(State(console): Shared, visitor: Visitor, request: Request) -> Answer {
    let form: Form = body(request).await?;
    let explained = console.lifecycle.explain(&visitor.asker, form.supposed()?).await?;
    Ok(Json(match explained {
        Explained::Own { decision, hints } => own_answer(&decision, hints.as_deref()),
        Explained::Whole { explanation, shut_out, known } => {
            json!({"whole": whole(&explanation), "shut_out": shut_out, "known": known})
        }
    }))
}

impl Form {
    fn supposed(self) -> Result<Supposed, ApiError> {
        let document = said(self.document).map(|name| Document::parse(&name)).transpose();
        let at = said(self.at).map(|text| OffsetDateTime::parse(&text, &Rfc3339)).transpose();
        let at = at.map_err(|_| {
            ApiError::client(Code::Validation, "the time is not one such as 2026-11-30T08:00:00Z")
        })?;
        let parameters = [
            ("command", said(self.command)),
            ("host", said(self.host)),
            ("portNumber", self.port.map(|port| port.to_string())),
        ];
        let given = parameters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), vec![value?])));
        Ok(Supposed {
            who: said(self.who),
            action: self.action,
            resource: said(self.resource),
            document: noun(document)?,
            parameters: given.collect::<BTreeMap<_, _>>(),
            reason: noun(said(self.reason).as_deref().map_or(Ok(None), reason))?,
            mfa: self.mfa,
            source_ip: self.source_ip,
            at,
        })
    }
}

fn said(word: Option<String>) -> Option<String> {
    word.map(|word| word.trim().to_owned()).filter(|word| !word.is_empty())
}

/// An explanation, its changes as sentences.
fn whole(explanation: &Explanation) -> Value {
    let sentences = |set: &Vec<Change>| set.iter().map(Change::sentence).collect::<Vec<_>>();
    let changes: Vec<_> = explanation.changes.iter().map(sentences).collect();
    let mut json = json!(explanation);
    if let Some(object) = json.as_object_mut() {
        object.insert("changes".to_owned(), json!(changes));
    }
    json
}
