//! The policies by action, and what they say to one request.

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision as Verdict, Entities, Entity, EntityUid,
    Policy as Cedar, PolicyId, PolicySet, Request,
};
use miette::Diagnostic;

use super::entities::Vocabulary;
use super::places::Places;
use super::question::Action;

/// Policies and action for one kind of question.
#[derive(Debug)]
pub(super) struct Slice {
    /// The policies that can have a say, all of them.
    ///
    /// A policy whose scope names other actions is never satisfied and never
    /// errs, so leaving it out changes no decision and no diagnostic.
    pub policies: PolicySet,
    /// The same by what they name.
    places: Places,
    /// The action and the groups it is in.
    pub action: Entities,
    /// Whether one of them looks at a clock or at what the session moved.
    pub depends_on_time: bool,
}

/// What the policies say to one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Cedar's own verdict.
    pub allowed: bool,
    /// The ids of the policies that determined it, sorted.
    pub determining: Vec<String>,
    /// The ids of those that could not be evaluated, sorted.
    pub failed: Vec<String>,
}

impl Judgement {
    /// Evaluates a whole policy set.
    pub fn of(policies: &PolicySet, request: &Request, entities: &Entities) -> Self {
        let response = Authorizer::new().is_authorized(request, policies, entities);
        let diagnostics = response.diagnostics();
        let failed = diagnostics.errors().map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
        });
        Self {
            allowed: response.decision() == Verdict::Allow,
            determining: ids(diagnostics.reason()),
            failed: ids(failed),
        }
    }

    /// Both together, as if their policies were one set.
    pub fn and(self, other: Self) -> Self {
        // A denial with a reason is a forbid's, and wins over any permit.
        let forbids = |one: &Self| !one.allowed && !one.determining.is_empty();
        let mut failed = [self.failed.as_slice(), &other.failed].concat();
        let (allowed, mut determining) = match (forbids(&self), forbids(&other)) {
            (true, false) => (false, self.determining),
            (false, true) => (false, other.determining),
            (both, _) => (
                !both && (self.allowed || other.allowed),
                [self.determining.as_slice(), &other.determining].concat(),
            ),
        };
        determining.sort();
        failed.sort();
        Self { allowed, determining, failed }
    }
}

fn ids<'a>(found: impl Iterator<Item = &'a PolicyId>) -> Vec<String> {
    let mut ids: Vec<String> = found.map(ToString::to_string).collect();
    ids.sort();
    ids
}

/// What changes while a session runs, with nobody changing anything.
const PASSING: [&str; 5] = ["now", "weekday", "sessionAge", "idleTime", "bytes"];

/// Whether a policy names one of them; asked once too often does no harm.
fn looks_at_time(policy: &Cedar) -> bool {
    let text = policy.to_string();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.into_iter().any(|word| PASSING.contains(&word))
}

impl Slice {
    /// What its policies say to a request.
    pub fn judge(&self, request: &Request, entities: &Entities) -> Judgement {
        self.places.judge(request, entities)
    }

    /// The policies whose scope may hold.
    pub fn in_scope(&self, request: &Request, entities: &Entities) -> Vec<&Cedar> {
        self.places.in_scope(request, entities)
    }
}

/// One slice an action.
#[derive(Debug)]
pub(super) struct Slices(Vec<Slice>);

