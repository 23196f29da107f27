//! `postern completions`: what a shell completes.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::Cli;

/// What `postern completions` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern completions bash > ~/.local/share/bash-completion/completions/postern\n  \
    postern completions zsh  > \"${fpath[1]}/_postern\"\n  \
    postern completions fish > ~/.config/fish/completions/postern.fish")]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    generate(args.shell, &mut Cli::command(), "postern", &mut text);
    super::output::print_line(String::from_utf8(text)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
