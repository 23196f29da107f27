//! What is odd in a policy set: without effect, never matching, over-broad.

use std::collections::{BTreeSet, HashMap};

use cedar_policy::{Effect, EntityUid, Policy as Cedar, PrincipalConstraint, ResourceConstraint};
use miette::SourceSpan;
use serde_json::Value;
use time::OffsetDateTime;

use super::explain::conditions;
use super::groups::{EMAIL, IDP};
use super::problem::{File, Problem};
use super::{Action, Policy};

/// Policies that one is compared with at the most, so that a large set is
/// linted in seconds.
const COMPARED_MAX: usize = 2000;
/// The action whose bit stands for AWS's own.
const AWS_BIT: usize = Action::ALL.len();

/// Everything odd, in reading order.
pub(super) fn lint(policy: &Policy, files: &[File], now: OffsetDateTime) -> Vec<Problem> {
    let shapes: Vec<Shape> = shapes(policy);
    let mut linter = Linter { policy, files, found: Vec::new() };
    linter.shadowed(&shapes);
    for shape in &shapes {
        linter.never_matching(shape, now);
        linter.over_broad(shape);
    }
    linter.groups();
    linter.found.sort_by_key(Problem::order);
    linter.found
}

/// A policy as far as policies are compared.
struct Shape<'a> {
    id: String,
    cedar: &'a Cedar,
    json: Value,
    /// One bit an action that it is about.
    actions: u32,
    principal: Scope,
    resource: Scope,
    /// Its conditions' parts, each with whether it has to hold.
    parts: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Is(String),
    In(Option<String>, EntityUid),
    Eq(EntityUid),
}

impl Scope {
    /// Whether it holds wherever the other one does.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Is(kind), Self::Is(theirs) | Self::In(Some(theirs), _)) => kind == theirs,
            (Self::Is(kind), Self::Eq(uid)) => *kind == uid.type_name().to_string(),
            (Self::In(kind, uid), Self::In(theirs, other)) => {
                uid == other && (kind.is_none() || kind == theirs)
            }
            (Self::In(kind, uid), Self::Eq(other)) => {
                uid == other && kind.as_ref().is_none_or(|kind| *kind == other.type_name().to_string())
            }
            (Self::Eq(uid), Self::Eq(other)) => uid == other,
            _ => false,
        }
    }

    fn names(&self) -> Option<&EntityUid> {
        match self {
            Self::Any | Self::Is(_) => None,
            Self::In(_, uid) | Self::Eq(uid) => Some(uid),
        }
    }
}

fn shapes(policy: &Policy) -> Vec<Shape<'_>> {
    let mut actions: HashMap<String, u32> = HashMap::new();
    for (bit, action) in Action::ALL.into_iter().enumerate() {
        let slice = policy.slices.of(action);
        for found in slice.iter().flat_map(|slice| slice.policies.policies()) {
            *actions.entry(found.id().to_string()).or_default() |= 1 << bit;
        }
    }
    for found in policy.jitna.policies().policies() {
        actions.insert(found.id().to_string(), 1 << AWS_BIT);
    }
    // Sources are by id, so that what is said does not depend on a hash.
    let made = policy.sources.keys().filter_map(|id| {
        let cedar = policy.cedar(id)?;
        let json = cedar.to_json().ok()?;
        let parts = conditions(&json).iter().map(|(part, wanted)| format!("{wanted} {part}")).collect();
        Some(Shape {
            id: id.clone(),
            cedar,
            actions: actions.get(id).copied().unwrap_or_default(),
            principal: principal(cedar),
            resource: resource(cedar),
            json,
            parts,
        })
    });
    made.collect()
}

/// Whoever asks is a user, so to say so says nothing.
fn principal(policy: &Cedar) -> Scope {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => Scope::Any,
        PrincipalConstraint::Is(kind) if kind.to_string() == "Postern::User" => Scope::Any,
        PrincipalConstraint::Is(kind) => Scope::Is(kind.to_string()),
        PrincipalConstraint::In(uid) => Scope::In(None, uid),
        PrincipalConstraint::Eq(uid) => Scope::Eq(uid),
        PrincipalConstraint::IsIn(kind, uid) if kind.to_string() == "Postern::User" => Scope::In(None, uid),
        PrincipalConstraint::IsIn(kind, uid) => Scope::In(Some(kind.to_string()), uid),
    }
}

fn resource(policy: &Cedar) -> Scope {
    match policy.resource_constraint() {
        ResourceConstraint::Any => Scope::Any,
        ResourceConstraint::Is(kind) => Scope::Is(kind.to_string()),
        ResourceConstraint::In(uid) => Scope::In(None, uid),
        ResourceConstraint::Eq(uid) => Scope::Eq(uid),
        ResourceConstraint::IsIn(kind, uid) => Scope::In(Some(kind.to_string()), uid),
    }
}

