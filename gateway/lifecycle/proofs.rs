//! Is it still proved whose session it is? Asked while it runs.
//!
//! A session begins with a proof of who its person is, which counts until
//! the keys end that were issued for it. Whoever proves it again, on any
//! node and with any command, keeps their sessions. Those of others are
//! warned and end, if the operator wants it, some time after their proof.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Lifecycle;
use super::live::Live;
use crate::policy::{Decision, Question};
use crate::registry::Proof;
use crate::relay::Control;
use crate::session::{Principal, now_ms, printable};

/// How long before its end a session is warned; of shorter times, half.
///
/// Longer than before other ends: signing in takes more than a key.
const BEFORE_MS: u64 = 5 * 60 * 1000;
/// How long the keys of a version live at most that did not note it.
const LONGEST_MS: u64 = 12 * 60 * 60 * 1000;

/// What becomes of sessions whose person's proof is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproved {
    /// They end, so long after it.
    End(Duration),
    /// What policy says, which is asked then.
    AsPolicySays,
}

/// By whom a session is known to be used.
pub(super) struct Proven {
    principal: Arc<Principal>,
    until_ms: u64,
    /// Since when it is known.
    since_ms: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Good,
    Warned,
    Over,
}

impl Proven {
    pub(super) fn new(principal: &Principal, until_ms: u64, now_ms: u64) -> Self {
        Self { principal: Arc::new(principal.clone()), until_ms, since_ms: now_ms, stage: Stage::Good }
    }

    /// Takes another proof of the same person, if it counts longer.
    fn renew(&mut self, principal: &Principal, until_ms: u64, now_ms: u64) -> bool {
        let longer = until_ms > self.until_ms && principal.id == self.principal.id;
        if longer {
            *self = Self::new(principal, until_ms, now_ms);
        }
        longer
    }

    /// When a session of this person ends, ms since the Unix epoch.
    fn ends_ms(&self, unproved: Unproved) -> u64 {
        match unproved {
            Unproved::End(after) => self.until_ms.saturating_add(millis(after)),
            Unproved::AsPolicySays => self.until_ms,
        }
    }

    /// The stage that it should be in by now.
    fn stage_at(&self, now_ms: u64, unproved: Unproved) -> Stage {
        let ends = self.ends_ms(unproved);
        let before = BEFORE_MS.min(ends.saturating_sub(self.since_ms) / 2);
        match unproved {
            _ if now_ms >= ends => Stage::Over,
            Unproved::End(_) if now_ms >= ends - before => Stage::Warned,
            _ => Stage::Good,
        }
    }
}

impl Live {
    /// Its person, as they proved themselves last.
    pub(super) fn person(&self) -> Arc<Principal> {
        Arc::clone(&self.proven().principal)
    }

    /// Takes another proof of its person, if it counts longer.
    pub(super) fn renew(&self, principal: &Principal, until_ms: u64) -> bool {
        self.proven().renew(principal, until_ms, now_ms())
    }

    fn proven(&self) -> MutexGuard<'_, Proven> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lifecycle {
    /// Notes that somebody proved who they are; their sessions go on.
    pub async fn proved(self: &Arc<Self>, principal: &Principal, until_ms: u64) {
        let proof = Proof { principal: principal.clone(), until_ms };
        if let Err(error) = self.rooms.registry.add_proof(&proof, now_ms()).await {
            // At worst sessions elsewhere end and say that one has to sign in.
            tracing::error!(principal = %principal.arn, %error, "a proof of identity could not be registered");
        }
        let mut theirs = self.live.all();
        theirs.retain(|live| live.renew(principal, until_ms));
        self.ask_again(theirs).await;
    }

    /// Looks whose proof is over, and whether there is another one.
    pub(super) async fn follow_proofs(self: &Arc<Self>) {
        let (now, unproved) = (now_ms(), self.settings.unproved);
        let moves = |live: &Arc<Live>| {
            let proven = live.proven();
            proven.stage != proven.stage_at(now, unproved)
        };
        let due: Vec<Arc<Live>> = self.live.all().into_iter().filter(moves).collect();
        if due.is_empty() {
            return;
        }
        let mut ids: Vec<String> = due.iter().map(|live| live.principal.id.clone()).collect();
        ids.sort();
        ids.dedup();
        let proofs = match self.rooms.registry.proofs(&ids).await {
            Ok(found) => found,
            Err(error) => return tracing::error!(%error, "proofs of identity could not be read"),
        };
        let by_id: HashMap<&str, &Proof> =
            proofs.iter().map(|proof| (proof.principal.id.as_str(), proof)).collect();
        let renewed = |live: &Live| {
            let proof = by_id.get(live.principal.id.as_str());
            proof.is_some_and(|proof| live.renew(&proof.principal, proof.until_ms))
        };
        let mut again = Vec::new();
        for live in due {
            if renewed(&live) || self.move_on(&live, now) {
                again.push(live);
            }
        }
        self.ask_again(again).await;
    }

