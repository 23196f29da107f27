//! May they? Every question to the policy, written down before it counts.

use std::net::IpAddr;
use std::time::Duration;

use prometheus::IntGaugeVec;
use time::OffsetDateTime;
use tokio::sync::SemaphorePermit;

use super::Lifecycle;
use super::live::Live;
use crate::broker::{BrokerError, Plan};
use crate::error::{ApiError, Blame, Code};
use crate::metrics::Metrics;
use crate::policy::{
    Action, Asked, Decision, Inquiry, OWN_NAME, Obligations, Question, Resource, is_system_user,
};
use crate::recorder::Recorder;
use crate::registry::{DecisionRecord, SessionRecord, State};
use crate::relay::Rules;
use crate::session::{Instance, Principal, SessionId, SessionKind, SessionRequest, printable};

/// How long somebody who asks why waits for others who do.
const TURN_WITHIN: Duration = Duration::from_secs(3);

/// Who asks, and from where.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The verified caller.
    pub principal: Principal,
    /// The address of the connection.
    pub source_ip: IpAddr,
    /// Until when they count as proved, ms since the Unix epoch.
    pub proved_until_ms: u64,
    /// The browser that asks, as the registry knows it.
    pub visit: Option<String>,
}

impl Lifecycle {
    /// The machine that a request names, and what its document will do.
    pub(super) async fn subject_of(
        &self,
        asker: &Asker,
        request: &SessionRequest,
    ) -> Result<(Instance, Plan), ApiError> {
        let found = async {
            let instance = self.rooms.broker.instance(&request.target).await?;
            let plan = self.rooms.broker.plan(request, instance.platform.as_deref()).await?;
            Ok((instance, plan))
        };
        found.await.map_err(|error: BrokerError| {
            tracing::info!(principal = %asker.principal.arn, target = %request.target, %error, "no such session");
            error.into()
        })
    }

    /// May the session start? A denial is the answer to StartSession.
    pub(super) async fn admit_start(
        &self,
        asker: &Asker,
        request: &SessionRequest,
        (instance, plan): (&Instance, &Plan),
    ) -> Result<Decision, ApiError> {
        self.admit(asker, &start_question(asker, request, (instance, plan)), None).await
    }

    /// Would it start, and if not, what could the caller do so that it would?
    ///
    /// In words that tell them nothing they do not know; none if nothing
    /// helps, `None` if nobody had the time to look. Of a machine that is not
    /// shown to them they are told nothing.
    pub async fn would_admit_or_hint(
        &self,
        asker: &Asker,
        request: &SessionRequest,
    ) -> Result<(Decision, Option<Vec<&'static str>>), ApiError> {
        let (instance, plan) = self.subject_of(asker, request).await?;
        let question = start_question(asker, request, (&instance, &plan));
        let decision = self.decide(&question);
        let silent = decision.allowed || !self.may_list(asker, &instance);
        let hints = if silent { Some(Vec::new()) } else { self.hints(asker, &question).await };
        Ok((decision, hints))
    }

