//! A long recording: how fast any moment of it is there, in what memory.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cpu_seconds;
use postern::asciicast::{EventCode, Header};
use postern::catalogue::{Catalogue, FILE_NAME};
use postern::metrics::Metrics;
use postern::recorder::{End, Recorder, RecorderConfig, SigningKey, Stream};
use postern::replay::{Player, Scenes, Settings, Timeline};
use postern::session::{Durability, SessionId};
use postern::transcript;

/// Moments that are gone to, the same ones in every run.
const MOMENTS: u64 = 20;
/// How often a running program's memory is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The screen of the recording.
const SIZE: (u16, u16) = (120, 40);

/// Makes a sealed recording of so many MB of lines, and measures it.
pub fn measure(megabytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (id, path) = runtime.block_on(make(folder.path(), megabytes << 20));
    let length = std::fs::metadata(&path).unwrap().len();
    let began = Instant::now();
    let found = Scenes::of(&path).unwrap();
    let duration = found.duration_ms(None);
    println!("sealed file           {length:>12} bytes, {} s recorded", duration / 1000);
    println!(
        "scenes, cold          {:>12.2} s, {} of them",
        began.elapsed().as_secs_f64(),
        found.starts(None).len()
    );
    drop(found);

    let began = Instant::now();
    let catalogue = runtime.block_on(Catalogue::open(&folder.path().join(FILE_NAME))).unwrap();
    runtime.block_on(catalogue.add(&id, &path)).unwrap();
    println!("indexed               {:>12.2} s", began.elapsed().as_secs_f64());
    let moments: Vec<u64> =
        (0..MOMENTS).map(|n| duration * (n * 7 % MOMENTS * 2 + 1) / (MOMENTS * 2)).collect();
    // What the console does for somebody who opens a recording at a moment.
    let opened = moments.iter().map(|moment| {
        timed(|| {
            let outline = runtime.block_on(catalogue.outline(&id)).unwrap().unwrap();
            show(&Scenes::with(&path, outline).unwrap(), *moment);
        })
    });
    report("opened at a moment", opened.collect());
    let outline = runtime.block_on(catalogue.outline(&id)).unwrap().unwrap();
    let scenes = Scenes::with(&path, outline).unwrap();
    report("gone to a moment", moments.iter().map(|moment| timed(|| show(&scenes, *moment))).collect());
    drop(scenes);
    let outline = runtime.block_on(catalogue.outline(&id)).unwrap().unwrap();
    let mut player = player(&path);
    player.know_outline(outline);
    report("player with outline", moments.iter().map(|moment| seek(&mut player, *moment)).collect());
    drop(player);
    play(&path, &moments);

    let half = format!("{}s", duration / 2000);
    for words in [&["--at", &half][..], &["--format", "text"], &["--output", "/dev/null", "--format", "v2"]] {
        let (seconds, peak) = run(&path, words);
        println!("replay {:<20} {seconds:>6.2} s, {:>6.1} MB at most", words.join(" "), peak as f64 / 1024.0);
    }
}

/// The screen at a moment, made from its scene.
fn show(scenes: &Scenes, moment: u64) {
    let index = scenes.starts(None).partition_point(|start| *start <= moment) - 1;
    let shown = scenes.scene(index, None).unwrap().unwrap();
    let mut terminal = transcript::terminal(shown.size.0, shown.size.1).unwrap();
    terminal.feed(&shown.screen);
    for event in shown.events.iter().take_while(|event| event.time_ms <= moment) {
        if event.code == EventCode::Output {
            terminal.feed(&event.data);
        }
    }
    assert!(!terminal.dump().is_empty());
}

/// The player of `postern replay` without an outline, as for a file: first
/// forward, then to and fro.
fn play(path: &Path, moments: &[u64]) {
    let mut player = player(path);
    let last = moments.iter().max().unwrap();
    println!("player, to the end    {:>12.2} s the first time", seek(&mut player, *last).0);
    report("player, to and fro", moments.iter().map(|moment| seek(&mut player, *moment)).collect());
}

fn player(path: &Path) -> Player {
    let settings = Settings { speed: 1.0, idle_limit: None, from_ms: 0 };
    Player::new(Timeline::open(path).unwrap(), SIZE, settings, Duration::ZERO).unwrap()
}