impl Shape<'_> {
    /// Whether it applies wherever the other one does.
    fn covers(&self, other: &Self) -> bool {
        other.actions & !self.actions == 0
            && self.principal.covers(&other.principal)
            && self.resource.covers(&other.resource)
            && self.parts.is_subset(&other.parts)
    }

    fn is_about(&self, action: Action) -> bool {
        self.actions & (1 << action as u32) != 0
    }

    fn is_permit(&self) -> bool {
        self.cedar.effect() == Effect::Permit
    }
}

struct Linter<'a> {
    policy: &'a Policy,
    files: &'a [File],
    found: Vec<Problem>,
}

impl Linter<'_> {
    fn say(&mut self, lint: &str, shape: &Shape<'_>, why: &str, help: &str) {
        let meant = self.policy.annotations.get(&shape.id);
        if meant.is_some_and(|annotations| annotations.allow.iter().any(|name| name == lint)) {
            return;
        }
        let source = self.policy.sources.get(&shape.id);
        let file = source.and_then(|source| self.files.iter().find(|file| file.name == source.file));
        if let Some(file) = file {
            let span: SourceSpan = shape.cedar.as_ref().loc().map_or((0..0).into(), |loc| loc.span);
            let message = format!("{lint}: {why}");
            let help = format!("{help}; if it is meant so, @allow(\"{lint}\")");
            self.found.push(Problem::at(file, (span.offset(), 0), message).help(help));
        }
    }

    /// Policies that others make needless.
    fn shadowed(&mut self, shapes: &[Shape<'_>]) {
        let mut by_principal: HashMap<Option<&EntityUid>, Vec<usize>> = HashMap::new();
        for (at, shape) in shapes.iter().enumerate() {
            by_principal.entry(shape.principal.names()).or_default().push(at);
        }
        for (at, shape) in shapes.iter().enumerate() {
            let named = shape.principal.names();
            let same = by_principal.get(&named).into_iter().flatten().take(COMPARED_MAX);
            let wider = by_principal.get(&None).into_iter().flatten().take(COMPARED_MAX);
            let others = same.chain(wider.filter(|_| named.is_some()));
            let others = others.filter(|other| **other != at).copied();
            let others: Vec<usize> = others.collect();
            for (place, other) in others.iter().filter_map(|other| Some((*other, shapes.get(*other)?))) {
                if self.makes_needless((other, place), (shape, at)) {
                    let why = match (shape.is_permit(), other.is_permit()) {
                        (true, false) => format!("it never permits anything: {} forbids all of it", other.id),
                        _ => format!("it changes nothing: {} does the same for more", other.id),
                    };
                    self.say("shadowed", shape, &why, "take one of the two out, or make it narrower");
                    break;
                }
            }
        }
    }

    fn makes_needless(&self, (other, place): (&Shape<'_>, usize), (shape, at): (&Shape<'_>, usize)) -> bool {
        if !other.covers(shape) {
            return false;
        }
        match (shape.is_permit(), other.is_permit()) {
            (true, false) => true,
            (false, true) => false,
            (permits, _) => {
                // Of two that are the same, the second one is needless.
                let first = place < at || !shape.covers(other);
                let owed = |id: &str| self.policy.owed(&[id.to_owned()]);
                let adds_nothing = owed(&other.id).and(&owed(&shape.id)) == owed(&other.id);
                let said = |id: &str| self.policy.message(&[id.to_owned()]);
                let says_nothing = said(&shape.id).is_none_or(|text| said(&other.id) == Some(text));
                first && says_nothing && (!permits || adds_nothing)
            }
        }
    }

    fn never_matching(&mut self, shape: &Shape<'_>, now: OffsetDateTime) {
        let mut missing: Vec<String> = Vec::new();
        for uid in shape.cedar.entity_literals() {
            let name = uid.id().unescaped();
            let is_group = ["Postern::Group", "AWS::IdentityStore::Group"]
                .contains(&uid.type_name().to_string().as_str());
            if is_group && !self.policy.groups.has(name) {
                missing.push(format!("{name:?}"));
            }
        }
        missing.sort();
        missing.dedup();
        if !missing.is_empty() {
            let why = format!("no groups.toml has a group {}", missing.join(", "));
            self.say("never_matching", shape, &why, "put the group into groups.toml, or correct its name");
        }
        let mut wanted: HashMap<String, &Value> = HashMap::new();
        let conditions = conditions(&shape.json);
        for (part, holds) in &conditions {
            if let (true, Some((word, value))) = (*holds, equals(part))
                && wanted.insert(word.clone(), value).is_some_and(|before| before != value)
            {
                self.say(
                    "never_matching",
                    shape,
                    "it wants one thing to have two values at once",
                    "join the two with || or make two policies",
                );
                break;
            }
        }
        let over = conditions.iter().filter(|(_, holds)| *holds).find_map(|(part, _)| ends(part));
        if let Some((text, _)) = over.filter(|(_, end)| shape.is_permit() && *end <= now) {
            let why = format!("it matches nothing since {text}");
            self.say("never_matching", shape, &why, "take it out, or give it another end");
        }
    }

    fn over_broad(&mut self, shape: &Shape<'_>) {
        if !shape.is_permit() {
            return;
        }
        let text = shape.json.to_string();
        let asks_who = conditions(&shape.json).iter().any(|(part, _)| {
            let part = part.to_string();
            part.contains("\"principal\"") || part.contains("\"mfa\"")
        });
        let everybody = shape.principal.names().is_none() && !asks_who;
        let weighty = |action: &Action| *action != Action::ListTargets && shape.is_about(*action);
        let all = Action::ALL.iter().all(|action| shape.is_about(*action));
        if everybody && (Action::ALL.iter().any(weighty) || shape.actions >> AWS_BIT != 0) {
            self.say(
                "over_broad",
                shape,
                "it is for everybody who can sign in",
                "name who it is for: principal in Postern::Group::\"…\"",
            );
        } else if all {
            self.say(
                "over_broad",
                shape,
                "it permits every action, those of whoever administers the gateway too",
                "name the actions that it is for",
            );
        }
        if text.contains("\"0.0.0.0/0\"") || text.contains("\"::/0\"") {
            let help = "name the network, or take the condition out";
            self.say("over_broad", shape, "its network is every address", help);
        }
    }

    /// Members of groups that are everybody.
    fn groups(&mut self) {
        for file in self.files.iter().filter(|file| file.name.ends_with("groups.toml")) {
            for member in self.policy.groups.members() {
                let Some((who, help)) = everybody(&member) else { continue };
                if let Some(at) = file.text.find(&format!("\"{member}\"")) {
                    let why = format!("over_broad: this member is everybody {who}");
                    self.found.push(Problem::at(file, (at, 0), why).help(help));
                }
            }
        }
    }
}

