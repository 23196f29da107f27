//! Sessions that an earlier process of this node left: taken over, or ended.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use data_channel::encryption::DataKey;
use tokio::sync::Semaphore;

use super::admission::{self, Asker};
use super::live::Started;
use super::upstream::Opened;
use super::{Lifecycle, obedience, ports, proofs};
use crate::broker::{ClientIds, Plan, Scope, UpstreamRef};
use crate::error::{ApiError, Blame, Code};
use crate::policy::Obligations;
use crate::recorder::{FlowStage, FlowState, Recording, Recovered, Sealed};
use crate::registry::{Given, SessionRecord, State, Traffic, Unfinished};
use crate::relay::{Carries, Ending, Resumed};
use crate::session::{SessionId, SessionRequest, now_ms};

/// Sessions taken over at the same time: each reads its recording.
const AT_ONCE: usize = 16;
/// How long a call may wait for its session to be taken over.
///
/// Less than clients wait for an answer; they try again on a 503.
const WAIT: Duration = Duration::from_secs(15);
/// The least time a client has to come back after a restart.
const GRACE: Duration = Duration::from_secs(60);

impl Lifecycle {
    /// Takes over what an earlier process left; call it before listening.
    ///
    /// Returns at once. Calls that concern one of the sessions wait for it.
    pub fn adopt(self: &Arc<Self>, unfinished: Vec<Unfinished>) {
        let ids: HashSet<SessionId> = unfinished.iter().map(|left| left.record.id.clone()).collect();
        unfinished.iter().for_each(|left| self.live.expect(&left.record.principal));
        self.adopting.send_replace(ids.clone());
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        for left in unfinished {
            let (this, turns) = (Arc::clone(self), Arc::clone(&turns));
            tokio::spawn(async move {
                // Never closed, so there is always a turn.
                let _turn = turns.acquire().await;
                this.adopt_one(left).await;
            });
        }
        let this = Arc::clone(self);
        // Recordings without a session that goes on are sealed beside all this.
        tokio::spawn(async move {
            let left = this.rooms.recorder.left();
            for id in left.into_iter().filter(|id| !ids.contains(id)) {
                match this.rooms.registry.session(&id).await {
                    Ok(record) => drop(this.seal_left(&id, record.as_ref()).await),
                    // It is found again at the next start.
                    Err(error) => tracing::error!(session = %id, %error, "the recording is not sealed"),
                }
            }
            this.index_recordings();
            this.archive_recordings();
            this.guard_spool();
        });
    }

    /// Seals what is left of a recording, unless it was sealed before.
    async fn seal_left(self: &Arc<Self>, id: &SessionId, record: Option<&SessionRecord>) -> Option<Sealed> {
        let sealed_before = record.is_some_and(|record| record.recording_sha256.is_some());
        let (this, id) = (Arc::clone(self), id.clone());
        let work = tokio::task::spawn_blocking(move || {
            let recorder = &this.rooms.recorder;
            if sealed_before {
                recorder.refuse_left(&id);
                return None;
            }
            recorder.seal_left(&id)
        });
        let sealed = work.await.unwrap_or(None);
        if let (Some(sealed), Some(record)) = (&sealed, record) {
            self.register_sealed(record, sealed).await;
        }
        sealed
    }

    /// Registers that the recording is sealed: it is never sealed again.
    async fn register_sealed(&self, record: &SessionRecord, sealed: &Sealed) {
        let traffic = Traffic {
            recording_sha256: Some(sealed.sha256.clone()),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
        };
        if let Err(error) = self.rooms.registry.set_traffic(&record.id, &traffic).await {
            tracing::error!(session = %record.id, %error, "the recording's seal could not be registered");
        }
    }

    /// Waits until it is clear what becomes of a session.
    pub(super) async fn settled(&self, id: &SessionId) -> Result<(), ApiError> {
        let mut adopting = self.adopting.subscribe();
        let settled = adopting.wait_for(|ids| !ids.contains(id));
        match tokio::time::timeout(WAIT, settled).await {
            Ok(_) if !self.is_leaving() => Ok(()),
            _ => Err(ApiError::new(
                Code::ServiceUnavailable,
                Blame::Gateway,
                "the gateway is being restarted; try again in a moment",
            )),
        }
    }

