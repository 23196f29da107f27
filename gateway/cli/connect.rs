//! `postern connect`: a session on a machine, in this terminal.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use super::machine::Through;
use crate::client::channel::{Carries, Line};
use crate::client::terminal::{self, Manner, terminal_size};
use crate::client::{Ending, Gateway, exit_code};
use crate::session::{Document, printable};

/// What `postern connect` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern connect web-1\n  \
    postern connect tag:env=dev,tag:role=web\n  \
    postern connect i-0123456789abcdef0 --reason 'INC-42 disk full'\n  \
    postern connect web-1 --document-name AWS-StartInteractiveCommand --parameters command='journalctl -f'\n  \
    echo 'uptime; exit' | postern connect web-1\n\n\
    In the session, after Enter:  ~.  ends it   ~~  sends a tilde   ~?  shows this\n\n\
    Exit code: that of the remote command if the session tells it, else 0;\n\
    255 when the session was denied, failed or was ended; 2 when a name fits several machines.")]
pub struct Args {
    /// A target (i-…, mi-…, ecs:…), a machine's name, or tag:KEY=VALUE.
    target: String,
    #[command(flatten)]
    through: Through,
    /// The session document (default: a shell).
    #[arg(long, value_name = "NAME")]
    document_name: Option<String>,
    /// A parameter of the document, KEY=VALUE or a JSON object; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    parameters: Vec<String>,
}

/// Opens the session and stays until it ends.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let document = args.document_name.as_deref().map_or_else(|| Ok(Document::shell()), Document::parse)?;
    if !document.kind().is_terminal() {
        bail!("this document opens a port: use `postern forward` or `postern ssh`");
    }
    let parameters = parameters(&args.parameters)?;
    let starter = args.through.to(&args.target).await?;
    let carries = Carries::Terminal(terminal_size());
    let (id, line) = starter.start(document, parameters, carries).await?;
    eprintln!("Starting session with SessionId: {}", printable(&id));
    let ending = carry(&starter.gateway, &id, line, Manner::Connect).await?;
    if !matches!(ending, Ending::Open) {
        eprintln!("{}", words(&id, &ending));
    }
    Ok(ExitCode::from(exit_code(&ending)))
}

/// Joins this terminal to a session, and ends what is not over then.
///
/// What cannot be ended is told of here, whoever asks.
pub(super) async fn carry(gateway: &Gateway, id: &str, line: Line, manner: Manner) -> anyhow::Result<Ending> {
    let mut ended = terminal::run(line, manner).await;
    if !ended.as_ref().is_ok_and(Ending::is_over) && !gateway.say_farewell(id).await {
        eprintln!("\n{}", still_open(id, &gateway.profile.name));
        if matches!(ended, Ok(Ending::Left)) {
            ended = Ok(Ending::Open);
        }
    }
    match ended? {
        // It ended while the line was down, or jammed.
        Ending::TimedOut => Ok(match gateway.last_words(id).await {
            Some(text) => Ending::Closed { text, exit_code: None },
            None => Ending::TimedOut,
        }),
        ending => Ok(ending),
    }
}

/// What is said of a session that nobody is at and that goes on.
fn still_open(id: &str, profile: &str) -> String {
    format!(
        "postern: the session could not be ended: the gateway did not confirm it. Without a client it \
         ends by itself, 20 minutes from now unless the gateway's operators have set another time. To \
         end it sooner: postern sessions end --profile {} {}",
        printable(profile),
        printable(id)
    )
}

/// What is said of a session at its end.
fn words(id: &str, ending: &Ending) -> String {
    let id = printable(id);
    match ending {
        Ending::Closed { text, .. } if !text.is_empty() => format!("\nSessionId: {id} : {text}"),
        Ending::Closed { .. } | Ending::Left | Ending::Open | Ending::Signal(_) => {
            format!("\nExiting session with sessionId: {id}.")
        }
        Ending::TimedOut => format!("\nSession: {id} timed out."),
        Ending::Unsupported(text) => format!("\npostern: {text}"),
    }
}

fn parameters(words: &[String]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut all = BTreeMap::new();
    for word in words {
        if word.trim_start().starts_with('{') {
            let map: BTreeMap<String, Value> =
                serde_json::from_str(word).context("--parameters is not JSON")?;
            for (key, value) in map {
                all.insert(key, values(value)?);
            }
        } else {
            let (key, value) =
                word.split_once('=').context("--parameters must be KEY=VALUE or a JSON object")?;
            all.entry(key.to_owned()).or_insert_with(Vec::new).push(value.to_owned());
        }
    }
    Ok(all)
}

fn values(value: Value) -> anyhow::Result<Vec<String>> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Number(number) => Ok(vec![number.to_string()]),
        Value::Array(items) => items.into_iter().map(text).collect(),
        _ => bail!("a value in --parameters must be a text or a list of texts"),
    }
}

fn text(value: Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => bail!("a value in --parameters must be a text or a list of texts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_pairs_or_json() {
        let words = |words: &[&str]| parameters(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        let expected = BTreeMap::from([("command".to_owned(), vec!["ls -l, a=b".to_owned()])]);
        assert_eq!(words(&["command=ls -l, a=b"]).unwrap(), expected);
        assert_eq!(words(&[r#"{"command":["ls -l, a=b"]}"#]).unwrap(), expected);
        assert_eq!(words(&[r#"{"command":"ls -l, a=b"}"#]).unwrap(), expected);
        for bad in ["command", "{", r#"{"a":{}}"#, r#"{"a":[[]]}"#, r#"{"a":null}"#] {
            assert!(words(&[bad]).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_session_ended_by_the_gateway_says_why() {
        let ending = Ending::Closed { text: "ended by policy prod-hours".to_owned(), exit_code: None };
        assert_eq!(words("s\u{7}-1", &ending), "\nSessionId: s-1 : ended by policy prod-hours");
    }
}
