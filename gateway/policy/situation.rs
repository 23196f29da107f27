//! A request with the entities around it, in the words that cases use.

use std::sync::Arc;

use cedar_policy::{Context, Entities, EntityUid, Policy as Cedar, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::entities::{Unanswerable, as_asked};
use super::problem::with_causes;
use super::question::{Action, Question};
use super::slices::Judgement;
use super::{Policy, jitna};

/// A request as Cedar's own tools write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requested {
    /// Who, such as `Postern::User::"AIDA…"`.
    pub principal: String,
    /// What, such as `Postern::Action::"startShell"`.
    pub action: String,
    /// To what, such as `Postern::Instance::"i-…"`.
    pub resource: String,
    /// Under which conditions, by the schema.
    #[serde(default)]
    pub context: Map<String, Value>,
}

/// One request and every entity that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Situation {
    /// The request.
    pub request: Requested,
    /// The entities, as Cedar's own tools write them.
    pub entities: Vec<Value>,
}

/// A situation that has been read: it fits the schema.
#[derive(Clone)]
pub(super) struct Ready {
    pub request: Request,
    pub entities: Arc<Entities>,
}

/// What a policy set says to a situation, obligations included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub judgement: Judgement,
    /// Permitted, if only a reason were given.
    pub needs_reason: bool,
}

impl Said {
    pub fn allowed(&self) -> bool {
        self.judgement.allowed && self.judgement.failed.is_empty() && !self.needs_reason
    }
}

impl Situation {
    /// The name of the action, without its namespace.
    pub fn action(&self) -> String {
        let parsed = self.request.action.parse::<EntityUid>();
        parsed.map(|uid| uid.id().unescaped().to_owned()).unwrap_or_default()
    }

    /// The action, if it is one of the gateway's own.
    pub fn known_action(&self) -> Option<Action> {
        let name = self.action();
        Action::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// The entity of that name, if it is among the entities.
    pub fn entity(&self, name: &str) -> Option<&Value> {
        self.entities.iter().find(|entity| uid_of(entity).as_deref() == Some(name))
    }

    pub(super) fn entity_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.entities.iter_mut().find(|entity| uid_of(entity).as_deref() == Some(name))
    }
}

/// The name of an entity in JSON, as policies write it.
pub fn uid_of(entity: &Value) -> Option<String> {
    let uid = entity.get("uid")?;
    let uid = uid.get("__entity").unwrap_or(uid);
    let (kind, id) = (uid.get("type")?.as_str()?, uid.get("id")?.as_str()?);
    Some(uid_text(kind, id))
}

/// `Postern::Group::"oncall"`, its id escaped as Cedar wants it.
pub fn uid_text(kind: &str, id: &str) -> String {
    let id = cedar_policy::EntityId::new(id);
    format!("{kind}::\"{}\"", id.escaped())
}

impl Policy {
    /// The situation that a question asks about, at that time.
    pub(super) fn situation(
        &self,
        question: &Question<'_>,
        now: OffsetDateTime,
    ) -> Result<Situation, Unanswerable> {
        let request = self.vocabulary.request(question, now, &self.schema)?;
        let slice = self.slices.of(question.action).ok_or(Unanswerable::Schema("no such action".into()))?;
        let entities = self.vocabulary.entities(question, &self.groups, &slice.action, &self.schema)?;
        let context = request.context().map(Context::to_json_value);
        let context = context.transpose().map_err(|e| Unanswerable::Schema(e.to_string()))?;
        let entities = entities.to_json_value().map_err(|e| Unanswerable::Schema(e.to_string()))?;
        let mut entities = entities.as_array().cloned().unwrap_or_default();
        // The schema brings the actions along.
        entities.retain(|entity| uid_of(entity).is_some_and(|uid| !uid.starts_with("Postern::Action::")));
        let name = |uid: Option<&EntityUid>| uid.map(ToString::to_string).unwrap_or_default();
        Ok(Situation {
            request: Requested {
                principal: name(request.principal()),
                action: name(request.action()),
                resource: name(request.resource()),
                context: context.and_then(|context| context.as_object().cloned()).unwrap_or_default(),
            },
            entities,
        })
    }

