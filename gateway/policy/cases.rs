//! Runs `policies/**/tests/*.json`: cases in the format of `cedar run-tests`.

use std::path::{Path, PathBuf};

use cedar_policy::{Authorizer, Context, Decision as Verdict, Entities, EntityUid, Request};
use serde::Deserialize;
use serde_json::Value;

use super::{Action, Policy};

/// One case: a request, the entities around it, and what must come out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: Asked,
    /// Entities, or a file with them, relative to the case's file.
    entities: Value,
    decision: Expected,
    reason: Vec<String>,
    num_errors: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    principal: String,
    action: String,
    resource: String,
    context: Value,
}

#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

/// A folder with the base and one example, as a team would put it together.
fn base_and(example: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["base.cedar".to_owned(), format!("examples/{example}.cedar")] {
        let from = policies().join(&file);
        if from.exists() {
            std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
        }
    }
    dir
}

fn json_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    files
}

/// Runs every case of a file; answers how many there were of each kind.
fn run(policy: &Policy, file: &Path) -> (usize, usize) {
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(file).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    for case in &cases {
        check(policy, file, case);
    }
    let allowed = cases.iter().filter(|case| case.decision == Expected::Allow).count();
    (allowed, cases.len() - allowed)
}

fn check(policy: &Policy, file: &Path, case: &Case) {
    let place = format!("{}: {}", file.display(), case.name);
    let uid =
        |text: &str| text.parse::<EntityUid>().unwrap_or_else(|error| panic!("{place}: {text}: {error}"));
    let action = uid(&case.request.action);
    let context = Context::from_json_value(case.request.context.clone(), Some((&policy.schema, &action)))
        .unwrap_or_else(|error| panic!("{place}: {error}"));
    let (principal, resource) = (uid(&case.request.principal), uid(&case.request.resource));
    let asked = Request::new(principal, action.clone(), resource, context, Some(&policy.schema))
        .unwrap_or_else(|error| panic!("{place}: {error}"));
    let entities = match &case.entities {
        Value::String(name) => std::fs::read_to_string(file.parent().unwrap().join(name)).unwrap(),
        inline => inline.to_string(),
    };
    let entities = Entities::from_json_str(&entities, Some(&policy.schema))
        .unwrap_or_else(|error| panic!("{place}: {error:?}"));
    let name = action.id().unescaped();
    let action = Action::ALL.into_iter().find(|known| known.as_str() == name).unwrap();
    let answer =
        Authorizer::new().is_authorized(&asked, &policy.slices.of(action).unwrap().policies, &entities);
    let expected = if case.decision == Expected::Allow { Verdict::Allow } else { Verdict::Deny };
    assert_eq!(answer.decision(), expected, "{place}");
    let mut reason: Vec<_> = answer.diagnostics().reason().map(ToString::to_string).collect();
    reason.sort();
    assert_eq!(reason, case.reason, "{place}");
    assert_eq!(answer.diagnostics().errors().count(), case.num_errors, "{place}");
}

#[test]
fn every_example_permits_and_denies_as_its_cases_say() {
    for file in json_files(&policies().join("tests")) {
        let example = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let policy = Policy::load(base_and(&example).path()).unwrap_or_else(|error| panic!("{error}"));
        let (allowed, denied) = run(&policy, &file);
        assert!(allowed > 0 && denied > 0, "{example} has only one kind of case");
    }
}

#[test]
fn the_demo_permits_and_denies_as_its_cases_say() {
    let demo = policies().join("demo");
    let policy = Policy::load(&demo).unwrap_or_else(|error| panic!("{error}"));
    for file in json_files(&demo.join("tests")) {
        let (allowed, denied) = run(&policy, &file);
        assert!(allowed > 0 && denied > 0);
    }
}

#[test]
fn every_example_has_cases() {
    for entry in std::fs::read_dir(policies().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let cases = format!("{}.json", path.file_stem().unwrap().to_str().unwrap());
        assert!(policies().join("tests").join(&cases).exists(), "tests/{cases} is missing");
    }
}
