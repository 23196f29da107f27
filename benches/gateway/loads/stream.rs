//! Output: as fast as it goes (burst), or at a hundred messages a second.

use std::time::{Duration, Instant};

use crate::measure::Seen;
use crate::proxies::Running;
use crate::report::Table;
use crate::rig::{Rig, together};
use crate::script::Run;

/// The gateway compresses a second's lines late; that is part of the cost.
const COMPRESSED_WITHIN: Duration = Duration::from_millis(1500);
/// Messages of each session before anything is counted.
const WARM_UP: Run = Run { count: 200, window: 100, every: None };

/// 10 sessions, 20,000 messages each, window 1000.
pub async fn burst(rig: &Rig) -> anyhow::Result<()> {
    let run = Run { count: rig.options.scaled(20_000), window: 1000, every: None };
    Streams::new("burst (10 sessions, window 1000)", 10, run).measure(rig).await
}

/// 100 sessions, 100 messages a second each, 10 s.
pub async fn paced(rig: &Rig) -> anyhow::Result<()> {
    let every = Some(Duration::from_millis(10));
    let run = Run { count: rig.options.scaled(1000), window: 1000, every };
    Streams::new("paced (100 sessions × 100 messages/s)", 100, run).measure(rig).await
}

/// A load of output, and its tables.
struct Streams {
    sessions: usize,
    run: Run,
    cpu: Table,
    rate: Table,
    seal: Table,
    others: Table,
}

impl Streams {
    fn new(name: &str, sessions: usize, run: Run) -> Self {
        Self {
            sessions,
            run,
            cpu: Table::new(format!("{name}: CPU µs a message")),
            rate: Table::new(format!("{name}: messages a second")),
            seal: Table::new(format!("{name}: CPU µs a message of ending and sealing afterwards")),
            others: Table::new(format!("{name}: cores used by strangers (only below 0.3 counts)")),
        }
    }

    async fn measure(mut self, rig: &Rig) -> anyhow::Result<()> {
        let proxies = rig.proxies(&[1, rig.options.workers])?;
        for round in 0..rig.options.rounds {
            for proxy in &proxies {
                self.one(rig, proxy).await?;
            }
            eprintln!("  round {} done", round + 1);
        }
        for table in [&self.cpu, &self.rate, &self.seal, &self.others] {
            table.print();
        }
        proxies.into_iter().try_for_each(Running::stop)
    }

    async fn one(&mut self, rig: &Rig, proxy: &Running) -> anyhow::Result<()> {
        let (name, run) = (proxy.kind.name(), self.run);
        let messages = (self.sessions as u64 * run.count) as f64;
        let lines = rig.open(&rig.door(proxy).await?, self.sessions).await?;
        let lines = all(lines, WARM_UP).await?;
        tokio::time::sleep(COMPRESSED_WITHIN).await;

        let watch = rig.watch(proxy)?;
        let began = Instant::now();
        let lines = all(lines, run).await?;
        let wall = began.elapsed().as_secs_f64();
        tokio::time::sleep(COMPRESSED_WITHIN).await;
        let Seen { cpu, others, .. } = watch.stop()?;

        let watch = rig.watch(proxy)?;
        rig.leave(lines, proxy).await?;
        let sealed = watch.stop()?;
        self.cpu.add(&name, cpu * 1e6 / messages);
        self.rate.add(&name, messages / wall);
        self.seal.add(&name, sealed.cpu * 1e6 / messages);
        self.others.add(&name, others);
        Ok(())
    }
}

async fn all(lines: Vec<crate::line::Line>, run: Run) -> anyhow::Result<Vec<crate::line::Line>> {
    together(lines, |mut line| async move {
        line.run(run).await?;
        Ok(line)
    })
    .await
}
