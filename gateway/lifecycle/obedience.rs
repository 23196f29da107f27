//! May they still? Running sessions are asked about again while they live.
//!
//! When the policy folder changes, all of them; every second those whose
//! answer time can change; one whose machine is described anew, one whose person's
//! proof is over or anew, and one that met an alert rule. What is no longer permitted ends, with the reason on its user's screen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::Lifecycle;
use super::admission::{self, Asker};
use super::live::Live;
use crate::alerts::Seen;
use crate::policy::{Action, Asked, Decision, Obligations, Question, Resource, Standing, Watch, apart};
use crate::registry::DecisionRecord;
use crate::relay::{Control, Ending};
use crate::session::{Principal, SessionKind, Target};

/// How often sessions are asked about whose answer depends on time.
const ROUND: Duration = Duration::from_secs(1);
/// Machines described in one go; the others have their turn after them.
const DESCRIBED_AT_ONCE: usize = 100;

/// What policy says of a session that runs.
enum Again {
    /// As before.
    Same,
    /// It goes on under other obligations.
    Obey(Obligations),
    /// It ends.
    End(Box<Decision>),
    /// It would have to be begun in another way.
    Anew(&'static str),
}

impl Lifecycle {
    /// The policy set in force, and the folder that it is read from.
    pub fn policies(&self) -> &Standing {
        &self.rooms.policy
    }

    /// Keeps asking until the process stops.
    pub async fn keep_asking(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let stop = stopped.wait_for(|stopped| *stopped);
        tokio::select! {
            () = self.follow_folder() => {}
            () = self.follow_time() => {}
            () = self.follow_machines() => {}
            _ = stop => {}
        }
    }

    async fn follow_folder(self: &Arc<Self>) {
        let mut watch = Watch::new(self.rooms.policy.folder());
        loop {
            watch.changed().await;
            if !self.reload_policies().await {
                watch.look_again();
            }
        }
    }

