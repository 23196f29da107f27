//! `postern sessions`: who is where, who was, and ending it.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{moment, print_json, print_line, print_table};
use super::search::offset;
use crate::client::{Gateway, Profile};
use crate::session::{SessionId, SessionKind, clean_reason, printable};

/// Sessions asked of the gateway at a time.
const PAGE: usize = 200;

/// What `postern sessions` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern sessions list\n  \
    postern sessions list --history --json | jq -r '.[].id'\n  \
    postern sessions show alice-abcdefghijklmnopqrstuvwxyz\n  \
    postern sessions hold alice-abcdefghijklmnopqrstuvwxyz --reason 'case 4711'\n  \
    postern sessions shadow\n  \
    postern sessions end alice-abcdefghijklmnopqrstuvwxyz --reason 'left open'")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// The AWS profile that points at the gateway.
    #[arg(long, global = true, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the sessions that are open, or were
    List {
        /// Sessions that have ended.
        #[arg(long)]
        history: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show everything about one session
    Show {
        /// The session's id.
        id: String,
    },
    /// Keep a session's recording from being deleted
    Hold {
        /// The session's id.
        id: String,
        /// Why.
        #[arg(long, value_name = "TEXT", conflicts_with = "release")]
        reason: Option<String>,
        /// End the hold instead.
        #[arg(long)]
        release: bool,
    },
    /// List the sessions that run past the gateway
    Shadow,
    /// End a session
    End {
        /// The session's id.
        id: String,
        /// Why; the person sees it.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// A row of the list; what is missing stays empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    id: String,
    name: String,
    target: String,
    kind: String,
    state: String,
    started_ms: i64,
    end_reason: Option<String>,
}

/// Does what was asked.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    match args.command {
        Command::List { history, limit } => list(&gateway, history, limit, args.json).await?,
        Command::Show { id } => {
            let id = SessionId::parse(&id)?;
            let session: Value = gateway.get_json(&format!("/v1/sessions/{id}")).await?;
            show(&gateway, &id, session, args.json).await?;
        }
        Command::Hold { id, reason, release } => {
            let id = SessionId::parse(&id)?;
            let body = json!({ "reason": reason.as_deref().map(clean_reason), "release": release });
            let answer: Value = gateway.post_json(&format!("/v1/sessions/{id}/hold"), &body).await?;
            let done = if release { "released" } else { "held" };
            if args.json { print_json(&answer)? } else { print_line(&format!("{done} {id}"))? }
        }
        Command::Shadow => shadow(&gateway, args.json).await?,
        Command::End { id, reason } => {
            let id = SessionId::parse(&id)?;
            let reason = reason.as_deref().map(clean_reason);
            let body = json!({ "reason": reason });
            let answer: Value = gateway.post_json(&format!("/v1/sessions/{id}/end"), &body).await?;
            if args.json { print_json(&answer)? } else { print_line(&format!("ended {id}"))? }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest sessions that the caller may see, so many at the most.
pub(super) async fn newest(gateway: &Gateway, state: &str, limit: usize) -> anyhow::Result<Vec<Value>> {
    let ask = async |query: String| -> anyhow::Result<Value> {
        Ok(gateway.get_json(&format!("/v1/sessions?{query}&state={state}")).await?)
    };
    pages(limit, ask).await
}

/// Asks on until there are so many, or no more.
async fn pages(
    limit: usize,
    ask: impl AsyncFn(String) -> anyhow::Result<Value>,
) -> anyhow::Result<Vec<Value>> {
    let (mut found, mut token) = (Vec::new(), None::<String>);
    while found.len() < limit {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &PAGE.min(limit - found.len()).to_string());
        if let Some(token) = &token {
            query.append_pair("token", token);
        }
        let answer = ask(query.finish()).await?;
        found.extend(answer.get("sessions").and_then(Value::as_array).cloned().unwrap_or_default());
        token = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    Ok(found)
}

async fn list(gateway: &Gateway, history: bool, limit: usize, json: bool) -> anyhow::Result<()> {
    let sessions = newest(gateway, if history { "history" } else { "active" }, limit).await?;
    if json {
        return print_json(&sessions);
    }
    let rows: Vec<Row> = serde_json::from_value(Value::Array(sessions))?;
    let rows: Vec<[String; 7]> = rows.into_iter().map(cells).collect();
    print_table(["SESSION", "WHO", "TARGET", "KIND", "STATE", "STARTED", "ENDED BY"], &rows)
}

/// A session past the gateway; what is missing stays empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ShadowRow {
    id: String,
    owner: String,
    target: String,
    document: Option<String>,
    started_ms: i64,
}

async fn shadow(gateway: &Gateway, json: bool) -> anyhow::Result<()> {
    let answer: Value = gateway.get_json("/v1/shadow-sessions").await?;
    if json {
        return print_json(&answer);
    }
    if answer.get("looked_ms").is_none_or(Value::is_null) {
        return print_line("the gateway has not looked yet, or is told not to (sessions.shadow_seconds)");
    }
    let found = answer.get("sessions").cloned().unwrap_or_default();
    let rows: Vec<ShadowRow> = serde_json::from_value(found)?;
    let cells = |row: ShadowRow| {
        [row.id, row.owner, row.target, row.document.unwrap_or_default(), moment(row.started_ms)]
    };
    let rows: Vec<[String; 5]> = rows.into_iter().map(cells).collect();
    print_table(["SESSION AT AWS", "WHO", "TARGET", "DOCUMENT", "STARTED"], &rows)
}

fn cells(row: Row) -> [String; 7] {
    let ended = row.end_reason.unwrap_or_default();
    [row.id, row.name, row.target, row.kind, row.state, moment(row.started_ms), ended]
}

/// One line for each thing that is known, nested names with dots.
///
/// To who may replay it, its commands or its connections too.
async fn show(gateway: &Gateway, id: &SessionId, session: Value, json: bool) -> anyhow::Result<()> {
    let kind = session.get("kind").cloned().and_then(|kind| serde_json::from_value::<SessionKind>(kind).ok());
    match kind {
        Some(kind) if kind.is_terminal() => show_commands(gateway, id, session, json).await,
        _ => show_connections(gateway, id, (session, kind), json).await,
    }
}

async fn show_commands(
    gateway: &Gateway,
    id: &SessionId,
    mut session: Value,
    json: bool,
) -> anyhow::Result<()> {
    let commands = super::recording::typed(gateway, id).await;
    if json {
        if let (Ok(commands), Some(fields)) = (commands, session.as_object_mut()) {
            fields.insert("commands".to_owned(), serde_json::to_value(commands)?);
        }
        return print_json(&session);
    }
    for line in lines("", &session) {
        print_line(&line)?;
    }
    match commands {
        Ok(commands) => commands.iter().try_for_each(|command| {
            let (at, source) = (offset(command.time_ms), command.source.as_str());
            print_line(&line("command", &format!("{at:>9}  [{source}]  {}", command.text)))
        }),
        Err(error) => print_line(&line("commands", &format!("not shown: {error:#}"))),
    }
}

async fn show_connections(
    gateway: &Gateway,
    id: &SessionId,
    (mut session, kind): (Value, Option<SessionKind>),
    json: bool,
) -> anyhow::Result<()> {
    let flows = match kind {
        Some(kind) if !kind.is_terminal() => Some(super::recording::connections(gateway, id).await),
        _ => None,
    };
    if json {
        if let (Some(Ok(table)), Some(fields)) = (flows, session.as_object_mut()) {
            fields.insert("flows".to_owned(), serde_json::to_value(table)?);
        }
        return print_json(&session);
    }
    for line in lines("", &session) {
        print_line(&line)?;
    }
    match flows {
        None => Ok(()),
        Some(Ok(table)) => {
            print_line("")?;
            Ok(table.write(&mut std::io::stdout().lock())?)
        }
        Some(Err(error)) => print_line(&line("connections", &format!("not shown: {error:#}"))),
    }
}

pub(super) fn lines(name: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                lines(&name, value)
            })
            .collect(),
        Value::Null => Vec::new(),
        Value::String(text) => vec![line(name, text)],
        Value::Number(number) => match (name.strip_suffix("_ms"), number.as_i64()) {
            (Some(name), Some(ms)) => vec![line(name, &moment(ms))],
            _ => vec![line(name, &number.to_string())],
        },
        other => vec![line(name, &other.to_string())],
    }
}