    pub(super) async fn hints(&self, asker: &Asker, question: &Question<'_>) -> Option<Vec<&'static str>> {
        if self.revoked(question).is_some() {
            return Some(Vec::new());
        }
        // It is asked again up to some hundred times: not by many at once,
        // and not beside the relays.
        let _turn = self.turn_to_search().await?;
        let (set, inquiry) = (self.rooms.policy.set(), Inquiry::of(question));
        let (principal, now) = (asker.principal.clone(), OffsetDateTime::now_utc());
        let hints = tokio::task::spawn_blocking(move || set.hints(&inquiry.question(&principal), now));
        hints.await.ok()
    }

    /// A place among the searches, waited for a little.
    pub(super) async fn turn_to_search(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(TURN_WITHIN, self.searches.acquire()).await.ok()?.ok()
    }

    /// May they do this to a running session?
    pub(super) async fn admit_on_session(
        &self,
        action: Action,
        asker: &Asker,
        live: &Live,
    ) -> Result<Decision, ApiError> {
        let instance = live.instance();
        let resource = Resource::Session { id: &live.id, owner: &live.principal, instance: &instance };
        self.admit_to(action, asker, resource, Some(&live.id)).await
    }

    /// May they end a session that runs on another node?
    pub(super) async fn admit_ending(
        &self,
        asker: &Asker,
        record: &SessionRecord,
    ) -> Result<Decision, ApiError> {
        self.admit_to(Action::TerminateSession, asker, session_of(record), Some(&record.id)).await
    }

    /// May they do this to the gateway itself?
    pub(super) async fn admit_on_gateway(&self, action: Action, asker: &Asker) -> Result<Decision, ApiError> {
        self.admit_to(action, asker, Resource::Gateway, None).await
    }

    /// May they replay this recording?
    pub(super) async fn admit_replay(
        &self,
        asker: &Asker,
        record: &SessionRecord,
    ) -> Result<Decision, ApiError> {
        self.admit_on_recording(Action::ReplayRecording, asker, record).await
    }

    /// May they do this to a recording?
    pub(super) async fn admit_on_recording(
        &self,
        action: Action,
        asker: &Asker,
        record: &SessionRecord,
    ) -> Result<Decision, ApiError> {
        let resource =
            Resource::Recording { id: &record.id, owner: &record.principal, instance: &record.instance };
        self.admit_to(action, asker, resource, Some(&record.id)).await
    }

    async fn admit_to(
        &self,
        action: Action,
        asker: &Asker,
        resource: Resource<'_>,
        session: Option<&SessionId>,
    ) -> Result<Decision, ApiError> {
        let question = Question { principal: &asker.principal, action, resource, context: from(asker) };
        self.admit(asker, &question, session).await
    }

    /// Whether the session is shown to them: their own, or policy says so.
    ///
    /// Lists ask this for every row, so the answer is not written down.
    pub(super) fn may_see(&self, asker: &Asker, record: &SessionRecord) -> bool {
        if record.principal.id == asker.principal.id {
            return true;
        }
        self.quietly(asker, Action::WatchSession, session_of(record))
    }

    /// Whether the machine is shown to them.
    pub(super) fn may_list(&self, asker: &Asker, instance: &Instance) -> bool {
        self.quietly(asker, Action::ListTargets, Resource::Instance(instance))
    }

    pub(super) fn quietly(&self, asker: &Asker, action: Action, resource: Resource<'_>) -> bool {
        let question = Question { principal: &asker.principal, action, resource, context: from(asker) };
        self.decide(&question).allowed
    }

    /// Decides, and lets the decision count only once it is written down.
    async fn admit(
        &self,
        asker: &Asker,
        question: &Question<'_>,
        session: Option<&SessionId>,
    ) -> Result<Decision, ApiError> {
        let decision = self.decide(question);
        let record = self.decision_record(asker, question, &decision, session);
        if let Err(error) = self.rooms.registry.add_decision(&record).await {
            tracing::error!(%error, decision = %decision.id, "the decision could not be registered");
            return Err(ApiError::gateway("the gateway could not register its decision; try again"));
        }
        if decision.allowed {
            return Ok(decision);
        }
        tracing::info!(
            principal = %asker.principal.arn, action = decision.action.as_str(), decision = %decision.id,
            sentence = %decision.sentence, "denied"
        );
        let sentence = format!("{} (decision {})", decision.sentence, decision.id);
        Err(ApiError::new(Code::AccessDenied, Blame::Policy, sentence))
    }

    pub(super) fn decide(&self, question: &Question<'_>) -> Decision {
        let timer = self.rooms.metrics.decision_seconds.start_timer();
        let decision = self.answer(question);
        timer.observe_duration();
        let result = if decision.allowed { "allow" } else { "deny" };
        self.rooms.metrics.decisions.with_label_values(&[question.action.as_str(), result]).inc();
        decision
    }

    /// What stands before the policies, then the policies.
    pub(super) fn answer(&self, question: &Question<'_>) -> Decision {
        let began = std::time::Instant::now();
        let policies = || self.rooms.policy.set().decide(question, OffsetDateTime::now_utc());
        let mut decision = self.revoked(question).unwrap_or_else(policies);
        decision.took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        decision
    }

    pub(super) fn decision_record(
        &self,
        asker: &Asker,
        question: &Question<'_>,
        decision: &Decision,
        session: Option<&SessionId>,
    ) -> DecisionRecord {
        DecisionRecord {
            id: decision.id.clone(),
            at_ms: crate::session::now_ms(),
            principal: asker.principal.clone(),
            action: question.action.as_str().to_owned(),
            target: question.resource.instance().map(|instance| instance.target.clone()),
            document: question.context.document.cloned(),
            session: session.cloned(),
            allowed: decision.allowed,
            policies: decision.policies.clone(),
            sentence: decision.sentence.clone(),
            policy_digest: decision.policy_set.clone(),
            source_ip: Some(asker.source_ip.to_string()),
            request: serde_json::to_value(Inquiry::of(question)).ok(),
            obligations: decision.allowed.then(|| serde_json::to_value(&decision.obligations).ok()).flatten(),
            took_us: Some(decision.took_us),
            node: Some(self.settings.node.clone()),
            started: None,
        }
    }
}

fn start_question<'a>(
    asker: &'a Asker,
    request: &'a SessionRequest,
    (instance, plan): (&'a Instance, &'a Plan),
) -> Question<'a> {
    Question {
        principal: &asker.principal,
        action: Action::from(plan.kind),
        resource: Resource::Instance(instance),
        context: Asked {
            document: Some(&request.document),
            parameters: Some(&plan.parameters),
            reason: request.reason.as_deref(),
            source_ip: Some(asker.source_ip),
            session: None,
            alerts: &[],
            running: None,
        },
    }
}

