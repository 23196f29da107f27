//! What a policy needs, clause by clause, and whether each holds.

use cedar_policy::{Policy as Cedar, PolicySet};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::situation::{Ready, uid_text};
use super::super::slices::Judgement;

/// Deepest expression that is taken apart; deeper ones stay whole.
const DEPTH_MAX: usize = 64;
/// Words of the context that change by themselves.
const CLOCK: [&str; 2] = ["\"now\"", "\"weekday\""];

/// What the asker can change: the context, and how they signed in.
const OWN: [&str; 2] = ["{\"Var\":\"context\"}", "\"mfa\""];

/// One thing that a policy needs to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The clause, as policies write it.
    pub clause: String,
    /// Whether it holds now.
    pub holds: bool,
}

/// One clause of a policy, that can be asked about alone.
pub(super) struct Clause {
    pub text: String,
    /// Its expression in Cedar's JSON, or the scope's.
    pub body: Value,
    /// False if the policy needs it not to hold.
    pub wanted: bool,
    pub looks_at_clock: bool,
    /// Whether it is about anything that the asker alone can change.
    pub is_askers_own: bool,
    test: PolicySet,
}

impl Clause {
    /// Whether the policy's need is met; what errs is not.
    pub fn is_met(&self, ready: &Ready) -> bool {
        Judgement::of(&self.test, &ready.request, &ready.entities).allowed
    }

    pub fn need(&self, ready: &Ready) -> Need {
        Need { clause: self.text.clone(), holds: self.is_met(ready) }
    }
}

/// The clauses that have to hold for a policy to apply, scope first.
///
/// Its action is left out: the policy is one for the action that is asked.
pub(super) fn clauses(policy: &Cedar) -> Vec<Clause> {
    let Ok(json) = policy.to_json() else { return Vec::new() };
    let mut found = Vec::new();
    for variable in ["principal", "resource"] {
        found.extend(json.get(variable).and_then(|scope| of_scope(variable, scope)));
    }
    found.extend(conditions(&json).into_iter().filter_map(|(part, wanted)| of_condition(part, wanted)));
    found
}

/// The parts of a policy's conditions, and whether each has to hold.
///
/// The policy is in Cedar's JSON.
pub(in super::super) fn conditions(json: &Value) -> Vec<(&Value, bool)> {
    let mut found = Vec::new();
    for condition in json.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        let (Some(kind), Some(body)) = (condition.get("kind").and_then(Value::as_str), condition.get("body"))
        else {
            continue;
        };
        let (wanted, splits_at) = if kind == "unless" { (false, "||") } else { (true, "&&") };
        let mut parts = Vec::new();
        split(body, splits_at, 0, &mut parts);
        found.extend(parts.into_iter().map(|part| (part, wanted)));
    }
    found
}

fn of_scope(variable: &str, scope: &Value) -> Option<Clause> {
    let operator = if scope.get("op")?.as_str()? == "==" { "==" } else { "in" };
    let entity = scope.get("entity").or_else(|| scope.get("in")?.get("entity"));
    let entity = entity.map(|entity| entity.get("__entity").unwrap_or(entity));
    let kind = scope.get("entity_type").and_then(Value::as_str);
    let kind = kind.map(|kind| format!(" is {kind}")).unwrap_or_default();
    let (mut place, mut body) = (String::new(), Value::Null);
    if let Some(entity) = entity {
        place =
            format!(" {operator} {}", uid_text(entity.get("type")?.as_str()?, entity.get("id")?.as_str()?));
        body = json!({operator: {"left": {"Var": variable}, "right": {"Value": {"__entity": entity}}}});
    } else if kind.is_empty() {
        return None;
    }
    let mut all = any_scope();
    all.as_object_mut()?.insert(variable.to_owned(), scope.clone());
    Some(Clause {
        text: format!("{variable}{kind}{place}"),
        body,
        wanted: true,
        looks_at_clock: false,
        is_askers_own: false,
        test: test(all)?,
    })
}

fn of_condition(body: &Value, wanted: bool) -> Option<Clause> {
    let with = |kind: &str| {
        let mut policy = any_scope();
        let condition = json!([{"kind": kind, "body": body}]);
        policy.as_object_mut()?.insert("conditions".to_owned(), condition);
        test(policy)
    };
    let text = expression(&with("when")?)?;
    let text = if wanted { text } else { format!("not ({text})") };
    let whole = body.to_string();
    Some(Clause {
        text,
        body: body.clone(),
        wanted,
        looks_at_clock: CLOCK.iter().any(|word| whole.contains(word)),
        is_askers_own: OWN.iter().any(|word| whole.contains(word)),
        test: with(if wanted { "when" } else { "unless" })?,
    })
}

fn any_scope() -> Value {
    let all = json!({"op": "All"});
    json!({"effect": "permit", "principal": all, "action": all, "resource": all, "conditions": []})
}

fn test(policy: Value) -> Option<PolicySet> {
    PolicySet::from_policies([Cedar::from_json(None, policy).ok()?]).ok()
}

/// The text between the braces of the only policy's condition, on one line.
fn expression(only: &PolicySet) -> Option<String> {
    let text = only.policies().next()?.to_cedar()?;
    let (_, condition) = text.split_once("when {")?;
    let (condition, _) = condition.rsplit_once('}')?;
    Some(crate::session::printable(&condition.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn split<'a>(body: &'a Value, at: &str, depth: usize, into: &mut Vec<&'a Value>) {
    match body.get(at) {
        Some(both) if depth < DEPTH_MAX => {
            for side in ["left", "right"] {
                if let Some(part) = both.get(side) {
                    split(part, at, depth + 1, into);
                }
            }
        }
        _ => into.push(body),
    }
}
