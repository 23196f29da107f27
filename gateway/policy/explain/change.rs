//! One thing that could be otherwise: made in a situation, said in words.

use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::situation::Situation;

/// What stands for a reason that somebody would give.
const SOME_REASON: &str = "a reason";

/// One thing that would have to be otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A reason is given; it begins so, if policy wants that.
    Reason {
        /// How it has to read; empty if any will do.
        text: String,
    },
    /// The person proved who they are with a second factor.
    Mfa,
    /// The request comes from this network.
    Network {
        /// An address or a range, as policies write it.
        network: String,
    },
    /// It is asked at another time.
    Time {
        /// The moment, RFC 3339.
        at: String,
        /// Whether that moment is over.
        past: bool,
    },
    /// Another document, port, host or command.
    Circumstance {
        /// The word of the context.
        name: String,
        /// Its value.
        value: Value,
    },
    /// Somebody or something is in a group, a role, an account.
    Join {
        /// Who or what.
        who: String,
        /// What they would be in.
        what: String,
    },
    /// They are not in it.
    Leave {
        /// Who or what.
        who: String,
        /// What they would not be in.
        what: String,
    },
    /// A tag has another value, or is not there.
    Tag {
        /// Of which entity.
        of: String,
        /// The tag's key.
        key: String,
        /// The value; none: the tag is removed.
        value: Option<String>,
    },
    /// An attribute has another value.
    Attribute {
        /// Of which entity.
        of: String,
        /// The attribute.
        name: String,
        /// Its value.
        value: Value,
    },
}

impl Change {
    /// How much it takes: what a person can do at once comes first.
    pub(super) fn cost(&self) -> u32 {
        match self {
            Self::Reason { .. } => 10,
            Self::Mfa => 11,
            Self::Circumstance { .. } => 20,
            Self::Network { .. } => 21,
            Self::Time { past: false, .. } => 30,
            Self::Join { .. } => 40,
            Self::Tag { .. } => 50,
            Self::Attribute { .. } => 60,
            Self::Leave { .. } => 61,
            Self::Time { past: true, .. } => 90,
        }
    }

    /// Whether people and machines stay what they are.
    pub(super) fn is_modest(&self) -> bool {
        self.is_askers_own() || matches!(self, Self::Join { .. })
    }

    /// Whether the person who asks can do it alone.
    pub fn is_askers_own(&self) -> bool {
        matches!(
            self,
            Self::Reason { .. }
                | Self::Mfa
                | Self::Circumstance { .. }
                | Self::Network { .. }
                | Self::Time { past: false, .. }
        )
    }

