//! A folder's own test cases: `tests/*.json` in the format of `cedar run-tests`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Policy;
use super::problem::PolicyError;
use super::situation::{Requested, Situation};
use crate::session::printable;

/// The folder of the cases, within the policy folder.
const FOLDER: &str = "tests";
/// Largest file of cases or entities, bytes.
const FILE_MAX: u64 = 16 << 20;

/// One case: a request, the entities around it, and what must come out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: Requested,
    /// Entities, or a file with them, relative to the case's file.
    entities: Value,
    decision: Expected,
    #[serde(default)]
    reason: Option<Vec<String>>,
    #[serde(default)]
    num_errors: usize,
}

#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// The file of the case, relative to the folder.
    pub file: String,
    /// The case's name; of the file if it cannot be read.
    pub name: String,
    /// Whether it expects a permit.
    pub expects_allow: bool,
    /// What came out instead; none if it is as expected.
    pub failure: Option<String>,
}

/// Runs every case of a folder; there may be none.
pub(super) fn run(policy: &Policy, folder: &Path) -> Result<Vec<CaseResult>, PolicyError> {
    let mut results = Vec::new();
    for path in files(&folder.join(FOLDER))? {
        run_file(policy, &path, folder, &mut results)?;
    }
    Ok(results)
}

fn unreadable(path: &Path, why: impl ToString) -> PolicyError {
    PolicyError::Unreadable { path: path.to_owned(), why: why.to_string() }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        // As with policies: editors keep their own copies under such names.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, PolicyError> {
    let size = fs::metadata(path).map_err(|error| unreadable(path, error))?.len();
    if size > FILE_MAX {
        return Err(unreadable(path, format!("more than {FILE_MAX} bytes")));
    }
    fs::read_to_string(path).map_err(|error| unreadable(path, error))
}

/// Runs the cases of one file.
pub(super) fn run_file(
    policy: &Policy,
    path: &Path,
    folder: &Path,
    results: &mut Vec<CaseResult>,
) -> Result<(), PolicyError> {
    let file = printable(&path.strip_prefix(folder).unwrap_or(path).display().to_string());
    let cases: Vec<Case> = serde_json::from_str(&read(path)?).map_err(|error| unreadable(path, error))?;
    for case in cases {
        let failure = check(policy, path, &case).err().map(|why| printable(&why));
        let expects_allow = case.decision == Expected::Allow;
        let name = printable(&case.name);
        results.push(CaseResult { file: file.clone(), name, expects_allow, failure });
    }
    Ok(())
}

fn check(policy: &Policy, path: &Path, case: &Case) -> Result<(), String> {
    let entities = match &case.entities {
        Value::String(name) => {
            let file = path.parent().unwrap_or(path).join(name);
            let text = read(&file).map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?
        }
        inline => inline.clone(),
    };
    let Value::Array(entities) = entities else { return Err("the entities are no list".to_owned()) };
    let situation = Situation { request: case.request.clone(), entities };
    let judgement = policy.said(&policy.ready(&situation)?)?.judgement;
    let reason = judgement.determining;
    let came = judgement.allowed;
    if (case.decision == Expected::Allow) != came {
        let (expected, came) = if came { ("deny", "allow") } else { ("allow", "deny") };
        return Err(format!("expected {expected}, came {came} by {reason:?}"));
    }
    let mut wanted = case.reason.clone().unwrap_or_else(|| reason.clone());
    wanted.sort();
    if reason != wanted {
        return Err(format!("expected to be decided by {wanted:?}, was decided by {reason:?}"));
    }
    match judgement.failed.len() {
        errors if errors == case.num_errors => Ok(()),
        errors => Err(format!("expected {} evaluation errors, came {errors}", case.num_errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
    }

    /// A folder with the base and one example, as a team would put it together.
    fn base_and(example: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["base.cedar".to_owned(), format!("examples/{example}.cedar")] {
            let from = policies().join(&file);
            if from.exists() {
                fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
            }
        }
        dir
    }

    /// All as expected, with cases of both kinds.
    fn all_hold(results: &[CaseResult]) {
        let failed: Vec<_> = results.iter().filter(|result| result.failure.is_some()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        let allowed = results.iter().filter(|result| result.expects_allow).count();
        assert!(allowed > 0 && allowed < results.len(), "{results:?} has only one kind of case");
    }

    #[test]
    fn every_example_permits_and_denies_as_its_cases_say() {
        let found = files(&policies().join("tests")).unwrap();
        assert!(found.len() > 5);
        for file in found {
            let example = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let policy = Policy::load(base_and(&example).path()).unwrap_or_else(|error| panic!("{error}"));
            let mut results = Vec::new();
            run_file(&policy, &file, &policies(), &mut results).unwrap();
            all_hold(&results);
        }
    }

    #[test]
    fn the_demo_permits_and_denies_as_its_cases_say() {
        let demo = policies().join("demo");
        let policy = Policy::load(&demo).unwrap_or_else(|error| panic!("{error}"));
        all_hold(&run(&policy, &demo).unwrap());
    }

    #[test]
    fn every_example_has_cases() {
        for entry in fs::read_dir(policies().join("examples")).unwrap() {
            let path = entry.unwrap().path();
            let cases = format!("{}.json", path.file_stem().unwrap().to_str().unwrap());
            assert!(policies().join("tests").join(&cases).exists(), "tests/{cases} is missing");
        }
    }

    #[test]
    fn a_hidden_file_is_no_case_and_a_name_brings_nothing_to_the_terminal() {
        let dir = base_and("developers");
        let policy = Policy::load(dir.path()).unwrap();
        fs::create_dir(dir.path().join("tests")).unwrap();
        fs::write(dir.path().join("tests/.#editor.json"), "half").unwrap();
        assert_eq!(run(&policy, dir.path()).unwrap(), []);
        let odd = dir.path().join("tests/a\u{1b}[2J.json");
        fs::write(&odd, r#"[{"\u001bname": 1}]"#).unwrap();
        let error = run(&policy, dir.path()).unwrap_err().to_string();
        assert!(error.contains("a[2J.json") && !error.contains('\u{1b}'), "{error:?}");
        let cases = fs::read_to_string(policies().join("tests/developers.json")).unwrap();
        fs::create_dir(dir.path().join("tests/entities")).unwrap();
        let company = "tests/entities/company.json";
        fs::copy(policies().join(company), dir.path().join(company)).unwrap();
        fs::write(&odd, cases).unwrap();
        assert_eq!(run(&policy, dir.path()).unwrap()[0].file, "tests/a[2J.json");
    }

    #[test]
    fn what_is_no_case_is_told_with_its_file() {
        let dir = base_and("developers");
        fs::create_dir(dir.path().join("tests")).unwrap();
        let file = dir.path().join("tests/bad.json");
        let policy = Policy::load(dir.path()).unwrap();
        fs::write(&file, r#"[{"name": "x", "requset": {}}]"#).unwrap();
        let error = run(&policy, dir.path()).unwrap_err().to_string();
        assert!(error.contains("bad.json") && error.contains("requset"), "{error}");
        let case = r#"[{"name": "x", "request": {"principal": "nobody", "action": "a", "resource": "b",
            "context": {}}, "entities": [], "decision": "deny"}]"#;
        fs::write(&file, case).unwrap();
        let results = run(&policy, dir.path()).unwrap();
        assert!(results[0].failure.as_deref().is_some_and(|why| why.starts_with("a: ")), "{results:?}");
    }
}
