//! The machine that a command is about, and the gateway in front of it.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use inquire::Select;

use super::output::{lines, write_table};
use crate::client::start::Starter;
use crate::client::target::{Found, Wanted};
use crate::client::{Gateway, Profile};
use crate::session::{Instance, Target, reason};

/// Machines that a person sees at once.
const ON_A_PAGE: usize = 12;

/// How a session is reached, for every command that starts one.
#[derive(Debug, Clone, clap::Args)]
pub struct Through {
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    pub profile: Option<String>,
    /// Why; policies may ask for it.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Several machines fit and nobody could be asked which is meant.
#[derive(Debug, thiserror::Error)]
#[error("{count} machines {what}; name one by its id")]
pub struct Ambiguous {
    count: usize,
    what: String,
}

impl Through {
    /// Signs in and finds the machine; asks which if several fit.
    pub async fn to(&self, word: &str) -> anyhow::Result<Starter> {
        let wanted = Wanted::parse(word)?;
        let gateway = Arc::new(Gateway::open(Profile::load(self.profile.as_deref()).await?).await?);
        let target = find(&gateway, &wanted).await?;
        Ok(Starter { gateway, target, reason: self.reason.as_deref().map_or(Ok(None), reason)? })
    }
}

/// The machine that is meant; asks a person at a terminal if several are.
pub async fn find(gateway: &Gateway, wanted: &Wanted) -> anyhow::Result<Target> {
    let mut instances = match wanted.find(gateway).await? {
        Found::One(target) => return Ok(target),
        Found::Several(instances) => instances,
    };
    instances.sort_by(|a, b| (&a.name, &a.target).cmp(&(&b.name, &b.target)));
    let rows = rows(&instances);
    let is_person = io::stdin().is_terminal() && io::stderr().is_terminal();
    let chosen =
        if is_person { pick(&rows, instances.iter().map(|instance| &instance.target)) } else { None };
    match chosen {
        Some(target) => Ok(target),
        None => {
            write_table(&mut io::stderr().lock(), HEADINGS, &rows)?;
            Err(Ambiguous { count: instances.len(), what: wanted.describe() }.into())
        }
    }
}

const HEADINGS: [&str; 3] = ["TARGET", "NAME", "STATE"];

fn rows(instances: &[Instance]) -> Vec<[String; 3]> {
    let row = |instance: &Instance| {
        let state = if instance.online { "online" } else { "offline" };
        [instance.target.to_string(), instance.name.clone().unwrap_or_default(), state.to_owned()]
    };
    instances.iter().map(row).collect()
}

/// A machine in the list that a person chooses from.
struct Choice {
    line: String,
    target: Target,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Lets a person choose by arrows or by typing; none if they would not.
fn pick<'a>(rows: &[[String; 3]], targets: impl Iterator<Item = &'a Target>) -> Option<Target> {
    let choices =
        lines(rows).into_iter().zip(targets).map(|(line, target)| Choice { line, target: target.clone() });
    let question = Select::new("Which one?", choices.collect()).with_page_size(ON_A_PAGE);
    question.prompt_skippable().ok().flatten().map(|choice| choice.target)
}
