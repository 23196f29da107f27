//! What is written about a session: header, record, end.

use std::collections::BTreeMap;

use serde_json::json;
use time::OffsetDateTime;

use super::Lifecycle;
use super::admission::Asker;
use super::live::Live;
use super::ports;
use super::stored::RecordingFile;
use crate::archive::Whereabouts;
use crate::asciicast::Header;
use crate::broker::{ClientIds, Plan};
use crate::error::{ApiError, Blame, Code};
use crate::policy::Decision;
use crate::recorder::{End, RecorderError};
use crate::registry::{Given, SessionRecord, State, Traffic};
use crate::relay::{Carries, Ended};
use crate::replay::Outline;
use crate::session::{Instance, SessionId, SessionKind, SessionRequest, now_ms};
use crate::shipper::LogStream;

/// Whatever one message becomes is a line that readers take.
const _: () = assert!(6 * crate::socket::MESSAGE_MAX + 1024 < crate::recorder::read::LINE_MAX);

/// The size of a terminal until the client says another.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// Where the output of a session lies besides this gateway.
#[derive(Debug)]
pub struct Places {
    /// Its log stream, if sessions are shipped.
    pub log: Option<LogStream>,
    /// Its recording in the archive, once it is there.
    pub archive: Option<Whereabouts>,
}

impl Lifecycle {
    /// The recording of a session, running or past, if policy allows.
    pub async fn recording(&self, asker: &Asker, id: &SessionId) -> Result<RecordingFile, ApiError> {
        self.admitted_to_replay(asker, id).await?;
        self.stored(id).await
    }

    /// The session, if the caller may replay its recording.
    pub async fn admitted_to_replay(&self, asker: &Asker, id: &SessionId) -> Result<SessionRecord, ApiError> {
        let record = self.registered(id).await?.ok_or_else(|| no_recording(id))?;
        self.admit_replay(asker, &record).await?;
        Ok(record)
    }

    /// Whether the caller may replay a recording; not written down.
    pub async fn may_replay(&self, asker: &Asker, id: &SessionId) -> Result<bool, ApiError> {
        Ok(self.replayable(asker, id).await?.is_some())
    }

    /// Where a session's output lies besides this gateway, for who may replay it.
    pub async fn places(&self, asker: &Asker, id: &SessionId) -> Result<Places, ApiError> {
        if !self.may_replay(asker, id).await? {
            let sentence = "where a recording lies is told to who may replay it";
            return Err(ApiError::new(Code::AccessDenied, Blame::Policy, sentence));
        }
        let archived = self.kept(id).await?.archived.is_some();
        let archive = self.rooms.archive.as_ref().filter(|_| archived);
        Ok(Places {
            log: self.rooms.shipper.as_ref().map(|shipper| shipper.reader().stream_of(id)),
            archive: archive.map(|archive| archive.whereabouts(id)),
        })
    }

    /// Where the scenes of a long recording begin, for who was admitted to it.
    ///
    /// Without it a pass through the recording finds them.
    pub async fn outline(&self, id: &SessionId) -> Option<Outline> {
        let found = self.rooms.catalogue.outline(id).await;
        found.inspect_err(|error| tracing::warn!(session = %id, %error, "no outline")).ok().flatten()
    }

    /// The packed outline of a long recording, for who may replay it.
    ///
    /// It is not on record: without the recording, which is, it says little.
    pub async fn packed_outline(&self, asker: &Asker, id: &SessionId) -> Result<Option<Vec<u8>>, ApiError> {
        if !self.may_replay(asker, id).await? {
            return Err(no_recording(id));
        }
        let found = self.rooms.catalogue.packed_outline(id).await;
        Ok(found.inspect_err(|error| tracing::warn!(session = %id, %error, "no outline")).ok().flatten())
    }

