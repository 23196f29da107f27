//! `postern keys`: the keys that sign recordings, on the gateway's machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
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
    let path = config.signing_key();
    // To open it would make it: a look must not.
    let there = path.try_exists().with_context(|| path.display().to_string())?;
    anyhow::ensure!(there, "there is no key yet: the gateway makes {} when it first starts", path.display());
    let key = SigningKey::open(&path)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_list_keys_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postern.toml");
        let state = dir.path().join("state");
        let text =
            include_str!("../../deploy/postern.toml").replace("/var/lib/postern", state.to_str().unwrap());
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        assert!(config.signing_key().starts_with(&state), "{:?}", config.signing_key());
        let error = list(&config, false).unwrap_err().to_string();
        assert!(error.starts_with("there is no key yet"), "{error}");
        assert!(!state.exists());
    }
}
