//! Explanations of what ships, and the changes that they name.

use serde_json::json;

use super::*;
use crate::policy::Requested;

/// The base and one example, with the company of the shipped cases.
fn example(name: &str) -> Policy {
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let dir = tempfile::tempdir().unwrap();
    for file in ["base.cedar".to_owned(), format!("examples/{name}.cedar")] {
        let from = policies.join(&file);
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"))
}

fn folder(cedar: &str) -> Policy {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.cedar"), cedar).unwrap();
    Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"))
}

/// A shell of somebody on a machine, with more of the context.
fn shell(who: &str, machine: &str, context: serde_json::Value) -> Situation {
    let company = include_str!("../../../policies/tests/entities/company.json");
    let mut all = json!({
        "now": "2026-11-23T10:00:00Z", "weekday": 1,
        "document": {"type": "Postern::Document", "id": "SSM-SessionManagerRunShell"},
    });
    all.as_object_mut().unwrap().extend(context.as_object().unwrap().clone());
    Situation {
        request: Requested {
            principal: format!("Postern::User::\"{who}\""),
            action: "Postern::Action::\"startShell\"".into(),
            resource: format!("Postern::Instance::\"{machine}\""),
            context: all.as_object().unwrap().clone(),
        },
        entities: serde_json::from_str(company).unwrap(),
    }
}

const PROD: &str = "i-0000000000000000b";
const DEV: &str = "i-0000000000000000d";

fn sentences(explanation: &Explanation) -> Vec<Vec<String>> {
    explanation.changes.iter().map(|changes| changes.iter().map(Change::sentence).collect()).collect()
}

#[test]
fn a_permit_is_explained_by_its_clauses_and_its_lines() {
    let policy = example("developers");
    let explained = policy.explain(&shell("AROADEVELOPER:ada", DEV, json!({}))).unwrap();
    assert!(explained.allowed && explained.changes.is_empty());
    let by = &explained.decided_by[0];
    let source = by.source.as_ref().unwrap();
    assert_eq!(
        (by.id.as_str(), source.file.as_str(), source.line),
        ("developers-in-dev", "developers.cedar", 2)
    );
    assert!(source.text.starts_with("@id(\"developers-in-dev\")"), "{}", source.text);
    let needs: Vec<_> = by.needs.iter().map(|need| (need.clause.as_str(), need.holds)).collect();
    assert_eq!(
        needs,
        [
            ("principal in Postern::Group::\"developers\"", true),
            ("resource is Postern::Instance", true),
            ("resource.hasTag(\"env\")", true),
            ("resource.getTag(\"env\") == \"dev\"", true)
        ]
    );
}

#[test]
fn a_denial_is_answered_by_the_smallest_change() {
    let oncall = example("prod-oncall");
    let here = json!({"sourceIp": "198.51.100.7"});
    let without_reason = oncall.explain(&shell("AROAONCALL:omar", PROD, here)).unwrap();
    assert!(!without_reason.allowed && without_reason.needs_reason);
    assert_eq!(sentences(&without_reason), [["give a reason"]]);
    let elsewhere = json!({"sourceIp": "203.0.113.9", "reason": "OPS-17"});
    let elsewhere = oncall.explain(&shell("AROAONCALL:omar", PROD, elsewhere)).unwrap();
    assert!(sentences(&elsewhere).contains(&vec!["ask from 198.51.100.0/24".to_owned()]), "{elsewhere:#?}");
    assert_eq!(elsewhere.nearest[0].id, "oncall-in-prod");
    let both = oncall.explain(&shell("AROAONCALL:omar", PROD, json!({}))).unwrap();
    assert_eq!(sentences(&both)[0], ["give a reason", "ask from 198.51.100.0/24"]);
}

#[test]
fn what_takes_several_changes_is_found_too() {
    let policy = example("prod-oncall");
    let explained = policy.explain(&shell("AROADEVELOPER:ada", PROD, json!({}))).unwrap();
    assert_eq!(explained.decided_by[0].id, "prod-needs-oncall");
    let first = &sentences(&explained)[0];
    assert_eq!(first.len(), 3, "{first:?}");
    let group = "put Postern::User::\"AROADEVELOPER:ada\" into Postern::Group::\"oncall\"";
    assert!(first.iter().any(|change| change == group), "{first:?}");
}

#[test]
fn a_machine_that_would_have_to_be_another_is_not_the_only_answer() {
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let policy = Policy::load(&policies).unwrap();
    let explained = policy.explain(&shell("AROADEVELOPER:ada", PROD, json!({}))).unwrap();
    let sets = sentences(&explained);
    assert_eq!(sets[0], [format!("tag Postern::Instance::\"{PROD}\" with env=dev")]);
    let other = sets.iter().find(|set| set.iter().all(|change| !change.starts_with("tag")));
    assert!(other.is_some_and(|set| set.contains(&"give a reason".to_owned())), "{sets:?}");
    // What is enough is not told again with more.
    let mut longer = sets.iter().skip(1);
    assert!(longer.all(|set| !set.iter().any(|change| change.ends_with("env=dev"))), "{sets:?}");
}

#[test]
fn a_tag_a_second_factor_and_an_end_are_changes() {
    let developers = example("developers");
    let explained = developers.explain(&shell("AROADEVELOPER:ada", PROD, json!({}))).unwrap();
    let tag = format!("tag Postern::Instance::\"{PROD}\" with env=dev");
    assert_eq!(sentences(&explained)[0], [tag]);
    let mfa = "@id(\"mfa\") permit (principal, action, resource) when { context has mfa && context.mfa };";
    let explained = folder(mfa).explain(&shell("AROADEVELOPER:ada", DEV, json!({}))).unwrap();
    assert_eq!(sentences(&explained), [["sign in with MFA"]]);
    let contractors = example("contractors");
    let late = json!({"now": "2027-08-01T10:00:00Z", "weekday": 7});
    let explained = contractors.explain(&shell("AIDACONRAD", "i-0000000000000000a", late)).unwrap();
    let until = sentences(&explained).concat();
    assert!(until.contains(&"it was allowed until 2027-06-30T23:59:00Z".to_owned()), "{until:?}");
}

#[test]
fn the_next_hour_at_which_it_is_allowed_is_found() {
    let policy = folder(
        "@id(\"hours\") permit (principal, action, resource) when {
            context.weekday <= 5 && context.now.toTime() >= duration(\"8h\") && context.now.toTime() < duration(\"18h\") };",
    );
    // A Saturday.
    let saturday = json!({"now": "2026-11-28T10:07:00Z", "weekday": 6});
    let explained = policy.explain(&shell("AROADEVELOPER:ada", DEV, saturday)).unwrap();
    assert_eq!(sentences(&explained), [["ask at 2026-11-30T08:00:00Z"]]);
}

#[test]
fn what_nothing_can_change_has_no_changes() {
    let policy = folder("@id(\"shut\") forbid (principal, action, resource);");
    let explained = policy.explain(&shell("AROADEVELOPER:ada", DEV, json!({}))).unwrap();
    assert!(!explained.allowed && explained.changes.is_empty());
    assert_eq!(explained.decided_by[0].id, "shut");
}

#[test]
fn every_change_that_is_told_really_allows_it() {
    for (name, who, machine) in [
        ("prod-oncall", "AROADEVELOPER:ada", PROD),
        ("developers", "AIDASTRANGER", "i-00000000000000005"),
        ("business-hours", "AROASUPPORT:sue", PROD),
        ("break-glass", "AROADEVELOPER:ada", PROD),
        ("contractors", "AROADEVELOPER:ada", DEV),
    ] {
        let policy = example(name);
        let situation = shell(who, machine, json!({"now": "2026-11-28T23:00:00Z", "weekday": 6}));
        let explained = policy.explain(&situation).unwrap();
        assert!(!explained.allowed && !explained.changes.is_empty(), "{name}: {explained:#?}");
        for changes in &explained.changes {
            let mut changed = situation.clone();
            changes.iter().for_each(|change| change.apply(&mut changed));
            assert!(policy.explain(&changed).unwrap().allowed, "{name}: {changes:?}");
        }
    }
}

#[test]
fn a_hint_names_nothing_that_the_asker_does_not_know() {
    let changes = [
        Change::Reason { text: "OPS-".into() },
        Change::Mfa,
        Change::Network { network: "198.51.100.0/24".into() },
        Change::Time { at: "2026-11-30T08:00:00Z".into(), past: false },
        Change::Time { at: "2026-11-30T08:00:00Z".into(), past: true },
        Change::Circumstance { name: "port".into(), value: 5432.into() },
        Change::Join { who: "a".into(), what: "secret-group".into() },
        Change::Leave { who: "a".into(), what: "secret-group".into() },
        Change::Tag { of: "a".into(), key: "secret-tag".into(), value: Some("x".into()) },
        Change::Attribute { of: "a".into(), name: "secret".into(), value: 1.into() },
    ];
    let hints: Vec<_> = changes.iter().filter_map(Change::hint).collect();
    assert_eq!(hints.len(), changes.iter().filter(|change| change.is_askers_own()).count());
    for secret in ["OPS", "198", "2026", "5432", "secret"] {
        assert!(!hints.concat().contains(secret), "{hints:?}");
    }
}

#[test]
fn what_the_asker_can_do_is_found_behind_what_they_cannot() {
    let tagged = |n: usize| {
        format!("@id(\"a{n}\") permit (principal, action, resource) when {{ resource.hasTag(\"t{n}\") }};\n")
    };
    let own = "@id(\"z\") permit (principal, action == Postern::Action::\"startShell\", resource) when {
        context has reason && context has mfa && context.mfa };";
    let policy = folder(&((0..8).map(tagged).collect::<String>() + own));
    let found = policy.own_changes(&shell("AROADEVELOPER:ada", DEV, json!({})), BUDGET_OF_ASKER).unwrap();
    let sentences: Vec<_> = found.iter().flatten().map(Change::sentence).collect();
    assert_eq!(sentences, ["give a reason", "sign in with MFA"]);
}

#[test]
fn a_document_of_another_action_is_neither_proposed_nor_taken() {
    let policy = folder(
        "@id(\"a\") permit (principal, action == Postern::Action::\"startShell\", resource) when {
            [Postern::Document::\"AWS-StartSSHSession\", Postern::Document::\"Ops-Shell\"].contains(context.document) };",
    );
    let explained = policy.explain(&shell("AROADEVELOPER:ada", DEV, json!({}))).unwrap();
    assert_eq!(sentences(&explained), [["ask with document Ops-Shell"]]);
    let ssh = json!({"document": {"type": "Postern::Document", "id": "AWS-StartSSHSession"}});
    let refused = policy.explain(&shell("AROADEVELOPER:ada", DEV, ssh)).unwrap_err();
    assert!(refused.contains("AWS-StartSSHSession does not fit the action"), "{refused}");
}

#[test]
fn a_host_is_asked_about_as_the_gateway_does_and_a_port_is_one() {
    use crate::policy::{Action, Circumstances, Company};
    let policy = folder(
        "@id(\"a\") permit (principal, action == Postern::Action::\"forwardPortToHost\", resource)
            when { context.host == \"db.internal\" && context.port < 2 };",
    );
    let mut company = Company::new(Vec::new(), &policy);
    let who = company.add_person(&policy, "arn:aws:iam::1:user/ada").unwrap();
    let machine = company.add_machine("i-0a", "1", "r", &Default::default());
    let ask = |host: &str, port| {
        let how = Circumstances { host: Some(host.into()), port: Some(port), ..Circumstances::default() };
        policy.explain(&company.situation(&who, Action::ForwardPortToHost, &machine, &how))
    };
    assert!(ask("DB.Internal.", 1).unwrap().allowed);
    assert!(ask("db.internal", 0).is_err() && ask("", 1).is_err());
    assert_eq!(sentences(&ask("db.internal", 5).unwrap()), [["ask with port 1"]]);
}

/// A person and a machine, no more, so that many questions take little time.
fn alone(context: serde_json::Value) -> Situation {
    let mut situation = shell("AIDASTRANGER", DEV, context);
    let (who, what) = (situation.request.principal.clone(), situation.request.resource.clone());
    let uid = crate::policy::uid_of;
    situation.entities.retain(|entity| uid(entity).is_some_and(|uid| uid == who || uid == what));
    situation
}

/// A permit for a machine with so many tags that none has.
fn needs_tags(id: usize, tags: usize) -> String {
    let tags: Vec<String> = (0..tags).map(|tag| format!("resource.hasTag(\"p{id}t{tag}\")")).collect();
    format!("@id(\"p{id}\") permit (principal, action, resource) when {{ {} }};\n", tags.join(" && "))
}

#[test]
fn all_that_a_permit_wants_is_told_though_every_question_was_used_up() {
    let policy = folder(&(0..8).map(|id| needs_tags(id, 6)).collect::<String>());
    let explained = policy.explain(&alone(json!({}))).unwrap();
    assert_eq!(explained.changes.iter().map(Vec::len).collect::<Vec<_>>(), [6]);
}

#[test]
fn what_ends_a_forbid_is_tried_however_much_permits_want() {
    let open = "@id(\"a\") permit (principal, action, resource);
        @id(\"shut\") forbid (principal, action, resource) unless { context has mfa && context.mfa };\n";
    let policy = folder(&(open.to_owned() + &(0..8).map(|id| needs_tags(id, 8)).collect::<String>()));
    let explained = policy.explain(&alone(json!({}))).unwrap();
    assert_eq!(sentences(&explained), [["sign in with MFA"]]);
}

#[test]
fn a_moment_of_another_offset_or_with_fractions_is_gone_on_from() {
    let policy = folder(
        "@id(\"hours\") permit (principal, action, resource) when {
            context.weekday <= 5 && context.now.toTime() >= duration(\"8h\") && context.now.toTime() < duration(\"18h\") };",
    );
    let saturday = json!({"now": "2026-11-28T10:07:00.123Z", "weekday": 6});
    let explained = policy.explain(&shell("AROADEVELOPER:ada", DEV, saturday)).unwrap();
    assert_eq!(sentences(&explained), [["ask at 2026-11-30T08:00:00Z"]]);
}

#[test]
fn a_type_in_the_scope_is_a_clause() {
    let policy = folder(
        "@id(\"a\") permit (principal, action, resource is Postern::Session);
         @id(\"b\") permit (principal, action, resource is Postern::Instance in Postern::Account::\"7\");",
    );
    let explained = policy.explain(&shell("AROADEVELOPER:ada", DEV, json!({}))).unwrap();
    let mut needs: Vec<_> = explained.nearest.iter().flat_map(|permit| &permit.needs).collect();
    needs.sort_by_key(|need| need.clause.clone());
    let needs: Vec<_> = needs.iter().map(|need| (need.clause.as_str(), need.holds)).collect();
    let within = "resource is Postern::Instance in Postern::Account::\"7\"";
    assert_eq!(needs, [(within, false), ("resource is Postern::Session", false)]);
}
