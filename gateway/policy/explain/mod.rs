//! Why is it allowed, why not, and what would have to be otherwise?

mod atoms;
mod change;
mod clauses;
mod clock;
mod search;
#[cfg(test)]
mod tests;

use cedar_policy::Policy as Cedar;
use serde::Serialize;
use time::OffsetDateTime;

pub use change::Change;
pub use clauses::Need;
pub(super) use clauses::conditions;
pub(super) use clock::parse as parse_moment;

use self::clauses::clauses;
use self::search::{Considered, Search};
use super::situation::{Ready, Said, Situation, uid_text};
use super::{Obligations, Policy, Question, Source};

/// Permits that are looked at because little is missing to them.
const NEAREST: usize = 8;
/// Nearest permits that are shown.
const NEAREST_SHOWN: usize = 3;
/// How often it is asked again for those who write policies.
const BUDGET: usize = 4000;
/// How often for somebody who was refused: they may ask at any time.
const BUDGET_OF_ASKER: usize = 300;

/// Why a request is answered as it is.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Who asked.
    pub principal: String,
    /// What for.
    pub action: String,
    /// To what.
    pub resource: String,
    /// The policies that decided, with what they need.
    pub decided_by: Vec<Decider>,
    /// Those that could not be evaluated, which is a denial.
    pub failed: Vec<Decider>,
    /// It would be allowed if only a reason were given.
    pub needs_reason: bool,
    /// For a denial, the permits to which least is missing.
    pub nearest: Vec<Decider>,
    /// For a denial, the smallest sets of changes that would allow it.
    pub changes: Vec<Vec<Change>>,
    /// What the gateway owes if it is allowed.
    pub obligations: Option<Obligations>,
    /// The digest of the policy set.
    pub policy_set: String,
}

/// One policy that has to do with the answer.
#[derive(Debug, Clone, Serialize)]
pub struct Decider {
    /// Its id.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// Where it is, and how it reads.
    #[serde(flatten)]
    pub source: Option<Source>,
    /// What it says to people.
    pub message: Option<String>,
    /// What it needs to apply.
    pub needs: Vec<Need>,
}

impl Policy {
    /// Explains the answer to a situation, for those who write policies.
    ///
    /// The error says what about the situation does not fit the schema.
    pub fn explain(&self, situation: &Situation) -> Result<Explanation, String> {
        let ready = self.ready(situation)?;
        let said = self.said(&ready)?;
        let allowed = said.allowed();
        let decider = |id: &String| self.decider(id, &ready);
        let mut nearest = Vec::new();
        let mut changes = Vec::new();
        if !allowed {
            let permits = self.nearest(self.of_action(&ready), &ready, |_| true);
            let forbids = self.holding_forbids(&said, &ready);
            changes = Search::new(self, (situation, &ready), (BUDGET, false)).smallest(&permits, &forbids);
            if said.judgement.determining.is_empty() {
                nearest = permits.iter().take(NEAREST_SHOWN).map(|permit| decider(&permit.id)).collect();
            }
        }
        let determining = &said.judgement.determining;
        Ok(Explanation {
            allowed,
            principal: situation.request.principal.clone(),
            action: situation.action(),
            resource: situation.request.resource.clone(),
            decided_by: determining.iter().map(decider).collect(),
            failed: said.judgement.failed.iter().map(decider).collect(),
            needs_reason: said.needs_reason,
            nearest,
            changes,
            obligations: allowed.then(|| self.owed(determining)),
            policy_set: self.digest.clone(),
        })
    }

    /// Explains the answer to a question, for those who write policies.
    pub fn explain_question(
        &self,
        question: &Question<'_>,
        now: OffsetDateTime,
    ) -> Result<Explanation, String> {
        self.explain(&self.situation(question, now).map_err(|why| why.to_string())?)
    }

