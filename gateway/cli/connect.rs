//! `postern connect`: a session on a machine, in this terminal.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::time::timeout;

use super::output::print_table;
use crate::client::channel::{Dialer, PORT};
use crate::client::terminal::{self, Ending, FAREWELL, Manner, exit_code};
use crate::client::{Gateway, Profile};
use crate::session::{Document, Instance, SessionRequest, Target, clean_reason, printable};

/// What a name that several machines have exits with, as wrong usage does.
const AMBIGUOUS: u8 = 2;

/// What `postern connect` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern connect web-1\n  \
    postern connect i-0123456789abcdef0 --reason 'INC-42 disk full'\n  \
    postern connect web-1 --document-name AWS-StartInteractiveCommand --parameters command='journalctl -f'\n  \
    echo 'uptime; exit' | postern connect web-1\n\n\
    In the session, after Enter:  ~.  ends it   ~~  sends a tilde   ~?  shows this\n\n\
    Exit code: that of the remote command if the session tells it, else 0;\n\
    255 when the session was denied, failed or was ended; 2 when a name fits several machines.")]
pub struct Args {
    /// A target (i-…, mi-…, ecs:…) or the name of a machine.
    target: String,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// The session document (default: a shell).
    #[arg(long, value_name = "NAME")]
    document_name: Option<String>,
    /// A parameter of the document, KEY=VALUE or a JSON object; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    parameters: Vec<String>,
    /// Why; policies may ask for it.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Opens the session and stays until it ends.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let document = args.document_name.as_deref().map_or_else(|| Ok(Document::shell()), Document::parse)?;
    if !document.kind().is_terminal() {
        bail!("{PORT}");
    }
    let parameters = parameters(&args.parameters)?;
    let gateway = Arc::new(Gateway::open(Profile::load(args.profile.as_deref()).await?).await?);
    let target = match find(&gateway, &args.target).await? {
        Found::One(target) => target,
        Found::Several(instances) => return list(&args.target, &instances),
    };
    let reason = args.reason.as_deref().map(clean_reason);
    let request = SessionRequest { target, document, parameters, reason };
    let opened = gateway.start_session(&request).await?;
    let id = opened.session_id.clone();
    eprintln!("Starting session with SessionId: {}", printable(&id));
    let dialer = Dialer::new(gateway.trust.tls()?, Some(Arc::clone(&gateway)));
    let resume = || gateway.resume_session(&id);
    let ended = terminal::run(opened, dialer, resume, Manner::Connect).await;
    if !matches!(ended, Ok(Ending::Closed { .. } | Ending::TimedOut)) {
        say_farewell(&gateway, &id).await;
    }
    let ending = ended?;
    eprintln!("{}", words(&id, &ending));
    Ok(ExitCode::from(exit_code(&ending)))
}

/// Ends a session that nobody will come back to; it ends by itself later too.
pub(super) async fn say_farewell(gateway: &Gateway, id: &str) {
    if !matches!(timeout(FAREWELL, gateway.terminate_session(id)).await, Ok(Ok(()))) {
        tracing::debug!("the session could not be terminated");
    }
}

fn words(id: &str, ending: &Ending) -> String {
    let id = printable(id);
    match ending {
        Ending::Closed { text, .. } if !text.is_empty() => format!("\nSessionId: {id} : {text}"),
        Ending::Closed { .. } | Ending::Left | Ending::Signal(_) => {
            format!("\nExiting session with sessionId: {id}.")
        }
        Ending::TimedOut => format!("\nSession: {id} timed out."),
        Ending::Unsupported(text) => format!("\npostern: {text}"),
    }
}

enum Found {
    One(Target),
    Several(Vec<Instance>),
}

/// A target as it is, or the machine of that name.
async fn find(gateway: &Gateway, words: &str) -> anyhow::Result<Found> {
    match Target::parse(words) {
        Ok(target) => Ok(Found::One(target)),
        Err(_) => named(words, gateway.instances().await?),
    }
}

fn named(words: &str, instances: Vec<Instance>) -> anyhow::Result<Found> {
    let is_named =
        |instance: &Instance| instance.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(words));
    let mut found: Vec<Instance> = instances.into_iter().filter(is_named).collect();
    match found.len() {
        0 => {
            bail!("no machine that you may see is called {}; `postern targets` lists them", printable(words))
        }
        1 => Ok(Found::One(found.remove(0).target)),
        _ => Ok(Found::Several(found)),
    }
}

fn list(words: &str, instances: &[Instance]) -> anyhow::Result<ExitCode> {
    eprintln!("postern: {} machines are called {}; name one by its id", instances.len(), printable(words));
    let rows: Vec<[String; 3]> = instances
        .iter()
        .map(|instance| {
            let state = if instance.online { "online" } else { "offline" };
            [instance.target.as_str().to_owned(), instance.name.clone().unwrap_or_default(), state.to_owned()]
        })
        .collect();
    print_table(["TARGET", "NAME", "STATE"], &rows)?;
    Ok(ExitCode::from(AMBIGUOUS))
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

    fn instance(id: &str, name: &str) -> Instance {
        Instance {
            target: Target::parse(id).unwrap(),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            name: Some(name.to_owned()),
            platform: None,
            agent_version: None,
            online: true,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn a_name_that_several_machines_have_is_not_guessed() {
        let all = || {
            vec![
                instance("i-0000000000000000a", "web"),
                instance("i-0000000000000000b", "db"),
                instance("i-0000000000000000c", "Web"),
            ]
        };
        assert!(matches!(named("DB", all()), Ok(Found::One(target)) if target.as_str().ends_with('b')));
        assert!(matches!(named("web", all()), Ok(Found::Several(two)) if two.len() == 2));
        assert!(named("we", all()).is_err_and(|error| error.to_string().contains("postern targets")));
    }

    #[test]
    fn a_session_ended_by_the_gateway_says_why() {
        let ending = Ending::Closed { text: "ended by policy prod-hours".to_owned(), exit_code: None };
        assert_eq!(words("s\u{7}-1", &ending), "\nSessionId: s-1 : ended by policy prod-hours");
    }
}
