//! How a policy file is laid out: Cedar's own formatter, one width for all.

use std::fs;
use std::path::{Path, PathBuf};

use cedar_policy::PolicySet;
use cedar_policy_formatter::{Config, policies_str_to_pretty};

use super::load::policy_files;
use super::problem::{File, PolicyError, Problem};

/// Width of a line: that of Cedar's own `cedar format`.
const WIDTH: usize = 80;
const INDENT: isize = 2;

/// One file that is laid out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaid {
    /// The file.
    pub path: PathBuf,
    /// How it should read.
    pub text: String,
}

/// The files of a folder that are not laid out as they should be.
///
/// The error tells of every file that is no policy.
pub fn relaid(dir: &Path) -> Result<Vec<Relaid>, PolicyError> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in policy_files(dir)? {
        let path = dir.join(&name);
        let text = fs::read_to_string(&path)
            .map_err(|error| PolicyError::Unreadable { path: path.clone(), why: error.to_string() })?;
        let file = File { name, text };
        match file.text.parse::<PolicySet>() {
            Err(errors) => problems.push(Problem::of(&file, &errors)),
            Ok(_) => match laid_out(&file.text) {
                Err(why) => problems.push(Problem::at(&file, 0..0, why)),
                Ok(laid) if laid != file.text => found.push(Relaid { path, text: laid }),
                Ok(_) => {}
            },
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(PolicyError::Invalid(problems)) }
}

/// The text as it should be; comments stay where they are.
fn laid_out(text: &str) -> Result<String, String> {
    let config = Config { line_width: WIDTH, indent_width: INDENT };
    // The formatter itself makes sure that the policies stay the same.
    let laid = policies_str_to_pretty(text, &config).map_err(|error| format!("{error:#}"))?;
    Ok(format!("{}\n", laid.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_meaning_stay_and_a_second_time_changes_nothing() {
        let text =
            "// why\n@id(\"a\")permit(principal,action,resource)when{resource.hasTag(\"env\")};// end\n";
        let once = laid_out(text).unwrap();
        assert!(once.contains("// why") && once.contains("// end") && once.contains("permit ("), "{once}");
        assert_eq!(laid_out(&once).unwrap(), once);
        assert!(laid_out("permit (principal").is_err());
    }

    #[test]
    fn every_file_that_is_no_policy_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.cedar"), "// a\npermit (principal").unwrap();
        fs::write(dir.path().join("b.cedar"), "forbid it;").unwrap();
        let error = relaid(dir.path()).unwrap_err();
        let places: Vec<_> = error.problems().iter().map(Problem::place).collect();
        let lines: Vec<_> = places.iter().map(|place| (place.file.as_str(), place.line)).collect();
        assert_eq!(lines, [("a.cedar", Some(2)), ("b.cedar", Some(1))]);
    }

    #[test]
    fn what_ships_is_laid_out() {
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let other: Vec<_> = relaid(&policies).unwrap().into_iter().map(|file| file.path).collect();
        assert!(other.is_empty(), "{other:?}");
    }
}
