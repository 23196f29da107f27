//! `postern policy explain`: why, why not, and what would allow it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use time::OffsetDateTime;

use super::super::decisions;
use super::super::output::{print_json, print_text};
use super::asked::{How, Machine, Where, action, company, person, written};
use crate::client::{Gateway, Profile};
use crate::policy::{Action, Change, Decider, Explanation, Inquiry, Policy, Situation};
use crate::registry::DecisionRecord;
use crate::session::printable;

/// What a request in a file or a recorded decision says itself.
const ASKED: [&str; 14] = [
    "principal",
    "action",
    "resource",
    "tags",
    "account",
    "region",
    "at",
    "reason",
    "source_ip",
    "mfa",
    "document",
    "command",
    "port",
    "host",
];

/// What `postern policy explain` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern policy explain --principal arn:aws:sts::111122223333:assumed-role/OnCall/omar \\\n      \
      --action startShell --resource i-0123456789abcdef0 --tag env=prod --source-ip 203.0.113.9\n  \
    postern policy explain policies --entities policies/tests/entities/company.json \\\n      \
      --principal ada --action startShell --resource web-prod\n  \
    postern policy explain --request request.json --json\n\n\
    A request file is a case of the folder's tests, or its `request` alone. It exits 0 if the request\n\
    is allowed and 1 if it is denied. Groups of groups.toml are added to the people of the entities.")]
pub struct Args {
    #[command(flatten)]
    place: Where,
    /// Who: an ARN, an e-mail address, or an id or name of the entities.
    #[arg(long, value_name = "WHO", required_unless_present_any = ["request", "decision"])]
    principal: Option<String>,
    /// What for, such as startShell.
    #[arg(long, value_name = "ACTION", required_unless_present_any = ["request", "decision"])]
    action: Option<String>,
    /// To what: a machine, a session or a recording.
    #[arg(long, visible_alias = "target", value_name = "WHAT")]
    resource: Option<String>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    how: How,
    /// A JSON file with the request; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ASKED)]
    request: Option<PathBuf>,
    /// A recorded decision of a gateway, asked again at its own time.
    #[arg(long, value_name = "ID", conflicts_with_all = ASKED, conflicts_with_all = ["request", "entities"])]
    decision: Option<String>,
    /// The AWS profile that points at the gateway, for --decision.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Explains one request.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let policy = Policy::load(&args.place.dir)?;
    let (explained, revoked_by) = match &args.decision {
        Some(id) => recorded(&args, &policy, id).await?,
        None => (policy.explain(&situation(&args, &policy)?), Vec::new()),
    };
    let explanation = explained.map_err(|why| anyhow::anyhow!(printable(&why)))?;
    let answer = Answered { allowed: explanation.allowed && revoked_by.is_empty(), revoked_by, explanation };
    if args.json {
        print_json(&answer.json()?)?;
    } else {
        print_text(&answer.text()?)?;
    }
    Ok(if answer.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What policy says, and the revocations that stood before it.
struct Answered {
    allowed: bool,
    revoked_by: Vec<String>,
    explanation: Explanation,
}

impl Answered {
    fn json(&self) -> anyhow::Result<serde_json::Value> {
        let mut json = serde_json::to_value(&self.explanation)?;
        if let Some(fields) = json.as_object_mut().filter(|_| !self.revoked_by.is_empty()) {
            fields.insert("allowed".to_owned(), self.allowed.into());
            fields.insert("revoked_by".to_owned(), serde_json::json!(self.revoked_by));
        }
        Ok(json)
    }

    fn text(&self) -> Result<String, std::fmt::Error> {
        let told = told(&self.explanation)?;
        if self.revoked_by.is_empty() {
            return Ok(told);
        }
        let by = printable(&self.revoked_by.join(", "));
        Ok(format!("denied by {by}, whatever policy says; without it policy says\n\n{told}"))
    }
}

/// The revocations among what decided: they stand before policy.
fn revocations(policies: &[String]) -> Vec<String> {
    policies.iter().filter(|id| id.starts_with("revocation/")).cloned().collect()
}

/// A decision of a gateway under the policies of the folder.
async fn recorded(
    args: &Args,
    policy: &Policy,
    id: &str,
) -> anyhow::Result<(Result<Explanation, String>, Vec<String>)> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    let record: DecisionRecord = serde_json::from_value(decisions::one(&gateway, id).await?)?;
    let request = record.request.context("this decision was recorded without its request")?;
    let inquiry: Inquiry = serde_json::from_value(request).context("its request is of another version")?;
    let seconds = i64::try_from(record.at_ms / 1000).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds)?;
    if record.policy_digest != policy.digest() && !args.json {
        let set = record.policy_digest.get(..8).unwrap_or_default();
        eprintln!("postern: it was decided by policy set {set}; this is how the folder decides it");
    }
    let explained = policy.explain_question(&inquiry.question(&record.principal), at);
    Ok((explained, revocations(&record.policies)))
}

