//! What was decided: followed to what came of it, and shipped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Lifecycle;
use super::admission::Asker;
use crate::error::{ApiError, Code};
use crate::policy::Action;
use crate::registry::{DecisionFilter, DecisionRecord, RegistryError, SessionRecord};
use crate::session::{now_ms, sanitised_name};
use crate::shipper::{PolicyEvent, ShipperError};

/// How often it is looked whether there is something to ship.
const LOOK: Duration = Duration::from_secs(1);
/// Decisions shipped at once: about half a megabyte.
const AT_ONCE: u32 = 500;
/// Longest pause after CloudWatch Logs took nothing.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Most chains and most decisions of one that an id leads to.
const CHAINS_MAX: u32 = 50;

/// From the person to the recording, each link with its id.
#[derive(Debug, Clone, Serialize)]
pub struct Chain {
    /// Who it was.
    pub principal: crate::session::Principal,
    /// The decision that let it begin, or that refused it.
    pub decision: Option<DecisionRecord>,
    /// Name of the session in AWS: session name and source identity.
    pub source_identity: String,
    /// The session, if one began.
    pub session: Option<SessionRecord>,
    /// The session's id at AWS.
    pub ssm_session_id: Option<String>,
    /// SHA-256 of the sealed recording.
    pub recording_sha256: Option<String>,
    /// Every later decision about it, newest first.
    pub later: Vec<DecisionRecord>,
}

impl Lifecycle {
    /// What an id of any kind leads to, newest first.
    ///
    /// It may be of a decision, a session here or at AWS, a recording's
    /// digest or a source identity. Sessions are told of to whom they are
    /// shown, decisions to who may know of them, everything to whoever may
    /// administer.
    pub async fn audit(&self, asker: &Asker, id: &str) -> Result<Vec<Chain>, ApiError> {
        let registry = &self.rooms.registry;
        let mut sessions = registry.sessions_by(id, CHAINS_MAX).await?;
        let decision = registry.decision(id).await?;
        if let Some(session) = decision.as_ref().and_then(|decision| decision.session.as_ref())
            && sessions.is_empty()
        {
            sessions.extend(registry.session(session).await?);
        }
        let decision_is_shown = match &decision {
            Some(decision) => self.may_know(asker, decision, &mut HashMap::new()).await?,
            None => !sessions.is_empty(),
        };
        if !decision_is_shown || !sessions.iter().all(|record| self.may_see(asker, record)) {
            self.admit_on_gateway(Action::Administer, asker).await?;
        }
        let mut chains = Vec::new();
        for session in sessions {
            chains.push(self.chain(session).await?);
        }
        if let (Some(decision), true) = (decision, chains.is_empty()) {
            chains.push(Chain {
                principal: decision.principal.clone(),
                source_identity: sanitised_name(&decision.principal.name),
                decision: Some(decision),
                session: None,
                ssm_session_id: None,
                recording_sha256: None,
                later: Vec::new(),
            });
        }
        if chains.is_empty() {
            Err(unknown("decision, session, recording or source identity", id))
        } else {
            Ok(chains)
        }
    }

    async fn chain(&self, session: SessionRecord) -> Result<Chain, RegistryError> {
        let registry = &self.rooms.registry;
        let about = DecisionFilter { session: Some(session.id.clone()), ..DecisionFilter::default() };
        let mut later = registry.decisions(&about, CHAINS_MAX as usize, None).await?.rows;
        later.retain(|decision| decision.id != session.decision_id);
        Ok(Chain {
            principal: session.principal.clone(),
            decision: registry.decision(&session.decision_id).await?,
            source_identity: sanitised_name(&session.principal.name),
            ssm_session_id: session.upstream_id.clone(),
            recording_sha256: session.recording_sha256.clone(),
            session: Some(session),
            later,
        })
    }

    /// Ships decisions until the process stops.
    ///
    /// What is on record and not noted as shipped is the list of work, so a
    /// restart loses nothing; what is shipped twice has the same id.
    pub async fn ship_decisions(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let Some(shipper) = self.rooms.shipper.clone().filter(|shipper| shipper.ships_decisions()) else {
            return;
        };
        let mut pause = LOOK;
        loop {
            let wait = tokio::time::sleep_until(Instant::now() + pause);
            tokio::select! {
                () = wait => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
            pause = match self.ship_some(&shipper).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => LOOK,
                Err(error) => {
                    if pause <= LOOK {
                        tracing::warn!(%error, "decisions cannot be shipped; they stay in the registry");
                    }
                    (pause.max(LOOK) * 2).min(PAUSE_MAX)
                }
            };
        }
        // What was decided last goes along, if it goes quickly.
        let _ = tokio::time::timeout(LOOK, self.ship_some(&shipper)).await;
    }

    /// Ships the oldest ones; true if there may be more.
    async fn ship_some(&self, shipper: &crate::shipper::Shipper) -> Result<bool, NotShipped> {
        let found = self.rooms.registry.decisions_to_ship(&self.settings.node, AT_ONCE).await?;
        if found.is_empty() {
            return Ok(false);
        }
        let events = found.iter().map(event).collect();
        shipper.ship_decisions(&self.settings.node, events).await?;
        let ids: Vec<String> = found.into_iter().map(|decision| decision.id).collect();
        self.rooms.registry.decisions_shipped(&ids, now_ms()).await?;
        Ok(ids.len() == AT_ONCE as usize)
    }
}

/// Why decisions are still to be shipped.
#[derive(Debug, thiserror::Error)]
enum NotShipped {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Shipper(#[from] ShipperError),
}

pub(super) fn unknown(what: &str, id: &str) -> ApiError {
    let sentence = format!("there is no {what} {}", crate::session::printable(id));
    ApiError::client(Code::DoesNotExist, sentence)
}

fn event(decision: &DecisionRecord) -> PolicyEvent {
    let session = decision.started.as_ref().or(decision.session.as_ref());
    let reason = decision.request.as_ref().and_then(|request| request.get("reason")?.as_str());
    PolicyEvent {
        decision_id: decision.id.clone(),
        at_ms: decision.at_ms,
        allowed: decision.allowed,
        action: decision.action.clone(),
        principal: decision.principal.arn.clone(),
        target: decision.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        document: decision.document.as_ref().map(|document| document.as_str().to_owned()),
        session: session.map(ToString::to_string).unwrap_or_default(),
        policies: decision.policies.join(","),
        policy_set: decision.policy_digest.clone(),
        sentence: decision.sentence.clone(),
        reason: reason.map(crate::session::printable),
        source_ip: decision.source_ip.clone(),
        took_us: decision.took_us,
    }
}
