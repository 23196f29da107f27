//! A question that is kept: as it was asked, to be asked again later.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::question::{Action, Asked, Question, Resource, Running};
use crate::session::{Document, Instance, Principal, SessionId};

/// All of a question but who asked it, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    /// What somebody wanted to do.
    pub action: Action,
    /// To what.
    pub resource: Subject,
    /// With which document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// With which parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Why, in the caller's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<IpAddr>,
    /// About which running session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Which alert rules that session had met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<String>,
    /// How long it had been there, and what it had moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Ran>,
}

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// A machine as it was described then.
    Instance {
        /// The machine.
        instance: Instance,
    },
    /// A session.
    Session {
        /// Its id.
        id: SessionId,
        /// Who started it.
        owner: Principal,
        /// Where it ran.
        instance: Instance,
    },
    /// A recording.
    Recording {
        /// The id of its session.
        id: SessionId,
        /// Who started that.
        owner: Principal,
        /// Where it ran.
        instance: Instance,
    },
    /// The gateway itself.
    Gateway,
}

/// How long a session had been there when it was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Since it began, ms.
    pub age_ms: u64,
    /// Since payload last moved, ms.
    pub idle_ms: u64,
    /// Payload bytes, both ways together.
    pub bytes: u64,
}

impl Inquiry {
    /// Keeps a question.
    pub fn of(question: &Question<'_>) -> Self {
        let context = &question.context;
        let resource = match question.resource {
            Resource::Instance(instance) => Subject::Instance { instance: instance.clone() },
            Resource::Session { id, owner, instance } => {
                Subject::Session { id: id.clone(), owner: owner.clone(), instance: instance.clone() }
            }
            Resource::Recording { id, owner, instance } => {
                Subject::Recording { id: id.clone(), owner: owner.clone(), instance: instance.clone() }
            }
            Resource::Gateway => Subject::Gateway,
        };
        Self {
            action: question.action,
            resource,
            document: context.document.cloned(),
            parameters: context.parameters.cloned().unwrap_or_default(),
            reason: context.reason.map(str::to_owned),
            source_ip: context.source_ip,
            session: context.session.cloned(),
            alerts: context.alerts.to_vec(),
            running: context.running.map(|running| Ran {
                age_ms: millis(running.age),
                idle_ms: millis(running.idle),
                bytes: running.bytes,
            }),
        }
    }

    /// The question again, asked by that principal.
    pub fn question<'a>(&'a self, principal: &'a Principal) -> Question<'a> {
        let resource = match &self.resource {
            Subject::Instance { instance } => Resource::Instance(instance),
            Subject::Session { id, owner, instance } => Resource::Session { id, owner, instance },
            Subject::Recording { id, owner, instance } => Resource::Recording { id, owner, instance },
            Subject::Gateway => Resource::Gateway,
        };
        let context = Asked {
            document: self.document.as_ref(),
            parameters: Some(&self.parameters),
            reason: self.reason.as_deref(),
            source_ip: self.source_ip,
            session: self.session.as_ref(),
            alerts: &self.alerts,
            running: self.running.map(|ran| Running {
                age: Duration::from_millis(ran.age_ms),
                idle: Duration::from_millis(ran.idle_ms),
                bytes: ran.bytes,
            }),
        };
        Question { principal, action: self.action, resource, context }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
