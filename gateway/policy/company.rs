//! People and machines as a file describes them, to ask about offline.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::situation::{Requested, Situation, uid_of, uid_text};
use super::stranger::stranger;
use super::{Action, Policy};
use crate::session::Principal;

/// The entities of a file, each principal with its groups.
#[derive(Debug, Clone, Default)]
pub struct Company {
    entities: Vec<Value>,
}

/// Under which circumstances it is asked.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// When; policies see this time and its weekday.
    pub now: Option<OffsetDateTime>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Where the request came from.
    pub source_ip: Option<std::net::IpAddr>,
    /// Whether the person used a second factor.
    pub mfa: bool,
    /// The session document; the one of the action if not given.
    pub document: Option<String>,
    /// What `startCommand` runs.
    pub command: Option<String>,
    /// The port of a forward or of SSH.
    pub port: Option<u16>,
    /// The host behind the machine.
    pub host: Option<String>,
}

impl Company {
    /// Takes entities in, and adds who is in which group of `groups.toml`.
    pub fn new(entities: Vec<Value>, policy: &Policy) -> Self {
        let mut company = Self { entities };
        for entity in &mut company.entities {
            add_groups(entity, policy);
        }
        company
    }

    /// The entities of that kind, such as `User`, by their names.
    pub fn of_kind(&self, kind: &str) -> Vec<String> {
        let start = format!("Postern::{kind}::");
        self.entities.iter().filter_map(uid_of).filter(|uid| uid.starts_with(&start)).collect()
    }

    /// The entity of a kind by uid, id, `name` or `arn`; None if there is none.
    pub fn find(&self, kind: &str, name: &str) -> Option<String> {
        let (full, start) = (uid_text(&format!("Postern::{kind}"), name), format!("Postern::{kind}::"));
        let called = |entity: &&Value| {
            let attrs = entity.get("attrs");
            let is = |key: &str| attrs.and_then(|attrs| attrs.get(key)?.as_str()) == Some(name);
            uid_of(entity).is_some_and(|uid| {
                uid.starts_with(&start) && (uid == full || uid == name || is("name") || is("arn"))
            })
        };
        self.entities.iter().find(called).and_then(uid_of)
    }

    /// Adds somebody by ARN or address, with the groups of `groups.toml`.
    pub fn add_person(&mut self, policy: &Policy, name: &str) -> Option<String> {
        let person = stranger(name)?;
        let mut parents = Vec::new();
        if !person.account.is_empty() {
            parents.push(json!({"type": "Postern::Account", "id": person.account}));
        }
        parents.extend(person.role_arn().map(|role| json!({"type": "Postern::Role", "id": role})));
        let mut entity = json!({
            "uid": {"type": "Postern::User", "id": person.id},
            "attrs": {"arn": person.arn, "name": person.name, "account": person.account,
                      "method": person.method, "authenticatedAt": "1970-01-01T00:00:00Z"},
            "parents": parents, "tags": {},
        });
        if let (Some(email), Some(attrs)) =
            (&person.facts.email, entity.get_mut("attrs").and_then(Value::as_object_mut))
        {
            attrs.insert("email".to_owned(), email.clone().into());
        }
        add_groups(&mut entity, policy);
        self.entities.push(entity);
        Some(uid_text("Postern::User", name))
    }

    /// Adds a machine that no file describes.
    pub fn add_machine(
        &mut self,
        id: &str,
        account: &str,
        region: &str,
        tags: &BTreeMap<String, String>,
    ) -> String {
        self.entities.push(json!({
            "uid": {"type": "Postern::Instance", "id": id},
            "attrs": {"account": account, "region": region, "online": true},
            "parents": [{"type": "Postern::Account", "id": account}, {"type": "Postern::Region", "id": region}],
            "tags": tags,
        }));
        uid_text("Postern::Instance", id)
    }

    /// Sets tags of an entity; what it had under the same keys is replaced.
    pub fn tag(&mut self, uid: &str, tags: &BTreeMap<String, String>) {
        let entity = self.entities.iter_mut().find(|entity| uid_of(entity).as_deref() == Some(uid));
        if let Some(entity) = entity.and_then(Value::as_object_mut)
            && let Some(all) = entity.entry("tags").or_insert_with(|| json!({})).as_object_mut()
        {
            all.extend(tags.iter().map(|(key, value)| (key.clone(), value.clone().into())));
        }
    }

    /// An attribute of an entity, if it is text.
    pub fn attribute(&self, uid: &str, name: &str) -> Option<&str> {
        let entity = self.entities.iter().find(|entity| uid_of(entity).as_deref() == Some(uid))?;
        entity.get("attrs")?.get(name)?.as_str()
    }

