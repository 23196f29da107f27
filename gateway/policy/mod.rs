//! May they, and still?
//!
//! Policies are Cedar files in a folder. `Policy::load` takes only a folder
//! that validates strictly; `Policy::decide` denies whatever it cannot answer.
//! `Standing` holds the set in force and takes another one whole or not at all.

/// Work on threads that nobody else can take.
mod apart;
/// A folder's own test cases.
mod cases;
/// People and machines as a file describes them.
mod company;
/// What a question becomes: permitted or not, by which policy, and why.
mod decide;
/// The words of the schema, made from nouns.
mod entities;
/// Why, why not, and what would have to be otherwise.
mod explain;
/// Which IAM identities are in which group.
mod groups;
/// How a policy file is laid out.
mod layout;
/// What is odd in a folder, though it is valid.
mod lint;
/// A folder becomes a policy.
mod load;
/// A question that is kept.
mod inquiry;
/// AWS's just-in-time node access policies.
mod jitna;
/// What a permit obliges the gateway to.
mod obligations;
/// Which policies can match.
mod places;
/// Does a schema describe what this gateway sends?
mod probe;
/// People whom no file describes.
mod people;
/// What is wrong with a policy folder.
mod problem;
/// What may be asked.
mod question;
/// What can somebody reach?
mod reach;
/// One safe line for the person who asked.
mod sentence;
/// A request with the entities around it.
mod situation;
/// The policies by action and scope.
mod slices;
/// The policy set in force.
mod standing;
/// Somebody of whom only a name is known.
mod stranger;
/// When does the folder change?
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use cedar_policy::Schema;
use serde::Serialize;

pub use apart::apart;
pub use cases::CaseResult;
pub use company::{Alike, Circumstances, Company};
pub use decide::Decision;
pub use explain::{Change, Decider, Explanation, Need};
pub use inquiry::{Inquiry, Ran, Subject};
pub use layout::{Relaid, relaid};
pub use obligations::{OWN_NAME, Obligations, is_system_user};
pub use problem::{Place, PolicyError, Problem};
pub use question::{Action, Asked, Question, Resource, Running};
pub use reach::Reach;
pub use situation::{Requested, Situation, uid_of, uid_text};
pub use standing::Standing;
pub use stranger::{nobody, stranger};
pub use watch::Watch;

/// A policy set that has passed every check.
#[derive(Debug)]
pub struct Policy {
    slices: slices::Slices,
    jitna: jitna::Jitna,
    annotations: HashMap<String, obligations::Annotations>,
    sources: BTreeMap<String, Source>,
    groups: groups::Groups,
    vocabulary: entities::Vocabulary,
    schema: Schema,
    digest: String,
    count: usize,
    warnings: Vec<Problem>,
}

/// Where a policy is, and how it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file, relative to the folder.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Its text, annotations included.
    pub text: String,
}

impl Policy {
    /// Loads every `*.cedar` and `groups.toml` below a folder.
    ///
    /// A folder without policies loads and denies everything.
    pub fn load(dir: &Path) -> Result<Self, PolicyError> {
        load::load(dir)
    }

    /// Loads a folder and says what is odd in it: policies that have no
    /// effect, that never match, or that permit more than was meant.
    pub fn load_and_lint(dir: &Path, now: time::OffsetDateTime) -> Result<(Self, Vec<Problem>), PolicyError> {
        load::load_and_lint(dir, now)
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
