//! `postern decisions` and `postern audit`: what was decided, and what of it.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{moment, print_json, print_line, print_table};
use super::search::parse_when;
use crate::client::{Gateway, Profile};
use crate::session::printable;

/// Decisions asked of the gateway at a time.
const PAGE: usize = 200;

/// What `postern decisions` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern decisions list --result deny --since 1d\n  \
    postern decisions list --principal me\n  \
    postern decisions show 6d0f4f0e-0c0f-4d9c-9f4e-0a0b0c0d0e0f\n  \
    postern decisions export --since 30d > decisions.jsonl\n\n\
    Your own decisions are shown to you, those about sessions that you may see, and all of them to whoever \
    may administer the gateway.")]
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
    /// List decisions, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show everything about one decision
    Show {
        /// The decision's id, as denials and recordings name it.
        id: String,
    },
    /// Write decisions out, one JSON document a line
    Export {
        #[command(flatten)]
        which: Which,
    },
}

/// Which decisions.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// Of whoever has this ARN; `me` is you.
    #[arg(long, value_name = "ARN")]
    principal: Option<String>,
    /// On this machine.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// About this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// With this answer.
    #[arg(long, value_parser = ["allow", "deny"])]
    result: Option<String>,
    /// Since: a date, a time (RFC 3339), or 2h, 7d.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    since: Option<u64>,
    /// Before.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<u64>,
}

/// What `postern audit` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern audit 6d0f4f0e-0c0f-4d9c-9f4e-0a0b0c0d0e0f\n  \
    postern audit alice-abcdefghijklmnopqrstuvwxyz --json\n\n\
    The id may be of a decision, a session of the gateway or of AWS, the SHA-256 of a recording, or a\n\
    source identity as CloudTrail shows it.")]
