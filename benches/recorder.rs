//! What recording costs: the line of a 1 KB message, and the seal.
//!
//! What a message costs all told is in the `recording` bench.

// A bench that cannot set itself up has nothing to report.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postern::asciicast::{EventCode, Header, encode_event};
use postern::metrics::Metrics;
use postern::recorder::{End, Recorder, RecorderConfig, Recording, SigningKey, Stream};
use postern::session::{Durability, SessionId};

/// Terminal output of a long listing with colours, 1 KB a message.
fn messages(count: usize) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    while text.len() < count * 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (size, kind) = (state % 1_000_000, state >> 60);
        let line = format!(
            "-rw-r--r-- 1 root root {size:>8} Nov {:>2} {:02}:{:02} \x1b[01;3{}mlib{:x}.so.{kind}\x1b[0m\r\n",
            1 + state % 28,
            state % 24,
            state % 60,
            kind % 8,
            state >> 40,
        );
        text.extend_from_slice(line.as_bytes());
    }
    text.chunks_exact(1024).take(count).map(<[u8]>::to_vec).collect()
}

struct Rig {
    recorder: Recorder,
    dir: tempfile::TempDir,
    begun: usize,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = open(dir.path());
        Self { recorder, dir, begun: 0 }
    }

    fn begin(&mut self) -> Recording {
        self.begun += 1;
        let id = SessionId::parse(&format!("bench-{}", self.begun)).unwrap();
        self.recorder.begin(&id, Header::new(0), Durability::Process).unwrap()
    }
}

fn open(dir: &Path) -> Recorder {
    let key = SigningKey::open(&dir.join("key")).unwrap();
    let config = RecorderConfig { spool: dir.join("spool") };
    Recorder::open(config, key, Arc::new(Metrics::new().unwrap())).unwrap()
}

/// Hands over `count` messages and waits until the journal has them.
fn write(recording: &mut Recording, messages: &[Vec<u8>], count: usize) {
    let mut position = recording.position();
    for (sequence, message) in messages.iter().cycle().take(count).enumerate() {
        while !recording.has_room() {
            std::thread::sleep(Duration::from_millis(1));
        }
        position = recording.output(sequence as u64, sequence as i64, Stream::Output, message).unwrap();
    }
    while recording.recorded() < position {
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn encode(c: &mut Criterion) {
    let messages = messages(4096);
    let mut group = c.benchmark_group("recorder");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("encode 1 KB event", |b| {
        let mut line = Vec::with_capacity(8192);
        let texts: Vec<_> = messages.iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect();
        let mut number = 0;
        b.iter(|| {
            line.clear();
            number = (number + 1) % texts.len();
            encode_event(&mut line, 123_456, EventCode::Output, black_box(&texts[number]));
            black_box(&line);
        });
    });
    group.finish();
}

fn seal(c: &mut Criterion) {
    const MESSAGES: usize = 8192;
    let messages = messages(4096);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = c.benchmark_group("recorder");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Bytes(MESSAGES as u64 * 1024));
    let mut rig = Rig::new();
    group.bench_function("seal 8 MB", |b| {
        b.iter_custom(|count| {
            let mut total = Duration::ZERO;
            for _ in 0..count {
                let mut recording = rig.begin();
                write(&mut recording, &messages, MESSAGES);
                let start = Instant::now();
                let sealed = runtime.block_on(recording.seal(1000, &End::new("done"))).unwrap();
                total += start.elapsed();
                std::fs::remove_file(sealed.path).unwrap();
            }
            total
        });
    });
    group.finish();
    drop(rig.recorder);
    drop(rig.dir);
}

criterion_group!(benches, encode, seal);
criterion_main!(benches);
