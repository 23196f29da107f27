//! May they, and still?
//!
//! Policies are Cedar files in a folder. `Policy::load` takes only a folder
//! that validates strictly; `Policy::decide` denies whatever it cannot answer.
//! `Standing` holds the set in force and takes another one whole or not at all.

/// A folder's own test cases.
mod cases;
/// What a question becomes: permitted or not, by which policy, and why.
mod decide;
/// The words of the schema, made from nouns.
mod entities;
/// Which IAM identities are in which group.
mod groups;
/// A folder becomes a policy.
mod load;
/// What a permit obliges the gateway to.
mod obligations;
/// Does a schema describe what this gateway sends?
mod probe;
/// What is wrong with a policy folder.
mod problem;
/// What may be asked.
mod question;
/// One safe line for the person who asked.
mod sentence;
/// The policies by action.
mod slices;
/// The policy set in force.
mod standing;
/// When does the folder change?
mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use cedar_policy::Schema;

pub use cases::CaseResult;
pub use decide::Decision;
pub use obligations::{OWN_NAME, Obligations, is_system_user};
pub use problem::{Place, PolicyError, Problem};
pub use question::{Action, Asked, Question, Resource, Running};
pub use standing::Standing;
pub use watch::Watch;

/// A policy set that has passed every check.
#[derive(Debug)]
pub struct Policy {
    slices: slices::Slices,
    annotations: HashMap<String, obligations::Annotations>,
    groups: groups::Groups,
    vocabulary: entities::Vocabulary,
    schema: Schema,
    digest: String,
    count: usize,
    warnings: Vec<Problem>,
}

impl Policy {
    /// Loads every `*.cedar` and `groups.toml` below a folder.
    ///
    /// A folder without policies loads and denies everything.
    pub fn load(dir: &Path) -> Result<Self, PolicyError> {
        load::load(dir)
    }

    /// SHA-256 of names and contents of the folder's files, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many policies there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none, so that everything is denied.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Runs the cases in the folder's `tests/*.json`; there may be none.
    pub fn run_cases(&self, folder: &Path) -> Result<Vec<CaseResult>, PolicyError> {
        cases::run(self, folder)
    }

    /// Whether time alone may change the answer to a question of this kind.
    pub fn depends_on_time(&self, action: Action) -> bool {
        self.slices.of(action).is_some_and(|slice| slice.depends_on_time)
    }

    /// What the validator finds odd but not wrong.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}
