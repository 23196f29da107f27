//! The smallest change that allows it, found by asking again and again.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::Policy;
use super::super::situation::{Ready, Said, Situation};
use super::change::Change;
use super::clauses::{Clause, Need};
use super::{atoms, clock};

/// Most changes together: nobody follows longer advice.
const TOGETHER_MAX: usize = 4;
/// Most candidates that are combined.
const CANDIDATES_MAX: usize = 48;
/// Questions that are kept for all changes of a permit at once.
const WHOLE: usize = 400;
/// Most answers that are shown.
const ANSWERS_MAX: usize = 5;
/// Most of them with the same number of changes.
const ANSWERS_OF_SIZE: usize = 3;

/// A policy that could permit, or one that forbids, with its clauses.
pub(super) struct Considered {
    pub id: String,
    pub clauses: Vec<Clause>,
    /// The request as this policy sees it.
    pub ready: Ready,
}

impl Considered {
    /// The clauses that do not hold.
    pub fn unmet(&self) -> impl Iterator<Item = &Clause> {
        self.clauses.iter().filter(|clause| !clause.is_met(&self.ready))
    }

    /// What it needs, and whether each holds.
    pub fn needs(&self) -> Vec<Need> {
        self.clauses.iter().map(|clause| clause.need(&self.ready)).collect()
    }
}

/// Asks about changed situations, so many times at the most.
pub(super) struct Search<'a> {
    policy: &'a Policy,
    base: &'a Situation,
    ready: &'a Ready,
    left: usize,
    /// Only what the person who asks can do alone.
    own: bool,
}

impl<'a> Search<'a> {
    pub fn new(
        policy: &'a Policy,
        (base, ready): (&'a Situation, &'a Ready),
        (budget, own): (usize, bool),
    ) -> Self {
        Self { policy, base, ready, left: budget, own }
    }

    /// The smallest sets of changes that allow it, least effort first.
    ///
    /// Permits are those nearest to applying, forbids those that apply.
    pub fn smallest(&mut self, permits: &[Considered], forbids: &[Considered]) -> Vec<Vec<Change>> {
        let mut candidates = Vec::new();
        let mut wholes: Vec<Vec<Change>> = Vec::new();
        let against: Vec<Vec<Change>> = forbids.iter().map(|forbid| self.against(forbid)).collect();
        candidates.push(Change::Reason { text: String::new() });
        // First: without them no permit is of use.
        candidates.extend(against.iter().flatten().cloned());
        for permit in permits {
            let steps = self.towards(permit);
            candidates.extend(steps.iter().flatten().cloned());
            wholes.push(steps.iter().filter_map(|step| step.first()).cloned().collect());
        }
        if self.own {
            candidates.retain(Change::is_askers_own);
        }
        let mut seen = HashSet::new();
        candidates.retain(|change| seen.insert(change.sentence()));
        candidates.truncate(CANDIDATES_MAX);
        let mut found: Vec<Vec<Change>> = Vec::new();
        for size in 1..=TOGETHER_MAX {
            let more = self.of_size(&candidates, size, &found);
            found.extend(more);
            // To make a production machine one for development is small, and
            // nobody's answer: what takes no such thing is looked for too.
            if found.iter().any(|changes| changes.iter().all(Change::is_modest)) {
                break;
            }
        }
        found.truncate(ANSWERS_MAX);
        if !found.is_empty() || self.own {
            return found;
        }
        self.left += WHOLE;
        self.whole(wholes, &against)
    }

    /// What would make each clause of a permit hold that does not.
    fn towards(&self, permit: &Considered) -> Vec<Vec<Change>> {
        let unmet: Vec<&Clause> = permit.unmet().collect();
        let mut steps: Vec<Vec<Change>> = unmet
            .iter()
            .filter(|clause| !clause.looks_at_clock)
            .map(|clause| atoms::changes(&clause.body, clause.wanted, self.base))
            .collect();
        if unmet.iter().any(|clause| clause.looks_at_clock) {
            let timed: Vec<&Clause> = permit.clauses.iter().filter(|clause| clause.looks_at_clock).collect();
            let all = |clauses: &[&Clause], ready: &Ready| clauses.iter().all(|clause| clause.is_met(ready));
            steps
                .push(clock::moment(self.policy, (self.base, self.ready), &timed, all).into_iter().collect());
        }
        steps
    }

