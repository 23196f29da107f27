//! `postern policy check` and `test`: would a gateway take the folder?

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use time::OffsetDateTime;

use super::super::output::print_json;
use crate::policy::{Place, Policy, PolicyError, Problem, Standing};
use crate::serve::rules_beside;

/// What `postern policy check` can be told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Odd, but valid: shadowed (another policy makes it needless), never_matching, over_broad.\n\
    @allow(\"over_broad\") on a policy says that it is meant so."
)]
pub struct Args {
    /// The folder with `*.cedar` files.
    #[arg(default_value = "policies")]
    dir: PathBuf,
    /// Exit 1 if anything is odd.
    #[arg(long)]
    deny_warnings: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

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
pub fn check(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = &args.dir;
    let loaded = as_a_gateway(dir);
    let checked = summary(&loaded);
    let fails = !checked.ok || args.deny_warnings && !checked.warnings.is_empty();
    let exit = if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if args.json {
        print_json(&checked)?;
        return Ok(exit);
    }
    match loaded {
        Ok((policy, _)) => {
            let mut out = stdout().lock();
            for warning in &checked.warnings {
                writeln!(out, "warning: {warning}")?;
                if let Some(help) = &warning.help {
                    writeln!(out, "         help: {help}")?;
                }
            }
            let word = if policy.len() == 1 { "policy" } else { "policies" };
            writeln!(out, "{}: {} {word}, valid", dir.display(), policy.len())?;
            if policy.is_empty() {
                writeln!(out, "nothing is permitted: put a base.cedar into {}", dir.display())?;
            }
            writeln!(out, "policy set {}", policy.digest())?;
        }
        Err(error) => writeln!(stderr().lock(), "{}", report(&error).trim_end())?,
    }
    Ok(exit)
}

/// All that a gateway asks of a folder: it validates, its own cases hold,
/// its alert rules can be used.
fn as_a_gateway(dir: &Path) -> anyhow::Result<(Policy, Vec<Problem>)> {
    let loaded = Policy::load_and_lint(dir, OffsetDateTime::now_utc())?;
    Standing::load(dir)?;
    rules_beside(dir)?;
    Ok(loaded)
}

/// A policy folder's error whole, any other one as it says itself.
fn report(error: &anyhow::Error) -> String {
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match error.downcast_ref::<PolicyError>() {
        Some(error) => error.report(colour),
        None => super::super::told(error),
    }
}

/// Runs a folder's own cases; exits 0 if all of them hold.
pub fn test(dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let results = Policy::load(dir)?.run_cases(dir)?;
    let failed = results.iter().filter(|result| result.failure.is_some()).count();
    let exit = if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        print_json(&results)?;
        return Ok(exit);
    }
    let mut out = stdout().lock();
    for result in results.iter() {
        match &result.failure {
            None => writeln!(out, "ok      {}: {}", result.file, result.name)?,
            Some(why) => writeln!(out, "FAILED  {}: {}: {why}", result.file, result.name)?,
        }
    }
    match results.len() {
        0 => writeln!(out, "there are no cases: put some into {}", dir.join("tests").display())?,
        all => writeln!(out, "{} of {all} cases hold", all - failed)?,
    }
    Ok(exit)
}

fn summary(loaded: &anyhow::Result<(Policy, Vec<Problem>)>) -> Checked {
    let places = |problems: &[Problem]| -> Vec<Place> { problems.iter().map(Problem::place).collect() };
    match loaded {
        Ok((policy, odd)) => Checked {
            ok: true,
            policies: policy.len(),
            digest: Some(policy.digest().to_owned()),
            problems: Vec::new(),
            warnings: [places(policy.warnings()), places(odd)].concat(),
        },
        Err(error) => {
            let known = error.downcast_ref::<PolicyError>().map(PolicyError::problems);
            let mut problems = places(known.unwrap_or_default());
            if problems.is_empty() {
                problems.push(Place { message: error.to_string(), ..Place::default() });
            }
            Checked { ok: false, policies: 0, digest: None, problems, warnings: Vec::new() }
        }
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
        let checked = summary(&as_a_gateway(dir.path()));
        assert!(checked.ok && checked.policies == 1 && checked.problems.is_empty());
        assert_eq!(checked.digest.map(|digest| digest.len()), Some(64));
    }

    #[test]
    fn an_invalid_folder_names_every_place() {
        let dir = folder(
            "@id(\"a\") @x permit (principal, action, resource);\npermit (principal, action, resource);",
        );
        let checked = summary(&as_a_gateway(dir.path()));
        assert!(!checked.ok && checked.digest.is_none());
        let lines: Vec<_> = checked.problems.iter().map(|place| place.line).collect();
        assert_eq!(lines, [Some(1), Some(2)]);
        assert!(checked.problems[1].to_string().starts_with("a.cedar:2:1: "));
    }

    #[test]
    fn a_missing_folder_is_a_problem_too() {
        let checked = summary(&as_a_gateway(Path::new("/nonexistent")));
        assert!(!checked.ok && checked.problems.len() == 1);
    }

    #[test]
    fn what_a_gateway_would_refuse_is_not_valid() {
        let dir = folder("@id(\"a\") permit (principal, action, resource);");
        std::fs::write(dir.path().join("alerts.toml"), "[[rules]]\nname = 7\n").unwrap();
        let checked = summary(&as_a_gateway(dir.path()));
        assert!(!checked.ok && checked.problems[0].message.contains("alerts.toml"), "{checked:?}");
        std::fs::remove_file(dir.path().join("alerts.toml")).unwrap();
        assert!(summary(&as_a_gateway(dir.path())).ok);
        std::fs::create_dir(dir.path().join("tests")).unwrap();
        let case = r#"[{"name": "shut", "entities": [], "decision": "deny", "request": {
            "principal": "Postern::User::\"a\"", "action": "Postern::Action::\"administer\"",
            "resource": "Postern::Gateway::\"gateway\"",
            "context": {"now": "2026-11-23T10:00:00Z", "weekday": 1}}}]"#;
        std::fs::write(dir.path().join("tests/a.json"), case).unwrap();
        let checked = summary(&as_a_gateway(dir.path()));
        assert!(!checked.ok && checked.problems[0].message.contains("tests/a.json: shut"), "{checked:?}");
    }
}