    /// Reads a situation by the schema; the error is for its author.
    pub(super) fn ready(&self, situation: &Situation) -> Result<Ready, String> {
        let request = self.requested(&situation.request)?;
        let aws = request.action().is_some_and(jitna::is_aws);
        let schema = if aws { self.jitna.schema() } else { &self.schema };
        let entities = Entities::from_json_value(Value::Array(situation.entities.clone()), Some(schema))
            .map_err(|error| with_causes(&error))?;
        Ok(Ready { request, entities: Arc::new(entities) })
    }

    /// Reads a request by the schema.
    pub(super) fn requested(&self, asked: &Requested) -> Result<Request, String> {
        let uid = |text: &str| text.parse::<EntityUid>().map_err(|error| format!("{text}: {error}"));
        let (action, principal, resource) =
            (uid(&asked.action)?, uid(&asked.principal)?, uid(&asked.resource)?);
        let aws = jitna::is_aws(&action);
        let schema = if aws { self.jitna.schema() } else { &self.schema };
        let mut context = asked.context.clone();
        let own = Action::ALL.into_iter().find(|own| own.as_str() == action.id().unescaped());
        if let Some(own) = own.filter(|_| !aws) {
            as_asked(own, &mut context).map_err(|why| why.detail())?;
        }
        let context = Context::from_json_value(Value::Object(context), Some((schema, &action)))
            .map_err(|error| with_causes(&error))?;
        Request::new(principal, action, resource, context, Some(schema)).map_err(|error| with_causes(&error))
    }

    /// The policies that are about the request's action.
    pub(super) fn of_action(&self, ready: &Ready) -> impl Iterator<Item = &Cedar> {
        let action = ready.request.action();
        let aws = action.is_some_and(jitna::is_aws);
        let slice = action.and_then(|action| self.slices.named(action.id().unescaped())).filter(|_| !aws);
        let own = slice.into_iter().flat_map(|slice| slice.policies.policies());
        own.chain(self.jitna.policies().policies())
    }

    /// The request as that policy sees it: one of AWS's speaks of others.
    pub(super) fn seen_by(&self, policy: &Cedar, ready: &Ready) -> Ready {
        let own = !ready.request.action().is_some_and(jitna::is_aws);
        let translated = (own && jitna::is_policy(policy)).then(|| self.jitna.ready(ready)).flatten();
        translated.unwrap_or_else(|| ready.clone())
    }

    /// Those of them whose scope may hold for the request.
    pub(super) fn in_scope(&self, ready: &Ready) -> Vec<&Cedar> {
        let Some(action) = ready.request.action() else { return Vec::new() };
        let aws = jitna::is_aws(action);
        let slice = self.slices.named(action.id().unescaped()).filter(|_| !aws);
        let own = slice.map(|slice| slice.in_scope(&ready.request, &ready.entities)).unwrap_or_default();
        own.into_iter().chain(self.jitna.policies().policies()).collect()
    }

    /// The policy of that id.
    pub(super) fn cedar(&self, id: &str) -> Option<&Cedar> {
        let id = cedar_policy::PolicyId::new(id);
        let own = Action::ALL.iter().find_map(|action| self.slices.of(*action)?.policies.policy(&id));
        own.or_else(|| self.jitna.policies().policy(&id))
    }

    /// What the set says to a request and its entities.
    pub(super) fn said(&self, ready: &Ready) -> Result<Said, String> {
        let Some(action) = ready.request.action() else { return Err("there is no action".to_owned()) };
        if jitna::is_aws(action) {
            let judgement = self.jitna.judge(&ready.request, &ready.entities);
            return Ok(Said { judgement, needs_reason: false });
        }
        let name = action.id().unescaped();
        let slice = self.slices.named(name);
        let slice = slice.ok_or_else(|| format!("{action} is not an action of this gateway"))?;
        let judgement = self.judge(slice, &ready.request, &ready.entities).map_err(|e| e.detail())?;
        let starts = Action::ALL.iter().any(|known| known.as_str() == name && known.starts_session());
        let reason = ready.request.context().and_then(|context| context.get("reason"));
        let given = match reason {
            Some(cedar_policy::EvalResult::String(text)) => !text.trim().is_empty(),
            _ => false,
        };
        let needs_reason =
            judgement.allowed && starts && !given && self.owed(&judgement.determining).require_reason;
        Ok(Said { judgement, needs_reason })
    }
}
