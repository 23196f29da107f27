//! Would it be allowed, and why not? Asked for oneself, or by who administers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use time::OffsetDateTime;

use super::Lifecycle;
use super::admission::Asker;
use super::recordings::no_recording;
use crate::error::{ApiError, Blame, Code};
use crate::policy::{Action, Decision, Explanation, Inquiry, Question, Subject, nobody, stranger};
use crate::registry::DecisionFilter;
use crate::session::{Document, Instance, Principal, SessionId, SessionRequest, Target, printable};

/// What stands before the name of a group that is asked for.
const GROUP: &str = "group:";
/// Longest name of a person or a resource that is looked up, bytes.
const NAME_MAX: usize = 1024;

/// A question that somebody makes up; what is not said is as it is now.
#[derive(Debug, Clone)]
pub struct Supposed {
    /// Who: an ARN, an address, or `group:NAME`; the asker if none.
    pub who: Option<String>,
    /// What for.
    pub action: Action,
    /// To what: a machine by id or name, or a session's id.
    pub resource: Option<String>,
    /// With which document; the usual one of the action if none.
    pub document: Option<Document>,
    /// With which parameters of it.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// With a second factor, or without.
    pub mfa: Option<bool>,
    /// From where.
    pub source_ip: Option<IpAddr>,
    /// When.
    pub at: Option<OffsetDateTime>,
}

/// The answer to a question that was made up.
#[derive(Debug)]
pub enum Explained {
    /// What the asker would be told if they asked in earnest, now.
    Own {
        /// The answer.
        decision: Box<Decision>,
        /// What they could do; None if nobody had the time to look.
        hints: Option<Vec<&'static str>>,
    },
    /// Everything, for those who write policies.
    Whole {
        /// Which policies, and what each needs.
        explanation: Box<Explanation>,
        /// The revocation that stands before the policies.
        shut_out: Option<String>,
        /// What is known of who was asked for.
        known: &'static str,
    },
}

/// Who was asked for, and how much of them is known.
struct Someone {
    principal: Principal,
    group: Option<String>,
    known: &'static str,
}

impl Lifecycle {
    /// Answers a question without doing anything.
    ///
    /// Who administers is told everything, of anybody and under any
    /// circumstances, and that is on record. Others are told of themselves
    /// what an earnest question would tell them now: with another network,
    /// time or person they would learn what policies say of those.
    pub async fn explain(&self, asker: &Asker, supposed: Supposed) -> Result<Explained, ApiError> {
        let administers = self.may_administer(asker);
        if !administers && supposed.is_made_up(asker) {
            let sentence = "only who administers this gateway asks about other people, or under other \
                            circumstances than now; you may ask about yourself";
            return Err(ApiError::new(Code::AccessDenied, Blame::Policy, sentence));
        }
        let mut inquiry = self.inquiry(asker, &supposed, administers).await?;
        if !administers {
            let question = inquiry.question(&asker.principal);
            let decision = self.decide(&question);
            let hints = if decision.allowed { Some(Vec::new()) } else { self.hints(asker, &question).await };
            return Ok(Explained::Own { decision: Box::new(decision), hints });
        }
        self.admit_administration(asker).await?;
        inquiry.source_ip = supposed.source_ip.or(inquiry.source_ip);
        let mut someone = self.someone(asker, supposed.who.as_deref()).await?;
        if supposed.mfa.is_some() {
            someone.principal.facts.mfa = supposed.mfa;
        }
        let shut_out = self.revoked(&inquiry.question(&someone.principal)).map(|denial| denial.sentence);
        let known = someone.known;
        let explanation = self.explained(inquiry, someone, supposed.at).await?;
        Ok(Explained::Whole { explanation: Box::new(explanation), shut_out, known })
    }

    async fn explained(
        &self,
        inquiry: Inquiry,
        Someone { principal, group, .. }: Someone,
        at: Option<OffsetDateTime>,
    ) -> Result<Explanation, ApiError> {
        // It is asked again up to some thousand times, beside the relays.
        let Some(_turn) = self.turn_to_search().await else {
            let sentence = "this gateway explains as much as it may; try again in a moment";
            return Err(ApiError::new(Code::Throttling, Blame::Gateway, sentence));
        };
        let (set, now) = (self.rooms.policy.set(), at.unwrap_or_else(OffsetDateTime::now_utc));
        let explained = tokio::task::spawn_blocking(move || {
            let question = inquiry.question(&principal);
            match group {
                Some(group) => set.explain_member(&question, &group, now),
                None => set.explain_question(&question, now),
            }
        });
        let explained =
            explained.await.map_err(|_| ApiError::gateway("the question could not be explained"))?;
        explained.map_err(|why| invalid(printable(&why)))
    }

