//! A gateway in a process of its own, which can be starved and killed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::house::{BROKER_KEY, toml_of};
use super::until;
use postern::config::Config;

/// `postern serve` as an operator runs it.
pub struct Apart {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Apart {
    /// Writes the configuration file, starts the program, waits for it.
    pub async fn start(folder: &Path, config: &Config) -> (Self, SocketAddr, SocketAddr) {
        let file = folder.join("postern.toml");
        std::fs::write(&file, toml_of(config)).unwrap();
        // A write beyond the limit must fail, as on a full disk, and not kill.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\"", env!("CARGO_BIN_EXE_postern")])
            .arg(&file)
            .env("AWS_ACCESS_KEY_ID", BROKER_KEY.0)
            .env("AWS_SECRET_ACCESS_KEY", BROKER_KEY.1)
            .env("POSTERN_LOG", "info")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let apart = Self { child, log };
        until("the gateway's process", || apart.said("listening public_url")).await;
        let address = |name: &str| {
            let log = apart.log();
            let value = log.split(&format!(" {name}=")).nth(1).unwrap();
            value.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (address, admin) = (address("address"), address("admin_address"));
        (apart, address, admin)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn said(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    /// Its files cannot grow any more, as on a full disk; or again.
    pub fn fill_disk(&self, full: bool) {
        let current = full.then_some(0);
        let limit = Rlimit { current, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    /// The most memory that it ever held, bytes.
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, as a service manager stops it; its exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let mut status = None;
        until("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Most have ended by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
