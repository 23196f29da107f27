//! Keystrokes and their echoes through all proxies at once, on one schedule.
//!
//! A keystroke's time counts from when it was to be typed, not from when the
//! client got to it: what stalls the client is not left out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::corpus;
use crate::line::Line;
use crate::pacer::Pacer;
use crate::proxies::Running;
use crate::report::{Table, quantile};
use crate::rig::Rig;

/// Sessions of each proxy.
const SESSIONS: usize = 10;
/// Keystrokes a second of each proxy, all its sessions together.
const RATE: f64 = 50.0;
/// Seconds of one round.
const SECONDS: u64 = 30;

/// What a session's task gives back: its line and the times in µs.
type Done = (usize, Line, Vec<f64>);

/// p50, p90 and p99 of direct, HAProxy and gateway side by side.
pub async fn keystrokes(rig: &Rig) -> anyhow::Result<()> {
    let proxies = rig.proxies(&[1])?;
    let all: Vec<&Running> = std::iter::once(&rig.origin).chain(&proxies).collect();
    let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
    let mut tables = shares.map(|(name, _)| Table::new(format!("keystroke to echo, µs, {name}")));
    let mut lines = Vec::new();
    for proxy in &all {
        let mut opened = rig.open(&rig.door(proxy).await?, SESSIONS).await?;
        for line in &mut opened {
            line.echo().await?;
        }
        lines.push(opened);
    }
    for round in 0..rig.options.rounds {
        let (times, back) = one_round(rig, lines).await?;
        for (table, (_, share)) in tables.iter_mut().zip(shares) {
            for (proxy, times) in all.iter().zip(&times) {
                table.add(&proxy.kind.name(), quantile(times, share));
            }
        }
        lines = back;
        eprintln!("  round {} done", round + 1);
    }
    tables.iter().for_each(Table::print);
    for (proxy, lines) in all.iter().zip(lines) {
        rig.leave(lines, proxy).await?;
    }
    proxies.into_iter().try_for_each(Running::stop)
}

async fn one_round(rig: &Rig, lines: Vec<Vec<Line>>) -> anyhow::Result<(Vec<Vec<f64>>, Vec<Vec<Line>>)> {
    let proxies = lines.len();
    let (mut tasks, mut keys) = (JoinSet::new(), Vec::new());
    for (proxy, lines) in lines.into_iter().enumerate() {
        let mut of_proxy = Vec::new();
        for line in lines {
            let (sender, typed) = unbounded_channel();
            of_proxy.push(sender);
            tasks.spawn(session(proxy, line, typed));
        }
        keys.push(of_proxy);
    }
    let seconds = rig.options.scaled(SECONDS);
    schedule(&keys, seconds);
    // The schedule holds handles of its own, and lets each go once it is used.
    drop(keys);
    let mut times = vec![Vec::new(); proxies];
    let mut back: Vec<Vec<Line>> = (0..proxies).map(|_| Vec::new()).collect();
    let within = Duration::from_secs(seconds + 30);
    let gathered = async {
        while let Some(done) = tasks.join_next().await {
            let (proxy, line, mut of_session): Done = done??;
            times.get_mut(proxy).context("proxy")?.append(&mut of_session);
            back.get_mut(proxy).context("proxy")?.push(line);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(within, gathered).await??;
    Ok((times, back))
}

/// Gives each keystroke to the pacer: Poisson in time, proxies in turn.
fn schedule(keys: &[Vec<UnboundedSender<Instant>>], seconds: u64) {
    let pacer = Pacer::start();
    let rate = RATE * keys.len() as f64;
    let mut at = Instant::now() + Duration::from_millis(500);
    let end = at + Duration::from_secs(seconds);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ crate::measure::now_ms();
    let mut number = 0;
    while at < end {
        state = corpus::next(state);
        let even = (state >> 11) as f64 / (1u64 << 53) as f64;
        at += Duration::from_secs_f64(-(1.0 - even).ln() / rate);
        if let Some(of_proxy) = keys.get(number % keys.len()) {
            let sender = of_proxy.get(number / keys.len() % of_proxy.len()).cloned();
            pacer.once(at, move |due| {
                let _ = sender.as_ref().map(|sender| sender.send(due));
            });
        }
        number += 1;
    }
}

/// Types when told and notes when the echo came, until all is answered.
async fn session(
    proxy: usize,
    mut line: Line,
    mut typed: UnboundedReceiver<Instant>,
) -> anyhow::Result<Done> {
    let (mut waiting, mut times, mut open) = (VecDeque::new(), Vec::new(), true);
    while open || !waiting.is_empty() {
        tokio::select! {
            due = typed.recv(), if open => match due {
                Some(due) => {
                    line.type_in(b"k").await?;
                    waiting.push_back(due);
                }
                None => open = false,
            },
            echo = line.hear() => {
                echo?.context("the session ended early")?;
                let due: Instant = waiting.pop_front().context("an echo of nothing")?;
                times.push(due.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    Ok((proxy, line, times))
}
