//! What terminals show, cut as the agent cuts.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Payload of one output message, bytes; the agent's size.
pub const CHUNK: usize = 1024;
/// Different messages before they come again; far beyond any zstd window.
const MESSAGES: usize = 4096;

/// What the agents of a run show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corpus {
    /// A long listing with colours, as `ls` writes it of this machine.
    Listing,
    /// A listing of random names and sizes: harder to compress than what people see.
    Random,
}

impl Corpus {
    /// Reads its name.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        match name {
            "listing" => Ok(Self::Listing),
            "random" => Ok(Self::Random),
            _ => bail!("there is no corpus {name}: say listing or random"),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Random => "random",
        }
    }

    /// Its messages.
    pub fn messages(self) -> anyhow::Result<Vec<Vec<u8>>> {
        let text = match self {
            Self::Listing => listing()?,
            Self::Random => random(),
        };
        let messages: Vec<_> = text.chunks_exact(CHUNK).take(MESSAGES).map(<[u8]>::to_vec).collect();
        if messages.len() < MESSAGES {
            bail!("the {} corpus has {} messages, not {MESSAGES}", self.name(), messages.len());
        }
        Ok(messages)
    }
}

/// What `ls` says of all folders that everybody may read.
fn listing() -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("ls");
    command.args(["-lR", "--color=always", "/usr"]).stderr(Stdio::null());
    let plain = command.output().context("cannot run ls")?.stdout;
    let mut text = Vec::with_capacity(plain.len() + plain.len() / 32);
    // As a terminal passes it on.
    for line in plain.split(|byte| *byte == b'\n') {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    Ok(text)
}

/// The same in every run and on every machine.
fn random() -> Vec<u8> {
    let mut text = Vec::new();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    while text.len() < MESSAGES * CHUNK {
        state = next(state);
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
    text
}

/// One step of a xorshift generator.
pub fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}
