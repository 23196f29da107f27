//! How large recordings are: real programs, recorded as they run.
//!
//! Each workload runs on a terminal of its own for up to `--seconds 40`, cut
//! and paced as the agent does it, and is recorded with its real times. What
//! is printed, bytes: what the program wrote, the `.cast` as asciinema writes
//! it (times in microseconds), that with `zstd -19` (the reference), the open
//! file just before the seal, and the sealed file. Targets: sealed at most 1.05
//! of the reference, open 1.5. Then the same output is recorded again, as fast
//! as it goes: what a message of 1 KB costs. Target: 8 µs.
//!
//! With `--long 1000` a recording of so many MB of lines is made and sealed
//! instead, and what is printed is how long it takes to go to a moment of it,
//! and how much memory `postern replay` takes. Targets: 100 ms and 64 MB, and
//! 1 s until the console has opened it.

// A bench that cannot set itself up has nothing to report.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod long;
mod speed;
mod workload;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postern::asciicast::Header;
use postern::metrics::Metrics;
use postern::recorder::read::LineReader;
use postern::recorder::{End, Recorder, RecorderConfig, SigningKey, Stream};
use postern::session::{Durability, SessionId};
use workload::{Chunk, WORKLOADS, Workload};

/// What CloudWatch Logs takes for a GB: ingestion in us-east-1, US dollars.
const DOLLARS_PER_GB: f64 = 0.50;
/// What it counts for each event beside its text, bytes.
const EVENT_OVERHEAD: u64 = 26;

/// One workload's figures, bytes.
#[derive(Default)]
struct Figures {
    name: &'static str,
    seconds: f64,
    events: u64,
    raw: u64,
    cast: u64,
    best: u64,
    /// What is shipped.
    lines: u64,
    open: u64,
    sealed: u64,
}

fn main() {
    if let Some(megabytes) = option("--long") {
        return long::measure(megabytes as u64);
    }
    let seconds = option("--seconds").unwrap_or(40.0);
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::open(&dir.path().join("key")).unwrap();
    let config = RecorderConfig { spool: dir.path().join("spool") };
    let recorder = Recorder::open(config, key, Arc::new(Metrics::new().unwrap())).unwrap();
    let mut shown = Vec::new();
    let figures: Vec<Figures> = WORKLOADS
        .iter()
        .filter_map(|workload| {
            let chunks = workload.start(Duration::from_secs_f64(seconds));
            if chunks.is_none() {
                println!("{}: its program is not here", workload.name);
            }
            Some(record(&recorder, workload, chunks?, &mut shown))
        })
        .collect();
    report(&figures);
    speed::measure(&recorder, &shown);
}

fn option(name: &str) -> Option<f64> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)?.parse().ok()
}

/// Records what a workload writes, as it writes it, and adds it to `shown`.
fn record(
    recorder: &Recorder,
    workload: &Workload,
    chunks: impl Iterator<Item = Chunk>,
    shown: &mut Vec<u8>,
) -> Figures {
    let id = SessionId::parse(workload.name).unwrap();
    let mut recording = recorder.begin(&id, Header::new(0), Durability::Process).unwrap();
    let mut figures = Figures { name: workload.name, ..Figures::default() };
    let mut position = recording.position();
    let mut plain =
        "{\"version\": 2, \"width\": 120, \"height\": 40, \"timestamp\": 1763800000}\n".to_owned();
    for (sequence, chunk) in chunks.enumerate() {
        shown.extend_from_slice(&chunk.bytes);
        figures.raw += chunk.bytes.len() as u64;
        figures.events += 1;
        figures.seconds = chunk.at_us as f64 / 1e6;
        let text = serde_json::to_string(&String::from_utf8_lossy(&chunk.bytes)).unwrap();
        plain.push_str(&format!("[{:.6}, \"o\", {text}]\n", figures.seconds));
        while !recording.has_room() {
            std::thread::sleep(Duration::from_millis(1));
        }
        position =
            recording.output(chunk.at_us / 1000, sequence as i64, Stream::Output, &chunk.bytes).unwrap();
    }
    while recording.recorded() < position {
        std::thread::sleep(Duration::from_millis(1));
    }
    // What is not flushed yet is in the journal; a second later it is not.
    std::thread::sleep(Duration::from_millis(1200));
    let path = recorder.spool().path(&id);
    figures.open = size(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(recording.seal(0, &End::new("done"))).unwrap();
    figures.sealed = size(&path);
    figures.lines = lines(&path);
    figures.cast = plain.len() as u64;
    figures.best = zstd::bulk::compress(plain.as_bytes(), 19).unwrap().len() as u64;
    figures
}

/// CPU of this process so far, all its threads, seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Bytes of all its lines.
fn lines(path: &Path) -> u64 {
    let mut reader = LineReader::new(std::fs::File::open(path).unwrap());
    let mut bytes = 0;
    while let Some(line) = reader.next_line().unwrap() {
        bytes += line.len() as u64;
    }
    bytes
}

fn report(figures: &[Figures]) {
    println!(
        "{:>10} {:>6} {:>8} {:>10} {:>10} {:>9} {:>14} {:>14} {:>11} {:>11}",
        "workload", "s", "events", "raw", ".cast", "zstd -19", "open", "sealed", "sealed/h", "$/h shipped"
    );
    let mut sum = Figures { name: "sum", ..Figures::default() };
    for figure in figures {
        print(figure);
        sum.seconds += figure.seconds;
        sum.events += figure.events;
        for (to, from) in [
            (&mut sum.raw, figure.raw),
            (&mut sum.cast, figure.cast),
            (&mut sum.best, figure.best),
            (&mut sum.lines, figure.lines),
            (&mut sum.open, figure.open),
            (&mut sum.sealed, figure.sealed),
        ] {
            *to += from;
        }
    }
    print(&sum);
}

fn print(figures: &Figures) {
    let ratio = |bytes: u64| format!("{bytes} {:>4.2}x", bytes as f64 / figures.best as f64);
    let an_hour = 3600.0 / figures.seconds;
    // The shipper sends lines as they are; CloudWatch counts them so.
    let shipped = (figures.lines + figures.events * EVENT_OVERHEAD) as f64;
    println!(
        "{:>10} {:>6.1} {:>8} {:>10} {:>10} {:>9} {:>14} {:>14} {:>11.0} {:>11.4}",
        figures.name,
        figures.seconds,
        figures.events,
        figures.raw,
        figures.cast,
        figures.best,
        ratio(figures.open),
        ratio(figures.sealed),
        figures.sealed as f64 * an_hour,
        shipped * an_hour / 1e9 * DOLLARS_PER_GB,
    );
}
