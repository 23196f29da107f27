//! People and machines as a file describes them, to ask about offline.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::entities::{defaults, fitting};
use super::situation::{Requested, Situation, uid_of, uid_text};
use super::{Action, Policy};
use crate::session::{Document, Principal, printable};

/// The entities of a file, each principal with its groups.
#[derive(Debug, Clone, Default)]
pub struct Company {
    pub(super) entities: Vec<Value>,
}

/// Several entities that are called alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} are called {}: name one of them by its id", found.join(", "), printable(name))]
pub struct Alike {
    name: String,
    found: Vec<String>,
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

impl Circumstances {
    /// Whether an action may have the document that is named, if one is.
    pub fn fit(&self, action: Action) -> bool {
        let document = self.document.as_deref().and_then(|name| Document::parse(name).ok());
        document.is_none_or(|document| fitting(action, &document).is_ok())
    }
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

    /// The entity of a kind by uid, id or `arn`, else by `name`.
    ///
    /// None if there is none; an error if several are called so.
    pub fn find(&self, kind: &str, name: &str) -> Result<Option<String>, Alike> {
        let (full, start) = (uid_text(&format!("Postern::{kind}"), name), format!("Postern::{kind}::"));
        let with = |key: &str| {
            let is = |entity: &&Value| {
                entity.get("attrs").and_then(|attrs| attrs.get(key)?.as_str()) == Some(name)
            };
            let found = self.entities.iter().filter(is).filter_map(uid_of);
            found.filter(|uid| uid.starts_with(&start)).collect::<Vec<_>>()
        };
        let known = |uid: &String| uid.starts_with(&start) && (*uid == full || uid == name);
        if let Some(exact) = self.entities.iter().filter_map(uid_of).find(known) {
            return Ok(Some(exact));
        }
        for mut found in [with("arn"), with("name")] {
            match found.len() {
                0 => {}
                1 => return Ok(found.pop()),
                _ => return Err(Alike { name: name.to_owned(), found }),
            }
        }
        Ok(None)
    }

    /// Adds a machine that no file describes, in place of one of that id.
    pub fn add_machine(
        &mut self,
        id: &str,
        account: &str,
        region: &str,
        tags: &BTreeMap<String, String>,
    ) -> String {
        let uid = uid_text("Postern::Instance", id);
        self.entities.retain(|entity| uid_of(entity).as_ref() != Some(&uid));
        self.entities.push(json!({
            "uid": {"type": "Postern::Instance", "id": id},
            "attrs": {"account": account, "region": region, "online": true},
            "parents": [{"type": "Postern::Account", "id": account}, {"type": "Postern::Region", "id": region}],
            "tags": tags,
        }));
        uid
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
    let (document, port) = defaults(action);
    let document = how.document.as_deref().unwrap_or(document);
    context.insert("document".to_owned(), json!({"type": "Postern::Document", "id": document}));
    context.extend(how.reason.clone().map(|reason| ("reason".to_owned(), reason.into())));
    if action == Action::StartCommand {
        context.insert("command".to_owned(), how.command.as_deref().unwrap_or("true").into());
    }
    if matches!(action, Action::StartSsh | Action::ForwardPort | Action::ForwardPortToHost) {
        context.insert("port".to_owned(), how.port.unwrap_or(port).into());
    }
    if action == Action::ForwardPortToHost {
        context.insert("host".to_owned(), how.host.as_deref().unwrap_or("localhost").into());
    }
    context
}

/// Puts a user into the groups that name its ARN or address.
fn add_groups(entity: &mut Value, policy: &Policy) {
    if let Some(principal) = principal_of(entity) {
        add_groups_of(entity, &principal, policy);
    }
}

pub(super) fn add_groups_of(entity: &mut Value, principal: &Principal, policy: &Policy) {
    let role = principal.role_arn();
    let groups = policy.groups.of(principal, role.as_deref());
    let Some(parents) = entity.get_mut("parents").and_then(Value::as_array_mut) else { return };
    for group in groups {
        let parent = json!({"type": "Postern::Group", "id": group});
        if !parents.iter().any(|known| known.get("__entity").unwrap_or(known) == &parent) {
            parents.push(parent);
        }
    }
}

/// The person that an entity describes, as far as groups look at them.
pub(super) fn principal_of(entity: &Value) -> Option<Principal> {
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