fn seek(player: &mut Player, moment: u64) -> (f64, f64) {
    let mut out = Vec::new();
    timed(|| player.seek(moment, &mut out).unwrap())
}

/// Wall and CPU seconds of something.
fn timed(what: impl FnOnce()) -> (f64, f64) {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    what();
    (began.elapsed().as_secs_f64(), cpu_seconds() - cpu)
}

fn report(what: &str, mut times: Vec<(f64, f64)>) {
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
    let cpu = times.iter().map(|(_, cpu)| cpu).sum::<f64>() / times.len() as f64;
    println!(
        "{what:<21} {:>12.1} ms p50, {:.1} ms at most, {:.1} ms of CPU each",
        p50.0 * 1e3,
        max.0 * 1e3,
        cpu * 1e3
    );
}

/// Runs `postern replay`; gives seconds and the most memory it had, KB.
fn run(path: &Path, words: &[&str]) -> (f64, u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.arg("replay").arg(path).args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut piece = vec![0; 1 << 20];
        while output.read(&mut piece).unwrap() > 0 {}
    });
    let mut peak = 0;
    let status = loop {
        // The kernel keeps the highest value, so the last look is the one.
        peak = peak.max(peak_kb(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(LOOK);
    };
    reader.join().unwrap();
    assert!(status.success(), "postern replay failed");
    (began.elapsed().as_secs_f64(), peak)
}

fn peak_kb(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Records listings, a log and a full-screen program in turn, and seals.
async fn make(folder: &Path, bytes: u64) -> (SessionId, std::path::PathBuf) {
    let key = SigningKey::open(&folder.join("key")).unwrap();
    let config = RecorderConfig { spool: folder.join("spool") };
    let recorder = Recorder::open(config, key, Arc::new(Metrics::new().unwrap())).unwrap();
    let id = SessionId::parse("long").unwrap();
    let header = Header { width: SIZE.0, height: SIZE.1, ..Header::new(1_763_800_000) };
    let mut recording = recorder.begin(&id, header, Durability::Process).unwrap();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let (mut text, mut sequence) = (Vec::new(), 0);
    // As many bytes of lines, as near as it matters: escapes make lines longer.
    while recording.position().0 < bytes {
        text.clear();
        scene(&mut state, &mut text);
        for piece in text.chunks(1024) {
            while !recording.has_room() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // A message every 4 ms: an hour and more.
            recording.output(sequence * 4, sequence as i64, Stream::Output, piece).unwrap();
            sequence += 1;
        }
    }
    let began = Instant::now();
    let sealed = recording.seal(sequence * 4, &End::new("done")).await.unwrap();
    println!(
        "lines                 {:>12} bytes, sealed in {:.1} s",
        sealed.line_bytes,
        began.elapsed().as_secs_f64()
    );
    (id, sealed.path)
}

/// Some 60 KB of what a terminal shows.
fn scene(state: &mut u64, text: &mut Vec<u8>) {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    let mut line = |words: String| text.extend_from_slice(words.as_bytes());
    match next() % 3 {
        0 => {
            line("web-dev$ ls -l\r\n".to_owned());
            for _ in 0..700 {
                let (size, kind) = (next() % 1_000_000, next() % 8);
                let day = 1 + next() % 28;
                line(format!(
                    "-rw-r--r-- 1 root root {size:>8} Nov {day:>2} \x1b[01;3{kind}mlib{size:x}.so\x1b[0m\r\n"
                ));
            }
        }
        1 => {
            for _ in 0..500 {
                let (worker, took) = (next() % 64, next() % 9000);
                line(format!(
                    "2026-11-27T02:15:01Z INFO worker-{worker} request {:016x} took {took} ms and was served\r\n",
                    next()
                ));
            }
        }
        _ => {
            line("\x1b[?1049h\x1b[H\x1b[2J".to_owned());
            for _ in 0..20 {
                for row in 1..=40 {
                    let (cpu, pid) = (next() % 1000, next() % 65536);
                    line(format!(
                        "\x1b[{row};1H\x1b[3{}m{pid:>6} root 20 0 {cpu:>6} S {:>5.1} postern serve\x1b[K",
                        row % 8,
                        cpu as f64 / 10.0
                    ));
                }
            }
            line("\x1b[?1049l".to_owned());
        }
    }
}