    async fn follow_time(self: &Arc<Self>) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            self.follow_revocations().await;
            self.follow_proofs().await;
            self.follow_visits().await;
            let set = self.rooms.policy.set();
            let mut sessions = self.live.all();
            sessions.retain(|live| set.depends_on_time(Action::from(live.started.kind)));
            self.ask_again(sessions).await;
        }
    }

    async fn follow_machines(self: &Arc<Self>) {
        let mut seen = HashMap::new();
        loop {
            tokio::time::sleep(self.settings.describe_every).await;
            self.describe_machines(&mut seen).await;
        }
    }

    /// Reads the policy folder again; another set is obeyed at once.
    ///
    /// False if it was refused.
    pub async fn reload_policies(self: &Arc<Self>) -> bool {
        let this = Arc::clone(self);
        let read = apart(move || this.rooms.policy.reload()).await;
        let metrics = &self.rooms.metrics;
        let count = |result| metrics.watch.policy_loads.with_label_values(&[result]).inc();
        match read {
            Some(Ok(another)) => {
                metrics.watch.policy_refused.set(0);
                if another {
                    count("in_force");
                    let set = self.rooms.policy.set();
                    tracing::info!(
                        policies = set.len(),
                        digest = set.digest(),
                        "another policy set is in force"
                    );
                    self.ask_again(self.live.all()).await;
                }
                true
            }
            Some(Err(error)) => {
                // It is looked at every few seconds, and told once.
                if metrics.watch.policy_refused.get() == 0 {
                    count("refused");
                    let digest = self.rooms.policy.set().digest().to_owned();
                    tracing::error!(why = error.line(), still = digest, "the policy folder is refused");
                }
                metrics.watch.policy_refused.set(1);
                false
            }
            None => {
                tracing::error!("the policy folder could not be read");
                false
            }
        }
    }

    /// Describes machines anew, and asks about the sessions on what changed.
    async fn describe_machines(self: &Arc<Self>, seen: &mut HashMap<Target, Instant>) {
        let mut machines: HashMap<Target, Vec<Arc<Live>>> = HashMap::new();
        for live in self.live.all() {
            machines.entry(live.instance().target.clone()).or_default().push(live);
        }
        seen.retain(|target, _| machines.contains_key(target));
        let mut machines: Vec<_> = machines.into_iter().collect();
        machines.sort_by_key(|(target, _)| seen.get(target).copied());
        for (target, mut sessions) in machines.into_iter().take(DESCRIBED_AT_ONCE) {
            // Whose machine cannot be described keeps what was said of it.
            if let Ok(instance) = self.rooms.broker.instance(&target).await {
                sessions.retain(|live| live.describe(instance.clone()));
                self.ask_again(sessions).await;
            }
            seen.insert(target, Instant::now());
        }
    }

    /// Asks about running sessions again; those no longer permitted end.
    pub(super) async fn ask_again(self: &Arc<Self>, mut sessions: Vec<Arc<Live>>) {
        sessions.retain(|live| !live.has_ended() && !live.is_dismissed());
        if sessions.is_empty() {
            return;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = sessions.len().div_ceil(threads);
        let shares: Vec<_> = sessions
            .chunks(share)
            .map(|share| {
                let (this, share) = (Arc::clone(self), share.to_vec());
                // Thousands of decisions must not hold up the relays, and nobody them.
                tokio::spawn(apart(move || this.ask_about(&share)))
            })
            .collect();
        for share in shares {
            match share.await {
                Ok(Some(denials)) if denials.is_empty() => {}
                Ok(Some(denials)) => {
                    if let Err(error) = self.rooms.registry.add_decisions(&denials).await {
                        tracing::error!(%error, "decisions that ended sessions could not be registered");
                    }
                }
                Ok(None) | Err(_) => tracing::error!("running sessions could not be asked about"),
            }
        }
    }

    /// Asks and acts at once; returns the denials, to be written down.
    fn ask_about(&self, sessions: &[Arc<Live>]) -> Vec<DecisionRecord> {
        let mut denials = Vec::new();
        for live in sessions {
            let result = match self.still(live, &mut denials) {
                Again::Same => "permitted",
                Again::Obey(obligations) => {
                    self.order(live, Control::Obey(admission::rules(&obligations)));
                    *live.obligations() = obligations;
                    "permitted"
                }
                Again::End(decision) => {
                    let sentence = format!("{} (decision {})", decision.sentence, decision.id);
                    tracing::info!(session = %live.id, sentence, "the session is no longer permitted");
                    self.order(live, Control::End(Ending { reason: "policy", sentence }));
                    "denied"
                }
                Again::Anew(what) => {
                    let sentence = anew(what);
                    self.order(live, Control::End(Ending { reason: "policy", sentence }));
                    "denied"
                }
            };
            self.rooms.metrics.watch.sessions_asked_again.with_label_values(&[result]).inc();
        }
        denials
    }

    /// Marks recordings where a rule was met, and asks about the sessions.
    ///
    /// Ends when nobody raises alerts any more.
    pub async fn heed(self: Arc<Self>, mut all_seen: mpsc::Receiver<Seen>) {
        while let Some(seen) = all_seen.recv().await {
            let alert = match seen {
                Seen::Alert(alert) => alert,
                Seen::Command(session, label) => {
                    if let Some(live) = self.live.get(&session) {
                        // Nothing is lost if there is no room: it can be found again.
                        let _ = live.orders.try_send(Control::Mark(label));
                    }
                    continue;
                }
            };
            let Some(live) = self.live.get(&alert.session) else { continue };
            if !alert.marked {
                self.order(&live, Control::Mark(alert.mark()));
            }
            if live.met(&alert.rule) {
                self.ask_again(vec![live]).await;
            }
        }
    }

    /// The question of its start, asked now.
    fn still(&self, live: &Live, denials: &mut Vec<DecisionRecord>) -> Again {
        let (started, instance, alerts) = (&live.started, live.instance(), live.alerts());
        let context = Asked {
            document: Some(&started.document),
            parameters: Some(&started.parameters),
            reason: started.reason.as_deref(),
            source_ip: Some(started.source_ip),
            session: Some(&live.id),
            alerts: &alerts,
            running: Some(live.running(Instant::now())),
        };
        let person = live.person();
        let question = Question {
            principal: &person,
            action: Action::from(started.kind),
            resource: Resource::Instance(&instance),
            context,
        };
        let unproved = self.unproved(live, &question);
        let decision = unproved.unwrap_or_else(|| self.answer(&question));
        if !decision.allowed {
            let asker = Asker {
                principal: Principal::clone(&person),
                source_ip: started.source_ip,
                proved_until_ms: started.proved_until_ms,
                visit: None,
            };
            denials.push(self.decision_record(&asker, &question, &decision, Some(&live.id)));
            return Again::End(Box::new(decision));
        }
        let owed = started.obligations.clone().and(&decision.obligations);
        let now = live.obligations();
        if owed == *now {
            Again::Same
        } else if let Some(what) = begun_otherwise(&now, &owed, started.kind) {
            Again::Anew(what)
        } else {
            Again::Obey(owed)
        }
    }

    /// Gives an order without waiting for a relay that has many.
    pub(super) fn order(&self, live: &Arc<Live>, order: Control<super::ClientStream>) {
        if let Err(full) = live.orders.try_send(order) {
            let (live, order) = (Arc::clone(live), full.into_inner());
            // A closed channel means the session is ending already.
            tokio::spawn(async move { live.orders.send(order).await.is_ok() });
        }
    }
}

/// What a session is now obliged to that it would have to be begun with.
pub(super) fn begun_otherwise(
    was: &Obligations,
    owed: &Obligations,
    kind: SessionKind,
) -> Option<&'static str> {
    if owed.capture_traffic != was.capture_traffic {
        Some("have its traffic captured")
    } else if owed.read_only && !kind.is_terminal() {
        Some("be read only, which a port cannot be")
    } else if owed.run_as != was.run_as {
        Some("run as another user of the machine")
    } else if owed.record != was.record {
        Some("be recorded more safely")
    } else {
        None
    }
}

/// What its user is told of it.
pub(super) fn anew(what: &str) -> String {
    format!("policy now obliges this session to {what}; open it again to go on")
}
