//! `postern verify`: finds damage in a recording.

use std::process::ExitCode;

/// What `postern verify` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Says that it is not built in yet.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("verification is not part of this build")
}
