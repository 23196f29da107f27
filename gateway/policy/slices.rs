//! The policies by action: what cannot match is not evaluated.

use cedar_policy::{ActionConstraint, Entities, EntityUid, PolicySet, PolicySetError};

use super::entities::Vocabulary;
use super::question::Action;

/// One policy set an action.
///
/// A policy whose scope names other actions is never satisfied and never
/// errs, so leaving it out changes no decision and no diagnostic.
#[derive(Debug)]
pub(super) struct Slices(Vec<PolicySet>);

impl Slices {
    pub fn new(
        all: &PolicySet,
        actions: &Entities,
        vocabulary: &Vocabulary,
    ) -> Result<Self, Box<PolicySetError>> {
        let slices = Action::ALL.iter().map(|action| {
            let this = vocabulary.action(*action);
            let covers = |named: &EntityUid| *named == this || actions.is_ancestor_of(named, &this);
            let relevant = all.policies().filter(|policy| match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(named) => named == this,
                ActionConstraint::In(named) => named.iter().any(covers),
            });
            PolicySet::from_policies(relevant.cloned()).map_err(Box::new)
        });
        slices.collect::<Result<_, _>>().map(Self)
    }

    /// The policies that can have a say in this action.
    pub fn of(&self, action: Action) -> Option<&PolicySet> {
        self.0.get(action as usize)
    }
}
