//! What shipping costs: a spool of sealed recordings into a CloudWatch Logs.
//!
//! CPU is that of this process (the shipper's, with reading the spool); the
//! CloudWatch Logs that takes it all is a process of its own, on loopback
//! without TLS. Prints MB of compressed bytes a second and CPU s a GB of
//! them: of recordings, whose frames are passed on as they are, and with the
//! transcript, for which all lines are read. Target: 12 MB/s at 3 CPU s/GB.
//! `cargo bench --bench shipper -- recording` leaves the transcript out.

// A bench that cannot set itself up has nothing to report.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use postern::asciicast::Header;
use postern::broker::{BrokerConfig, Secret, StaticKeys};
use postern::metrics::Metrics;
use postern::recorder::{End, Recorder, RecorderConfig, SigningKey, Stream};
use postern::session::{Durability, SessionId, now_ms};
use postern::shipper::{Folders, Shipper, ShipperConfig};

/// Tells the second process of this program what it is.
const SINK: &str = "POSTERN_BENCH_SINK";
const SESSIONS: usize = 8;
/// Recordings are shipped so often: once takes a tenth of a second.
const TIMES: u64 = 6;
/// Output of each session, bytes.
const OUTPUT: usize = 32 << 20;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(SINK).is_some() {
        return runtime.block_on(sink());
    }
    let (mut child, url) = start_sink();
    let only_recordings = std::env::args().any(|arg| arg == "recording");
    println!(
        "{SESSIONS} sealed sessions of {} MB of output; CPU is that of the shipper's process",
        OUTPUT >> 20
    );
    println!("output   forms      MB/s compressed   CPU s/GB compressed   CPU s/GB lines   CPU ms a start");
    for (what, output) in [("random", random_text()), ("listing", listing())] {
        let folder = tempfile::tempdir().unwrap();
        let lines = runtime.block_on(record(folder.path(), &output));
        for transcript in [false, true].into_iter().filter(|transcript| !(*transcript && only_recordings)) {
            let times = if transcript { 1 } else { TIMES };
            let mut all = Shipped::default();
            for time in 0..times {
                let own = folder.path().join(format!("shipper-{transcript}-{time}"));
                all.add(&runtime.block_on(ship(folder.path(), &own, (&url, transcript))));
            }
            let forms = if transcript { "both" } else { "recording" };
            // Base64 is on the wire; what it stands for is compressed.
            let (compressed, lines) = (all.bytes as f64 * 0.75 / 1e6, (lines * times) as f64 / 1e9);
            let (rate, each) = (compressed / all.wall, all.cpu / compressed * 1e3);
            println!(
                "{what:<8} {forms:<10} {rate:>15.1} {each:>21.2} {:>16.2} {:>14.1}",
                all.cpu / lines,
                all.start * 1e3 / times as f64,
            );
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// One step of a xorshift generator.
fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// Text that hardly compresses: what costs the most bytes.
fn random_text() -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut text = Vec::with_capacity(OUTPUT);
    while text.len() < OUTPUT {
        state = next(state);
        text.extend_from_slice(data_encoding::BASE64.encode(&state.to_le_bytes()).as_bytes());
        if state & 15 == 0 {
            text.extend_from_slice(b"\r\n");
        }
    }
    text
}

/// A long listing with colours.
fn listing() -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut text = Vec::with_capacity(OUTPUT);
    while text.len() < OUTPUT {
        state = next(state);
        let (size, kind) = (state % 1_000_000, state >> 60);
        let line = format!(
            "-rw-r--r-- 1 root root {size:>8} Nov {:>2} \x1b[01;3{}mlib{:x}.so.{kind}\x1b[0m\r\n",
            1 + state % 28,
            kind % 8,
            state >> 40,
        );
        text.extend_from_slice(line.as_bytes());
    }
    text
}

/// Seals the sessions; gives the size of their lines.
async fn record(folder: &Path, output: &[u8]) -> u64 {
    let recorder = open(folder);
    recorder.hurry();
    let mut bytes = 0;
    for _ in 0..SESSIONS {
        let id = SessionId::mint("bench");
        let header = Header::new(i64::try_from(now_ms() / 1000).unwrap());
        let mut recording = recorder.begin(&id, header, Durability::Process).unwrap();
        for (number, piece) in output.chunks(1024).enumerate() {
            while !recording.has_room() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            recording.output(number as u64, number as i64, Stream::Output, piece).unwrap();
        }
        bytes += recording.seal(0, &End::new("bench")).await.unwrap().line_bytes;
    }
    bytes
}

/// What it took.
#[derive(Default)]
struct Shipped {
    /// Seconds.
    wall: f64,
    /// CPU seconds until the shipper had started: once for each gateway.
    start: f64,
    /// CPU seconds from there on.
    cpu: f64,
    /// Bytes of events.
    bytes: u64,
}

impl Shipped {
    fn add(&mut self, other: &Self) {
        self.wall += other.wall;
        self.start += other.start;
        self.cpu += other.cpu;
        self.bytes += other.bytes;
    }
}

/// Ships them all.
async fn ship(folder: &Path, own: &Path, (url, transcript): (&str, bool)) -> Shipped {
    let recorder = open(folder);
    let metrics = Arc::new(Metrics::new().unwrap());
    let config = ShipperConfig {
        log_group: "bench".into(),
        endpoint_url: Some(url.to_owned()),
        transcript,
        ..ShipperConfig::default()
    };
    let keys = StaticKeys {
        access_key_id: "AKIABENCH".into(),
        secret_access_key: Secret::new("secret"),
        session_token: None,
    };
    let broker =
        BrokerConfig { region: "eu-west-1".into(), static_keys: Some(keys), ..BrokerConfig::default() };
    let folders = Folders { spool: folder.join("spool"), own: own.to_owned() };
    let cpu = cpu_seconds();
    let shipper =
        Shipper::start(config, &broker, recorder.feed(), &folders, Arc::clone(&metrics)).await.unwrap();
    let (began, started) = (Instant::now(), cpu_seconds());
    let shipped = || {
        let names = std::fs::read_dir(own).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".shipped")).count()
    };
    while shipped() < SESSIONS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (wall, ended) = (began.elapsed().as_secs_f64(), cpu_seconds());
    shipper.stop().await;
    Shipped { wall, start: started - cpu, cpu: ended - started, bytes: metrics.shipper.bytes.get() }
}

fn open(folder: &Path) -> Recorder {
    let key = SigningKey::open(&folder.join("recording.key")).unwrap();
    let config = RecorderConfig { spool: folder.join("spool") };
    Recorder::open(config, key, Arc::new(Metrics::new().unwrap())).unwrap()
}

/// CPU of this process, user and system.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn start_sink() -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.env(SINK, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (child, url.trim().to_owned())
}

/// Takes everything and stores nothing.
async fn sink() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let app =
        axum::Router::new().fallback(|headers: axum::http::HeaderMap, _: axum::body::Bytes| async move {
            let groups = headers["x-amz-target"].to_str().unwrap().ends_with("DescribeLogGroups");
            let body = if groups { r#"{"logGroups":[{"logGroupName":"bench"}]}"# } else { "{}" };
            ([("content-type", "application/x-amz-json-1.1")], body).into_response()
        });
    axum::serve(listener, app.layer(axum::extract::DefaultBodyLimit::max(16 << 20))).await.unwrap();
}
