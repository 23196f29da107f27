//! `postern search` and `postern index`: which recording says X?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{moment, print_json, print_line};
use crate::catalogue::{Catalogue, FILE_NAME, Pattern, Query};
use crate::client::aws_config_file::command_word;
use crate::client::{Gateway, Profile};
use crate::session::{now_ms, printable};
use crate::store::{Found, Store};

/// What no hit makes the command exit with, as `grep` does.
const NOTHING: u8 = 1;
/// What a recording that cannot be read makes it exit with, as `grep` does.
const UNREAD: u8 = 2;
/// Hits asked of the gateway at a time.
const PAGE: usize = 100;

/// What `postern search` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern search 'permission denied'\n  \
    postern search --regex 'rm -rf? /' --commands --since 7d\n  \
    postern search secret.txt --principal alice --target i-0123456789abcdef0\n  \
    postern search --dir /var/lib/postern/recordings 'out of memory'\n\n\
    Newest recordings come first. How a command is known: `shell` marked it, it was typed and\n\
    shown (`input`), or it follows what looks like a prompt (`guess`).\n\n\
    Lines are what a screen showed: also rows that were erased or overwritten, if they stood for a\n\
    quarter of a second, each once; 20 000 of those, and one more for each second of a recording.\n\n\
    Exit status: 0 something was found, 1 nothing was, 2 a recording of the folder could not be read.")]
pub struct Args {
    /// What to search for; case makes no difference.
    #[arg(value_name = "TEXT")]
    text: String,
    /// TEXT is a regular expression.
    #[arg(long, short = 'e')]
    regex: bool,
    /// Search the commands that were typed instead of all lines.
    #[arg(long)]
    commands: bool,
    /// Only recordings of principals whose ARN holds this.
    #[arg(long, value_name = "TEXT")]
    principal: Option<String>,
    /// Only recordings of this machine.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// Only recordings that ended since: a date, a time (RFC 3339), or 2h, 7d.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    since: Option<u64>,
    /// Only recordings that began before.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<u64>,
    /// At most so many hits.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Search the recordings of a folder instead of a gateway's.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE", conflicts_with = "dir")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `postern index` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern index /var/lib/postern/recordings\n  \
    postern index --anew ./evidence\n\n\
    A gateway indexes its own recordings by itself.")]
pub struct IndexArgs {
    /// The folder with the recordings; catalogue.db is written there.
    dir: PathBuf,
    /// Throw the old catalogue away first.
    #[arg(long)]
    anew: bool,
}

/// A hit as the gateway tells it.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Row {
    session: String,
    principal: String,
    target: String,
    started_ms: i64,
    time_ms: u64,
    text: String,
    source: Option<String>,
    /// The recording, if it is of a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

/// A page of them.
#[derive(Debug, Deserialize)]
struct Answer {
    hits: Vec<Row>,
    next: Option<String>,
}

/// Searches and prints.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (rows, unread) = match &args.dir {
        Some(dir) => in_folder(dir, &args).await?,
        None => (at_gateway(&args).await?, 0),
    };
    if args.json {
        let rows: Vec<Value> = rows.iter().map(with_jump).collect();
        print_json(&rows)?;
    } else {
        print(&rows)?;
    }
    Ok(match (unread, rows.is_empty()) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => ExitCode::from(NOTHING),
        _ => ExitCode::from(UNREAD),
    })
}

/// Brings a folder's catalogue up to date.
pub async fn index(args: IndexArgs) -> anyhow::Result<ExitCode> {
    let file = args.dir.join(FILE_NAME);
    if !args.dir.is_dir() {
        bail!("{} is no folder", args.dir.display());
    }
    let catalogue = Catalogue::open(&file).await?;
    if args.anew {
        catalogue.begin_anew().await?;
    }
    let (added, failed) = bring_up_to_date(&catalogue, &args.dir).await?;
    let known = catalogue.known().await?.len();
    catalogue.close().await;
    print_line(&format!("{}: {added} recordings indexed now, {known} in all", file.display()))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn at_gateway(args: &Args) -> anyhow::Result<Vec<Row>> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    let (mut rows, mut token) = (Vec::new(), None);
    while rows.len() < args.limit {
        let body = json!({
            (if args.regex { "regex" } else { "text" }): args.text, "commands": args.commands,
            "principal": args.principal, "target": args.target, "since_ms": args.since,
            "until_ms": args.until, "limit": PAGE.min(args.limit - rows.len()), "token": token,
        });
        let answer: Answer = gateway.post_json("/v1/search", &body).await?;
        rows.extend(answer.hits);
        token = answer.next;
        if token.is_none() {
            break;
        }
    }
    Ok(rows)
}

