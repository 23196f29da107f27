//! `postern exec`: one command on a machine, as if it ran here.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;

use super::connect::carry;
use super::machine::Through;
use crate::client::channel::Carries;
use crate::client::terminal::{Manner, terminal_size};
use crate::client::{Ending, exit_code};
use crate::session::Document;

/// The document of a command without a terminal.
const PLAIN: &str = "AWS-StartNonInteractiveCommand";
/// The document of a command on a terminal.
const ON_A_TERMINAL: &str = "AWS-StartInteractiveCommand";

/// What `postern exec` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern exec web-1 -- uname -a\n  \
    postern exec web-1 -- sh -c 'dmesg | tail'\n  \
    postern exec --tty web-1 -- top\n\n\
    The command's words are passed on exactly; no shell reads them, so pipes and\n\
    variables need `sh -c`. Standard output and error are the command's own. It has no\n\
    standard input: Session Manager gives such commands none, so what is piped in here is\n\
    not read. Ctrl-C reaches the command. With --tty it runs on a terminal, with input,\n\
    and its exit code is not told.\n\n\
    Exit code: the command's; 255 when the session was denied, failed or was ended.")]
pub struct Args {
    /// A target (i-…, mi-…, ecs:…), a machine's name, or tag:KEY=VALUE.
    target: String,
    /// Run the command on a terminal.
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    through: Through,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.command.iter().any(|word| word.contains('\0')) {
        bail!("a command cannot hold a NUL");
    }
    let line: Vec<String> = args.command.iter().map(|word| quoted(word)).collect();
    let mut parameters = BTreeMap::from([("command".to_owned(), vec![line.join(" ")])]);
    let (document, manner) = match args.tty {
        true => (ON_A_TERMINAL, Manner::Connect),
        false => {
            // Only so does the agent tell streams apart and the exit code.
            parameters.insert("separateOutputStream".to_owned(), vec!["true".to_owned()]);
            (PLAIN, Manner::Command)
        }
    };
    let starter = args.through.to(&args.target).await?;
    let carries = Carries::Terminal(terminal_size());
    let (id, line) = starter.start(Document::parse(document)?, parameters, carries).await?;
    let ending = carry(&starter.gateway, &id, line, manner).await?;
    match &ending {
        // As if local: only what the command itself would not say is said.
        Ending::Closed { exit_code: Some(_), .. } | Ending::Left | Ending::Open | Ending::Signal(_) => {}
        Ending::Closed { text, .. } | Ending::Unsupported(text) if text.is_empty() => {}
        Ending::Closed { text, .. } | Ending::Unsupported(text) => eprintln!("postern: {text}"),
        Ending::TimedOut => eprintln!("postern: the session timed out"),
    }
    Ok(ExitCode::from(exit_code(&ending)))
}

/// A word that the agent's splitting, and any shell, gives back as it is.
pub(super) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@+=,%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_splitter_would_cut_are_quoted() {
        for (word, expected) in [
            ("uname", "uname"),
            ("-a", "-a"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", "'it'\\''s'"),
            ("$HOME", "'$HOME'"),
            ("a\\b\"c", "'a\\b\"c'"),
            ("#no comment", "'#no comment'"),
            ("ü\n", "'ü\n'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
