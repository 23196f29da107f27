//! `postern policy backtest`: what would a proposed set have decided?

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::super::decisions::{Pages, Which};
use super::super::output::{moment, print_json, print_line};
use crate::client::{Gateway, Profile};
use crate::policy::{Inquiry, Obligations, Policy};
use crate::registry::DecisionRecord;
use crate::session::printable;

/// Decisions asked of the gateway at a time.
const PAGE: usize = 200;
/// Longest line of an export, bytes: a request with everything in it.
const LINE_MAX: u64 = 1 << 20;
/// Most changes of one kind that are printed for people.
const SHOWN: usize = 50;

/// What the gateway is asked for: an export was made with filters of its own.
const FILTERS: [&str; 6] = ["principal", "target", "session", "result", "since", "until"];

/// What `postern policy backtest` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern policy backtest --against new/ --since 30d\n  \
    postern decisions export --since 30d > decisions.jsonl\n  \
    postern policy backtest --against new/ --from decisions.jsonl --json\n\n\
    Every recorded decision is asked again under the proposed set, at its own time, as it was asked.\n\
    Exit status: 0 nothing would change, 1 something would.")]
pub struct Args {
    /// The folder with the proposed set.
    #[arg(long, value_name = "DIR")]
    against: PathBuf,
    /// A file of `postern decisions export`; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = FILTERS)]
    from: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What would be otherwise under the proposed set.
#[derive(Debug, Default, Serialize)]
struct Report {
    policy_set: String,
    replayed: usize,
    /// Decisions without a request, or that a revocation made.
    left_out: usize,
    /// Sessions among them that began.
    sessions: usize,
    denied: Vec<Changed>,
    allowed: Vec<Changed>,
    /// Allowed as before, by other policies or under other obligations.
    otherwise: Vec<Changed>,
}

/// One decision that would be another one.
#[derive(Debug, Serialize)]
struct Changed {
    decision: String,
    /// The session that it let begin, or that it was about.
    session: Option<String>,
    at_ms: u64,
    principal: String,
    action: String,
    target: Option<String>,
    was: Vec<String>,
    would_be: Vec<String>,
    sentence: String,
    /// Obligations that would be others.
    obligations: Vec<String>,
}

/// Replays what was recorded.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let policy = Policy::load(&args.against)?;
    let mut report = Report { policy_set: policy.digest().to_owned(), ..Report::default() };
    match &args.from {
        Some(file) => read(file, |record| report.replay(&policy, &record))?,
        None => {
            let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
            let mut pages = Pages::new(&args.which);
            while let Some(page) = pages.next(&gateway, PAGE).await? {
                for decision in page {
                    report.replay(&policy, &serde_json::from_value(decision)?);
                }
            }
            pages.warn_if_partial();
        }
    }
    if args.json {
        print_json(&report)?;
    } else {
        for line in report.lines() {
            print_line(&line)?;
        }
    }
    let same = report.denied.is_empty() && report.allowed.is_empty() && report.otherwise.is_empty();
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads an export line by line: it may be larger than the memory.
fn read(file: &Path, mut each: impl FnMut(DecisionRecord)) -> anyhow::Result<()> {
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).with_context(|| file.display().to_string())?),
    };
    let mut source = BufReader::new(source);
    for number in 1.. {
        let mut line = Vec::new();
        if source.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let record = serde_json::from_slice(&line);
        each(record.with_context(|| format!("{}:{number} is no decision", file.display()))?);
    }
    Ok(())
}

impl Report {
    fn replay(&mut self, policy: &Policy, record: &DecisionRecord) {
        let inquiry =
            record.request.clone().and_then(|request| serde_json::from_value::<Inquiry>(request).ok());
        let at = i64::try_from(record.at_ms).unwrap_or(i64::MAX);
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
        // A revocation stands before policy, whatever policy says.
        let revoked = record.policies.iter().any(|id| id.starts_with("revocation/"));
        let (Some(inquiry), Ok(at), false) = (inquiry, at, revoked) else {
            self.left_out += 1;
            return;
        };
        self.replayed += 1;
        self.sessions += usize::from(record.started.is_some());
        let decision = policy.decide(&inquiry.question(&record.principal), at);
        let obligations = match (&record.obligations, decision.allowed) {
            (Some(before), true) => differences(before, &decision.obligations),
            _ => Vec::new(),
        };
        let changed = Changed {
            decision: record.id.clone(),
            session: record.started.as_ref().or(record.session.as_ref()).map(ToString::to_string),
            at_ms: record.at_ms,
            principal: record.principal.arn.clone(),
            action: record.action.clone(),
            target: record.target.as_ref().map(ToString::to_string),
            was: record.policies.clone(),
            would_be: decision.policies,
            sentence: decision.sentence,
            obligations,
        };
        match (record.allowed, decision.allowed) {
            (true, false) => self.denied.push(changed),
            (false, true) => self.allowed.push(changed),
            (true, true) if changed.was != changed.would_be || !changed.obligations.is_empty() => {
                self.otherwise.push(changed);
            }
            _ => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} decisions replayed under {}, {} of them began a session; {} left out",
            self.replayed,
            self.policy_set.get(..8).unwrap_or_default(),
            self.sessions,
            self.left_out
        )];
        for (what, changes) in [
            ("would be denied", &self.denied),
            ("would be allowed", &self.allowed),
            ("would be allowed otherwise", &self.otherwise),
        ] {
            lines.push(format!("{what}: {}", changes.len()));
            lines.extend(changes.iter().take(SHOWN).flat_map(Changed::lines));
            if changes.len() > SHOWN {
                lines.push(format!("  and {} more; --json has all of them", changes.len() - SHOWN));
            }
        }
        lines
    }
}

