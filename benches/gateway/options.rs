//! What the command line may change about a run.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::corpus::Corpus;

/// How to use it.
const USAGE: &str = "\
cargo bench --bench gateway -- [OPTIONS]
  --only LIST        of burst,paced,keystrokes,idle,connect,cut (default: all)
  --rounds N         interleaved rounds of each load (default 3)
  --sessions N       sessions of idle and cut (default 1000)
  --workers N        workers of the second gateway in burst and paced; 0: none (default 2)
  --postern FILE     the gateway's binary (default: the one built with this bench)
  --haproxy FILE     HAProxy's binary (default: /usr/sbin/haproxy)
  --corpus NAME      what terminals show: listing (of this machine) or random (default: listing)
  --state DIR        where recordings and database go (default: the system's temporary folder)
  --quick            a tenth of everything, to see that it works
  --long             ten times as much of everything, for a profiler
  --no-haproxy       the gateway alone, for a profiler
  --keep             keep configurations, logs and recordings";

/// One run's options.
pub struct Options {
    pub only: Vec<String>,
    pub rounds: u32,
    pub sessions: usize,
    pub workers: usize,
    pub postern: PathBuf,
    pub haproxy: PathBuf,
    pub corpus: Corpus,
    pub state: PathBuf,
    pub quick: bool,
    pub long: bool,
    pub anchored: bool,
    pub keep: bool,
}

impl Options {
    /// Reads them; an unknown one is an error that shows all.
    pub fn read(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            only: Vec::new(),
            rounds: 3,
            sessions: 1000,
            workers: 2,
            postern: PathBuf::from(env!("CARGO_BIN_EXE_postern")),
            // Not on the path of everybody.
            haproxy: PathBuf::from("/usr/sbin/haproxy"),
            corpus: Corpus::Listing,
            state: std::env::temp_dir(),
            quick: false,
            long: false,
            anchored: true,
            keep: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} wants a value"));
            match word.as_str() {
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--rounds" => options.rounds = value()?.parse()?,
                "--sessions" => options.sessions = value()?.parse()?,
                "--workers" => options.workers = value()?.parse()?,
                "--postern" => options.postern = value()?.into(),
                "--haproxy" => options.haproxy = value()?.into(),
                "--corpus" => options.corpus = Corpus::parse(&value()?)?,
                "--state" => options.state = value()?.into(),
                "--quick" => options.quick = true,
                "--long" => options.long = true,
                "--no-haproxy" => options.anchored = false,
                "--keep" => options.keep = true,
                // Cargo says this to every bench.
                "--bench" => {}
                _ => bail!("{USAGE}"),
            }
        }
        Ok(options)
    }

    /// Whether a load is wanted.
    pub fn wants(&self, load: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == load)
    }

    /// A number of the full run, a tenth of it, or ten times it.
    pub fn scaled(&self, full: u64) -> u64 {
        match (self.quick, self.long) {
            (true, _) => (full / 10).max(1),
            (_, true) => full * 10,
            _ => full,
        }
    }
}
