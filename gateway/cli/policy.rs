//! `postern policy …`: works on a folder, without a gateway.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::policy::{Place, Policy, PolicyError, Problem};

/// What `postern policy check --json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    policies: usize,
    digest: Option<String>,
    problems: Vec<Place>,
    warnings: Vec<Place>,
}

/// Loads a policy folder as the gateway would and says what is wrong.
///
/// Exits 0 if the gateway would take it, 1 if not.
pub fn check(dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let loaded = Policy::load(dir);
    let exit = if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let mut out = stdout().lock();
        serde_json::to_writer_pretty(&mut out, &summary(&loaded))?;
        writeln!(out)?;
        return Ok(exit);
    }
    match loaded {
        Ok(policy) => {
            let mut out = stdout().lock();
            for warning in policy.warnings() {
                writeln!(out, "warning: {}", line(&warning.place()))?;
            }
            let word = if policy.len() == 1 { "policy" } else { "policies" };
            writeln!(out, "{}: {} {word}, valid", dir.display(), policy.len())?;
            if policy.is_empty() {
                writeln!(out, "nothing is permitted: put a base.cedar into {}", dir.display())?;
            }
            writeln!(out, "policy set {}", policy.digest())?;
        }
        Err(error) => {
            let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            writeln!(stderr().lock(), "{}", error.report(colour).trim_end())?;
        }
    }
    Ok(exit)
}

fn summary(loaded: &Result<Policy, PolicyError>) -> Checked {
    let places = |problems: &[Problem]| problems.iter().map(Problem::place).collect();
    match loaded {
        Ok(policy) => Checked {
            ok: true,
            policies: policy.len(),
            digest: Some(policy.digest().to_owned()),
            problems: Vec::new(),
            warnings: places(policy.warnings()),
        },
        Err(error) => {
            let mut problems: Vec<Place> = places(error.problems());
            if problems.is_empty() {
                problems.push(Place { message: error.to_string(), ..Place::default() });
            }
            Checked { ok: false, policies: 0, digest: None, problems, warnings: Vec::new() }
        }
    }
}

/// `file:line:column: message`, as compilers write it.
fn line(place: &Place) -> String {
    match (place.line, place.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}: {}", place.file, place.message),
        _ => format!("{}: {}", place.file, place.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(cedar: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), cedar).unwrap();
        dir
    }

    #[test]
    fn a_valid_folder_has_a_digest_and_no_problems() {
        let dir = folder("@id(\"a\") permit (principal, action, resource);");
        let checked = summary(&Policy::load(dir.path()));
        assert!(checked.ok && checked.policies == 1 && checked.problems.is_empty());
        assert_eq!(checked.digest.map(|digest| digest.len()), Some(64));
    }

    #[test]
    fn an_invalid_folder_names_every_place() {
        let dir = folder(
            "@id(\"a\") @x permit (principal, action, resource);\npermit (principal, action, resource);",
        );
        let checked = summary(&Policy::load(dir.path()));
        assert!(!checked.ok && checked.digest.is_none());
        let lines: Vec<_> = checked.problems.iter().map(|place| place.line).collect();
        assert_eq!(lines, [Some(1), Some(2)]);
        assert!(line(&checked.problems[1]).starts_with("a.cedar:2:1: "));
    }

    #[test]
    fn a_missing_folder_is_a_problem_too() {
        let checked = summary(&Policy::load(Path::new("/nonexistent")));
        assert!(!checked.ok && checked.problems.len() == 1);
    }
}
