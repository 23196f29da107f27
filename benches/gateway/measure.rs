//! What the kernel counted: CPU of one process and of all, resident memory.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// Clock ticks a second, fixed in Linux's interface to programs.
const TICKS: f64 = 100.0;
/// CPU of a process in one look below which it counts as quiet, seconds.
const QUIET: f64 = 0.02;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// User and system time of a process, all its threads, seconds.
pub fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks.
    let rest = text.rsplit_once(')').context("no process name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(|word| word.parse::<f64>().unwrap_or(0.0));
    Ok(ticks.sum::<f64>() / TICKS)
}

/// Time all processors were busy, without what the hypervisor stole, seconds.
fn cpu_of_all() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = words.map(|word| word.parse().unwrap_or(0.0)).collect();
    let busy = |at: usize| ticks.get(at).copied().unwrap_or(0.0);
    Ok((busy(0) + busy(1) + busy(2) + busy(5) + busy(6)) / TICKS)
}

/// Resident memory of a process, KB.
pub fn resident_kb(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}

/// Waits until a process has nothing to do, at most so long.
pub async fn quiet(pid: u32, at_most: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + at_most;
    let mut before = cpu_of(pid)?;
    while Instant::now() < end {
        tokio::time::sleep(LOOK).await;
        let now = cpu_of(pid)?;
        if now - before < QUIET {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// A stop watch for CPU: the proxy's, and that of strangers.
pub struct Watch {
    proxy: u32,
    ours: Vec<u32>,
    began: Instant,
    proxy_before: f64,
    ours_before: f64,
    all_before: f64,
}

/// What the watch saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The proxy's CPU, seconds.
    pub cpu: f64,
    /// Time on the wall, seconds.
    pub wall: f64,
    /// Cores that neither the proxy nor the rig used.
    pub others: f64,
}

impl Watch {
    /// Starts; `ours` are the rig's other processes.
    pub fn start(proxy: u32, ours: &[u32]) -> anyhow::Result<Self> {
        let mut ours = ours.to_vec();
        ours.push(std::process::id());
        let ours_before = sum(&ours)?;
        let (proxy_before, all_before) = (cpu_of(proxy)?, cpu_of_all()?);
        Ok(Self { proxy, ours, began: Instant::now(), proxy_before, ours_before, all_before })
    }

    /// Stops.
    pub fn stop(self) -> anyhow::Result<Seen> {
        let wall = self.began.elapsed().as_secs_f64();
        let cpu = cpu_of(self.proxy)? - self.proxy_before;
        let ours = sum(&self.ours)? - self.ours_before;
        let all = cpu_of_all()? - self.all_before;
        Ok(Seen { cpu, wall, others: ((all - cpu - ours) / wall).max(0.0) })
    }
}

fn sum(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| cpu_of(*pid)).sum()
}
