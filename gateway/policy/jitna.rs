//! AWS's just-in-time node access policies, evaluated as they stand.
//!
//! A policy whose scope names AWS's action is of another schema. It is asked
//! whenever a session starts, in AWS's words, and its answer counts beside
//! that of the other policies: a forbid wins over every permit.

use std::sync::Arc;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, EvalResult, ParseErrors, Policy as Cedar,
    PolicySet, Request, RestrictedExpression as Value, Schema,
};
use miette::Diagnostic;

use super::entities::Unanswerable;
use super::groups::user_of_group;
use super::places::Places;
use super::question::Action;
use super::situation::Ready;
use super::slices::Judgement;
use crate::session::Document;

/// AWS's schema, as far as its documentation tells.
const SCHEMA: &str = include_str!("../../policies/aws.cedarschema");
/// The namespace of AWS's action.
const ACTIONS: &str = "AWS::SSM::Action";
/// Attributes of a user in Identity Center, which come as session tags.
const ATTRIBUTES: [&str; 4] = ["costCenter", "division", "employeeNumber", "organization"];

/// The policies of that kind in a folder.
#[derive(Debug)]
pub(super) struct Jitna {
    schema: Schema,
    policies: PolicySet,
    places: Places,
    names: Names,
}

#[derive(Debug)]
struct Names {
    user: EntityTypeName,
    group: EntityTypeName,
    tags: EntityTypeName,
    ec2: EntityTypeName,
    managed: EntityTypeName,
    action: EntityUid,
}

/// Whether an action is AWS's.
pub(super) fn is_aws(action: &EntityUid) -> bool {
    action.type_name().to_string() == ACTIONS
}

/// Whether a policy is one of AWS's: its scope names AWS's action.
pub(super) fn is_policy(policy: &Cedar) -> bool {
    use cedar_policy::ActionConstraint::{Any, Eq, In};
    match policy.action_constraint() {
        Any => false,
        Eq(action) => is_aws(&action),
        In(actions) => actions.iter().any(is_aws),
    }
}

/// AWS's schema.
pub(super) fn schema() -> Result<Schema, Box<dyn Diagnostic>> {
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA)?;
    Ok(schema)
}