    /// What would make one clause of a forbid not hold.
    fn against(&self, forbid: &Considered) -> Vec<Change> {
        let mut found = Vec::new();
        for clause in &forbid.clauses {
            if clause.looks_at_clock {
                let ends =
                    |clauses: &[&Clause], ready: &Ready| clauses.iter().any(|clause| !clause.is_met(ready));
                found.extend(clock::moment(self.policy, (self.base, self.ready), &[clause], ends));
            } else {
                found.extend(atoms::changes(&clause.body, !clause.wanted, self.base));
            }
        }
        found.sort_by_key(Change::cost);
        found
    }

    /// Sets of so many changes that have no `fewer` in them.
    fn of_size(&mut self, candidates: &[Change], size: usize, fewer: &[Vec<Change>]) -> Vec<Vec<Change>> {
        let mut found: Vec<Vec<Change>> = Vec::new();
        let mut picked = Vec::new();
        self.combine(candidates, size, &mut picked, &mut found);
        found
            .retain(|changes| !fewer.iter().any(|fewer| fewer.iter().all(|change| changes.contains(change))));
        found.sort_by_key(|changes| changes.iter().map(Change::cost).sum::<u32>());
        found.truncate(ANSWERS_OF_SIZE);
        found
    }

    fn combine<'c>(
        &mut self,
        candidates: &'c [Change],
        more: usize,
        picked: &mut Vec<&'c Change>,
        found: &mut Vec<Vec<Change>>,
    ) {
        if more == 0 {
            if self.allows(picked) {
                found.push(picked.iter().map(|change| (*change).clone()).collect());
            }
            return;
        }
        for (at, candidate) in candidates.iter().enumerate() {
            if self.left == 0 {
                return;
            }
            let taken = picked.iter().any(|change| change.place() == candidate.place());
            if !taken {
                picked.push(candidate);
                self.combine(candidates.get(at + 1..).unwrap_or_default(), more - 1, picked, found);
                picked.pop();
            }
        }
    }

    /// All that the nearest permits want at once, without what is not needed.
    fn whole(&mut self, wholes: Vec<Vec<Change>>, against: &[Vec<Change>]) -> Vec<Vec<Change>> {
        for mut changes in wholes {
            changes.extend(against.iter().filter_map(|forbid| forbid.first().cloned()));
            changes.push(Change::Reason { text: String::new() });
            let mut places = HashSet::new();
            changes.retain(|change| places.insert(change.place()));
            if !self.allows(&changes.iter().collect::<Vec<_>>()) {
                continue;
            }
            let mut at = 0;
            while at < changes.len() {
                let without: Vec<&Change> =
                    changes.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, c)| c).collect();
                if self.allows(&without) {
                    changes.remove(at);
                } else {
                    at += 1;
                }
            }
            return vec![changes];
        }
        Vec::new()
    }

    /// Asks again with these changes made.
    fn allows(&mut self, changes: &[&Change]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.with(changes).is_some_and(|said| said.allowed())
    }

    fn with(&self, changes: &[&Change]) -> Option<Said> {
        let mut situation = Situation { request: self.base.request.clone(), entities: Vec::new() };
        if changes.iter().all(|change| change.leaves_entities()) {
            changes.iter().for_each(|change| change.apply(&mut situation));
            let request = self.policy.requested(&situation.request).ok()?;
            let entities = Arc::clone(&self.ready.entities);
            return self.policy.said(&Ready { request, entities }).ok();
        }
        situation.entities.clone_from(&self.base.entities);
        changes.iter().for_each(|change| change.apply(&mut situation));
        self.policy.said(&self.policy.ready(&situation).ok()?).ok()
    }
}
