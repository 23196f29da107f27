//! The machine that a command is about, and the gateway in front of it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use super::output::write_table;
use crate::client::start::Starter;
use crate::client::target::{Found, Wanted};
use crate::client::{Gateway, Profile};
use crate::session::{Instance, Target, clean_reason};

/// Longest answer to "which one?", in bytes.
const ANSWER_MAX: u64 = 64;

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
        Ok(Starter { gateway, target, reason: self.reason.as_deref().map(clean_reason) })
    }
}

/// The machine that is meant; asks a person at a terminal if several are.
pub async fn find(gateway: &Gateway, wanted: &Wanted) -> anyhow::Result<Target> {
    let mut instances = match wanted.find(gateway).await? {
        Found::One(target) => return Ok(target),
        Found::Several(instances) => instances,
    };
    instances.sort_by(|a, b| (&a.name, &a.target).cmp(&(&b.name, &b.target)));
    let ambiguous = Ambiguous { count: instances.len(), what: wanted.describe() };
    list(&instances)?;
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(ambiguous.into());
    }
    eprint!("Which one (1 to {})? ", instances.len());
    let chosen = answer(io::stdin().lock())?.and_then(|number| instances.get(number.checked_sub(1)?));
    Ok(chosen.map(|instance| instance.target.clone()).ok_or(ambiguous)?)
}

fn list(instances: &[Instance]) -> anyhow::Result<()> {
    let row = |(number, instance): (usize, &Instance)| {
        let state = if instance.online { "online" } else { "offline" };
        let name = instance.name.clone().unwrap_or_default();
        [(number + 1).to_string(), instance.target.as_str().to_owned(), name, state.to_owned()]
    };
    let rows: Vec<_> = instances.iter().enumerate().map(row).collect();
    write_table(&mut io::stderr().lock(), ["", "TARGET", "NAME", "STATE"], &rows)
}

/// The number in a line that a person types.
fn answer(from: impl io::BufRead) -> io::Result<Option<usize>> {
    let mut line = String::new();
    io::BufRead::read_line(&mut from.take(ANSWER_MAX), &mut line)?;
    if !line.ends_with('\n') {
        // End of input: what follows on standard error begins a line.
        writeln!(io::stderr())?;
    }
    Ok(line.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_in_a_line() {
        for (typed, number) in
            [("2\n", Some(2)), (" 12 \n3\n", Some(12)), ("web\n", None), ("", None), ("-1\n", None)]
        {
            assert_eq!(answer(typed.as_bytes()).unwrap(), number, "{typed:?}");
        }
        let endless = io::BufReader::new(io::repeat(b'1'));
        assert_eq!(answer(endless).unwrap(), None);
    }
}
