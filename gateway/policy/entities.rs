//! The words of the schema: people, machines and conditions as Cedar sees them.

use std::net::IpAddr;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, ParseErrors, Request,
    RestrictedExpression as Value, Schema,
};
use serde_json::{Map, Value as Json};
use time::OffsetDateTime;

use super::groups::{Groups, group_of_user};
use super::question::{Action, Asked, Question, Resource};
use crate::session::{Document, Instance, Principal};

/// Port of `AWS-StartSSHSession` if none is named.
const SSH_PORT: u16 = 22;
/// Port of the two port forwarding documents if none is named.
const FORWARDED_PORT: u16 = 80;

/// Why a question cannot be put to Cedar; shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswerable {
    /// The caller's parameters make no question.
    #[error("parameter {0:?} must be given once")]
    Parameter(&'static str),
    /// A port that is none.
    #[error("parameter \"portNumber\" must be one number from 1 to 65535")]
    Port,
    /// The action asked about is not what the document does.
    #[error("document {0} does not fit the action")]
    Document(String),
    /// The gateway built something that its own schema refuses.
    #[error("the request does not fit the policy schema")]
    Schema(String),
}

impl Unanswerable {
    fn schema(error: impl std::fmt::Display) -> Self {
        Self::Schema(error.to_string())
    }

    /// The whole of it, for those who write policies; never for a caller.
    pub fn detail(&self) -> String {
        match self {
            Self::Schema(detail) => detail.clone(),
            other => other.to_string(),
        }
    }
}

/// Names of types and actions, parsed once.
#[derive(Debug)]
pub(super) struct Vocabulary {
    user: EntityTypeName,
    group: EntityTypeName,
    role: EntityTypeName,
    account: EntityTypeName,
    region: EntityTypeName,
    instance: EntityTypeName,
    document: EntityTypeName,
    session: EntityTypeName,
    recording: EntityTypeName,
    gateway: EntityTypeName,
    action: EntityTypeName,
}

impl Vocabulary {
    pub fn new() -> Result<Self, Box<ParseErrors>> {
        let name = |word: &str| format!("Postern::{word}").parse().map_err(Box::new);
        Ok(Self {
            user: name("User")?,
            group: name("Group")?,
            role: name("Role")?,
            account: name("Account")?,
            region: name("Region")?,
            instance: name("Instance")?,
            document: name("Document")?,
            session: name("Session")?,
            recording: name("Recording")?,
            gateway: name("Gateway")?,
            action: name("Action")?,
        })
    }

    /// The request, checked against the schema.
    pub fn request(
        &self,
        question: &Question,
        now: OffsetDateTime,
        schema: &Schema,
    ) -> Result<Request, Unanswerable> {
        let pairs = self.conditions(question, now)?;
        let context = Context::from_pairs(pairs).map_err(Unanswerable::schema)?;
        let principal = uid(&self.user, &question.principal.id);
        let action = self.action(question.action);
        Request::new(principal, action, self.resource(question.resource), context, Some(schema))
            .map_err(Unanswerable::schema)
    }

    /// Every entity the question is about, checked against the schema.
    pub fn entities(
        &self,
        question: &Question,
        groups: &Groups,
        base: &Entities,
        schema: &Schema,
    ) -> Result<Entities, Unanswerable> {
        let mut found = vec![self.user(question.principal, groups)?];
        match question.resource {
            Resource::Gateway => found.push(Entity::with_uid(self.resource(Resource::Gateway))),
            Resource::Instance(instance) => found.push(self.instance(instance)?),
            Resource::Session { owner, instance, .. } | Resource::Recording { owner, instance, .. } => {
                // An owner who asks is one entity, as they are proved now.
                if owner.id != question.principal.id {
                    found.push(self.user(owner, groups)?);
                }
                found.push(self.instance(instance)?);
                found.push(self.owned(self.resource(question.resource), owner, instance)?);
            }
        }
        if let Some(document) = document_of(question)? {
            let name = text("name", document.as_str());
            let entity = Entity::new_with_tags(uid(&self.document, document.as_str()), [name], [], []);
            found.push(entity.map_err(Unanswerable::schema)?);
        }
        base.clone().add_entities(found, Some(schema)).map_err(Unanswerable::schema)
    }

    pub fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    fn resource(&self, resource: Resource) -> EntityUid {
        match resource {
            Resource::Instance(instance) => uid(&self.instance, instance.target.as_str()),
            Resource::Session { id, .. } => uid(&self.session, id.as_str()),
            Resource::Recording { id, .. } => uid(&self.recording, id.as_str()),
            Resource::Gateway => uid(&self.gateway, "gateway"),
        }
    }

