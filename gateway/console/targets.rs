//! The machines, and whether a session on one would be allowed.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use super::Shared;
use super::answer::{Answer, body};
use super::visitor::Visitor;
use crate::front_door::session_request;
use crate::policy::Decision;
use crate::session::Machine;

/// `GET targets`: those that policy shows to this person.
pub(super) async fn targets(State(console): Shared, visitor: Visitor) -> Answer {
    let mut machines = console.lifecycle.machines(&visitor.asker).await?;
    machines.sort_by_cached_key(|machine| machine.place());
    let targets: Vec<Value> = machines.iter().map(|machine| machine_json(machine)).collect();
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

fn machine_json(Machine { instance, details }: &Machine) -> Value {
    json!({
        "id": instance.target,
        "name": instance.name,
        "account": instance.account,
        "region": instance.region,
        "platform": instance.platform,
        "platform_name": details.platform_name,
        "platform_version": details.platform_version,
        "last_ping_ms": details.last_ping_ms,
        "agent": instance.agent_version,
        "online": instance.online,
        "tags": instance.tags,
    })
}