fn situation(args: &Args, policy: &Policy) -> anyhow::Result<Situation> {
    let mut company = company(policy, args.place.entities.as_deref())?;
    if let Some(file) = &args.request {
        return written(file, company, policy);
    }
    let (Some(who), Some(what)) = (&args.principal, &args.action) else {
        bail!("name --principal and --action, or a --request")
    };
    let action = action(what)?;
    let who = person(&mut company, policy, who)?;
    let resource = match (action, args.resource.as_deref()) {
        (Action::Administer, _) => "Postern::Gateway::\"gateway\"".to_owned(),
        (_, None) => bail!("name the machine, session or recording with --resource"),
        (Action::ResumeSession | Action::TerminateSession | Action::WatchSession, Some(name)) => {
            owned(&company, "Session", name)?
        }
        (Action::ReplayRecording | Action::HoldRecording, Some(name)) => owned(&company, "Recording", name)?,
        (_, Some(name)) => {
            let account = company.attribute(&who, "account").unwrap_or_default().to_owned();
            args.machine.find(&mut company, name, &account)?
        }
    };
    Ok(company.situation(&who, action, &resource, &args.how.circumstances()))
}

fn owned(company: &crate::policy::Company, kind: &str, name: &str) -> anyhow::Result<String> {
    company.find(kind, name)?.with_context(|| {
        format!("there is no {} {name} in the entities (--entities FILE)", kind.to_lowercase())
    })
}

/// The explanation as people read it.
fn told(explained: &Explanation) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let word = if explained.allowed { "allowed" } else { "denied" };
    let (who, what) = (&explained.principal, &explained.resource);
    writeln!(text, "{word}: {} on {what} for {who}", explained.action)?;
    writeln!(text, "policy set {}", explained.policy_set)?;
    let by = if explained.allowed { "permitted by" } else { "forbidden by" };
    let by = if explained.needs_reason { "permitted with a reason by" } else { by };
    policies(&mut text, by, &explained.decided_by)?;
    policies(&mut text, "could not be evaluated, which denies", &explained.failed)?;
    policies(&mut text, "no policy permits it; nearest is", &explained.nearest)?;
    if let Some(owed) = &explained.obligations {
        writeln!(text, "\nthe gateway owes {}", serde_json::json!(owed))?;
    }
    if explained.allowed {
        return Ok(text);
    }
    match explained.changes.as_slice() {
        [] => writeln!(text, "\nno change that was tried would allow it")?,
        sets => {
            writeln!(text, "\nthe smallest change that would allow it")?;
            for set in sets {
                writeln!(text, "  - {}", sentence(set))?;
            }
        }
    }
    Ok(text)
}

/// Changes that belong together, as one sentence.
pub fn sentence(changes: &[Change]) -> String {
    changes.iter().map(Change::sentence).collect::<Vec<_>>().join(", and ")
}

fn policies(text: &mut String, heading: &str, found: &[Decider]) -> std::fmt::Result {
    for policy in found {
        writeln!(text, "\n{heading} {}", policy.id)?;
        if let Some(message) = &policy.message {
            writeln!(text, "  \"{}\"", printable(message))?;
        }
        if let Some(source) = &policy.source {
            writeln!(text, "  {}:{}", printable(&source.file), source.line)?;
            for (number, line) in (source.line..).zip(source.text.lines()) {
                writeln!(text, "  {number:>5} | {}", printable(line))?;
            }
        }
        for need in &policy.needs {
            let mark = if need.holds { "holds    " } else { "does not " };
            writeln!(text, "  {mark} {}", need.clause)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_a_revocation_denied_is_not_told_to_be_allowed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), "@id(\"open\") permit (principal, action, resource);")
            .unwrap();
        let policy = Policy::load(dir.path()).unwrap();
        let words = [
            "x",
            ".",
            "--principal",
            "arn:aws:iam::1:user/eve",
            "--action",
            "startShell",
            "--resource",
            "i-0123456789abcdef0",
        ];
        let args = Line::try_parse_from(words).unwrap().args;
        let explanation = policy.explain(&situation(&args, &policy).unwrap()).unwrap();
        assert!(explanation.allowed);
        let revoked_by = revocations(&["open".to_owned(), "revocation/7".to_owned()]);
        let answer = Answered { allowed: revoked_by.is_empty(), revoked_by, explanation };
        assert!(answer.text().unwrap().starts_with("denied by revocation/7, whatever policy says"));
        let json = answer.json().unwrap();
        assert_eq!((&json["allowed"], &json["revoked_by"][0]), (&false.into(), &"revocation/7".into()));
    }

    #[test]
    fn what_a_file_or_a_decision_says_itself_is_not_taken_twice() {
        for more in [&["--reason", "x"][..], &["--mfa"], &["--tag", "a=b"], &["--at", "2026-11-30T08:00:00Z"]]
        {
            for way in ["--request", "--decision"] {
                let line = [&["x", ".", way, "y"][..], more].concat();
                assert!(Line::try_parse_from(&line).is_err(), "{line:?}");
                assert!(Line::try_parse_from(["x", ".", way, "y"]).is_ok());
            }
        }
    }
}