    fn user(&self, principal: &Principal, groups: &Groups) -> Result<Entity, Unanswerable> {
        let facts = &principal.facts;
        let authenticated = OffsetDateTime::from_unix_timestamp(principal.authenticated_at);
        let mut attributes = vec![
            text("arn", &principal.arn),
            text("name", &principal.name),
            text("account", &principal.account),
            text("method", principal.method.as_str()),
            ("authenticatedAt".to_owned(), datetime(authenticated.map_err(Unanswerable::schema)?)),
        ];
        attributes.extend(facts.email.as_deref().map(|email| text("email", email)));
        attributes.extend(facts.source_identity.as_deref().map(|name| text("sourceIdentity", name)));
        attributes.extend(facts.mfa.map(|mfa| ("mfa".to_owned(), Value::new_bool(mfa))));
        let role_arn = principal.role_arn();
        let in_account = (!principal.account.is_empty()).then(|| uid(&self.account, &principal.account));
        let mut parents: Vec<_> = in_account.into_iter().collect();
        parents.extend(role_arn.as_deref().map(|arn| uid(&self.role, arn)));
        parents
            .extend(groups.of(principal, role_arn.as_deref()).into_iter().map(|name| uid(&self.group, name)));
        let user = facts.identity_center_user.as_deref();
        parents.extend(user.map(|id| uid(&self.group, &group_of_user(id))));
        let tags = facts.tags.iter().map(|(key, value)| text(key, value));
        Entity::new_with_tags(uid(&self.user, &principal.id), attributes, parents, tags)
            .map_err(Unanswerable::schema)
    }

    fn instance(&self, instance: &Instance) -> Result<Entity, Unanswerable> {
        let mut attributes = vec![
            text("account", &instance.account),
            text("region", &instance.region),
            ("online".to_owned(), Value::new_bool(instance.online)),
        ];
        let optional = [
            ("name", &instance.name),
            ("platform", &instance.platform),
            ("agentVersion", &instance.agent_version),
        ];
        attributes
            .extend(optional.iter().filter_map(|(key, value)| value.as_ref().map(|value| text(key, value))));
        let parents = [uid(&self.account, &instance.account), uid(&self.region, &instance.region)];
        let tags = instance.tags.iter().map(|(key, value)| text(key, value));
        Entity::new_with_tags(uid(&self.instance, instance.target.as_str()), attributes, parents, tags)
            .map_err(Unanswerable::schema)
    }

    /// A session or a recording: of its owner, in its instance.
    fn owned(&self, of: EntityUid, owner: &Principal, instance: &Instance) -> Result<Entity, Unanswerable> {
        let instance = uid(&self.instance, instance.target.as_str());
        let attributes = [
            ("owner".to_owned(), Value::new_entity_uid(uid(&self.user, &owner.id))),
            ("instance".to_owned(), Value::new_entity_uid(instance.clone())),
        ];
        Entity::new_with_tags(of, attributes, [instance], []).map_err(Unanswerable::schema)
    }

    /// The context as the schema types it for this action.
    fn conditions(
        &self,
        question: &Question,
        now: OffsetDateTime,
    ) -> Result<Vec<(String, Value)>, Unanswerable> {
        let asked = &question.context;
        let now = now.to_offset(time::UtcOffset::UTC);
        let weekday = i64::from(now.weekday().number_from_monday());
        let mut pairs =
            vec![("now".to_owned(), datetime(now)), ("weekday".to_owned(), Value::new_long(weekday))];
        pairs.extend(asked.source_ip.map(|ip| ("sourceIp".to_owned(), address(ip))));
        pairs.extend(question.principal.facts.mfa.map(|mfa| ("mfa".to_owned(), Value::new_bool(mfa))));
        if let Some(running) = asked.running.filter(|_| question.action.is_about_sessions()) {
            pairs.push(("sessionAge".to_owned(), duration(running.age)));
            pairs.push(("idleTime".to_owned(), duration(running.idle)));
            let bytes = i64::try_from(running.bytes).unwrap_or(i64::MAX);
            pairs.push(("bytes".to_owned(), Value::new_long(bytes)));
            let alerts = asked.alerts.iter().map(|name| Value::new_string(name.clone()));
            pairs.push(("alerts".to_owned(), Value::new_set(alerts)));
        }
        if let Some(document) = document_of(question)? {
            let document = uid(&self.document, document.as_str());
            pairs.push(("document".to_owned(), Value::new_entity_uid(document)));
            pairs.extend(asked.stated_reason().map(|reason| text("reason", reason)));
        }
        match question.action {
            Action::StartCommand => pairs.push(text("command", required(asked, "command")?)),
            Action::StartSsh => pairs.push(port(asked, SSH_PORT)?),
            Action::ForwardPort => pairs.push(port(asked, FORWARDED_PORT)?),
            Action::ForwardPortToHost => {
                let host = plain_host(required(asked, "host")?);
                pairs.extend([text("host", &host), port(asked, FORWARDED_PORT)?]);
            }
            _ => {}
        }
        Ok(pairs)
    }
}

