//! `postern demo`: everything on one machine.

use std::process::ExitCode;

/// What `postern demo` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Says that it is not built in yet.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the demo is not part of this build")
}
