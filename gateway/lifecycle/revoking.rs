//! Who is shut out at once: asked before policy, obeyed by what runs.

use std::sync::Arc;

use super::Lifecycle;
use super::admission::Asker;
use crate::error::{ApiError, Code};
use crate::policy::{Action, Decision, Question, Resource};
use crate::registry::{RegistryError, Revocation, Revoked, SessionRecord};
use crate::session::{Principal, now_ms};

/// Most revocations in force at once: every question looks at all of them.
const REVOCATIONS_MAX: usize = 1000;
/// How long a session that was ended from another node is shut out, ms: a node
/// that was away meanwhile does not go on with it.
const ENDED_ELSEWHERE_MS: u64 = 24 * 3600 * 1000;

impl Lifecycle {
    /// Shuts somebody or something out; what runs of it ends.
    pub async fn revoke(
        self: &Arc<Self>,
        asker: &Asker,
        revoked: Revoked,
        (reason, until_ms): (String, Option<u64>),
    ) -> Result<Revocation, ApiError> {
        self.admit_administration(asker).await?;
        self.shut_out(asker, revoked, (reason, until_ms)).await
    }

    /// Ends a session of another node, which looks every second at who is shut out.
    pub(super) async fn end_elsewhere(
        self: &Arc<Self>,
        asker: &Asker,
        record: &SessionRecord,
        sentence: String,
    ) -> Result<(), ApiError> {
        let until_ms = now_ms() + ENDED_ELSEWHERE_MS;
        let revoked = Revoked::Session(record.id.to_string());
        self.shut_out(asker, revoked, (sentence, Some(until_ms))).await.map(drop)
    }

    async fn shut_out(
        self: &Arc<Self>,
        asker: &Asker,
        revoked: Revoked,
        (reason, until_ms): (String, Option<u64>),
    ) -> Result<Revocation, ApiError> {
        if self.revocations.load().len() >= REVOCATIONS_MAX {
            let sentence =
                format!("{REVOCATIONS_MAX} revocations are in force; lift some, or write a policy");
            return Err(ApiError::client(Code::Validation, sentence));
        }
        let revocation = Revocation {
            id: uuid::Uuid::new_v4().to_string(),
            revoked,
            reason,
            by: asker.principal.arn.clone(),
            at_ms: now_ms(),
            until_ms,
        };
        self.rooms.registry.revoke(&revocation).await?;
        tracing::warn!(by = %revocation.by, revoked = ?revocation.revoked, id = %revocation.id, "revoked");
        self.follow_revocations().await;
        Ok(revocation)
    }

    /// Lifts a revocation; sessions that ended stay ended.
    pub async fn lift(self: &Arc<Self>, asker: &Asker, id: &str) -> Result<(), ApiError> {
        self.admit_administration(asker).await?;
        if !self.rooms.registry.lift(id, &asker.principal.arn, now_ms()).await? {
            let sentence = format!("there is no revocation {} in force", crate::session::printable(id));
            return Err(ApiError::client(Code::DoesNotExist, sentence));
        }
        tracing::warn!(by = %asker.principal.arn, id, "revocation lifted");
        self.follow_revocations().await;
        Ok(())
    }

    /// The revocations in force.
    pub async fn revocations(&self, asker: &Asker) -> Result<Vec<Revocation>, ApiError> {
        self.admit_administration(asker).await?;
        Ok(self.rooms.registry.revocations(now_ms()).await?)
    }

    /// Reads what is in force, before anybody is let in.
    pub async fn know_revocations(&self) -> Result<(), RegistryError> {
        self.revocations.store(Arc::new(self.rooms.registry.revocations(now_ms()).await?));
        Ok(())
    }

    /// Reads what is in force, on whichever node it was revoked.
    ///
    /// What cannot be read changes nothing: those in force stay so.
    pub(super) async fn follow_revocations(self: &Arc<Self>) {
        match self.rooms.registry.revocations(now_ms()).await {
            Ok(found) if found == **self.revocations.load() => {}
            Ok(found) => {
                self.revocations.store(Arc::new(found));
                self.ask_again(self.live.all()).await;
            }
            Err(error) => tracing::error!(%error, "the revocations could not be read"),
        }
    }

    /// The denial of a question that a revocation answers.
    pub(super) fn revoked(&self, question: &Question<'_>) -> Option<Decision> {
        let revocations = self.revocations.load();
        let found = revocations.iter().find(|revocation| concerns(&revocation.revoked, question))?;
        let what = match &found.revoked {
            Revoked::Principal(_) => "your access",
            Revoked::Role(_) => "the access of your role",
            Revoked::Session(_) => "this session",
            Revoked::Target(_) => "all access to this machine",
        };
        let reason = if found.reason.is_empty() { String::new() } else { format!(": {}", found.reason) };
        let sentence =
            format!("{} on {} denied: {what} was revoked{reason}", question.action, question.resource);
        let set = self.rooms.policy.set().digest().to_owned();
        let by = format!("revocation/{}", found.id);
        Some(Decision::denial(question.action, by, crate::session::printable(&sentence), set))
    }

    /// May they do what is not about one session?
    pub async fn admit_administration(&self, asker: &Asker) -> Result<(), ApiError> {
        self.admit_on_gateway(Action::Administer, asker).await.map(drop)
    }
}

/// Whether it shuts this person out, whatever they ask for.
pub(super) fn shuts_out(revoked: &Revoked, principal: &Principal) -> bool {
    match revoked {
        Revoked::Principal(name) => {
            // Addresses are let in whatever their case.
            let email = principal.facts.email.as_deref();
            let is_email = email.is_some_and(|email| email.eq_ignore_ascii_case(name));
            *name == principal.arn || *name == principal.id || is_email
        }
        Revoked::Role(name) => is_role(name, principal),
        Revoked::Session(_) | Revoked::Target(_) => false,
    }
}

/// Whether they have this role, named alone or by an ARN.
///
/// IAM's ARN has a path that a session's lacks, and its names are one
/// whatever their case.
fn is_role(name: &str, principal: &Principal) -> bool {
    let (Some(role), Some(own)) = (&principal.role, principal.role_arn()) else { return false };
    let Some((account, path)) = name.split_once(":role/") else { return role.eq_ignore_ascii_case(name) };
    let last = path.rsplit('/').next().unwrap_or(path);
    let own_account = own.split_once(":role/").map_or("", |(account, _)| account);
    account == own_account && role.eq_ignore_ascii_case(last)
}

fn concerns(revoked: &Revoked, question: &Question<'_>) -> bool {
    match revoked {
        Revoked::Principal(_) | Revoked::Role(_) => shuts_out(revoked, question.principal),
        Revoked::Session(name) => match (question.resource, question.context.session) {
            (Resource::Session { id, .. }, _) | (_, Some(id)) => id.as_str() == name,
            _ => false,
        },
        // Its recordings are not the machine.
        Revoked::Target(name) => match question.resource {
            Resource::Instance(instance) | Resource::Session { instance, .. } => {
                instance.target.as_str() == name && question.action != Action::TerminateSession
            }
            _ => false,
        },
    }
}
