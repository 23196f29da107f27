//! The policy set in force, and how another one takes its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::problem::PolicyError;
use super::{Policy, cases};

/// The policy set of a folder, always one that passed every check.
///
/// Whoever asks holds one set for one question; a new one is there for the
/// next question, whole or not at all.
#[derive(Debug)]
pub struct Standing {
    folder: PathBuf,
    set: ArcSwap<Policy>,
}

impl Standing {
    /// Loads the folder and runs its own test cases.
    pub fn load(folder: &Path) -> Result<Self, PolicyError> {
        let set = tested(folder)?;
        Ok(Self { folder: folder.to_owned(), set: ArcSwap::from_pointee(set) })
    }

    /// The set in force.
    pub fn set(&self) -> Arc<Policy> {
        self.set.load_full()
    }

    /// The folder that it is read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads the folder again; true if another set is in force now.
    ///
    /// A folder that does not pass changes nothing. Nor does one that lost
    /// all its policies: that is a mount that went away or a copy that is not
    /// done. Who wants to deny everything writes a forbid.
    pub fn reload(&self) -> Result<bool, PolicyError> {
        let set = tested(&self.folder)?;
        let before = self.set.load();
        if set.is_empty() && !before.is_empty() {
            let why = "there are no policies in it any more".to_owned();
            return Err(PolicyError::Unreadable { path: self.folder.clone(), why });
        }
        if set.digest() == before.digest() {
            return Ok(false);
        }
        self.set.store(Arc::new(set));
        Ok(true)
    }
}

/// A set that validates and does what its own cases say.
fn tested(folder: &Path) -> Result<Policy, PolicyError> {
    let set = Policy::load(folder)?;
    let results = cases::run(&set, folder)?;
    let failed: Vec<_> = results.into_iter().filter(|result| result.failure.is_some()).collect();
    if failed.is_empty() { Ok(set) } else { Err(PolicyError::Untrue(failed)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OPEN: &str = "@id(\"open\") permit (principal, action, resource);";
    const SHUT: &str = "@id(\"shut\") forbid (principal, action, resource);";

    fn folder(cedar: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.cedar"), cedar).unwrap();
        dir
    }

    #[test]
    fn a_valid_change_is_in_force_and_the_set_before_it_stays_whole() {
        let dir = folder(OPEN);
        let standing = Standing::load(dir.path()).unwrap();
        let before = standing.set();
        assert!(!standing.reload().unwrap(), "nothing has changed");
        fs::write(dir.path().join("a.cedar"), format!("{OPEN}\n{SHUT}")).unwrap();
        assert!(standing.reload().unwrap());
        assert_eq!((before.len(), standing.set().len()), (1, 2));
        assert_ne!(before.digest(), standing.set().digest());
    }

    #[test]
    fn what_does_not_validate_leaves_the_set_in_force() {
        let dir = folder(OPEN);
        let standing = Standing::load(dir.path()).unwrap();
        let digest = standing.set().digest().to_owned();
        fs::write(dir.path().join("b.cedar"), "@id(\"b\") permit (principal == 7);").unwrap();
        let error = standing.reload().unwrap_err().to_string();
        assert!(error.contains("b.cedar"), "{error}");
        assert_eq!(standing.set().digest(), digest);
    }

    #[test]
    fn a_set_that_fails_its_own_cases_is_not_in_force() {
        let dir = folder(OPEN);
        fs::create_dir(dir.path().join("tests")).unwrap();
        let case = r#"[{"name": "nobody may administer", "request": {
            "principal": "Postern::User::\"a\"", "action": "Postern::Action::\"administer\"",
            "resource": "Postern::Gateway::\"gateway\"",
            "context": {"now": "2026-11-23T10:00:00Z", "weekday": 1}},
            "entities": [], "decision": "deny", "reason": ["shut"], "num_errors": 0}]"#;
        fs::write(dir.path().join("tests/all.json"), case).unwrap();
        let error = Standing::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("nobody may administer") && error.contains("tests/all.json"), "{error}");
        fs::write(dir.path().join("a.cedar"), SHUT).unwrap();
        let standing = Standing::load(dir.path()).unwrap();
        fs::write(dir.path().join("a.cedar"), OPEN).unwrap();
        assert!(standing.reload().is_err());
        assert_eq!(standing.set().len(), 1);
    }

    #[test]
    fn a_folder_that_disappears_or_runs_empty_leaves_the_set_in_force() {
        let dir = folder(OPEN);
        let standing = Standing::load(dir.path()).unwrap();
        fs::remove_file(dir.path().join("a.cedar")).unwrap();
        assert!(standing.reload().is_err());
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(standing.reload().is_err());
        assert_eq!(standing.set().len(), 1);
    }
}