    /// What it changes; two changes of one thing exclude each other.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Reason { .. } => "reason".to_owned(),
            Self::Mfa => "mfa".to_owned(),
            Self::Network { .. } => "network".to_owned(),
            Self::Time { .. } => "time".to_owned(),
            Self::Circumstance { name, .. } => format!("context {name}"),
            Self::Join { who, what } | Self::Leave { who, what } => format!("in {who} {what}"),
            Self::Tag { of, key, .. } => format!("tag {of} {key}"),
            Self::Attribute { of, name, .. } => format!("attribute {of} {name}"),
        }
    }

    /// Whether it is about the request alone and leaves the entities.
    pub(super) fn leaves_entities(&self) -> bool {
        self.is_askers_own() && *self != Self::Mfa || matches!(self, Self::Time { .. })
    }

    /// Makes the change.
    pub(in super::super) fn apply(&self, to: &mut Situation) {
        let context = &mut to.request.context;
        match self {
            Self::Reason { text } => {
                let text = if text.is_empty() { SOME_REASON } else { text };
                context.insert("reason".to_owned(), text.into());
            }
            Self::Mfa => {
                context.insert("mfa".to_owned(), true.into());
                let principal = to.request.principal.clone();
                edit(to, &principal, "attrs", |attrs| drop(attrs.insert("mfa".to_owned(), true.into())));
            }
            Self::Network { network } => {
                let address = network.split('/').next().unwrap_or(network);
                context.insert("sourceIp".to_owned(), address.into());
            }
            Self::Time { at, .. } => set_time(context, at),
            Self::Circumstance { name, value } => {
                context.insert(name.clone(), value.clone());
            }
            Self::Join { who, what } => edit_parents(to, who, |parents| parents.extend(reference(what))),
            Self::Leave { who, what } => {
                let gone = reference(what);
                let stays = |parent: &Value| Some(parent.get("__entity").unwrap_or(parent)) != gone.as_ref();
                edit_parents(to, who, |parents| parents.retain(stays));
            }
            Self::Tag { of, key, value } => edit(to, of, "tags", |tags| match value {
                Some(value) => drop(tags.insert(key.clone(), value.clone().into())),
                None => drop(tags.remove(key)),
            }),
            Self::Attribute { of, name, value } => {
                edit(to, of, "attrs", |attrs| drop(attrs.insert(name.clone(), value.clone())));
            }
        }
    }

    /// In words, for those who write policies.
    pub fn sentence(&self) -> String {
        let text = match self {
            Self::Reason { text } if text.is_empty() => "give a reason".to_owned(),
            Self::Reason { text } => format!("give a reason such as {text:?}"),
            Self::Mfa => "sign in with MFA".to_owned(),
            Self::Network { network } => format!("ask from {network}"),
            Self::Time { at, past: false } => format!("ask at {at}"),
            Self::Time { at, past: true } => format!("it was allowed until {at}"),
            Self::Circumstance { name, value } => format!("ask with {name} {}", shown(value)),
            Self::Join { who, what } => format!("put {who} into {what}"),
            Self::Leave { who, what } => format!("take {who} out of {what}"),
            Self::Tag { of, key, value: Some(value) } => format!("tag {of} with {key}={value}"),
            Self::Tag { of, key, value: None } => format!("remove the tag {key} of {of}"),
            Self::Attribute { of, name, value } => format!("{name} of {of} is {}", shown(value)),
        };
        crate::session::printable(&text)
    }

    /// In words that tell the one who asks nothing they do not know.
    ///
    /// None if it is nothing that they could do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Reason { text } if text.is_empty() => "give a reason",
            Self::Reason { .. } => "give a reason in the form that is wanted",
            Self::Mfa => "sign in with MFA",
            Self::Network { .. } => "ask from another network",
            Self::Time { past: false, .. } => "ask at another time",
            Self::Circumstance { name, .. } => match name.as_str() {
                "document" => "ask with another document",
                "port" => "ask for another port",
                "host" => "ask for another host",
                _ => "ask for another command",
            },
            _ => return None,
        })
    }
}

fn shown(value: &Value) -> String {
    let id = value.get("id").or_else(|| value.get("__entity")?.get("id"));
    id.unwrap_or(value).as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn set_time(context: &mut Map<String, Value>, at: &str) {
    if let Ok(time) = OffsetDateTime::parse(at, &Rfc3339) {
        context.insert("weekday".to_owned(), time.weekday().number_from_monday().into());
    }
    context.insert("now".to_owned(), at.into());
}

/// Edits one map of an entity; both are made if they are missing.
fn edit(of: &mut Situation, name: &str, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    edit_value(of, name, (key, json!({})), |value| value.as_object_mut().map(change).unwrap_or_default());
}

/// The same of the list of what an entity is in.
fn edit_parents(of: &mut Situation, name: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let edit = |value: &mut Value| value.as_array_mut().map(change).unwrap_or_default();
    edit_value(of, name, ("parents", json!([])), edit);
}

fn edit_value(of: &mut Situation, name: &str, (key, empty): (&str, Value), change: impl FnOnce(&mut Value)) {
    if of.entity(name).is_none() {
        let Some(uid) = reference(name) else { return };
        of.entities.push(json!({"uid": uid, "attrs": {}, "parents": [], "tags": {}}));
    }
    let entity = of.entity_mut(name).and_then(Value::as_object_mut);
    if let Some(entity) = entity {
        change(entity.entry(key.to_owned()).or_insert(empty));
    }
}

/// An entity's name as JSON refers to it.
pub(super) fn reference(name: &str) -> Option<Value> {
    let uid: cedar_policy::EntityUid = name.parse().ok()?;
    Some(json!({"type": uid.type_name().to_string(), "id": uid.id().unescaped()}))
}
