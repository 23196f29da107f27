//! A question becomes a decision; what cannot be answered is a denial.

use cedar_policy::{Entities, Request};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::entities::Unanswerable;
use super::sentence::Outcome;
use super::slices::{Judgement, Slice};
use super::{Action, Obligations, Policy, Question};

/// What the policy says to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Names this decision in errors, logs, the ledger and the recording.
    pub id: String,
    /// Whether it may be done.
    pub allowed: bool,
    /// What was asked.
    pub action: Action,
    /// The `@id` of every policy that determined it, sorted.
    pub policies: Vec<String>,
    /// One line that is safe to show: what, by which policy, why.
    pub sentence: String,
    /// What the gateway owes if it is allowed; the default otherwise.
    pub obligations: Obligations,
    /// The digest of the policy set that decided.
    pub policy_set: String,
    /// How long it took, microseconds; whoever asked has the clock.
    #[serde(default)]
    pub took_us: u64,
}

impl Decision {
    /// A denial by something that stands before the policies.
    pub fn denial(action: Action, by: String, sentence: String, policy_set: String) -> Self {
        let (id, policies) = (Uuid::new_v4().to_string(), vec![by]);
        let obligations = Obligations::default();
        Self { id, allowed: false, action, policies, sentence, obligations, policy_set, took_us: 0 }
    }
}

impl Policy {
    /// Answers a question, with the time as an argument.
    ///
    /// Denies if no policy permits, if one forbids, if one cannot be
    /// evaluated, if the request does not fit the schema, or if a permit
    /// requires a reason for the session to start and none was given.
    pub fn decide(&self, question: &Question, now: OffsetDateTime) -> Decision {
        let outcome = self.outcome(question, now).unwrap_or_else(|why| {
            tracing::warn!(action = %question.action, why = why.detail(), "question could not be asked");
            Outcome::Unanswerable(why)
        });
        let allowed = matches!(outcome, Outcome::Permitted(_));
        let sentence = outcome.sentence(question, &self.digest);
        let policies = outcome.policies();
        let obligations = if allowed { self.owed(&policies) } else { Obligations::default() };
        Decision {
            id: Uuid::new_v4().to_string(),
            allowed,
            action: question.action,
            policies,
            sentence,
            obligations,
            policy_set: self.digest.clone(),
            took_us: 0,
        }
    }

    fn outcome(&self, question: &Question, now: OffsetDateTime) -> Result<Outcome, Unanswerable> {
        let request = self.vocabulary.request(question, now, &self.schema)?;
        let Some(slice) = self.slices.of(question.action) else {
            return Ok(Outcome::NotPermitted);
        };
        let entities = self.vocabulary.entities(question, &self.groups, &slice.action, &self.schema)?;
        let Judgement { allowed, determining, failed } = self.judge(slice, &request, &entities)?;
        Ok(match allowed {
            false if !determining.is_empty() => {
                let message = self.message(&determining);
                Outcome::Forbidden(determining, message)
            }
            // Cedar skips a forbid that errs and would allow.
            _ if !failed.is_empty() => Outcome::Failed(failed),
            false => Outcome::NotPermitted,
            true if self.lacks_reason(question, &determining) => {
                let message = self.message(&determining);
                Outcome::NeedsReason(determining, message)
            }
            true => Outcome::Permitted(determining),
        })
    }

    /// What the policies of both schemas say.
    pub(super) fn judge(
        &self,
        slice: &Slice,
        request: &Request,
        entities: &Entities,
    ) -> Result<Judgement, Unanswerable> {
        Ok(slice.judge(request, entities).and(self.jitna.judge_own(request, entities)?))
    }

    /// Only the start of a session can carry a reason.
    fn lacks_reason(&self, question: &Question, permits: &[String]) -> bool {
        question.action.starts_session()
            && question.context.stated_reason().is_none()
            && self.owed(permits).require_reason
    }

    /// The strictest of what the permits oblige to.
    pub(super) fn owed(&self, permits: &[String]) -> Obligations {
        let mut all =
            permits.iter().filter_map(|id| self.annotations.get(id)).map(|found| &found.obligations);
        let first = all.next().cloned().unwrap_or_default();
        all.fold(first, Obligations::and)
    }

    /// The first message among the policies.
    pub(super) fn message(&self, ids: &[String]) -> Option<String> {
        ids.iter().find_map(|id| self.annotations.get(id)?.message.clone())
    }
}
