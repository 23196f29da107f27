//! `postern policy …`: works on a folder, without a gateway.

mod asked;
mod backtest;
mod check;
mod explain;
mod layout;
mod reach;

use std::path::PathBuf;
use std::process::ExitCode;

/// What `postern policy` can be told.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check that a gateway would load the folder, and what is odd in it
    Check(check::Args),
    /// Run the folder's own cases, `tests/*.json`
    Test {
        /// The folder with `*.cedar` files and `tests/`.
        #[arg(default_value = "policies")]
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say why something is allowed or not, and what would allow it
    Explain(explain::Args),
    /// List what somebody can reach
    List(reach::ListArgs),
    /// List who can reach a machine
    Who(reach::WhoArgs),
    /// Ask every recorded decision again under a proposed set
    Backtest(backtest::Args),
    /// Lay the policy files out in the usual way
    Fmt(layout::Args),
}

/// Does what was asked.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => check::check(&args),
        Command::Test { dir, json } => check::test(&dir, json),
        Command::Explain(args) => explain::run(args).await,
        Command::List(args) => reach::list(&args),
        Command::Who(args) => reach::who(&args),
        Command::Backtest(args) => backtest::run(args).await,
        Command::Fmt(args) => layout::run(&args),
    }
}