fn line(name: &str, text: &str) -> String {
    let name = format!("{}:", printable(name));
    format!("{name:<22} {}", printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_shown_line_by_line_and_safely() {
        let session =
            json!({"id": "s-1", "principal": {"name": "al\u{1b}[2Jice"}, "started_ms": 0, "reason": null});
        assert_eq!(
            lines("", &session),
            [
                "id:                    s-1",
                "principal.name:        al[2Jice",
                "started:               1970-01-01 00:00:00Z"
            ]
        );
    }

    #[tokio::test]
    async fn a_list_goes_on_over_pages_that_are_empty_or_not() {
        let ask = async |query: String| -> anyhow::Result<Value> {
            let sessions = |from: u32, to: u32| (from..to).map(|n| json!({"id": n})).collect::<Vec<_>>();
            Ok(match query.as_str() {
                "limit=200" => json!({"sessions": sessions(0, 200), "next": "a b"}),
                "limit=1" | "limit=50&token=a+b" => json!({"sessions": [], "next": "c"}),
                "limit=1&token=c" => json!({"sessions": sessions(7, 8), "next": "d"}),
                "limit=50&token=c" => json!({"sessions": sessions(200, 230), "next": null}),
                other => panic!("{other}"),
            })
        };
        assert_eq!(pages(250, &ask).await.unwrap().len(), 230);
        assert_eq!(pages(1, &ask).await.unwrap(), [json!({"id": 7})]);
    }

    #[test]
    fn a_row_with_less_than_expected_is_still_a_row() {
        let row: Row = serde_json::from_value(json!({"id": "s-1", "state": "connected", "new": 1})).unwrap();
        assert_eq!(cells(row)[4], "connected");
    }
}
