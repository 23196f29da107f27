//! `postern policy fmt`: every policy file laid out in the same way.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::super::output::{print_json, print_line};
use crate::policy::relaid;

/// What `postern policy fmt` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder with `*.cedar` files.
    #[arg(default_value = "policies")]
    dir: PathBuf,
    /// Change nothing; exit 1 if a file is laid out otherwise.
    #[arg(long)]
    check: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lays the files out, or says which are laid out otherwise.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let files = relaid(&args.dir)?;
    let names: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    if !args.check {
        for file in &files {
            write(file).with_context(|| file.path.display().to_string())?;
        }
    }
    if args.json {
        print_json(&json!({"changed": !args.check, "files": names}))?;
    } else {
        for name in &names {
            let what = if args.check { "would be laid out anew" } else { "laid out" };
            print_line(&format!("{}: {what}", crate::session::printable(name)))?;
        }
    }
    Ok(if args.check && !files.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Beside it and in its place: a gateway that watches never sees half of it.
fn write(file: &crate::policy::Relaid) -> std::io::Result<()> {
    let mut beside = file.path.clone().into_os_string();
    beside.push(".new");
    std::fs::write(&beside, &file.text)?;
    std::fs::set_permissions(&beside, std::fs::metadata(&file.path)?.permissions())?;
    std::fs::rename(&beside, &file.path)
}
