//! The bridge asked from outside: what loads, what is denied, and why.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;
use crate::session::{AuthMethod, Document, Durability, Facts, Instance, Principal, SessionId, Target};

const NOW: OffsetDateTime = datetime!(2026-11-23 10:00 UTC);

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn policy(cedar: &str) -> Policy {
    Policy::load(folder(&[("a.cedar", cedar)]).path()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(files: &[(&str, &str)]) -> String {
    Policy::load(folder(files).path()).map(|policy| policy.len()).unwrap_err().to_string()
}

fn shipped(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(folder)
}

fn person(name: &str) -> Principal {
    Principal {
        id: format!("AIDA{}", name.to_uppercase()),
        arn: format!("arn:aws:iam::000000000000:user/{name}"),
        account: "000000000000".into(),
        name: name.into(),
        role: None,
        method: AuthMethod::StsProof,
        authenticated_at: NOW.unix_timestamp(),
        facts: Facts::default(),
    }
}

fn carol() -> Principal {
    Principal {
        id: "AROAAUDITOR:carol".into(),
        arn: "arn:aws:sts::000000000000:assumed-role/Auditor/carol".into(),
        role: Some("Auditor".into()),
        ..person("carol")
    }
}

fn machine(env: &str) -> Instance {
    Instance {
        target: Target::parse("mi-0abc").unwrap(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        name: Some(format!("web-{env}")),
        platform: Some("Linux".into()),
        agent_version: None,
        online: true,
        tags: BTreeMap::from([("env".into(), env.into()), ("secret".into(), "hunter2".into())]),
    }
}

fn ask(policy: &Policy, who: &Principal, action: Action, instance: &Instance, context: Asked) -> Decision {
    let question = Question { principal: who, action, resource: Resource::Instance(instance), context };
    policy.decide(&question, NOW)
}

fn shell(policy: &Policy, who: &Principal, instance: &Instance, reason: Option<&str>) -> Decision {
    ask(policy, who, Action::StartShell, instance, Asked { reason, ..Asked::default() })
}

#[test]
fn denies_everything_when_there_is_no_policy() {
    let policy = Policy::load(folder(&[]).path()).unwrap();
    assert!(policy.is_empty());
    let decision = shell(&policy, &person("alice"), &machine("dev"), None);
    assert!(!decision.allowed);
    let expected = format!(
        "no policy permits startShell on mi-0abc (web-dev) for alice; ask security or see policy set {}",
        &policy.digest()[..8]
    );
    assert_eq!(decision.sentence, expected);
}

#[test]
fn a_missing_folder_is_an_error_and_not_an_empty_set() {
    let error = Policy::load(Path::new("/nonexistent/policies")).unwrap_err();
    assert!(matches!(error, PolicyError::Unreadable { .. }));
    assert!(error.to_string().contains("/nonexistent/policies"), "{error}");
}

#[test]
fn a_forbid_that_errs_denies_though_cedar_would_allow() {
    let policy = policy(
        r#"@id("all") permit (principal, action, resource);
           @id("guard") forbid (principal, action == Postern::Action::"startShell", resource)
           when { context.weekday + 9223372036854775807 > 0 };"#,
    );
    let decision = shell(&policy, &person("alice"), &machine("dev"), None);
    assert!(!decision.allowed);
    assert_eq!(decision.policies, ["guard"]);
    assert!(decision.sentence.contains("\"guard\" could not be evaluated"), "{}", decision.sentence);
    assert_eq!(decision.obligations, Obligations::default());
}

#[test]
fn a_forbid_wins_over_every_permit_and_says_why() {
    let policy = Policy::load(&shipped("demo")).unwrap();
    let decision = shell(&policy, &person("bob"), &machine("prod"), Some("please"));
    assert!(!decision.allowed);
    assert_eq!(
        decision.sentence,
        "startShell on mi-0abc (web-prod) denied by policy \"contractors-no-prod\": \
         contractors work in dev only; ask a developer to go in for you"
    );
    assert_eq!(decision.policies, ["contractors-no-prod"]);
}

#[test]
fn a_permit_that_requires_a_reason_denies_without_one() {
    let policy = Policy::load(&shipped("demo")).unwrap();
    for reason in [None, Some(""), Some("  ")] {
        let decision = shell(&policy, &person("alice"), &machine("prod"), reason);
        assert!(!decision.allowed);
        assert!(decision.sentence.contains("--reason"), "{}", decision.sentence);
        assert_eq!(decision.policies, ["developers-prod-with-reason"]);
    }
    let decision = shell(&policy, &person("alice"), &machine("prod"), Some("OPS-17"));
    assert!(decision.allowed, "{}", decision.sentence);
    assert!(decision.obligations.require_reason && decision.obligations.record_input);
    assert_eq!(decision.obligations.idle_timeout, Some(Duration::from_secs(900)));
}

#[test]
fn an_auditor_replays_and_lists_and_never_connects() {
    let policy = Policy::load(&shipped("demo")).unwrap();
    let (carol, alice, instance) = (carol(), person("alice"), machine("dev"));
    let id = SessionId::mint("alice");
    assert!(!shell(&policy, &carol, &instance, Some("curious")).allowed);
    assert!(ask(&policy, &carol, Action::ListTargets, &instance, Asked::default()).allowed);
    let may = |action, resource| {
        let question = Question { principal: &carol, action, resource, context: Asked::default() };
        policy.decide(&question, NOW).allowed
    };
    let (owner, instance) = (&alice, &instance);
    assert!(may(Action::ReplayRecording, Resource::Recording { id: &id, owner, instance }));
    assert!(may(Action::TerminateSession, Resource::Session { id: &id, owner, instance }));
    assert!(!may(Action::ResumeSession, Resource::Session { id: &id, owner, instance }));
    assert!(may(Action::ResumeSession, Resource::Session { id: &id, owner: &carol, instance }));
    assert!(may(Action::Administer, Resource::Gateway));
}

#[test]
fn the_strictest_obligation_of_all_permitting_policies_wins() {
    let policy = policy(
        r#"@id("a") @record("disk") @idle_timeout("15m") @break_glass permit (principal, action, resource);
           @id("b") @record("remote") @idle_timeout("1h") @read_only permit (principal, action, resource);
           @id("c") @idle_timeout("1s") permit (principal, action, resource) when { principal.name == "bob" };"#,
    );
    let decision = shell(&policy, &person("alice"), &machine("dev"), None);
    assert!(decision.allowed);
    assert_eq!(decision.policies, ["a", "b"]);
    let owed = decision.obligations;
    assert_eq!(owed.record, Durability::Remote);
    assert_eq!(owed.idle_timeout, Some(Duration::from_secs(900)));
    assert!(owed.read_only && !owed.break_glass);
}

#[test]
fn a_denial_leaks_no_attribute_and_no_control_character() {
    let policy = policy(r#"@id("no") @message("not here") forbid (principal, action, resource);"#);
    let mut instance = machine("dev");
    instance.name = Some("web\u{1b}]0;owned\u{7}\n-dev".into());
    let mut who = person("alice");
    who.name = "al\u{9b}ice\r".into();
    for policy in [&policy, &Policy::load(folder(&[]).path()).unwrap()] {
        let decision = shell(policy, &who, &instance, Some("because\u{1b}"));
        assert!(!decision.sentence.chars().any(char::is_control), "{:?}", decision.sentence);
        assert!(!decision.sentence.contains("hunter2") && !decision.sentence.contains("because"));
        assert!(!decision.sentence.contains("arn:"));
    }
}

#[test]
fn a_document_must_fit_the_action_that_is_asked() {
    let policy = policy(r#"@id("all") permit (principal, action, resource);"#);
    let ssh = Document::parse("AWS-StartSSHSession").unwrap();
    let asked = Asked { document: Some(&ssh), ..Asked::default() };
    let instance = machine("dev");
    assert!(!ask(&policy, &person("alice"), Action::StartShell, &instance, asked).allowed);
    assert!(ask(&policy, &person("alice"), Action::StartSsh, &instance, asked).allowed);
    assert!(!ask(&policy, &person("alice"), Action::StartSsh, &instance, Asked::default()).allowed);
}

#[test]
fn a_parameter_given_twice_or_malformed_is_denied() {
    let policy = policy(r#"@id("all") permit (principal, action, resource);"#);
    let document = Document::parse("AWS-StartPortForwardingSession").unwrap();
    let may = |values: &[&str]| {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let parameters = BTreeMap::from([("portNumber".to_owned(), values)]);
        let asked = Asked { document: Some(&document), parameters: Some(&parameters), ..Asked::default() };
        ask(&policy, &person("alice"), Action::ForwardPort, &machine("dev"), asked).allowed
    };
    assert!(may(&["5432"]) && may(&[]));
    for bad in [&["22", "5432"][..], &["0"], &["65536"], &["+22"], &["22;id"], &[""]] {
        assert!(!may(bad), "{bad:?} was permitted");
    }
}

#[test]
fn an_ipv4_caller_on_an_ipv6_socket_matches_ipv4_networks() {
    let policy = policy(
        r#"@id("office") permit (principal, action == Postern::Action::"startShell", resource)
           when { context has sourceIp && context.sourceIp.isInRange(ip("198.51.100.0/24")) };"#,
    );
    let may = |ip: &str| {
        let asked = Asked { source_ip: Some(ip.parse().unwrap()), ..Asked::default() };
        ask(&policy, &person("alice"), Action::StartShell, &machine("dev"), asked).allowed
    };
    assert!(may("198.51.100.7") && may("::ffff:198.51.100.7"));
    assert!(!may("203.0.113.1") && !may("::1") && !may("fe80::1"));
}

#[test]
fn a_role_and_a_group_of_its_arn_are_parents_of_its_sessions() {
    let role = r#"@id("role") permit (principal in Postern::Role::"arn:aws:iam::000000000000:role/Auditor",
                  action, resource);"#;
    assert!(shell(&policy(role), &carol(), &machine("dev"), None).allowed);
    assert!(!shell(&policy(role), &person("carol"), &machine("dev"), None).allowed);
    let group = r#"@id("group") permit (principal in Postern::Group::"g", action, resource);"#;
    for (member, carol_may) in [
        ("arn:aws:iam::000000000000:role/Auditor", true),
        ("arn:aws:sts::000000000000:assumed-role/Auditor/*", true),
        ("arn:aws:sts::*:assumed-role/*/bob", false),
    ] {
        let groups = format!("[groups]\ng = [\"{member}\"]\n");
        let dir = folder(&[("team/a.cedar", group), ("groups.toml", &groups)]);
        let policy = Policy::load(dir.path()).unwrap();
        assert_eq!(shell(&policy, &carol(), &machine("dev"), None).allowed, carol_may, "{member}");
    }
}

#[test]
fn a_parameter_that_is_given_twice_is_no_question() {
    let open = policy("@id(\"open\") permit (principal, action, resource);");
    let named = |name: &str| Document::parse(name).unwrap();
    for (action, document, twice) in [
        (Action::StartCommand, "AWS-StartInteractiveCommand", "command"),
        (Action::ForwardPort, "AWS-StartPortForwardingSession", "portNumber"),
        (Action::ForwardPortToHost, "AWS-StartPortForwardingSessionToRemoteHost", "host"),
    ] {
        let mut given = BTreeMap::from([
            ("command".to_owned(), vec!["uptime".to_owned()]),
            ("portNumber".to_owned(), vec!["5432".to_owned()]),
            ("host".to_owned(), vec!["db".to_owned()]),
        ]);
        let document = named(document);
        let asked = |given: &BTreeMap<String, Vec<String>>| {
            let context = Asked { document: Some(&document), parameters: Some(given), ..Asked::default() };
            ask(&open, &person("alice"), action, &machine("dev"), context)
        };
        assert!(asked(&given).allowed, "{twice}");
        // The second one could be the one that the agent uses.
        given.get_mut(twice).unwrap().push("another".to_owned());
        let denied = asked(&given);
        let expected = if twice == "portNumber" { "must be" } else { "must be given once" };
        assert!(!denied.allowed && denied.sentence.contains(expected), "{}", denied.sentence);
    }
}

#[test]
fn a_kept_question_is_answered_as_it_was() {
    let policy = Policy::load(&shipped("demo")).unwrap();
    let (alice, prod) = (person("alice"), machine("prod"));
    for reason in [None, Some("OPS-17")] {
        let context = Asked { reason, source_ip: Some([192, 0, 2, 7].into()), ..Asked::default() };
        let resource = Resource::Instance(&prod);
        let question = Question { principal: &alice, action: Action::StartShell, resource, context };
        let kept = serde_json::to_string(&Inquiry::of(&question)).unwrap();
        let kept: Inquiry = serde_json::from_str(&kept).unwrap();
        let (then, now) = (policy.decide(&question, NOW), policy.decide(&kept.question(&alice), NOW));
        assert_eq!(Decision { id: then.id.clone(), ..now }, then);
        let hints: &[&str] = if reason.is_some() { &[] } else { &["give a reason"] };
        assert_eq!(policy.hints(&question, NOW), hints);
    }
}

#[test]
fn a_decision_survives_the_ledger() {
    let policy = Policy::load(&shipped("demo")).unwrap();
    let decision = shell(&policy, &person("alice"), &machine("prod"), Some("OPS-17"));
    let text = serde_json::to_string(&decision).unwrap();
    assert!(text.contains(r#""action":"startShell""#), "{text}");
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
}

#[test]
fn the_digest_follows_every_name_and_every_byte() {
    let a = r#"@id("a") permit (principal, action, resource);"#;
    let sets: [&[(&str, &str)]; 5] = [
        &[],
        &[("a.cedar", a)],
        &[("b.cedar", a)],
        &[("a.cedar", &format!("{a} "))],
        &[("a.cedar", a), ("groups.toml", "[groups]\ng = []\n")],
    ];
    let digests: Vec<_> =
        sets.iter().map(|set| Policy::load(folder(set).path()).unwrap().digest().to_owned()).collect();
    for (at, digest) in digests.iter().enumerate() {
        assert_eq!(digest.len(), 64);
        assert!(!digests[..at].contains(digest), "{:?}", sets[at]);
    }
    assert_eq!(digests[1], Policy::load(folder(sets[1]).path()).unwrap().digest());
    let noise = [("a.cedar", a), ("README.md", "x"), (".git/x.cedar", "nonsense"), ("tests/x.json", "[]")];
    assert_eq!(digests[1], Policy::load(folder(&noise).path()).unwrap().digest());
}

#[test]
fn what_does_not_validate_is_refused_with_file_line_and_help() {
    let good = r#"@id("x") permit (principal, action, resource)"#;
    let cases: [(&str, &str, &[&str]); 9] = [
        ("@id(\"x\")\npermit (principal, action, resource", "a.cedar", &["a.cedar:2:"]),
        (
            "// first\n@id(\"x\") forbid (principal, action, resource)\nwhen { principal.nam == \"x\" };",
            "a.cedar",
            &["a.cedar:3:", "× attribute `nam`", "`name`"],
        ),
        (
            "@id(\"x\") forbid (principal, action, resource)\nwhen { context.reason == \"x\" };",
            "a.cedar",
            &["a.cedar:2:", "reason"],
        ),
        ("permit (principal, action, resource);", "a.cedar", &["a.cedar:1:1", "no valid @id", "put @id("]),
        (
            "@id(\"x\")\n@recrod(\"disk\")\npermit (principal, action, resource);",
            "team/b.cedar",
            &["team/b.cedar:2:1", "@recrod is not an annotation", "@record"],
        ),
        (
            "@id(\"x\")\n@idle_timeout(\"15\")\npermit (principal, action, resource);",
            "a.cedar",
            &["a.cedar:2:1", "15m"],
        ),
        (
            "@id(\"x\")\n@record(\"disk\")\nforbid (principal, action, resource);",
            "a.cedar",
            &["a.cedar:2:1", "for a permit"],
        ),
        (
            "@id(\"x\") permit (principal == ?principal, action, resource);",
            "a.cedar",
            &["a.cedar:1:1", "template"],
        ),
        (
            "@id(\"x\") forbid (principal, action, resource)\nwhen { 1 == 2 };",
            "a.cedar",
            &["a.cedar:1:1", "impossible"],
        ),
    ];
    assert_eq!(policy(&format!("{good};")).len(), 1);
    for (text, name, expected) in cases {
        let report = refusal(&[(name, text)]);
        for part in expected {
            assert!(report.contains(part), "{part:?} is not in\n{report}");
        }
        assert!(!report.contains('\u{1b}'), "{report}");
    }
}

#[test]
fn an_obligation_that_no_session_would_meet_is_refused() {
    for (annotation, action) in [
        ("@require_reason", "== Postern::Action::\"replayRecording\""),
        ("@run_as(\"ec2-user\")", "== Postern::Action::\"listTargets\""),
        ("@banner(\"x\")", "in [Postern::Action::\"watchSession\", Postern::Action::\"terminateSession\"]"),
    ] {
        let with =
            |action: &str| format!("@id(\"a\") {annotation} permit (principal, action {action}, resource);");
        let error = refusal(&[("a.cedar", &with(action))]);
        assert!(error.contains("permits none to start") && error.contains("a.cedar:1"), "{error}");
        for starts in ["", "== Postern::Action::\"startSsh\"", "in Postern::Action::\"startSession\""] {
            policy(&with(starts));
        }
        policy(&format!("@id(\"a\") @message(\"x\") permit (principal, action {action}, resource);"));
    }
}

#[test]
fn an_id_is_taken_once_in_all_files() {
    let a = "@id(\"x\") permit (principal, action, resource);";
    let report = refusal(&[("a.cedar", &format!("\n{a}")), ("b.cedar", a)]);
    assert!(report.contains("b.cedar:1:1") && report.contains("a.cedar:2"), "{report}");
}

#[test]
fn groups_that_make_no_sense_are_refused_with_file_and_line() {
    for (text, part) in [
        ("[groups]\ng = [\"alice\"]\n", "groups.toml:2:"),
        ("[groups]\n\"a b\" = []\n", "groups.toml:2:"),
        ("[groups]\ng = \"arn:aws:iam::1:user/x\"\n", "groups.toml:2:"),
        ("[gruops]\n", "groups.toml:1:"),
    ] {
        let report = refusal(&[("groups.toml", text)]);
        assert!(report.contains(part) && report.contains("help"), "{report}");
    }
}

#[test]
fn a_schema_that_is_not_ours_is_refused() {
    let copy = load::SCHEMA;
    let good = r#"@id("a") permit (principal, action, resource);"#;
    assert!(Policy::load(folder(&[("schema.cedarschema", copy), ("a.cedar", good)]).path()).is_ok());
    for bad in [copy.replace("method: String,", ""), copy.replace("weekday: Long,", ""), "entity X".into()] {
        let report = refusal(&[("schema.cedarschema", &bad)]);
        assert!(report.contains("schema.cedarschema"), "{report}");
    }
    let lax = copy.replace("reason?: String", "reason: String");
    let report = refusal(&[("schema.cedarschema", &lax)]);
    assert!(report.contains("does not describe what the gateway sends"), "{report}");
}

#[test]
fn a_forbid_on_any_group_of_actions_reaches_its_actions() {
    let schema = load::SCHEMA
        .replace("action startSession;", "action any; action startSession in [any];")
        .replace("action resumeSession, terminateSession", "action resumeSession, terminateSession, nothing")
        .replace("action listTargets\n", "action listTargets in [any]\n");
    for (scope, denied) in [
        ("action", true),
        (r#"action in Postern::Action::"any""#, true),
        (r#"action in [Postern::Action::"administer", Postern::Action::"startSession"]"#, true),
        (r#"action == Postern::Action::"startShell""#, true),
        (r#"action in Postern::Action::"startSsh""#, false),
    ] {
        let cedar = format!(
            "@id(\"p\") permit (principal, action, resource);\n@id(\"f\") forbid (principal, {scope}, resource);"
        );
        let dir = folder(&[("schema.cedarschema", &schema), ("a.cedar", &cedar)]);
        let policy = Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(!shell(&policy, &person("alice"), &machine("dev"), None).allowed, denied, "{scope}");
    }
}

#[test]
fn a_report_carries_no_escape_of_a_hostile_file() {
    let report = refusal(&[("a.cedar", "@id(\"x\u{1b}[2J\") permit (principal, action, \u{1b}]0;x\u{7});")]);
    assert!(!report.contains('\u{1b}') && report.contains("a.cedar:1:"), "{report}");
}

#[test]
fn a_place_names_line_and_column_for_machines() {
    let dir = folder(&[("a.cedar", "@id(\"x\")\n  @recrod permit (principal, action, resource);")]);
    let error = Policy::load(dir.path()).unwrap_err();
    let place = error.problems()[0].place();
    assert_eq!((place.file.as_str(), place.line, place.column), ("a.cedar", Some(2), Some(3)));
    assert!(place.help.unwrap().contains("@record"));
}

#[test]
fn everything_that_ships_loads_as_one_set() {
    let policy = Policy::load(&shipped("")).unwrap_or_else(|error| panic!("{error}"));
    assert!(policy.len() > 20);
    assert!(policy.warnings().is_empty());
}