    /// The question itself, about something that the asker may know of.
    async fn inquiry(&self, asker: &Asker, supposed: &Supposed, all: bool) -> Result<Inquiry, ApiError> {
        let named = || match supposed.resource.as_deref() {
            Some(name) if name.len() <= NAME_MAX => Ok(name),
            _ => Err(invalid("name the machine, session or recording that it is about")),
        };
        let mut inquiry = Inquiry::of(&Question {
            principal: &asker.principal,
            action: supposed.action,
            resource: crate::policy::Resource::Gateway,
            context: super::admission::from(asker),
        });
        inquiry.resource = match supposed.action {
            Action::Administer => Subject::Gateway,
            Action::ListTargets => Subject::Instance { instance: self.machine(asker, named()?, all).await? },
            Action::ResumeSession | Action::TerminateSession | Action::WatchSession => {
                let (id, owner, instance) = self.known_session(asker, named()?, all).await?;
                Subject::Session { id, owner, instance }
            }
            Action::ReplayRecording | Action::HoldRecording => {
                let (id, owner, instance) = self.known_session(asker, named()?, all).await?;
                Subject::Recording { id, owner, instance }
            }
            _ => {
                let instance = self.machine(asker, named()?, all).await?;
                self.plan_into(&mut inquiry, supposed, &instance).await?;
                Subject::Instance { instance }
            }
        };
        Ok(inquiry)
    }

    /// What the document of a session to start would do there.
    async fn plan_into(
        &self,
        inquiry: &mut Inquiry,
        supposed: &Supposed,
        instance: &Instance,
    ) -> Result<(), ApiError> {
        let usual = || Document::parse(supposed.action.usual_document());
        let document = supposed.document.clone().map_or_else(usual, Ok);
        let document = document.map_err(|why| invalid(why.to_string()))?;
        let request = SessionRequest {
            target: instance.target.clone(),
            document: document.clone(),
            parameters: supposed.parameters.clone(),
            reason: supposed.reason.clone(),
        };
        let plan = self.rooms.broker.plan(&request, instance.platform.as_deref()).await?;
        let does = Action::from(plan.kind);
        if does != supposed.action {
            let sentence =
                format!("the document {} is for {does}, not for {}", document.as_str(), supposed.action);
            return Err(invalid(sentence));
        }
        inquiry.parameters = plan.parameters;
        inquiry.reason.clone_from(&supposed.reason);
        inquiry.document = Some(document);
        Ok(())
    }

    /// A machine by id or name; of others than these nobody is told.
    async fn machine(&self, asker: &Asker, name: &str, all: bool) -> Result<Instance, ApiError> {
        let machines = self.rooms.broker.machines().await?;
        let instances = machines.iter().map(|machine| &machine.instance);
        let shown = instances.filter(|instance| all || self.may_list(asker, instance));
        let called: Vec<&Instance> = shown
            .filter(|instance| instance.target.as_str() == name || instance.name.as_deref() == Some(name))
            .collect();
        match called.as_slice() {
            [only] => Ok((*only).clone()),
            [] if all && Target::parse(name).is_ok_and(|target| target.ecs_task().is_some()) => {
                // A container is in no inventory.
                let target = Target::parse(name).map_err(|why| invalid(why.to_string()))?;
                Ok(self.rooms.broker.instance(&target).await?)
            }
            [] => {
                let sentence = format!("no machine {} is shown to you", printable(name));
                Err(ApiError::client(Code::DoesNotExist, sentence))
            }
            several => {
                let sentence =
                    format!("{} machines are called {}; name one by its id", several.len(), printable(name));
                Err(invalid(sentence))
            }
        }
    }

    /// A session, whose it is and where it ran.
    async fn known_session(
        &self,
        asker: &Asker,
        name: &str,
        all: bool,
    ) -> Result<(SessionId, Principal, Instance), ApiError> {
        let id = SessionId::parse(name).map_err(|why| invalid(why.to_string()))?;
        let record = self.registered(&id).await?;
        match record.filter(|record| all || self.may_see(asker, record)) {
            Some(record) => Ok((record.id, record.principal, record.instance)),
            None => Err(no_recording(&id)),
        }
    }

    async fn someone(&self, asker: &Asker, who: Option<&str>) -> Result<Someone, ApiError> {
        let Some(who) = who.filter(|who| !is_own(asker, who)) else {
            let (principal, known) = (asker.principal.clone(), "as signed in now");
            return Ok(Someone { principal, group: None, known });
        };
        if who.len() > NAME_MAX {
            return Err(invalid("the name is too long"));
        }
        if let Some(group) = who.strip_prefix(GROUP) {
            let known = "somebody of whom nothing is known but the group";
            return Ok(Someone { principal: nobody(who), group: Some(group.to_owned()), known });
        }
        let filter = DecisionFilter { owner: Some(who.to_owned()), ..DecisionFilter::default() };
        let last = self.rooms.registry.decisions(&filter, 1, None).await?.rows.pop();
        if let Some(last) = last {
            let known = "as they were when they last asked for anything";
            return Ok(Someone { principal: last.principal, group: None, known });
        }
        let principal = stranger(who)
            .ok_or_else(|| invalid("name a person by ARN or e-mail address, or a group as group:NAME"))?;
        Ok(Someone {
            principal,
            group: None,
            known: "by the name alone: they have not asked for anything yet",
        })
    }
}

impl Supposed {
    /// Whether it is another question than the asker could ask now.
    fn is_made_up(&self, asker: &Asker) -> bool {
        let another = self.who.as_deref().is_some_and(|who| !is_own(asker, who));
        another || self.mfa.is_some() || self.source_ip.is_some() || self.at.is_some()
    }
}

fn is_own(asker: &Asker, who: &str) -> bool {
    who == asker.principal.arn || who == asker.principal.id
}

fn invalid(sentence: impl AsRef<str>) -> ApiError {
    ApiError::client(Code::Validation, sentence)
}
