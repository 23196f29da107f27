//! Memory of sessions that are open and quiet.

use std::time::Duration;

use crate::line::Line;
use crate::measure::{quiet, resident_kb};
use crate::proxies::Kind;
use crate::report::Table;
use crate::rig::{Rig, SEALED_WITHIN, together};
use crate::script::Run;

/// What each session showed before it went quiet.
const SHOWN: Run = Run { count: 30, window: 30, every: None };
/// How long it has been quiet.
const QUIET: Duration = Duration::from_secs(10);
/// Sessions that came and went before memory is first looked at.
const EARLIER: usize = 10;

/// RSS of a fresh process with 1000 sessions, over what it was before.
pub async fn idle(rig: &Rig) -> anyhow::Result<()> {
    let sessions = usize::try_from(rig.options.scaled(rig.options.sessions as u64))?;
    let mut opened = Table::new(format!("{sessions} sessions opened: RSS, KB a session"));
    let mut after = Table::new(format!("{sessions} sessions after 30 messages and 10 s: RSS, KB a session"));
    let anchor = rig.options.anchored.then_some(Kind::Haproxy);
    for round in 0..rig.options.rounds {
        for kind in anchor.into_iter().chain([Kind::Postern(1)]) {
            let (first, last) = one(rig, kind, sessions).await?;
            opened.add(&kind.name(), first);
            after.add(&kind.name(), last);
        }
        eprintln!("  round {} done", round + 1);
    }
    opened.print();
    after.print();
    Ok(())
}

async fn one(rig: &Rig, kind: Kind, sessions: usize) -> anyhow::Result<(f64, f64)> {
    let proxy = rig.proxy(kind)?;
    let door = rig.door(&proxy).await?;
    let earlier = shown(rig.open(&door, EARLIER).await?).await?;
    rig.leave(earlier, &proxy).await?;
    quiet(proxy.pid(), SEALED_WITHIN).await?;
    let before = resident_kb(proxy.pid())?;
    let each = |now: f64| (now - before) / sessions as f64;

    let lines = rig.open(&door, sessions).await?;
    let opened = each(resident_kb(proxy.pid())?);
    let lines = shown(lines).await?;
    tokio::time::sleep(QUIET).await;
    let after = each(resident_kb(proxy.pid())?);
    rig.leave(lines, &proxy).await?;
    proxy.stop()?;
    Ok((opened, after))
}

async fn shown(lines: Vec<Line>) -> anyhow::Result<Vec<Line>> {
    together(lines, |mut line| async move {
        line.run(SHOWN).await?;
        Ok(line)
    })
    .await
}