    async fn adopt_one(self: Arc<Self>, left: Unfinished) {
        let id = left.record.id.clone();
        let place = self.live.expected(&left.record.principal);
        if !self.is_leaving() {
            let result = self.take_over(left).await;
            self.rooms.metrics.sessions_adopted.with_label_values(&[result]).inc();
        }
        drop(place);
        self.adopting.send_modify(|ids| {
            ids.remove(&id);
        });
    }

    /// Ask the policy again, reopen the recording, relay on; or end it.
    async fn take_over(self: &Arc<Self>, left: Unfinished) -> &'static str {
        let Unfinished { record, given, since_ms } = left;
        let Some((given, upstream_id)) = given.zip(record.upstream_id.clone()) else {
            return self.end_left(&record, State::Terminated, "gateway stopped").await;
        };
        if record.recording_sha256.is_some() || record.state == State::Terminating {
            return self.end_left(&record, State::Terminated, "gateway stopped").await;
        }
        let (recording, recovered) = match self.reopened(&record.id).await {
            Ok(Some(reopened)) => reopened,
            Ok(None) => return self.end_left(&record, State::Failed, "its recording is gone").await,
            Err(why) => return self.end_left(&record, State::Failed, &why).await,
        };
        let now = now_ms();
        let resumed = Resumed {
            kind: record.kind,
            age: Duration::from_millis(now.saturating_sub(record.started_ms)),
            away: match record.state {
                // The row may be older than the last thing that the client said.
                State::Connecting if !was_there(&recovered) => None,
                state => Some(self.away(state, since_ms.map(|since| now.saturating_sub(since)))),
            },
            recovered,
        };
        let upstream = UpstreamRef::new(upstream_id, scope(&record));
        let goes_on = self.goes_on(&record, &given, (&upstream, &resumed)).await;
        let opened = Opened {
            upstream,
            client: ClientIds {
                client_id: given.client_id.clone(),
                client_version: given.client_version.clone(),
            },
            socket: None,
            resumed: Some(resumed),
            data_key: None,
            dismissed: None,
        };
        let asker = asker(&record, &given);
        match goes_on {
            Ok((obligations, carries, data_key)) => {
                recording.require(obligations.record);
                let recording = (recording, admission::rules(&obligations), carries);
                let started = Started::new(&record, &asker, (given.parameters, obligations));
                self.run_session((record, started), recording, Opened { data_key, ..opened });
                "adopted"
            }
            Err(ending) => {
                let (reason, sentence) = (ending.reason, &ending.sentence);
                tracing::info!(session = %record.id, reason, sentence, "the session may not go on");
                // Its user may take a while to come; the machine is out of reach at once.
                self.terminate_upstream(&opened.upstream).await;
                let nothing = Obligations::default();
                let carries = self.carries(&record, &given, &nothing).unwrap_or(Carries::Terminal);
                let recording = (recording, admission::rules(&nothing), carries);
                let started = Started::new(&record, &asker, (given.parameters, nothing));
                self.run_session((record, started), recording, Opened { dismissed: Some(ending), ..opened });
                "denied"
            }
        }
    }

    /// What the session goes on with, or why it does not.
    async fn goes_on(
        &self,
        record: &SessionRecord,
        given: &Given,
        (upstream, resumed): (&UpstreamRef, &Resumed),
    ) -> Result<(Obligations, Carries, Option<DataKey>), Ending> {
        let denied = |error: ApiError| Ending { reason: "policy", sentence: error.message };
        let obligations = self.still_admitted(record, given).await.map_err(denied)?;
        let carries = self.carries(record, given, &obligations).map_err(denied)?;
        // Agents write, and clients tell their size, only after the handshake.
        let begun = resumed.recovered.next_output.is_some() || resumed.recovered.size.is_some();
        let key = self.reopened_data_key(upstream, &record.id, begun).await;
        let data_key = key.map_err(|sentence| Ending { reason: "gateway_restarted", sentence })?;
        Ok((obligations, carries, data_key))
    }

    /// What the session carries, read once more from what was decided on.
    fn carries(
        &self,
        record: &SessionRecord,
        given: &Given,
        obligations: &Obligations,
    ) -> Result<Carries, ApiError> {
        let plan = Plan { kind: record.kind, parameters: given.parameters.clone() };
        ports::carries(&plan, obligations, self.settings.connections_per_session)
    }

    /// May the session still run, and under which obligations?
    async fn still_admitted(&self, record: &SessionRecord, given: &Given) -> Result<Obligations, ApiError> {
        let asker = asker(record, given);
        let request = SessionRequest {
            target: record.target.clone(),
            document: record.document.clone(),
            parameters: given.parameters.clone(),
            reason: record.reason.clone(),
        };
        let plan = Plan { kind: record.kind, parameters: given.parameters.clone() };
        let decision = self.admit_start(&asker, &request, (&record.instance, &plan)).await?;
        let owed: Obligations = serde_json::from_value(given.obligations.clone()).map_err(|error| {
            tracing::error!(session = %record.id, %error, "what the session was obliged to cannot be read");
            ApiError::gateway("the gateway does not know any more what the session was obliged to")
        })?;
        let obligations = owed.clone().and(&decision.obligations);
        if let Some(what) = obedience::begun_otherwise(&owed, &obligations, record.kind) {
            return Err(ApiError::new(Code::AccessDenied, Blame::Policy, obedience::anew(what)));
        }
        admission::refuse_unkeepable(&obligations, &self.rooms.recorder)?;
        Ok(obligations)
    }

    async fn reopened(self: &Arc<Self>, id: &SessionId) -> Result<Option<(Recording, Recovered)>, String> {
        let (this, id) = (Arc::clone(self), id.clone());
        let reopened = tokio::task::spawn_blocking(move || this.rooms.recorder.reopen(&id)).await;
        match reopened {
            Ok(Ok(reopened)) => Ok(reopened),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("its recording could not be reopened".to_owned()),
        }
    }

    /// How long the client has been away, short of what would end it now.
    fn away(&self, state: State, since_ms: Option<u64>) -> Duration {
        let most = self.settings.times.client_away.saturating_sub(GRACE);
        let since = since_ms.filter(|_| state == State::Disconnected);
        since.map(Duration::from_millis).unwrap_or_default().min(most)
    }

    /// Ends a session that cannot go on: at AWS, on disk, in the registry.
    async fn end_left(self: &Arc<Self>, record: &SessionRecord, state: State, why: &str) -> &'static str {
        tracing::warn!(session = %record.id, why, "the session cannot go on");
        let terminate = async {
            if let Some(upstream_id) = &record.upstream_id {
                self.terminate_upstream(&UpstreamRef::new(upstream_id.clone(), scope(record))).await;
            }
        };
        tokio::join!(self.seal_left(&record.id, Some(record)), terminate);
        self.recording_sealed(&record.id);
        let why = crate::session::printable(why);
        if let Err(error) = self.rooms.registry.set_state(&record.id, state, now_ms(), Some(&why)).await {
            tracing::error!(session = %record.id, %error, "the session's end could not be registered");
        }
        "ended"
    }
}

/// Whether a client has said something that the recording knows of.
fn was_there(recovered: &Recovered) -> bool {
    let answered = |state: &FlowState| !matches!(state.stage, None | Some(FlowStage::Requested { .. }));
    recovered.size.is_some() || recovered.flow.as_ref().is_some_and(answered)
}

/// Who began the session, as they were proved then.
fn asker(record: &SessionRecord, given: &Given) -> Asker {
    let principal = record.principal.clone();
    let until = given.proved_until_ms.unwrap_or_else(|| proofs::at_the_longest(&principal));
    Asker { source_ip: source_ip(&given.source_ip), proved_until_ms: until, visit: None, principal }
}

/// An address that cannot be read is none that a policy permits by.
fn source_ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn scope(record: &SessionRecord) -> Scope {
    Scope {
        session: record.id.clone(),
        principal: record.principal.clone(),
        target: record.target.clone(),
        document: record.document.clone(),
        account: record.instance.account.clone(),
        region: record.instance.region.clone(),
        run_as: None,
    }
}
