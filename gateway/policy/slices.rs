//! The policies by action: what cannot match is not evaluated.

use cedar_policy::{ActionConstraint, Entities, Entity, EntityUid, PolicySet};
use miette::Diagnostic;

use super::entities::Vocabulary;
use super::question::Action;

/// Policies and action for one kind of question.
#[derive(Debug)]
pub(super) struct Slice {
    /// The policies that can have a say.
    ///
    /// A policy whose scope names other actions is never satisfied and never
    /// errs, so leaving it out changes no decision and no diagnostic.
    pub policies: PolicySet,
    /// The action and the groups it is in.
    pub action: Entities,
    /// Whether one of them looks at a clock or at what the session moved.
    pub depends_on_time: bool,
}

/// What changes while a session runs, with nobody changing anything.
const PASSING: [&str; 5] = ["now", "weekday", "sessionAge", "idleTime", "bytes"];

/// Whether a policy names one of them; asked once too often does no harm.
fn looks_at_time(policy: &cedar_policy::Policy) -> bool {
    let text = policy.to_string();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.into_iter().any(|word| PASSING.contains(&word))
}

/// One slice an action.
#[derive(Debug)]
pub(super) struct Slices(Vec<Slice>);

impl Slices {
    pub fn new(
        all: &PolicySet,
        actions: &Entities,
        vocabulary: &Vocabulary,
    ) -> Result<Self, Box<dyn Diagnostic>> {
        let slices = Action::ALL.iter().map(|action| {
            let this = vocabulary.action(*action);
            let covers = |named: &EntityUid| *named == this || actions.is_ancestor_of(named, &this);
            let relevant = all.policies().filter(|policy| match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(named) => named == this,
                ActionConstraint::In(named) => named.iter().any(covers),
            });
            let policies = PolicySet::from_policies(relevant.cloned())?;
            let groups = actions.ancestors(&this).into_iter().flatten().cloned().collect();
            let action = Entities::from_entities([Entity::new_no_attrs(this, groups)], None)?;
            let depends_on_time = policies.policies().any(looks_at_time);
            Ok(Slice { policies, action, depends_on_time })
        });
        slices.collect::<Result<_, _>>().map(Self)
    }

    /// What is needed to decide on this action.
    pub fn of(&self, action: Action) -> Option<&Slice> {
        self.0.get(action as usize)
    }
}
