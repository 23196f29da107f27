//! Does a schema describe what this gateway sends? Asked before it is used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cedar_policy::{Entities, Schema};
use time::OffsetDateTime;

use super::entities::Vocabulary;
use super::groups::Groups;
use super::problem::{File, Problem};
use super::question::{Action, Asked, Question, Resource, Running};
use crate::session::{AuthMethod, Document, Facts, Instance, InvalidNoun, Principal, SessionId, Target};

/// Puts every kind of question to the schema, full and bare.
///
/// A folder may bring its own copy of the schema. If that copy is of another
/// version, every decision would be a denial; better said at load.
pub(super) fn probe(
    file: &File,
    schema: &Schema,
    vocabulary: &Vocabulary,
    actions: &Entities,
) -> Result<(), Vec<Problem>> {
    let samples = Samples::new().map_err(|error| vec![unfit(file, error.to_string())])?;
    for action in Action::ALL {
        for full in [true, false] {
            let question = samples.question(action, full);
            let request = vocabulary.request(&question, OffsetDateTime::UNIX_EPOCH, schema);
            let entities = vocabulary.entities(&question, &Groups::default(), actions, schema);
            if let Err(error) = request.map(drop).and(entities.map(drop)) {
                return Err(vec![unfit(file, format!("{action}: {}", error.detail()))]);
            }
        }
    }
    Ok(())
}

fn unfit(file: &File, why: String) -> Problem {
    Problem::at(file, 0..0, format!("this schema does not describe what the gateway sends: {why}"))
        .help("leave schema.cedarschema out, or copy the one of this version of Postern")
}

struct Samples {
    principal: Principal,
    full: Instance,
    bare: Instance,
    session: SessionId,
    documents: BTreeMap<Action, Document>,
    parameters: BTreeMap<String, Vec<String>>,
}

impl Samples {
    fn new() -> Result<Self, InvalidNoun> {
        let word = || Some("sample".to_owned());
        let bare = Instance {
            target: Target::parse("i-0123456789abcdef0")?,
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            name: None,
            platform: None,
            agent_version: None,
            online: true,
            tags: BTreeMap::new(),
        };
        let tags = BTreeMap::from([("env".to_owned(), "dev".to_owned())]);
        let full = Instance { name: word(), platform: word(), agent_version: word(), tags, ..bare.clone() };
        let documents = DOCUMENTS.iter().map(|name| Document::parse(name));
        let documents = documents.collect::<Result<Vec<_>, _>>()?;
        let one = |key: &str, value: &str| (key.to_owned(), vec![value.to_owned()]);
        Ok(Self {
            principal: Principal {
                id: "AROA:sample".to_owned(),
                arn: "arn:aws:sts::000000000000:assumed-role/Sample/sample".to_owned(),
                account: "000000000000".to_owned(),
                name: "sample".to_owned(),
                role: word(),
                method: AuthMethod::StsProof,
                authenticated_at: 0,
                facts: Facts {
                    email: word(),
                    groups: vec!["sample".to_owned()],
                    mfa: Some(true),
                    source_identity: word(),
                    identity_center_user: word(),
                    tags: BTreeMap::from([("team".to_owned(), "sample".to_owned())]),
                },
            },
            full,
            bare,
            session: SessionId::parse("sample")?,
            documents: documents.into_iter().map(|document| (document.kind().into(), document)).collect(),
            parameters: BTreeMap::from([one("command", "true"), one("host", "db"), one("portNumber", "1")]),
        })
    }

    fn question(&self, action: Action, full: bool) -> Question<'_> {
        let instance = if full { &self.full } else { &self.bare };
        let (id, owner) = (&self.session, &self.principal);
        let resource = match action {
            Action::ResumeSession | Action::TerminateSession | Action::WatchSession => {
                Resource::Session { id, owner, instance }
            }
            Action::ReplayRecording | Action::HoldRecording => Resource::Recording { id, owner, instance },
            Action::Administer => Resource::Gateway,
            _ => Resource::Instance(instance),
        };
        let context = Asked {
            document: self.documents.get(&action),
            parameters: Some(&self.parameters),
            reason: full.then_some("sample"),
            source_ip: full.then_some(IpAddr::from([127, 0, 0, 1])),
            session: None,
            alerts: &[],
            running: full.then(Running::default),
        };
        Question { principal: &self.principal, action, resource, context }
    }
}

/// One document of every kind of session that has an action of its own.
const DOCUMENTS: [&str; 5] = [
    Document::SHELL,
    "AWS-StartInteractiveCommand",
    "AWS-StartSSHSession",
    "AWS-StartPortForwardingSession",
    "AWS-StartPortForwardingSessionToRemoteHost",
];