/// Of whom a member is everybody, and what to write instead.
fn everybody(member: &str) -> Option<(&'static str, &'static str)> {
    let any = |text: &str| text.chars().all(|c| matches!(c, '*' | '@'));
    if member.strip_prefix(IDP).is_some_and(any) || member.strip_prefix(EMAIL).is_some_and(any) {
        return Some(("of the identity provider", "name the group, the address or its domain"));
    }
    let parts: Vec<&str> = member.splitn(6, ':').collect();
    let all = matches!(parts.as_slice(), [_, _, _, _, "*", "*"]);
    all.then_some(("of every account", "name the account, the role or the user"))
}

/// The word and the literal that a condition wants it to be.
fn equals(part: &Value) -> Option<(String, &Value)> {
    let sides = part.get("==")?;
    let (left, right) = (sides.get("left")?, sides.get("right")?);
    match (left.get("Value"), right.get("Value")) {
        (None, Some(value)) => Some((left.to_string(), value)),
        (Some(value), None) => Some((right.to_string(), value)),
        _ => None,
    }
}

/// The moment after which a condition never holds again.
fn ends(part: &Value) -> Option<(&str, OffsetDateTime)> {
    let sides = part.get("<").or_else(|| part.get("<="))?;
    let left = sides.get("left")?.get(".")?;
    if left.get("attr")?.as_str()? != "now" {
        return None;
    }
    let text = sides.get("right")?.get("datetime")?.get(0)?.get("Value")?.as_str()?;
    Some((text, super::explain::parse_moment(text)?))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn found(cedar: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), cedar).unwrap();
        let groups = "[groups]\ndevs = [\"arn:aws:iam::111122223333:user/d\"]\n";
        std::fs::write(dir.path().join("groups.toml"), groups).unwrap();
        let (_, found) = Policy::load_and_lint(dir.path(), datetime!(2026-11-23 10:00 UTC))
            .unwrap_or_else(|error| panic!("{error}"));
        found.iter().map(|problem| problem.place().to_string()).collect()
    }

    const DEVS: &str = "principal in Postern::Group::\"devs\", action in Postern::Action::\"startSession\"";

    #[test]
    fn what_another_policy_makes_needless_is_told() {
        let forbidden = found(&format!(
            "@id(\"p\")\npermit ({DEVS}, resource) when {{ resource.hasTag(\"env\") }};
             @id(\"f\") forbid (principal, action, resource);"
        ));
        assert_eq!(forbidden, ["a.cedar:1:1: shadowed: it never permits anything: f forbids all of it"]);
        let twice = found(&format!(
            "@id(\"a\") permit ({DEVS}, resource);
             @id(\"b\") permit ({DEVS}, resource is Postern::Instance) when {{ resource.hasTag(\"x\") }};"
        ));
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert!(twice[0].contains("shadowed: it changes nothing: a does the same for more"), "{twice:?}");
        let stricter = found(&format!(
            "@id(\"a\") permit ({DEVS}, resource);
             @id(\"b\") @record(\"disk\") permit ({DEVS}, resource) when {{ resource.hasTag(\"x\") }};"
        ));
        assert!(stricter.is_empty(), "its obligation counts: {stricter:?}");
        let same =
            found(&format!("@id(\"a\") permit ({DEVS}, resource);\n@id(\"b\") permit ({DEVS}, resource);"));
        assert_eq!(same, ["a.cedar:2:1: shadowed: it changes nothing: a does the same for more"]);
    }

    #[test]
    fn what_never_matches_is_told() {
        let cases = [
            (
                "permit (principal in Postern::Group::\"dves\", action == Postern::Action::\"startShell\", resource);",
                "no groups.toml has a group \"dves\"",
            ),
            (
                &*format!(
                    "permit ({DEVS}, resource) when {{ resource.hasTag(\"e\") && resource.getTag(\"e\") == \"a\" && \
              resource.getTag(\"e\") == \"b\" }};"
                ),
                "two values at once",
            ),
            (
                &*format!("permit ({DEVS}, resource) when {{ context.now < datetime(\"2026-01-01\") }};"),
                "it matches nothing since 2026-01-01",
            ),
        ];
        for (cedar, expected) in cases {
            let said = found(&format!("@id(\"p\") {cedar}"));
            assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
        }
        let later = format!(
            "@id(\"p\") permit ({DEVS}, resource) when {{ context.now < datetime(\"2027-01-01\") }};"
        );
        assert!(found(&later).is_empty());
    }

    #[test]
    fn what_permits_more_than_was_meant_is_told_unless_it_is_allowed() {
        let open = "permit (principal, action, resource);";
        assert!(found(&format!("@id(\"p\") {open}"))[0].contains("over_broad: it is for everybody"));
        assert!(found(&format!("@id(\"p\") @allow(\"over_broad\") {open}")).is_empty());
        let all = "@id(\"p\") permit (principal in Postern::Group::\"devs\", action, resource);";
        assert!(found(all)[0].contains("it permits every action"));
        let network = format!(
            "@id(\"p\") permit ({DEVS}, resource) when {{ context has sourceIp && context.sourceIp.isInRange(ip(\"0.0.0.0/0\")) }};"
        );
        assert!(found(&network)[0].contains("its network is every address"));
    }

    #[test]
    fn a_message_of_its_own_is_not_needless() {
        let forbid = |message: &str| {
            format!(
                "@id(\"a\") forbid (principal, action, resource);
                 @id(\"b\") {message} forbid (principal, action, resource) when {{ resource.hasTag(\"x\") }};"
            )
        };
        assert_eq!(found(&forbid("")).len(), 1);
        assert_eq!(found(&forbid("@message(\"ask first\")")), [""; 0]);
    }

    #[test]
    fn a_member_that_is_everybody_and_a_group_of_aws_that_is_not_there_are_told() {
        let aws = found(
            "forbid (principal in AWS::IdentityStore::Group::\"nobody\",
                action == AWS::SSM::Action::\"getTokenForInstanceAccess\", resource);",
        );
        assert!(aws.iter().any(|text| text.contains("has a group \"nobody\"")), "{aws:?}");
        let dir = tempfile::tempdir().unwrap();
        let groups = "[groups]\na = [\"idp:*\"]\nb = [\"email:*@*\", \"email:*@example.com\"]\n";
        std::fs::write(dir.path().join("groups.toml"), groups).unwrap();
        let (_, found) = Policy::load_and_lint(dir.path(), datetime!(2026-11-23 10:00 UTC)).unwrap();
        let lines: Vec<_> = found.iter().map(|problem| problem.place().line).collect();
        assert_eq!(lines, [Some(2), Some(3)]);
    }

    #[test]
    fn what_ships_is_not_odd() {
        let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let now = datetime!(2026-11-23 10:00 UTC);
        let odd = |folder: &std::path::Path| {
            let (_, found) = Policy::load_and_lint(folder, now).unwrap();
            found.iter().map(|problem| problem.place().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(odd(&policies.join("demo")), [""; 0]);
        // Every example as a team would put it together: with the base.
        for example in std::fs::read_dir(policies.join("examples")).unwrap() {
            let (dir, example) = (tempfile::tempdir().unwrap(), example.unwrap());
            for file in ["base.cedar", "groups.toml"] {
                std::fs::copy(policies.join(file), dir.path().join(file)).unwrap();
            }
            std::fs::copy(example.path(), dir.path().join(example.file_name())).unwrap();
            assert_eq!(odd(dir.path()), [""; 0], "{example:?}");
        }
    }
}