impl Jitna {
    pub fn new(policies: PolicySet, schema: Schema) -> Result<Self, Box<dyn Diagnostic>> {
        let places = Places::new(policies.policies())?;
        let names = Names::new().map_err(|error| *error)?;
        Ok(Self { schema, policies, places, names })
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// What they say to a request in AWS's words.
    pub fn judge(&self, request: &Request, entities: &Entities) -> Judgement {
        self.places.judge(request, entities)
    }

    /// What they say to one of the gateway's own questions.
    ///
    /// AWS gives such a token for the account's shell and nothing else, so a
    /// permit is for that; a forbid is for every session.
    pub fn judge_own(&self, request: &Request, entities: &Entities) -> Result<Judgement, Unanswerable> {
        let starts = |uid: &EntityUid| {
            Action::ALL.iter().any(|a| a.starts_session() && a.as_str() == uid.id().unescaped())
        };
        if self.policies.is_empty() || !request.action().is_some_and(starts) {
            return Ok(Judgement::default());
        }
        let Some((request, entities)) = self.translated(request, entities)? else {
            return Ok(Judgement::default());
        };
        let judgement = self.judge(&request.0, &entities);
        let counts = request.1 || !judgement.allowed;
        Ok(if counts { judgement } else { Judgement { failed: judgement.failed, ..Judgement::default() } })
    }

    /// One of the gateway's own requests as these policies see it.
    pub fn ready(&self, own: &Ready) -> Option<Ready> {
        let ((request, _), entities) = self.translated(&own.request, &own.entities).ok().flatten()?;
        Some(Ready { request, entities: Arc::new(entities) })
    }

    /// The same request in AWS's words, and whether it is for a shell.
    ///
    /// None if AWS has no word for the resource.
    #[allow(clippy::type_complexity, reason = "said in the sentence above")]
    fn translated(
        &self,
        request: &Request,
        entities: &Entities,
    ) -> Result<Option<((Request, bool), Entities)>, Unanswerable> {
        let failed = |error: &dyn std::fmt::Display| Unanswerable::Schema(error.to_string());
        let (Some(principal), Some(resource)) = (request.principal(), request.resource()) else {
            return Ok(None);
        };
        let id = resource.id().unescaped();
        let is_task = id.starts_with("ecs:");
        let kind = match id.split_once('-') {
            Some(("i", _)) => &self.names.ec2,
            Some(("mi", _)) => &self.names.managed,
            // AWS gives no token for it: only a forbid can count.
            _ if is_task => &self.names.managed,
            _ => return Ok(None),
        };
        let tags = |of: &EntityUid| entities.get(of).map(texts_of_tags).unwrap_or_default();
        let (theirs, its) = (tags(principal), tags(resource));
        let groups = entities.ancestors(principal).into_iter().flatten();
        let groups = groups.filter(|uid| uid.type_name().basename() == "Group");
        let (mut users, mut parents) = (Vec::new(), Vec::new());
        for group in groups {
            match user_of_group(group.id().unescaped()) {
                Some(id) => users.push(id),
                None => parents.push(named(&self.names.group, group.id().unescaped())),
            }
        }
        let who = match users.as_slice() {
            [] => principal.id().unescaped(),
            [id] => id,
            // A forbid for either must hold, and who it is nobody can tell.
            _ => {
                let why = "several users in Identity Center are the same person in groups.toml";
                return Err(Unanswerable::Schema(why.to_owned()));
            }
        };
        let attributes = ATTRIBUTES.iter().filter_map(|name| {
            let (_, value) = theirs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(((*name).to_owned(), Value::new_string(value.clone())))
        });
        let user = named(&self.names.user, who);
        let of_user = named(&self.names.tags, who);
        let machine = named(kind, id);
        let made = [
            Entity::new_with_tags(user.clone(), attributes, parents, []),
            Entity::new_with_tags(of_user.clone(), [], [], values(&theirs)),
            Entity::new_with_tags(machine.clone(), [], [], values(&its)),
        ];
        let made = made.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?;
        let entities = Entities::from_entities(made, Some(&self.schema)).map_err(|e| failed(&e))?;
        let iam = Value::new_record([("principalTags".to_owned(), Value::new_entity_uid(of_user))])
            .map_err(|e| failed(&e))?;
        let context = Context::from_pairs([("iam".to_owned(), iam)]).map_err(|e| failed(&e))?;
        let action = self.names.action.clone();
        let asked = Request::new(user, action, machine, context, Some(&self.schema));
        let for_shell = is_plain_shell(request) && !is_task;
        Ok(Some(((asked.map_err(|e| failed(&e))?, for_shell), entities)))
    }
}

impl Names {
    fn new() -> Result<Self, Box<ParseErrors>> {
        let name = |word: &str| word.parse::<EntityTypeName>().map_err(Box::new);
        Ok(Self {
            user: name("AWS::IdentityStore::User")?,
            group: name("AWS::IdentityStore::Group")?,
            tags: name("AWS::IAM::PrincipalTags")?,
            ec2: name("AWS::EC2::Instance")?,
            managed: name("AWS::SSM::ManagedInstance")?,
            action: named(&name(ACTIONS)?, "getTokenForInstanceAccess"),
        })
    }
}

fn named(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn texts_of_tags(entity: &Entity) -> Vec<(String, String)> {
    let text = |(key, value): (&str, Result<EvalResult, _>)| match value {
        Ok(EvalResult::String(value)) => Some((key.to_owned(), value)),
        _ => None,
    };
    entity.tags().filter_map(text).collect()
}

fn values(texts: &[(String, String)]) -> Vec<(String, Value)> {
    texts.iter().map(|(key, value)| (key.clone(), Value::new_string(value.clone()))).collect()
}

/// Whether the session is the account's own shell.
fn is_plain_shell(request: &Request) -> bool {
    let shell = Action::StartShell.as_str();
    let document = request.context().and_then(|context| context.get("document"));
    let named =
        matches!(document, Some(EvalResult::EntityUid(uid)) if uid.id().unescaped() == Document::SHELL);
    named && request.action().is_some_and(|action| action.id().unescaped() == shell)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::super::question::{Asked, Question, Resource};
    use super::super::{Decision, Policy};
    use super::*;
    use crate::session::{Instance, Principal, Target};

    /// As AWS's documentation has them, without an `@id`.
    const APPROVALS: &str = r#"
// Engineers enter what is tagged for development.
permit (
    principal in AWS::IdentityStore::Group::"e8c17310-e011-7089-d989-10da1EXAMPLE",
    action == AWS::SSM::Action::"getTokenForInstanceAccess",
    resource
)
when {
    resource.hasTag("Environment") && resource.getTag("Environment") == "Development"
};

forbid (
    principal,
    action == AWS::SSM::Action::"getTokenForInstanceAccess",
    resource
)
when {
    resource.hasTag("DataClassification") && resource.getTag("DataClassification") == "Financial"
};
"#;
    const GROUPS: &str = "[groups]\n\"e8c17310-e011-7089-d989-10da1EXAMPLE\" = \
        [\"arn:aws:sts::*:assumed-role/AWSReservedSSO_Engineer_0123456789abcdef/*\"]\n";

    fn policy(cedar: &str, more: &str) -> Policy {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("approvals.cedar"), cedar).unwrap();
        std::fs::write(dir.path().join("more.cedar"), more).unwrap();
        std::fs::write(dir.path().join("groups.toml"), GROUPS).unwrap();
        Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn engineer() -> Principal {
        let role = "AWSReservedSSO_Engineer_0123456789abcdef";
        serde_json::from_value(serde_json::json!({
            "id": "AROAENGINEER:ada", "arn": format!("arn:aws:sts::111122223333:assumed-role/{role}/ada"),
            "account": "111122223333", "name": "ada", "role": role, "method": "sts_proof",
            "authenticated_at": 0,
        }))
        .unwrap()
    }

    fn machine(id: &str, tags: &[(&str, &str)]) -> Instance {
        Instance {
            target: Target::parse(id).unwrap(),
            account: "111122223333".into(),
            region: "eu-central-1".into(),
            name: None,
            platform: None,
            agent_version: None,
            online: true,
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn asked(policy: &Policy, action: Action, on: &Instance, document: Option<&Document>) -> Decision {
        let who = engineer();
        let context = Asked { document, ..Asked::default() };
        let question = Question { principal: &who, action, resource: Resource::Instance(on), context };
        policy.decide(&question, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn aws_policies_are_evaluated_as_they_stand() {
        let policy = policy(APPROVALS, "");
        let development = [("Environment", "Development")];
        for id in ["i-0123456789abcdef0", "mi-0123456789abcdef0"] {
            let decision = asked(&policy, Action::StartShell, &machine(id, &development), None);
            assert!(decision.allowed, "{}", decision.sentence);
            assert_eq!(decision.policies, ["approvals.cedar-3"]);
        }
        let production = machine("i-0123456789abcdef0", &[("Environment", "Production")]);
        assert!(!asked(&policy, Action::StartShell, &production, None).allowed);
        let financial = [development[0], ("DataClassification", "Financial")];
        let decision = asked(&policy, Action::StartShell, &machine("i-0123456789abcdef0", &financial), None);
        assert!(!decision.allowed);
        assert_eq!(decision.policies, ["approvals.cedar-12"]);
    }

    #[test]
    fn a_permit_of_aws_is_for_the_shell_and_a_forbid_for_everything() {
        let open = "@id(\"open\") permit (principal, action in Postern::Action::\"startSession\", resource);";
        let development = machine("i-0123456789abcdef0", &[("Environment", "Development")]);
        let alone = policy(APPROVALS, "");
        let port = Document::parse("AWS-StartPortForwardingSession").unwrap();
        assert!(!asked(&alone, Action::ForwardPort, &development, Some(&port)).allowed);
        let own = Document::parse("Ops-RootShell").unwrap();
        assert!(!asked(&alone, Action::StartShell, &development, Some(&own)).allowed);
        let both = policy(APPROVALS, open);
        assert_eq!(asked(&both, Action::ForwardPort, &development, Some(&port)).policies, ["open"]);
        let financial = machine("i-0123456789abcdef0", &[("DataClassification", "Financial")]);
        assert_eq!(
            asked(&both, Action::ForwardPort, &financial, Some(&port)).policies,
            ["approvals.cedar-12"]
        );
    }

    #[test]
    fn a_forbid_of_aws_is_for_tasks_too_and_a_permit_is_not() {
        let own = "@id(\"open\") permit (principal, action, resource);";
        let all = "(principal, action == AWS::SSM::Action::\"getTokenForInstanceAccess\", resource);";
        let task =
            machine("ecs:web_0123456789abcdef0123456789abcdef_0123456789abcdef0123456789abcdef-1", &[]);
        let forbidden = policy(&format!("forbid {all}"), own);
        for action in [Action::StartShell, Action::ForwardPort] {
            let port = Document::parse("AWS-StartPortForwardingSession").unwrap();
            let document = (action == Action::ForwardPort).then_some(&port);
            assert!(!asked(&forbidden, action, &task, document).allowed, "{action}");
        }
        assert_eq!(asked(&forbidden, Action::StartShell, &task, None).policies, ["approvals.cedar-1"]);
        let tagged = policy(APPROVALS, own);
        assert!(asked(&tagged, Action::StartShell, &task, None).allowed, "it has no such tag");
        assert!(!asked(&policy(&format!("permit {all}"), ""), Action::StartShell, &task, None).allowed);
    }

    #[test]
    fn session_tags_are_the_attributes_and_the_tags_of_aws() {
        let company = serde_json::json!([
            {"uid": {"type": "Postern::User", "id": "u"},
             "attrs": {"arn": "a", "name": "u", "account": "1", "method": "sts_proof",
                       "authenticatedAt": "2026-11-23T08:00:00Z"},
             "parents": [], "tags": {"CostCenter": "42", "Role": "Admin"}},
            {"uid": {"type": "Postern::Instance", "id": "i-0a"},
             "attrs": {"account": "1", "region": "r", "online": true}, "parents": [], "tags": {"CostCenter": "42"}},
        ]);
        let permit = |condition: &str| {
            format!(
                "permit (principal, action == AWS::SSM::Action::\"getTokenForInstanceAccess\", resource)
                 when {{ {condition} }};"
            )
        };
        for (condition, allowed) in [
            (
                "principal has costCenter && resource.hasTag(\"CostCenter\") && \
              principal.costCenter == resource.getTag(\"CostCenter\")",
                true,
            ),
            (
                "context.iam.principalTags.hasTag(\"Role\") && context.iam.principalTags.getTag(\"Role\") == \"Admin\"",
                true,
            ),
            ("principal has division", false),
        ] {
            let policy = policy(&permit(condition), "");
            let entities = company.as_array().unwrap().clone();
            let company = super::super::Company::new(entities, &policy);
            let how = super::super::Circumstances::default();
            let situation = company.situation(
                "Postern::User::\"u\"",
                Action::StartShell,
                "Postern::Instance::\"i-0a\"",
                &how,
            );
            assert_eq!(policy.explain(&situation).unwrap().allowed, allowed, "{condition}");
        }
    }

    /// What ada may with these users in `groups.toml`.
    fn asked_as(users: &str, who: &Principal) -> Decision {
        let dir = tempfile::tempdir().unwrap();
        let cedar = "permit (principal == AWS::IdentityStore::User::\"9067-0a\", \
            action == AWS::SSM::Action::\"getTokenForInstanceAccess\", resource);\n\
            forbid (principal == AWS::IdentityStore::User::\"9067-0b\", \
            action == AWS::SSM::Action::\"getTokenForInstanceAccess\", resource);";
        std::fs::write(dir.path().join("approvals.cedar"), cedar).unwrap();
        std::fs::write(dir.path().join("groups.toml"), format!("[identity_center_users]\n{users}")).unwrap();
        let policy = Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        let (on, context) = (machine("i-0123456789abcdef0", &[]), Asked::default());
        let resource = Resource::Instance(&on);
        let question = Question { principal: who, action: Action::StartShell, resource, context };
        policy.decide(&question, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_user_in_identity_center_is_the_person_that_groups_toml_names_or_aws_says() {
        let role = "arn:aws:sts::*:assumed-role/AWSReservedSSO_Engineer_0123456789abcdef";
        let ada = engineer();
        assert!(!asked_as("", &ada).allowed);
        let named = asked_as(&format!("\"9067-0a\" = [\"{role}/ada\"]\n"), &ada);
        assert!(named.allowed, "{}", named.sentence);
        assert!(!asked_as(&format!("\"9067-0a\" = [\"{role}/eve\"]\n"), &ada).allowed);
        // Named as both, somebody is neither, and may nothing.
        let both = format!("\"9067-0a\" = [\"{role}/ada\"]\n\"9067-0b\" = [\"{role}/ada\"]\n");
        assert!(!asked_as(&both, &ada).allowed);
        let mut said = engineer();
        said.facts.identity_center_user = Some("9067-0a".to_owned());
        assert!(asked_as("", &said).allowed);
    }

    #[test]
    fn a_policy_of_aws_is_explained_too() {
        let policy = policy(APPROVALS, "");
        let who = Principal { arn: "arn:aws:iam::111122223333:user/eve".into(), role: None, ..engineer() };
        let on = machine("i-0123456789abcdef0", &[("Environment", "Development")]);
        let (resource, context) = (Resource::Instance(&on), Asked::default());
        let question = Question { principal: &who, action: Action::StartShell, resource, context };
        let explained = policy.explain_question(&question, OffsetDateTime::UNIX_EPOCH).unwrap();
        assert_eq!(explained.nearest[0].id, "approvals.cedar-3");
        assert_eq!(
            explained.nearest[0].needs.iter().map(|need| need.holds).collect::<Vec<_>>(),
            [false, true, true]
        );
        let change = explained.changes[0][0].sentence();
        assert!(
            change.ends_with("into Postern::Group::\"e8c17310-e011-7089-d989-10da1EXAMPLE\""),
            "{change}"
        );
    }

    #[test]
    fn what_is_wrong_in_a_policy_of_aws_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = APPROVALS.replace("resource.hasTag(\"Environment\")", "resource.envrionment == \"x\"");
        std::fs::write(dir.path().join("a.cedar"), wrong).unwrap();
        let error = Policy::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a.cedar:9") && error.contains("envrionment"), "{error}");
    }
}