    /// The same for somebody who is in a group, and in all that it is in.
    ///
    /// The error says that there is no such group, or what does not fit.
    pub fn explain_member(
        &self,
        question: &Question<'_>,
        group: &str,
        now: OffsetDateTime,
    ) -> Result<Explanation, String> {
        let groups = self.groups.around(group);
        let mut situation = self.situation(question, now).map_err(|why| why.to_string())?;
        if groups.is_empty() {
            return Err(format!("there is no group {group:?} in groups.toml"));
        }
        let who = situation.request.principal.clone();
        for name in groups {
            let what = uid_text("Postern::Group", name);
            Change::Join { who: who.clone(), what }.apply(&mut situation);
        }
        self.explain(&situation)
    }

    /// What the one who asks could do to be allowed; empty if nothing.
    ///
    /// It names no group, tag, network, time or value: who was refused must
    /// not learn from the answer what they do not know.
    pub fn hints(&self, question: &Question<'_>, now: OffsetDateTime) -> Vec<&'static str> {
        let Ok(situation) = self.situation(question, now) else { return Vec::new() };
        let changes = self.own_changes(&situation, BUDGET_OF_ASKER);
        let first = changes.and_then(|changes| changes.into_iter().next()).unwrap_or_default();
        first.iter().filter_map(Change::hint).collect()
    }

    /// The smallest changes of what the asker can do alone.
    ///
    /// None if the situation does not fit, a set without changes if it is
    /// allowed as it is, no set if nothing that they do is enough.
    pub(super) fn own_changes(&self, situation: &Situation, budget: usize) -> Option<Vec<Vec<Change>>> {
        let ready = self.ready(situation).ok()?;
        let said = self.said(&ready).ok()?;
        if said.allowed() {
            return Some(vec![Vec::new()]);
        }
        let within = self.in_scope(&ready);
        let permits = self
            .nearest(within.into_iter(), &ready, |permit| permit.unmet().all(|clause| clause.is_askers_own));
        let forbids = self.holding_forbids(&said, &ready);
        Some(Search::new(self, (situation, &ready), (budget, true)).smallest(&permits, &forbids))
    }

    /// The permits to which the fewest clauses are missing, of those wanted.
    fn nearest<'a>(
        &self,
        policies: impl Iterator<Item = &'a Cedar>,
        ready: &Ready,
        wanted: impl Fn(&Considered) -> bool,
    ) -> Vec<Considered> {
        let permits = policies.filter(|policy| policy.effect() == cedar_policy::Effect::Permit);
        let permits = permits.map(|policy| self.considered(policy, ready)).filter(wanted);
        let mut permits: Vec<(usize, Considered)> =
            permits.map(|considered| (considered.unmet().count(), considered)).collect();
        permits.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.id.cmp(&b.1.id)));
        permits.truncate(NEAREST);
        permits.into_iter().map(|(_, permit)| permit).collect()
    }

    /// The forbids that decided, if that is why it is denied.
    fn holding_forbids(&self, said: &Said, ready: &Ready) -> Vec<Considered> {
        if said.judgement.allowed {
            return Vec::new();
        }
        let found = said.judgement.determining.iter().filter_map(|id| self.cedar(id));
        found.map(|policy| self.considered(policy, ready)).collect()
    }

    fn considered(&self, policy: &Cedar, ready: &Ready) -> Considered {
        let (id, ready) = (policy.id().to_string(), self.seen_by(policy, ready));
        Considered { id, clauses: clauses(policy), ready }
    }

    fn decider(&self, id: &String, ready: &Ready) -> Decider {
        let policy = self.cedar(id);
        let considered = policy.map(|policy| self.considered(policy, ready));
        Decider {
            id: id.clone(),
            effect: policy.map_or_else(String::new, |policy| policy.effect().to_string()),
            source: self.sources.get(id).cloned(),
            message: self.message(std::slice::from_ref(id)),
            needs: considered.iter().flat_map(Considered::needs).collect(),
        }
    }
}
