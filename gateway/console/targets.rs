//! The machines, and whether a session on one would be allowed.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Answer, body};
use super::visitor::Visitor;
use crate::front_door::session_request;
use crate::policy::Decision;
use crate::session::Instance;

/// `GET targets`: those that policy shows to this person.
pub(super) async fn targets(State(console): Shared, visitor: Visitor) -> Answer {
    let mut instances = console.lifecycle.instances(&visitor.asker).await?;
    instances.sort_by(|a, b| (&a.name, &a.target).cmp(&(&b.name, &b.target)));
    let targets: Vec<Value> = instances.iter().map(instance_json).collect();
    Ok(Json(json!({ "targets": targets })))
}

/// `POST access`: the answer that starting such a session would get, and
/// what its person could do for another one.
pub(super) async fn access(State(console): Shared, visitor: Visitor, request: Request) -> Answer {
    let request = session_request(body(request).await?)?;
    let (decision, hints) = console.lifecycle.would_admit_or_hint(&visitor.asker, &request).await?;
    Ok(Json(own_answer(&decision, hints.as_deref())))
}

/// What somebody is told of a question about themselves.
pub(super) fn own_answer(decision: &Decision, hints: Option<&[&'static str]>) -> Value {
    json!({
        "allowed": decision.allowed,
        "sentence": decision.sentence,
        "policies": decision.policies,
        "obligations": decision.obligations,
        "hints": hints,
    })
}

fn instance_json(instance: &Instance) -> Value {
    json!({
        "id": instance.target,
        "name": instance.name,
        "account": instance.account,
        "region": instance.region,
        "platform": instance.platform,
        "agent": instance.agent_version,
        "online": instance.online,
        "tags": instance.tags,
    })
}