pub struct AuditArgs {
    /// Any of them.
    id: String,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Does what was asked.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    match args.command {
        Command::List { which, limit } => list(&gateway, &which, limit, args.json).await?,
        Command::Show { id } => show(&one(&gateway, &id).await?, args.json)?,
        Command::Export { which } => {
            let mut pages = Pages::new(&which);
            while let Some(page) = pages.next(&gateway, PAGE).await? {
                let mut out = std::io::stdout().lock();
                for decision in page {
                    writeln!(out, "{decision}")?;
                }
            }
            pages.warn_if_partial();
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One decision of a gateway.
pub async fn one(gateway: &Gateway, id: &str) -> anyhow::Result<Value> {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    Ok(gateway.get_json(&format!("/v1/decisions/{id}")).await?)
}

/// Page after page of decisions, newest first.
pub struct Pages {
    query: Vec<(&'static str, String)>,
    token: Option<String>,
    over: bool,
    /// Whether others have decisions that are not in them.
    partial: bool,
}

impl Pages {
    /// From the newest one on.
    pub fn new(which: &Which) -> Self {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let all = [
            ("principal", which.principal.clone()),
            ("target", which.target.clone()),
            ("session", which.session.clone()),
            ("result", which.result.clone()),
            ("since_ms", number(which.since)),
            ("until_ms", number(which.until)),
        ];
        let query = all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Self { query, token: None, over: false, partial: false }
    }

    /// The next page; None after the last one.
    pub async fn next(&mut self, gateway: &Gateway, limit: usize) -> anyhow::Result<Option<Vec<Value>>> {
        if self.over {
            return Ok(None);
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &limit.min(PAGE).to_string()).extend_pairs(&self.query);
        if let Some(token) = &self.token {
            query.append_pair("token", token);
        }
        let answer: Value = gateway.get_json(&format!("/v1/decisions?{}", query.finish())).await?;
        self.token = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        self.over = self.token.is_none();
        self.partial = answer.get("all") == Some(&Value::Bool(false));
        Ok(Some(answer.get("decisions").and_then(Value::as_array).cloned().unwrap_or_default()))
    }

    /// Says on standard error if these were not everybody's.
    pub fn warn_if_partial(&self) {
        if self.partial {
            eprintln!(
                "postern: only the decisions that you may know of; all are told to whoever administers the gateway"
            );
        }
    }
}

async fn list(gateway: &Gateway, which: &Which, limit: usize, json: bool) -> anyhow::Result<()> {
    let mut pages = Pages::new(which);
    let mut found: Vec<Value> = Vec::new();
    while found.len() < limit
        && let Some(page) = pages.next(gateway, limit - found.len()).await?
    {
        found.extend(page);
    }
    if json {
        return print_json(&found);
    }
    let rows: Vec<[String; 6]> = found.iter().map(cells).collect();
    print_table(["TIME", "RESULT", "ACTION", "WHO", "TARGET", "ID"], &rows)
}

fn cells(decision: &Value) -> [String; 6] {
    let text = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let at = decision.get("at_ms").and_then(Value::as_i64).map(moment).unwrap_or_default();
    let who = decision.get("principal").and_then(|who| who.get("name")?.as_str()).unwrap_or_default();
    [at, result(decision).to_owned(), text("action"), who.to_owned(), text("target"), text("id")]
}

fn result(decision: &Value) -> &'static str {
    if decision.get("allowed").and_then(Value::as_bool) == Some(true) { "allow" } else { "deny" }
}

fn show(decision: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(decision);
    }
    for line in super::sessions::lines("", decision) {
        print_line(&line)?;
    }
    Ok(())
}

/// Shows what an id leads to.
pub async fn audit(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    let id: String = form_urlencoded::byte_serialize(args.id.as_bytes()).collect();
    let answer: Value = gateway.get_json(&format!("/v1/audit?id={id}")).await?;
    let chains = answer.get("chains").and_then(Value::as_array).cloned().unwrap_or_default();
    if args.json {
        print_json(&chains)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (number, chain) in chains.iter().enumerate() {
        if number > 0 {
            print_line("")?;
        }
        for line in links(chain) {
            print_line(&line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A chain as lines, from the person to the recording.
fn links(chain: &Value) -> Vec<String> {
    let null = json!(null);
    let at = |path: &str| chain.pointer(path).unwrap_or(&null);
    let text = |path: &str| at(path).as_str().unwrap_or("-").to_owned();
    let policies: Vec<&str> =
        at("/decision/policies").as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let decision = match at("/decision") {
        Value::Null => "-".to_owned(),
        decision => format!("{} {} by {}", text("/decision/id"), result(decision), policies.join(", ")),
    };
    let session = match at("/session") {
        Value::Null => "- (none began)".to_owned(),
        _ => format!("{} on {}, {}", text("/session/id"), text("/session/target"), text("/session/state")),
    };
    let mut lines = vec![
        format!("principal        {}", text("/principal/arn")),
        format!("decision         {decision}"),
        format!("                 {}", text("/decision/sentence")),
        format!("source identity  {}", text("/source_identity")),
        format!("session          {session}"),
        format!("ssm session      {}", text("/ssm_session_id")),
        format!("recording        {}", text("/recording_sha256")),
    ];
    for later in at("/later").as_array().into_iter().flatten() {
        let [at, result, action, who, _, id] = cells(later);
        lines.push(format!("later            {at} {result} {action} by {who} ({id})"));
    }
    lines.iter().map(|line| printable(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_told_from_the_person_to_the_recording() {
        let chain = json!({
            "principal": {"arn": "arn:aws:iam::1:user/alice"}, "source_identity": "alice",
            "decision": {"id": "d-1", "allowed": true, "policies": ["dev"], "sentence": "per\u{1b}mitted"},
            "session": {"id": "alice-1", "target": "i-0", "state": "Terminated"},
            "ssm_session_id": "alice-0abc", "recording_sha256": "00ff", "later": [],
        });
        let told = links(&chain).join("\n");
        for part in ["user/alice", "d-1 allow by dev", "alice-1 on i-0, Terminated", "alice-0abc", "00ff"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains('\u{1b}'));
        assert!(links(&json!({})).join("\n").contains("none began"));
    }
}