    /// Registers how a session ended.
    pub(super) async fn register_end(&self, live: &Live, ended: &Ended, sha256: Option<String>) {
        let traffic = Traffic {
            recording_sha256: sha256,
            bytes_in: live.counters.input(),
            bytes_out: live.counters.output(),
        };
        let why = if ended.sentence().is_empty() { ended.reason() } else { ended.sentence() };
        let why = crate::session::printable(why);
        let state = if ended.is_failure() { State::Failed } else { State::Terminated };
        let done = async {
            self.rooms.registry.set_traffic(&live.id, &traffic).await?;
            self.rooms.registry.set_state(&live.id, state, now_ms(), Some(&why)).await
        };
        if let Err(error) = done.await {
            tracing::error!(session = %live.id, %error, "the session's end could not be registered");
        }
    }
}

pub(super) fn no_recording(id: &SessionId) -> ApiError {
    ApiError::client(Code::DoesNotExist, format!("there is no recording of a session {id}"))
}

/// The first line of the recording: who, what, why, by which decision.
pub(super) fn header(
    id: &SessionId,
    asker: &Asker,
    request: &SessionRequest,
    (decision, kind, carries): (&Decision, SessionKind, &Carries),
    node: &str,
) -> Header {
    let mut about = json!({
        "session": id.as_str(),
        "principal": asker.principal.arn,
        "principal_id": asker.principal.id,
        "target": request.target.as_str(),
        "document": request.document.as_str(),
        "reason": request.reason,
        "decision": decision.id,
        "policies": decision.policies,
        "node": node,
        "kind": kind,
        "content": ports::content(carries),
        "durability": decision.obligations.record,
    });
    if let (Some(about), Carries::Port(forward)) = (about.as_object_mut(), carries) {
        about.insert("host".to_owned(), forward.destination.host().into());
        about.insert("port".to_owned(), forward.destination.port().into());
    }
    Header {
        version: 2,
        width: COLUMNS,
        height: ROWS,
        timestamp: OffsetDateTime::now_utc().unix_timestamp(),
        duration: None,
        idle_time_limit: None,
        title: Some(format!("{} on {}", crate::session::printable(&asker.principal.name), request.target)),
        command: None,
        env: BTreeMap::from([("TERM".to_owned(), "xterm-256color".to_owned())]),
        postern: about.as_object().cloned(),
    }
}

/// The session's row in the registry, as it begins.
pub(super) fn record(
    id: &SessionId,
    asker: &Asker,
    request: &SessionRequest,
    ((instance, kind), decision, upstream_id): ((&Instance, SessionKind), &Decision, &str),
    node: &str,
) -> SessionRecord {
    SessionRecord {
        id: id.clone(),
        principal: asker.principal.clone(),
        target: request.target.clone(),
        instance: instance.clone(),
        document: request.document.clone(),
        kind,
        reason: request.reason.clone(),
        state: State::Connecting,
        started_ms: now_ms(),
        ended_ms: None,
        end_reason: None,
        upstream_id: Some(upstream_id.to_owned()),
        decision_id: decision.id.clone(),
        node: node.to_owned(),
        recording_sha256: None,
        bytes_in: 0,
        bytes_out: 0,
    }
}

/// What a later process needs to take the session over.
pub(super) fn given(asker: &Asker, plan: &Plan, decision: &Decision, client: &ClientIds) -> Given {
    Given {
        source_ip: asker.source_ip.to_string(),
        proved_until_ms: Some(asker.proved_until_ms),
        parameters: plan.parameters.clone(),
        obligations: serde_json::to_value(&decision.obligations).unwrap_or_default(),
        client_id: client.client_id.clone(),
        client_version: client.client_version.clone(),
    }
}

/// The seal's last words.
pub(super) fn end(ended: &Ended) -> End {
    End::new(ended.reason())
}

/// No recording, no session.
pub(super) fn cannot_record(error: &RecorderError) -> ApiError {
    tracing::error!(%error, "a recording could not begin");
    let sentence =
        "the session cannot be recorded now, so it is not opened; the gateway's operator sees why in /readyz";
    ApiError::new(Code::ServiceUnavailable, Blame::Gateway, sentence)
}
