//! What it costs to open a session, to its first echo.
//!
//! The gateway dials upstream in StartSession, HAProxy when the client
//! dials; so the gateway's two steps together stand beside HAProxy's one.

use futures_util::{StreamExt, TryStreamExt};

use crate::api::Ticket;
use crate::line::Line;
use crate::proxies::Running;
use crate::report::Table;
use crate::rig::Rig;

/// Sessions of one round.
const SESSIONS: u64 = 200;
/// Opened at the same time.
const AT_ONCE: usize = 8;

/// CPU of StartSession, of the data channel to its first echo, and of both.
pub async fn connect(rig: &Rig) -> anyhow::Result<()> {
    let proxies = rig.proxies(&[1])?;
    let sessions = rig.options.scaled(SESSIONS);
    let mut start = Table::new("StartSession with its upstream dial: CPU µs");
    let mut dial = Table::new("data channel, dial to first echo: CPU µs");
    let mut both = Table::new("both together: CPU µs");
    let mut rate = Table::new("both together: sessions a second, 8 at a time");
    for round in 0..rig.options.rounds {
        for proxy in &proxies {
            let name = proxy.kind.name();
            let door = rig.door(proxy).await?;
            let watch = rig.watch(proxy)?;
            let asking = (0..sessions).map(|_| door.ticket());
            let tickets: Vec<Ticket> =
                futures_util::stream::iter(asking).buffer_unordered(AT_ONCE).try_collect().await?;
            let started = watch.stop()?;
            let watch = rig.watch(proxy)?;
            let dialling = tickets.iter().map(|ticket| async move {
                let mut line = Line::dial(ticket, &rig.tls).await?;
                line.echo().await?;
                anyhow::Ok(line)
            });
            let lines: Vec<Line> =
                futures_util::stream::iter(dialling).buffer_unordered(AT_ONCE).try_collect().await?;
            let dialled = watch.stop()?;
            let each = |cpu: f64| cpu * 1e6 / sessions as f64;
            if !name.starts_with("haproxy") {
                start.add(&name, each(started.cpu));
            }
            dial.add(&name, each(dialled.cpu));
            both.add(&name, each(started.cpu + dialled.cpu));
            rate.add(&name, sessions as f64 / (started.wall + dialled.wall));
            rig.leave(lines, proxy).await?;
        }
        eprintln!("  round {} done", round + 1);
    }
    for table in [&start, &dial, &both, &rate] {
        table.print();
    }
    proxies.into_iter().try_for_each(Running::stop)
}
