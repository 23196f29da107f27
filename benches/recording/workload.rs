//! Programs on a terminal, and somebody who types.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Payload of one output message, bytes; the agent's size.
const CHUNK: usize = 1024;
/// The agent sleeps so long after every read.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two keys of somebody who types.
const KEY: Duration = Duration::from_millis(120);

/// What a terminal showed at once.
pub struct Chunk {
    /// Microseconds since the beginning.
    pub at_us: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A program and what is typed into it.
pub struct Workload {
    /// What it is called in the report.
    pub name: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    /// Typed key by key; `~` is a pause of a second.
    typed: &'static str,
}

/// What people do on machines, from quiet to loud.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "shell",
        program: "bash",
        args: &["--norc", "--noprofile"],
        typed: "~ls -la /etc | head -40\r~~df -h\r~~ps aux | head -30\r~cat /etc/os-release\r~~uptime\r~\
                cd /usr/share/doc && ls | head -50\r~~grep -r root /etc/passwd /etc/group\r~~free -m\r~\
                for i in 1 2 3; do echo line $i; sleep 1; done\r~~~~~history\r~exit\r",
    },
    Workload {
        name: "editor",
        program: "vim",
        args: &["-u", "NONE", "-N", "/etc/services"],
        typed: "~\x06~\x06~jjjjjjoThis line is typed by somebody who thinks while they type.\x1b~ggdd~p~/tcp\r~nnnn~\
                :set number\r~\x06\x06\x06~\x02\x02~:%s/tcp/TCP/g\r~GONew text at the end, and more of it.\x1b~:q!\r",
    },
    Workload { name: "top", program: "top", args: &["-d", "0.5"], typed: "" },
    Workload { name: "listing", program: "ls", args: &["-lR", "--color=always", "/usr"], typed: "" },
    Workload {
        name: "trace",
        program: "strace",
        args: &["-f", "find", "/usr/share", "-name", "*.conf"],
        typed: "",
    },
    Workload {
        name: "log",
        program: "sh",
        args: &[
            "-c",
            "for i in $(seq 1 400); do date +\"%FT%T.%N INFO request $i took ${i}ms from 10.0.$((i%7)).$((i%251))\"; sleep 0.1; done",
        ],
        typed: "",
    },
];

impl Workload {
    /// Runs it; `None` if its program is not on this machine.
    pub fn start(&self, limit: Duration) -> Option<impl Iterator<Item = Chunk> + use<>> {
        let (terminal, its_end) = pty_process::blocking::open().unwrap();
        terminal.resize(pty_process::Size::new(40, 120)).unwrap();
        let command = pty_process::blocking::Command::new(self.program).args(self.args);
        let mut child = command.env("TERM", "xterm-256color").spawn(its_end).ok()?;
        let (chunks, read) = channel();
        let terminal = std::sync::Arc::new(terminal);
        let (out, typed) = (terminal.clone(), self.typed);
        thread::spawn(move || type_all(&out, typed));
        thread::spawn(move || {
            let begin = Instant::now();
            let mut buffer = vec![0; CHUNK];
            while begin.elapsed() < limit
                && let Ok(size @ 1..) = (&*terminal).read(&mut buffer)
            {
                let at_us = begin.elapsed().as_micros() as u64;
                if chunks.send(Chunk { at_us, bytes: buffer[..size].to_vec() }).is_err() {
                    break;
                }
                thread::sleep(PAUSE);
            }
            let _ = child.kill();
            let _ = child.wait();
        });
        Some(all(read))
    }
}

fn type_all(mut terminal: &pty_process::blocking::Pty, typed: &str) {
    for key in typed.chars() {
        if key == '~' {
            thread::sleep(Duration::from_secs(1));
        } else {
            thread::sleep(KEY);
            // The program may have gone.
            let _ = write!(terminal, "{key}");
        }
    }
}

fn all(read: Receiver<Chunk>) -> impl Iterator<Item = Chunk> {
    read.into_iter()
}
