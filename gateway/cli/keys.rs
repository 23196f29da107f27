//! `postern keys`: the keys that sign recordings, on the gateway's machine.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::output::{print_json, print_line, print_table};
use crate::config::Config;
use crate::recorder::SigningKey;

/// What `postern keys` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the keys: the one that signs, and those that did
    List {
        /// Where the keys are.
        #[command(flatten)]
        file: File,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a new key, which signs once the gateway is started again
    ///
    /// What the old key signed can still be verified: its public half stays.
    Rotate {
        /// Where the keys are.
        #[command(flatten)]
        file: File,
    },
}

/// Where the keys are.
#[derive(Debug, clap::Args)]
pub struct File {
    /// The gateway's configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/postern/postern.toml")]
    config: PathBuf,
}

/// Lists or rotates.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { file, json } => list(&Config::read(&file.config)?, json)?,
        Command::Rotate { file } => {
            let (old, new) = SigningKey::rotate(&Config::read(&file.config)?.signing_key())?;
            print_line(&format!("key {} takes the place of {}", new.id(), old.id()))?;
            print_line("start the gateway again: until then it signs with the old one")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let key = SigningKey::open(&config.signing_key())?;
    let known = key.known();
    let state = |id: &str| if id == key.public().id() { "signs" } else { "retired" };
    if json {
        let keys =
            known.iter().map(|key| json!({"id": key.id(), "state": state(&key.id()), "pem": key.to_pem()}));
        return print_json(&keys.collect::<Vec<_>>());
    }
    let rows: Vec<[String; 2]> = known.iter().map(|key| [key.id(), state(&key.id()).to_owned()]).collect();
    print_table(["KEY", "STATE"], &rows)
}
