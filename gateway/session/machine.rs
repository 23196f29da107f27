//! A machine with all that its account tells of it, for whoever may see it.

use std::collections::BTreeMap;
use std::fmt;

use super::{Instance, Target};

/// A machine: what policy goes by, and the rest.
///
/// The two are apart because what is in the rest changes every minute.
/// Nothing is decided by it, and no session, decision or record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What policy goes by.
    pub instance: Instance,
    /// What is shown only.
    pub details: Details,
}

impl Machine {
    /// Where it stands in lists for people: by its name, then by its id.
    pub fn place(&self) -> (Option<String>, Target) {
        (self.instance.name.clone(), self.instance.target.clone())
    }
}

/// The rest that SSM tells of a machine; none is what it did not tell.
///
/// Moments are milliseconds since the Unix epoch. Texts are printable and
/// short: whoever reads an answer of SSM sees to that.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Whether SSM has given it up, which it tells of old ones only.
    pub inactive: bool,
    /// When its agent was last heard of.
    pub last_ping_ms: Option<u64>,
    /// Whether its agent is the newest one.
    pub latest_agent: Option<bool>,
    /// The name of its operating system, `Ubuntu`.
    pub platform_name: Option<Box<str>>,
    /// The version of its operating system, `24.04`.
    pub platform_version: Option<Box<str>>,
    /// The activation that it was registered with.
    pub activation_id: Option<Box<str>>,
    /// The role that its agent was given.
    pub iam_role: Option<Box<str>>,
    /// When it was registered.
    pub registered_ms: Option<u64>,
    /// The name that its activation gave it; not its `Name` tag.
    pub name: Option<Box<str>>,
    /// What it calls itself on its network.
    pub computer_name: Option<Box<str>>,
    /// Its address on its network.
    pub ip_address: Option<Box<str>>,
    /// How its associations fare, `Success`.
    pub association_status: Option<Box<str>>,
    /// When one was last applied.
    pub associated_ms: Option<u64>,
    /// When one was last applied with success.
    pub associated_well_ms: Option<u64>,
    /// How its associations fare, counted.
    pub associations: Option<Box<Associations>>,
    /// The id of what it is elsewhere: of an instance, or of a thing.
    pub source_id: Option<Box<str>>,
    /// What it is elsewhere, `AWS::EC2::Instance`.
    pub source_type: Option<Box<str>>,
}

/// How the associations of a machine fare.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Associations {
    /// All of them together.
    pub status: Option<Box<str>>,
    /// How many of them are in which state.
    pub counts: BTreeMap<Box<str>, i32>,
}

// The API's model calls addresses sensitive, so a log has none of it.
impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Details").finish_non_exhaustive()
    }
}
