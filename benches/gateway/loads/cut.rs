//! From the change of a policy file to the end that each client sees.
//!
//! Every session has a client that waits. The file is moved into the folder,
//! as git and mounted volumes do, and forbids all of them.

use std::time::Instant;

use anyhow::bail;

use crate::proxies::Kind;
use crate::report::{Table, quantile};
use crate::rig::{Rig, together};

/// What nobody may do any more.
const FORBID: &str = "@id(\"cut\") @message(\"this machine moves\")\n\
    forbid (principal, action in Postern::Action::\"startSession\", resource);\n";

/// First, median, p99 and last of 1000 clients, in milliseconds.
pub async fn cut(rig: &Rig) -> anyhow::Result<()> {
    let sessions = usize::try_from(rig.options.scaled(rig.options.sessions as u64))?;
    let shares = [("first", 0.0), ("p50", 0.5), ("p99", 0.99), ("last", 1.0)];
    let title = |which| format!("{sessions} sessions, policy file to end at the client: ms, {which}");
    let mut tables = shares.map(|(which, _)| Table::new(title(which)));
    for round in 0..rig.options.rounds {
        for kind in [Kind::Postern(1), Kind::Postern(2)] {
            let times = one(rig, kind, sessions).await?;
            for (table, (_, share)) in tables.iter_mut().zip(shares) {
                table.add(&kind.name(), quantile(&times, share));
            }
        }
        eprintln!("  round {} done", round + 1);
    }
    tables.iter().for_each(Table::print);
    Ok(())
}

/// One gateway, its sessions, one change: the time to each end.
async fn one(rig: &Rig, kind: Kind, sessions: usize) -> anyhow::Result<Vec<f64>> {
    let gateway = rig.proxy(kind)?;
    let lines = rig.open(&rig.door(&gateway).await?, sessions).await?;
    let lines = together(lines, |mut line| async move {
        line.echo().await?;
        Ok(line)
    })
    .await?;
    let (next, file) = (rig.site.folder.join("next"), rig.site.folder.join("policies/cut.cedar"));
    std::fs::write(&next, FORBID)?;
    let began = Instant::now();
    std::fs::rename(next, &file)?;
    let times = together(lines, move |mut line| async move {
        if line.hear().await?.is_some() {
            bail!("a session said something instead of its end");
        }
        Ok(began.elapsed().as_secs_f64() * 1e3)
    })
    .await?;
    std::fs::remove_file(file)?;
    gateway.stop()?;
    Ok(times)
}
