//! What can somebody reach, and who can reach something?

use serde::Serialize;

use super::situation::Situation;
use super::{Change, Obligations, Policy};

/// How often one row may be asked about again.
const BUDGET: usize = 300;

/// Something that somebody may do, perhaps under circumstances.
#[derive(Debug, Clone, Serialize)]
pub struct Reach {
    /// Who.
    pub principal: String,
    /// What.
    pub action: String,
    /// To what.
    pub resource: String,
    /// What they have to do for it; empty if it is allowed as it is.
    pub with: Vec<Change>,
    /// The policies that permit it then.
    pub policies: Vec<String>,
    /// What the gateway owes then.
    pub obligations: Obligations,
}

impl Policy {
    /// Whether a situation is allowed, or would be by what the asker can do.
    ///
    /// The error says what about the situation does not fit the schema.
    pub fn reach(&self, situation: &Situation) -> Result<Option<Reach>, String> {
        self.ready(situation)?;
        let sets = self.own_changes(situation, BUDGET).unwrap_or_default();
        let Some(with) = sets.into_iter().next() else { return Ok(None) };
        let mut changed = situation.clone();
        with.iter().for_each(|change| change.apply(&mut changed));
        let said = self.said(&self.ready(&changed)?)?;
        Ok(Some(Reach {
            principal: situation.request.principal.clone(),
            action: situation.action(),
            resource: situation.request.resource.clone(),
            with,
            obligations: self.owed(&said.judgement.determining),
            policies: said.judgement.determining,
        }))
    }
}