impl Changed {
    fn lines(&self) -> Vec<String> {
        let at = moment(i64::try_from(self.at_ms).unwrap_or(i64::MAX));
        let (target, session) =
            (self.target.as_deref().unwrap_or("-"), self.session.as_deref().unwrap_or("-"));
        let mut lines = vec![
            format!("  {at}  {} by {} on {target}", self.action, self.principal),
            format!("    decision {}  session {session}", self.decision),
            format!("    {}", self.sentence),
        ];
        if self.was != self.would_be {
            lines.push(format!("    by [{}], now [{}]", self.was.join(" "), self.would_be.join(" ")));
        }
        lines.extend(self.obligations.iter().map(|what| format!("    {what}")));
        lines.iter().map(|line| printable(line)).collect()
    }
}

/// `idle_timeout: null, now {"secs":900}`.
fn differences(before: &Value, after: &Obligations) -> Vec<String> {
    let after = serde_json::to_value(after).unwrap_or_default();
    let fields = |value: &Value| -> BTreeMap<String, Value> {
        value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let (before, after) = (fields(before), fields(&after));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let was = |key: &String| before.get(key).cloned().unwrap_or_default();
    changed.map(|(key, value)| format!("{key}: {}, now {value}", was(key))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(cedar: &str) -> Policy {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), cedar).unwrap();
        Policy::load(dir.path()).unwrap()
    }

    /// A start of a shell on a machine, decided by `dev`.
    fn record(env: &str, allowed: bool) -> DecisionRecord {
        let principal = json!({
            "id": "AIDA1", "arn": "arn:aws:iam::111122223333:user/alice", "account": "111122223333",
            "name": "alice", "role": null, "method": "sts_proof", "authenticated_at": 0,
        });
        let instance = json!({
            "target": "i-0123456789abcdef0", "account": "111122223333", "region": "eu-central-1",
            "name": null, "platform": null, "agent_version": null, "online": true, "tags": {"env": env},
        });
        serde_json::from_value(json!({
            "id": format!("d-{env}"), "at_ms": 1_795_000_000_000_u64, "principal": principal,
            "action": "startShell", "target": "i-0123456789abcdef0", "document": null, "session": null,
            "allowed": allowed, "policies": if allowed { vec!["dev"] } else { vec![] }, "sentence": "",
            "policy_digest": "", "source_ip": null, "started": "alice-1",
            "obligations": serde_json::to_value(Obligations::default()).unwrap(),
            "request": {"action": "startShell", "resource": {"kind": "instance", "instance": instance}},
        }))
        .unwrap()
    }

    const DEV: &str = "@id(\"dev\") permit (principal, action, resource) when { resource.hasTag(\"env\") && \
         resource.getTag(\"env\") == \"dev\" };";

    #[test]
    fn a_file_takes_no_filters() {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            _args: Args,
        }
        let line = ["x", "--against", ".", "--from", "-"];
        assert!(Line::try_parse_from(line).is_ok());
        for filter in FILTERS {
            let filter = format!("--{filter}");
            let line = line.iter().copied().chain([filter.as_str(), "2026-11-26"]);
            let error = Line::try_parse_from(line).unwrap_err();
            assert!(error.to_string().contains("--from") || filter == "--result", "{error}");
        }
    }

    #[test]
    fn what_would_be_otherwise_is_told_with_its_ids() {
        let mut same = Report::default();
        same.replay(&policy(DEV), &record("dev", true));
        assert_eq!((same.replayed, same.sessions), (1, 1));
        assert!(same.denied.is_empty() && same.allowed.is_empty() && same.otherwise.is_empty());

        let mut report = Report::default();
        let prod = DEV.replace("\"dev\" };", "\"prod\" };");
        report.replay(&policy(&prod), &record("dev", true));
        report.replay(&policy(&prod), &record("prod", false));
        report.replay(&policy(&DEV.replace("@id", "@record(\"disk\") @id")), &record("dev", true));
        let mut unknown = record("dev", true);
        unknown.request = None;
        report.replay(&policy(DEV), &unknown);
        assert_eq!((report.replayed, report.left_out), (3, 1));
        assert_eq!(report.denied[0].decision, "d-dev");
        assert_eq!(report.denied[0].session.as_deref(), Some("alice-1"));
        assert_eq!(report.allowed[0].would_be, ["dev"]);
        assert_eq!(report.otherwise[0].obligations, ["record: \"process\", now \"disk\""]);
        assert!(report.lines().join("\n").contains("decision d-dev  session alice-1"));
    }
}
