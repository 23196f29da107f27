//! Indexing and searching recorded hours: `cargo bench --bench catalogue -- 1000`.
//!
//! Makes so many sessions of one hour (12 unless told), indexes them and
//! searches them. Each hour holds 120 commands and some 6,000 lines, a mix of
//! listings, logs and package output as `make`, `ls -l` and `journalctl` print.

// A bench that cannot set itself up has nothing to report.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use postern::asciicast::{EventCode, Header, encode_event};
use postern::catalogue::{Catalogue, FILE_NAME, Pattern, Query};
use postern::session::SessionId;
use postern::store::Store;

/// Sessions made unless told otherwise: `cargo bench` stays short.
const HOURS: usize = 12;
/// Commands in an hour: one every half a minute.
const COMMANDS: u64 = 120;
/// The line that one session alone has.
const RARE: &str = "segfault at 7f3a ip 55d0 in legacy-daemon";

const WORDS: &[&str] = &[
    "connection",
    "request",
    "service",
    "started",
    "stopped",
    "error",
    "timeout",
    "user",
    "session",
    "kernel",
    "device",
    "network",
    "interface",
    "package",
    "install",
    "upgrade",
    "library",
    "module",
    "config",
    "server",
    "client",
    "thread",
    "worker",
    "queue",
    "memory",
    "buffer",
    "cache",
    "socket",
    "retry",
    "failed",
    "refused",
    "accepted",
    "closed",
    "opened",
    "mount",
    "volume",
    "backup",
    "restore",
    "database",
    "replica",
];

fn main() {
    let hours = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(HOURS);
    let folder = std::env::temp_dir().join(format!("postern-catalogue-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let began = Instant::now();
    let bytes: u64 = (0..hours).map(|hour| record(&folder, hour, hours)).sum();
    report(&format!("{hours} hours made, {} MB of lines", bytes >> 20), began.elapsed());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(&folder));
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn measure(folder: &Path) {
    let file = folder.join(FILE_NAME);
    let catalogue = Catalogue::open(&file).await.unwrap();
    let began = Instant::now();
    for found in Store::new(folder).list().unwrap() {
        catalogue.add(&found.id, &found.path).await.unwrap();
    }
    report("indexed", began.elapsed());
    catalogue.close().await;
    let size = std::fs::metadata(&file).unwrap().len();
    report(&format!("catalogue of {} MB", size >> 20), Duration::ZERO);

    let catalogue = Catalogue::open(&file).await.unwrap();
    let text = |text: &str| Query::new(Pattern::text(text).unwrap());
    let regex = |expression: &str| Query::new(Pattern::regex(expression).unwrap());
    let commands = |query| Query { commands: true, ..query };
    for (name, query) in [
        ("rare text", text(RARE)),
        ("common text", text("connection refused")),
        ("absent text", text("no such thing anywhere")),
        ("two characters", text("zq")),
        ("expression", regex(r"segfault at [0-9a-f]+ ip")),
        ("expression without literals", regex(r"\d{7,}x")),
        ("command, common", commands(text("journalctl"))),
        ("command, absent", commands(text("no such command"))),
    ] {
        let began = Instant::now();
        let (hits, pages, first) = search(&catalogue, &query).await;
        let first = first.map_or_else(String::new, |first| format!(", the first after {first:.2?}"));
        report(&format!("{name}: {hits} hits, {pages} pages{first}"), began.elapsed());
    }
    catalogue.close().await;
}

/// The first hundred hits, as `postern search` asks for them.
async fn search(catalogue: &Catalogue, query: &Query) -> (usize, usize, Option<Duration>) {
    let (began, mut hits, mut pages, mut first, mut token) = (Instant::now(), 0, 0, None, None::<String>);
    loop {
        let mut search = catalogue.search(query.clone(), token.as_deref()).unwrap();
        pages += 1;
        while let Some(found) = search.next().await.unwrap() {
            hits += search.hits(&found, 100 - hits).unwrap().len();
            if hits > 0 && first.is_none() {
                first = Some(began.elapsed());
            }
            if hits == 100 {
                return (hits, pages, first);
            }
        }
        token = search.token();
        if token.is_none() {
            return (hits, pages, first);
        }
    }
}

/// Writes one hour, packed as the recorder does; tells the size of its lines.
fn record(folder: &Path, hour: usize, hours: usize) -> u64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (hour as u64 + 1));
    let id = SessionId::mint(&format!("user{}", hour % 50));
    let mut header = Header::new(1_700_000_000 + 3600 * hour as i64);
    let about = serde_json::json!({
        "principal": format!("arn:aws:iam::111122223333:user/user{}", hour % 50),
        "target": format!("i-{:017x}", hour % 200), "kind": "shell",
    });
    header.postern = about.as_object().cloned();
    let mut lines = Vec::new();
    header.write(&mut lines).unwrap();
    let mut output = |time_ms: u64, text: &str| encode_event(&mut lines, time_ms, EventCode::Output, text);
    for command in 0..COMMANDS {
        let at = command * 30_000;
        output(at, "\u{1b}[32muser@host\u{1b}[0m:~$ ");
        let typed = ["ls -l /var/log", "journalctl -n 80", "make all", "ps aux"][random.below(4)];
        for (index, key) in typed.chars().enumerate() {
            output(at + 2000 + 150 * index as u64, key.encode_utf8(&mut [0; 4]));
        }
        output(at + 6000, "\r\n");
        let mut page = String::new();
        for _ in 0..20 + random.below(60) {
            line(&mut random, &mut page);
        }
        if hour == hours / 2 && command == COMMANDS / 2 {
            page.push_str(RARE);
            page.push_str("\r\n");
        }
        output(at + 6100, &page);
    }
    let mut packed =
        zstd::Encoder::new(std::fs::File::create(folder.join(format!("{id}.cast.zst"))).unwrap(), 3).unwrap();
    packed.write_all(&lines).unwrap();
    packed.finish().unwrap();
    lines.len() as u64
}

fn line(random: &mut Random, page: &mut String) {
    use std::fmt::Write as _;
    let number = random.below(1_000_000);
    let _ = write!(page, "Nov 26 18:{:02}:{:02} host-{} ", number % 60, number % 59, number % 17);
    for _ in 0..4 + random.below(6) {
        page.push_str(WORDS[random.below(WORDS.len())]);
        page.push(' ');
    }
    let _ = write!(page, "[{number:x}]\r\n");
}

/// Numbers that are the same in every run: xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn report(what: &str, took: Duration) {
    eprintln!("{what:<70} {took:>10.2?}");
}