impl Slices {
    pub fn new(
        all: &PolicySet,
        actions: &Entities,
        vocabulary: &Vocabulary,
    ) -> Result<Self, Box<dyn Diagnostic>> {
        let slices = Action::ALL.iter().map(|action| {
            let this = vocabulary.action(*action);
            let covers = |named: &EntityUid| *named == this || actions.is_ancestor_of(named, &this);
            let relevant = all.policies().filter(|policy| match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(named) => named == this,
                ActionConstraint::In(named) => named.iter().any(covers),
            });
            let policies = PolicySet::from_policies(relevant.cloned())?;
            let places = Places::new(policies.policies())?;
            let groups = actions.ancestors(&this).into_iter().flatten().cloned().collect();
            let action = Entities::from_entities([Entity::new_no_attrs(this, groups)], None)?;
            let depends_on_time = policies.policies().any(looks_at_time);
            Ok(Slice { policies, places, action, depends_on_time })
        });
        slices.collect::<Result<_, _>>().map(Self)
    }

    /// What is needed to decide on this action.
    pub fn of(&self, action: Action) -> Option<&Slice> {
        self.0.get(action as usize)
    }

    /// The same, by the action's name in requests.
    pub fn named(&self, name: &str) -> Option<&Slice> {
        self.of(Action::ALL.into_iter().find(|action| action.as_str() == name)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::super::question::{Asked, Question, Resource};
    use super::*;
    use crate::session::{AuthMethod, Instance, Principal, Target};

    const PRINCIPALS: [&str; 7] = [
        "principal",
        "principal is Postern::User",
        "principal == Postern::User::\"AIDAalice\"",
        "principal == Postern::User::\"AIDAbob\"",
        "principal in Postern::Group::\"devs\"",
        "principal is Postern::User in Postern::Group::\"ops\"",
        "principal in Postern::Account::\"111122223333\"",
    ];
    const RESOURCES: [&str; 6] = [
        "resource",
        "resource is Postern::Instance",
        "resource == Postern::Instance::\"i-0aaa\"",
        "resource == Postern::Instance::\"i-0bbb\"",
        "resource in Postern::Region::\"eu-west-1\"",
        "resource is Postern::Instance in Postern::Account::\"999988887777\"",
    ];
    /// True, false, true of some, what names somebody or something, and what
    /// cannot be evaluated before, behind and instead of that.
    const CONDITIONS: [&str; 17] = [
        "",
        "when { context.weekday > 7 }",
        "when { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"dev\" }",
        "unless { principal in Postern::Group::\"devs\" }",
        "when { 9223372036854775807 + context.weekday > 0 }",
        "when { principal in Postern::Group::\"devs\" }",
        "when { principal in Postern::Group::\"devs\" && principal in Postern::Group::\"ops\" }",
        "when { principal == Postern::User::\"AIDAbob\" || principal in Postern::Group::\"devs\" }",
        "when { principal in Postern::Group::\"devs\" && 9223372036854775807 + context.weekday > 0 }",
        "when { 9223372036854775807 + context.weekday > 0 && principal in Postern::Group::\"devs\" }",
        "when { context has reason && resource in Postern::Region::\"eu-west-1\" }",
        "when { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"dev\" &&
            9223372036854775807 + context.weekday > 0 }",
        "when { resource.hasTag(\"env\") } when { resource.getTag(\"env\") == \"prod\" && \
            resource in Postern::Account::\"999988887777\" }",
        "unless { principal in Postern::Group::\"devs\" || resource.hasTag(\"cost\") } \
            when { principal in Postern::Group::\"ops\" }",
        "unless { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"dev\" }",
        "when { if principal in Postern::Group::\"devs\" then resource.hasTag(\"env\") else true }",
        "when { principal is Postern::User && resource == Postern::Instance::\"i-0bbb\" }",
    ];

    fn cedar(policies: &[(bool, usize, usize, usize)]) -> String {
        let one = |(n, (permit, p, r, c)): (usize, &(bool, usize, usize, usize))| {
            let effect = if *permit { "permit" } else { "forbid" };
            format!(
                "@id(\"p{n}\") {effect} ({}, action == Postern::Action::\"startShell\", {}) {};\n",
                PRINCIPALS[*p], RESOURCES[*r], CONDITIONS[*c]
            )
        };
        policies.iter().enumerate().map(one).collect()
    }

    fn principal(name: &str) -> Principal {
        let known = serde_json::json!({
            "id": format!("AIDA{name}"), "arn": format!("arn:aws:iam::111122223333:user/{name}"),
            "account": "111122223333", "name": name, "role": null,
            "method": AuthMethod::StsProof, "authenticated_at": 0,
        });
        serde_json::from_value(known).unwrap()
    }

    fn instance(id: &str, account: &str, region: &str) -> Instance {
        Instance {
            target: Target::parse(id).unwrap(),
            account: account.into(),
            region: region.into(),
            name: None,
            platform: None,
            agent_version: None,
            online: true,
            tags: [("env".to_owned(), if id == "i-0aaa" { "dev" } else { "prod" }.to_owned())].into(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn what_is_selected_first_decides_as_all_of_it_would(
            policies in prop::collection::vec((any::<bool>(), 0..7_usize, 0..6_usize, 0..17_usize), 0..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("a.cedar"), cedar(&policies)).unwrap();
            let groups = "[groups]\ndevs = [\"arn:aws:iam::*:user/alice\"]\nops = [\"arn:aws:iam::*:user/*\"]\n";
            std::fs::write(dir.path().join("groups.toml"), groups).unwrap();
            let policy = super::super::Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"));
            let slice = policy.slices.of(Action::StartShell).unwrap();
            for who in ["alice", "bob", "carol"].map(principal) {
                for what in [
                    instance("i-0aaa", "111122223333", "eu-west-1"),
                    instance("i-0bbb", "999988887777", "us-east-1"),
                    instance("i-0ccc", "999988887777", "eu-west-1"),
                ] {
                    let (resource, context) = (Resource::Instance(&what), Asked::default());
                    let question =
                        Question { principal: &who, action: Action::StartShell, resource, context };
                    let request = policy
                        .vocabulary
                        .request(&question, OffsetDateTime::UNIX_EPOCH, &policy.schema)
                        .unwrap();
                    let entities = policy
                        .vocabulary
                        .entities(&question, &policy.groups, &slice.action, &policy.schema)
                        .unwrap();
                    let all = Judgement::of(&slice.policies, &request, &entities);
                    prop_assert_eq!(slice.judge(&request, &entities), all);
                }
            }
        }
    }
}