/// The hits, and how many recordings could not be read.
async fn in_folder(dir: &Path, args: &Args) -> anyhow::Result<(Vec<Row>, usize)> {
    let pattern = if args.regex { Pattern::regex(&args.text) } else { Pattern::text(&args.text) };
    let query = Query {
        pattern: pattern?,
        commands: args.commands,
        principal: args.principal.clone(),
        target: args.target.clone(),
        since_ms: args.since,
        until_ms: args.until,
    };
    let file = dir.join(FILE_NAME);
    let catalogue =
        if file.is_file() { Catalogue::open(&file).await? } else { Catalogue::in_memory().await? };
    let (_, unread) = bring_up_to_date(&catalogue, dir).await?;
    let store = Store::new(dir);
    let (mut rows, mut token) = (Vec::new(), None);
    loop {
        let mut search = catalogue.search(query.clone(), token.as_deref())?;
        while let Some(found) = search.next().await? {
            let file = store.find(&found.recording.session)?.map(|recording| recording.path);
            for hit in search.hits(&found, args.limit - rows.len())? {
                rows.push(Row {
                    session: found.recording.session.to_string(),
                    principal: found.recording.principal.clone(),
                    target: found.recording.target.clone(),
                    started_ms: i64::try_from(found.recording.started_ms).unwrap_or(i64::MAX),
                    time_ms: hit.time_ms,
                    text: hit.text,
                    source: hit.source.map(|source| source.as_str().to_owned()),
                    file: file.clone(),
                });
            }
            if rows.len() >= args.limit {
                break;
            }
        }
        token = search.token();
        if token.is_none() || rows.len() >= args.limit {
            catalogue.close().await;
            return Ok((rows, unread));
        }
    }
}

/// Indexes what is missing, oldest first; tells how many, and how many not.
async fn bring_up_to_date(catalogue: &Catalogue, dir: &Path) -> anyhow::Result<(usize, usize)> {
    let known = catalogue.known().await?;
    let mut found: Vec<(i64, Found)> = Vec::new();
    for recording in Store::new(dir).list()? {
        if !known.contains(recording.id.as_str()) {
            let begun = recording.header().map_or(0, |header| header.timestamp);
            found.push((begun, recording));
        }
    }
    found.sort_by_key(|(begun, _)| *begun);
    let mut failed = 0;
    for (_, recording) in &found {
        if let Err(error) = catalogue.add(&recording.id, &recording.path).await {
            eprintln!("postern: {}", printable(&error.to_string()));
            failed += 1;
        }
    }
    Ok((found.len() - failed, failed))
}

/// One heading a recording, one line a hit, and where to jump to.
fn print(rows: &[Row]) -> anyhow::Result<()> {
    for rows in rows.chunk_by(|a, b| a.session == b.session) {
        let Some(first) = rows.first() else { continue };
        let who = printable(&first.principal);
        let began = moment(first.started_ms);
        print_line(&format!(
            "{}  {who} on {}  {began}",
            printable(&first.session),
            printable(&first.target)
        ))?;
        for row in rows {
            let source = row.source.as_deref().map(|source| format!(" [{}]", printable(source)));
            let source = source.unwrap_or_default();
            print_line(&format!("  {:>9}{source}  {}", offset(row.time_ms), printable(&row.text)))?;
        }
        print_line(&format!("  {}", jump(first)))?;
    }
    Ok(())
}

fn with_jump(row: &Row) -> Value {
    let mut value = json!(row);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("jump".to_owned(), Value::String(jump(row)));
    }
    value
}

/// What to type to see it.
fn jump(row: &Row) -> String {
    let file = row.file.as_ref().map(|file| file.display().to_string());
    let file = file.map(|file| command_word(&file).unwrap_or(file));
    let recording = printable(file.as_ref().unwrap_or(&row.session));
    format!("postern replay {recording} --at {}", offset(row.time_ms))
}

/// `1m23s`: the second before it, as `--at` reads it.
pub(super) fn offset(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A moment in ms since the Unix epoch: a date, a time, or how long ago.
pub(super) fn parse_when(text: &str) -> anyhow::Result<u64> {
    let units = [("m", 60), ("h", 3600), ("d", 86_400), ("w", 604_800)];
    for (unit, seconds) in units {
        if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<u64>().ok()) {
            return Ok(now_ms().saturating_sub(count.saturating_mul(seconds * 1000)));
        }
    }
    let whole = if text.len() == "2026-11-26".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let moment = OffsetDateTime::parse(&whole, &Rfc3339);
    let moment = moment.context("it must be 2026-11-26, 2026-11-26T10:15:00Z, or 30m, 2h, 7d, 4w ago")?;
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).context("it is before 1970")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        assert_eq!(parse_when("1970-01-02").unwrap(), 86_400_000);
        assert_eq!(parse_when("1970-01-01T00:00:01+00:00").unwrap(), 1000);
        let (before, week_ago, after) = (now_ms(), parse_when("1w").unwrap(), now_ms());
        assert!((before..=after).contains(&(week_ago + 604_800_000)));
        assert!(parse_when("yesterday").is_err());
    }

    #[test]
    fn a_hit_in_a_folder_is_replayed_from_its_file() {
        let mut row: Row = serde_json::from_value(json!({
            "session": "alice-1", "principal": "a", "target": "i-0a", "started_ms": 0, "time_ms": 83_999,
            "text": "x", "source": null,
        }))
        .unwrap();
        assert_eq!(jump(&row), "postern replay alice-1 --at 1m23s");
        row.file = Some("/my evidence/alice-1.cast.zst".into());
        assert_eq!(jump(&row), "postern replay '/my evidence/alice-1.cast.zst' --at 1m23s");
    }

    #[test]
    fn an_offset_is_what_replay_reads() {
        assert_eq!(offset(83_999), "1m23s");
        assert_eq!(offset(999), "0s");
        assert_eq!(offset(3_723_000), "1h2m3s");
    }
}
