//! One safe line for the person who asked: what, why, and what to do.
//!
//! It names the policy and its message. It never repeats an attribute, a tag
//! or a parameter: who is denied must not learn from the denial.

use super::entities::Unanswerable;
use super::question::Question;
use crate::session::printable;

/// How much of a digest is enough to find a policy set.
const DIGEST_SHOWN: usize = 8;

/// Why a decision is what it is.
#[derive(Debug)]
pub(super) enum Outcome {
    /// These permit it.
    Permitted(Vec<String>),
    /// These permit it if a reason is given.
    NeedsReason(Vec<String>, Option<String>),
    /// These forbid it.
    Forbidden(Vec<String>, Option<String>),
    /// These could not be evaluated, so nothing is certain.
    Failed(Vec<String>),
    /// Nothing permits it.
    NotPermitted,
    /// It could not even be asked.
    Unanswerable(Unanswerable),
}

impl Outcome {
    /// The policies that determined it.
    pub fn policies(self) -> Vec<String> {
        match self {
            Self::Permitted(ids)
            | Self::NeedsReason(ids, _)
            | Self::Forbidden(ids, _)
            | Self::Failed(ids) => ids,
            Self::NotPermitted | Self::Unanswerable(_) => Vec::new(),
        }
    }

    /// The line that the person reads.
    pub fn sentence(&self, question: &Question, digest: &str) -> String {
        let what = format!("{} on {}", question.action, question.resource);
        let set = digest.get(..DIGEST_SHOWN).unwrap_or(digest);
        let line = match self {
            Self::Permitted(ids) => format!("{what} permitted by {}", named(ids)),
            Self::NeedsReason(ids, message) => format!(
                "{what} denied without a reason by {}: say why with --reason \"...\"{}",
                named(ids),
                message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default()
            ),
            Self::Forbidden(ids, message) => format!(
                "{what} denied by {}{}",
                named(ids),
                message.as_deref().map(|text| format!(": {text}")).unwrap_or_default()
            ),
            Self::Failed(ids) => format!(
                "{what} denied because {} could not be evaluated; tell security (policy set {set})",
                named(ids)
            ),
            Self::NotPermitted => format!(
                "no policy permits {what} for {}; ask security or see policy set {set}",
                question.principal.name
            ),
            Self::Unanswerable(why) => format!("{what} denied: {why}"),
        };
        printable(&line)
    }
}

/// `policy "a"` or `policies "a", "b"`.
fn named(ids: &[String]) -> String {
    let quoted: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    let word = if ids.len() == 1 { "policy" } else { "policies" };
    format!("{word} {}", quoted.join(", "))
}
