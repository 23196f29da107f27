//! `postern serve`: the gateway.

use std::process::ExitCode;

/// What `postern serve` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Says that it is not built in yet.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the gateway is not part of this build")
}