    /// The question who may do an action to what.
    pub fn situation(&self, who: &str, action: Action, what: &str, how: &Circumstances) -> Situation {
        let request = Requested {
            principal: who.to_owned(),
            action: uid_text("Postern::Action", action.as_str()),
            resource: what.to_owned(),
            context: context(action, how),
        };
        let mut situation = Situation { entities: self.around(&request), request };
        if how.mfa
            && let Some(attrs) =
                situation.entity_mut(who).and_then(|who| who.get_mut("attrs")?.as_object_mut())
        {
            attrs.insert("mfa".to_owned(), true.into());
        }
        situation
    }

    /// A request with what it is about out of these entities.
    pub fn around(&self, request: &Requested) -> Vec<Value> {
        let mut waiting = vec![request.principal.clone(), request.resource.clone()];
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        while let Some(uid) = waiting.pop() {
            if !seen.insert(uid.clone()) {
                continue;
            }
            let Some(entity) = self.entities.iter().find(|entity| uid_of(entity).as_deref() == Some(&uid))
            else {
                continue;
            };
            named_in(entity, &mut waiting);
            found.push(entity.clone());
        }
        let document = request.context.get("document").and_then(|document| {
            document.get("__entity").unwrap_or(document).get("id")?.as_str().map(str::to_owned)
        });
        if let Some(name) = document {
            let uid = json!({"type": "Postern::Document", "id": name});
            found.push(json!({"uid": uid, "attrs": {"name": name}, "parents": [], "tags": {}}));
        }
        found
    }
}

impl Policy {
    /// Every member that `groups.toml` names, patterns as they are written.
    pub fn members(&self) -> Vec<String> {
        self.groups.members()
    }
}

/// The context of an action, with what has to be there.
fn context(action: Action, how: &Circumstances) -> Map<String, Value> {
    let now = how.now.unwrap_or_else(OffsetDateTime::now_utc).to_offset(time::UtcOffset::UTC);
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let mut context = Map::new();
    context.insert("now".to_owned(), now.format(&Rfc3339).unwrap_or_default().into());
    context.insert("weekday".to_owned(), now.weekday().number_from_monday().into());
    if let Some(ip) = how.source_ip {
        context.insert("sourceIp".to_owned(), ip.to_canonical().to_string().into());
    }
    if how.mfa {
        context.insert("mfa".to_owned(), true.into());
    }
    if !action.starts_session() {
        return context;
    }
    let document = how.document.as_deref().unwrap_or(action.usual_document());
    context.insert("document".to_owned(), json!({"type": "Postern::Document", "id": document}));
    context.extend(how.reason.clone().map(|reason| ("reason".to_owned(), reason.into())));
    if action == Action::StartCommand {
        context.insert("command".to_owned(), how.command.as_deref().unwrap_or("true").into());
    }
    if matches!(action, Action::StartSsh | Action::ForwardPort | Action::ForwardPortToHost) {
        let default = if action == Action::StartSsh { 22 } else { 80 };
        context.insert("port".to_owned(), how.port.unwrap_or(default).into());
    }
    if action == Action::ForwardPortToHost {
        context.insert("host".to_owned(), how.host.as_deref().unwrap_or("localhost").into());
    }
    context
}

/// Puts a user into the groups that name its ARN.
fn add_groups(entity: &mut Value, policy: &Policy) {
    let Some(principal) = principal_of(entity) else { return };
    let role = principal.role_arn();
    let groups = policy.groups.of(&principal, role.as_deref());
    let Some(parents) = entity.get_mut("parents").and_then(Value::as_array_mut) else { return };
    for group in groups {
        let parent = json!({"type": "Postern::Group", "id": group});
        if !parents.iter().any(|known| known.get("__entity").unwrap_or(known) == &parent) {
            parents.push(parent);
        }
    }
}

/// The person that an entity describes, as far as groups look at them.
fn principal_of(entity: &Value) -> Option<Principal> {
    let uid = entity.get("uid")?;
    let uid = uid.get("__entity").unwrap_or(uid);
    if uid.get("type")?.as_str()? != "Postern::User" {
        return None;
    }
    let attrs = entity.get("attrs")?;
    let arn = attrs.get("arn")?.as_str()?;
    let role = arn.split_once(":assumed-role/").and_then(|(_, rest)| rest.split('/').next());
    // By its JSON, so that facts that a file does not have stay unknown.
    serde_json::from_value(json!({
        "id": uid.get("id")?, "arn": arn, "account": attrs.get("account")?, "name": attrs.get("name")?,
        "role": role, "method": "sts_proof", "authenticated_at": 0,
        "facts": {"email": attrs.get("email")},
    }))
    .ok()
}

/// Every entity that another one names.
fn named_in(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let (Some(Value::String(kind)), Some(Value::String(id))) =
                (object.get("type"), object.get("id"))
            {
                into.push(uid_text(kind, id));
            }
            object.values().for_each(|value| named_in(value, into));
        }
        Value::Array(values) => values.iter().for_each(|value| named_in(value, into)),
        _ => {}
    }
}