/// What is asked about, if it is a session that is on record.
fn session_of(record: &SessionRecord) -> Resource<'_> {
    Resource::Session { id: &record.id, owner: &record.principal, instance: &record.instance }
}

pub(super) fn from(asker: &Asker) -> Asked<'static> {
    Asked { source_ip: Some(asker.source_ip), ..Asked::default() }
}

/// Refuses what this gateway could not record as asked, or not enforce.
///
/// A promise that would be broken is worse than a refusal.
pub(super) fn refuse_unkeepable(obligations: &Obligations, recorder: &Recorder) -> Result<(), ApiError> {
    if recorder.keeps(obligations.record) {
        return Ok(());
    }
    let sentence = "the policy obliges to @record(\"remote\"), but this gateway ships recordings nowhere; \
                    tell its operator";
    Err(ApiError::new(Code::AccessDenied, Blame::Gateway, sentence))
}

/// The user of the machine that policy says, if it says one.
pub(super) fn run_as(obligations: &Obligations, principal: &Principal) -> Result<Option<String>, ApiError> {
    let refused = |sentence: String| Err(ApiError::new(Code::AccessDenied, Blame::Policy, sentence));
    match obligations.run_as.as_slice() {
        [] => Ok(None),
        [user] if user != OWN_NAME => Ok(Some(user.clone())),
        [_] => {
            let Some(name) = principal.given_name() else {
                return refused(
                    "policy runs sessions as your own user, but your name is one that you may have chosen \
                     yourself; it takes an IAM user, an Identity Center sign-in, or an identity provider \
                     whose name_claim is \"email\""
                        .to_owned(),
                );
            };
            let own = name.split('@').next().unwrap_or_default();
            match is_system_user(own) {
                true => Ok(Some(own.to_owned())),
                false => refused(format!(
                    "policy runs sessions as your own user, and {:?} is no name of one; tell whoever writes it",
                    printable(own)
                )),
            }
        }
        users => refused(format!(
            "the policies that permit this run it as different users ({}); tell whoever writes them",
            users.join(", ")
        )),
    }
}

/// What the relay enforces of the policy's obligations.
pub(super) fn rules(obligations: &Obligations) -> Rules {
    Rules {
        record_input: obligations.record_input,
        banner: (!obligations.banners.is_empty()).then(|| obligations.banners.join("\r\n")),
        idle_timeout: obligations.idle_timeout,
        max_duration: obligations.max_duration,
        read_only: obligations.read_only,
    }
}

/// The kind as a metric label.
pub(super) fn kind_label(kind: SessionKind) -> &'static str {
    match kind {
        SessionKind::Shell => "shell",
        SessionKind::InteractiveCommand => "interactive_command",
        SessionKind::NonInteractiveCommand => "non_interactive_command",
        SessionKind::Port => "port",
        SessionKind::PortToHost => "port_to_host",
        SessionKind::Ssh => "ssh",
    }
}

/// Keeps one session counted under exactly one state.
pub(super) struct StateGauge {
    sessions: IntGaugeVec,
    counted: State,
}

impl StateGauge {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let gauge = Self { sessions: metrics.sessions.clone(), counted: State::Connecting };
        gauge.row().inc();
        gauge
    }

    pub(super) fn set(&mut self, state: State) {
        self.row().dec();
        self.counted = state;
        self.row().inc();
    }

    fn row(&self) -> prometheus::IntGauge {
        self.sessions.with_label_values(&[&self.counted.as_str().to_ascii_lowercase()])
    }
}

impl Drop for StateGauge {
    fn drop(&mut self) {
        self.row().dec();
    }
}