    /// Takes a session to its stage, with a warning; true if it is over.
    fn move_on(&self, live: &Arc<Live>, now: u64) -> bool {
        let unproved = self.settings.unproved;
        let mut proven = live.proven();
        proven.stage = proven.stage_at(now, unproved);
        let warning = (proven.stage == Stage::Warned).then(|| {
            let seconds = proven.ends_ms(unproved).saturating_sub(now).div_ceil(1000);
            warning(proven.until_ms, now, seconds)
        });
        let over = proven.stage == Stage::Over;
        drop(proven);
        if let Some(sentence) = warning {
            self.order(live, Control::Warn(sentence));
        }
        over
    }

    /// The denial of a session whose person is not proved any more.
    pub(super) fn unproved(&self, live: &Live, question: &Question<'_>) -> Option<Decision> {
        let (stage, until_ms) = {
            let proven = live.proven();
            (proven.stage, proven.until_ms)
        };
        let ends = matches!(self.settings.unproved, Unproved::End(_)) && stage == Stage::Over;
        ends.then(|| {
            let sentence = format!(
                "{} on {} denied: your proof of identity expired at {}; sign in again and open it anew",
                question.action,
                question.resource,
                moment(until_ms)
            );
            let set = self.rooms.policy.set().digest().to_owned();
            Decision::denial(question.action, "identity/expired".to_owned(), printable(&sentence), set)
        })
    }
}

/// Until when a person counts as proved whose session an older version began.
pub(super) fn at_the_longest(principal: &Principal) -> u64 {
    u64::try_from(principal.authenticated_at).unwrap_or_default().saturating_mul(1000) + LONGEST_MS
}

fn warning(until_ms: u64, now_ms: u64, seconds: u64) -> String {
    let (left, unit) = if seconds < 120 { (seconds, "second") } else { (seconds.div_ceil(60), "minute") };
    let plural = if left == 1 { "" } else { "s" };
    let expires = if until_ms <= now_ms { "expired" } else { "expires" };
    let at = moment(until_ms);
    format!(
        "this session ends in {left} {unit}{plural} because your proof of identity {expires} at {at}; \
         sign in again elsewhere to stay"
    )
}

fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{AuthMethod, Facts};

    const MINUTE: u64 = 60 * 1000;

    fn principal(id: &str) -> Principal {
        Principal {
            id: id.to_owned(),
            arn: format!("arn:aws:iam::111122223333:user/{id}"),
            account: "111122223333".to_owned(),
            name: id.to_owned(),
            role: None,
            method: AuthMethod::StsProof,
            authenticated_at: 0,
            facts: Facts::default(),
        }
    }

    fn stages(proven: &Proven, unproved: Unproved, minutes: &[u64]) -> Vec<Stage> {
        minutes.iter().map(|minute| proven.stage_at(minute * MINUTE, unproved)).collect()
    }

    #[test]
    fn a_session_is_warned_and_over_some_time_after_the_proof_of_its_person() {
        let proven = Proven::new(&principal("alice"), 60 * MINUTE, 0);
        let hours = Unproved::End(Duration::from_secs(8 * 60 * 60));
        assert_eq!(
            stages(&proven, hours, &[0, 60, 534, 535, 539, 540, 600]),
            [Stage::Good, Stage::Good, Stage::Good, Stage::Warned, Stage::Warned, Stage::Over, Stage::Over]
        );
        let at_once = Unproved::End(Duration::ZERO);
        assert_eq!(stages(&proven, at_once, &[54, 55, 60]), [Stage::Good, Stage::Warned, Stage::Over]);
        // Policy is asked when the proof is over; nothing ends, so nobody is warned.
        assert_eq!(stages(&proven, Unproved::AsPolicySays, &[59, 60]), [Stage::Good, Stage::Over]);
    }

    #[test]
    fn of_a_short_time_the_second_half_is_warned() {
        let proven = Proven::new(&principal("alice"), 60 * MINUTE, 56 * MINUTE);
        let at_once = Unproved::End(Duration::ZERO);
        assert_eq!(stages(&proven, at_once, &[57, 58, 60]), [Stage::Good, Stage::Warned, Stage::Over]);
    }

    #[test]
    fn only_a_longer_proof_of_the_same_person_counts() {
        let mut proven = Proven::new(&principal("alice"), 60 * MINUTE, 0);
        proven.stage = Stage::Warned;
        assert!(!proven.renew(&principal("bob"), 120 * MINUTE, 0));
        assert!(!proven.renew(&principal("alice"), 60 * MINUTE, 0));
        assert_eq!(proven.stage, Stage::Warned);
        let with_groups = Principal { authenticated_at: 3000, ..principal("alice") };
        assert!(proven.renew(&with_groups, 110 * MINUTE, 50 * MINUTE));
        assert_eq!((proven.stage, proven.principal.authenticated_at), (Stage::Good, 3000));
    }

    #[test]
    fn a_warning_says_when_why_and_what_to_do() {
        assert_eq!(
            warning(1_795_342_500_000, 1_795_342_500_000, 300),
            "this session ends in 5 minutes because your proof of identity expired at 2026-11-22T10:15:00Z; \
             sign in again elsewhere to stay"
        );
        assert!(
            warning(1_795_342_500_000, 0, 1).contains("in 1 second because your proof of identity expires")
        );
    }
}