/// The document of a question that starts a session.
///
/// Policies speak of actions, SSM runs documents: they must be the same.
fn document_of(question: &Question) -> Result<Option<Document>, Unanswerable> {
    if !question.action.starts_session() {
        return Ok(None);
    }
    let document = question.context.document.cloned().unwrap_or_else(Document::shell);
    fitting(question.action, &document)?;
    Ok(Some(document))
}

/// Whether the document does what the action says, as far as it is known.
pub(super) fn fitting(action: Action, document: &Document) -> Result<(), Unanswerable> {
    match document.known_kind() {
        Some(kind) if Action::from(kind) != action => {
            Err(Unanswerable::Document(document.as_str().to_owned()))
        }
        _ => Ok(()),
    }
}

/// A host as policies see it: lower case, without a final dot.
fn plain_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// A written context as the gateway itself would make it, or why it never
/// would: what it does not ask about must not be told to be allowed.
pub(super) fn as_asked(action: Action, context: &mut Map<String, Json>) -> Result<(), Unanswerable> {
    if !action.starts_session() {
        return Ok(());
    }
    let document = context.get("document").map(|document| document.get("__entity").unwrap_or(document));
    if let Some(name) = document.and_then(|document| document.get("id")?.as_str()) {
        let known = Document::parse(name).map_err(|_| Unanswerable::Document(name.to_owned()))?;
        fitting(action, &known)?;
    }
    for name in ["host", "command"] {
        if context.get(name).and_then(Json::as_str).is_some_and(str::is_empty) {
            return Err(Unanswerable::Parameter(name));
        }
    }
    let port = context.get("port").and_then(Json::as_i64);
    if port.is_some_and(|port| !(1..=i64::from(u16::MAX)).contains(&port)) {
        return Err(Unanswerable::Port);
    }
    if let Some(Json::String(host)) = context.get_mut("host") {
        *host = plain_host(host);
    }
    Ok(())
}

/// The document and the port that an action has if none is named.
pub(super) fn defaults(action: Action) -> (&'static str, u16) {
    let port = match action {
        Action::StartSsh => SSH_PORT,
        Action::ForwardPort | Action::ForwardPortToHost => FORWARDED_PORT,
        _ => 0,
    };
    (action.usual_document(), port)
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::new_string(value.to_owned()))
}

/// Milliseconds are as fine as Cedar's clock goes.
fn datetime(at: OffsetDateTime) -> Value {
    let (date, clock) = (at.date(), at.time());
    Value::new_datetime(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond(),
    ))
}

fn duration(time: std::time::Duration) -> Value {
    Value::new_duration(format!("{}ms", time.as_millis()))
}

/// An IPv4 caller on an IPv6 socket is still an IPv4 caller.
fn address(ip: IpAddr) -> Value {
    Value::new_ip(ip.to_canonical().to_string())
}

/// The only value of a parameter; a second one could be the one that counts.
fn single<'a>(asked: &Asked<'a>, name: &'static str) -> Result<Option<&'a str>, Unanswerable> {
    match asked.parameters.and_then(|parameters| parameters.get(name)).map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([value]) => Ok(Some(value)),
        Some(_) => Err(Unanswerable::Parameter(name)),
    }
}

fn required<'a>(asked: &Asked<'a>, name: &'static str) -> Result<&'a str, Unanswerable> {
    let value = single(asked, name)?.filter(|value| !value.is_empty());
    value.ok_or(Unanswerable::Parameter(name))
}

fn port(asked: &Asked, default: u16) -> Result<(String, Value), Unanswerable> {
    let number = match single(asked, "portNumber")? {
        None => default,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| Unanswerable::Port)?
        }
        Some(_) => return Err(Unanswerable::Port),
    };
    if number == 0 {
        return Err(Unanswerable::Port);
    }
    Ok(("port".to_owned(), Value::new_long(i64::from(number))))
}
