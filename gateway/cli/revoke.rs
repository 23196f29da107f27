//! `postern revoke`: shuts a person, a role, a session or a machine out.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::output::{moment, print_json, print_line, print_table};
use crate::client::{Gateway, Profile};
use crate::session::{clean_reason, printable};

/// What `postern revoke` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern revoke --principal arn:aws:sts::111122223333:assumed-role/Dev/mallory --reason 'lost laptop'\n  \
    postern revoke --role Contractor --for 8h\n  \
    postern revoke --session mallory-abcdefghijklmnopqrstuvwxyz\n  \
    postern revoke --target i-0123456789abcdef0 --reason 'under investigation'\n  \
    postern revoke --list\n  \
    postern revoke --lift 6d0f4f0e-0c0f-4d9c-9f4e-0a0b0c0d0e0f\n\n\
    It takes effect on every node within a second: running sessions end, new ones are refused.")]
pub struct Args {
    #[command(flatten)]
    what: What,
    /// Why; those who are shut out read it.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For so long, such as 90m or 8h; until it is lifted if not given.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A person, by ARN or unique id.
    #[arg(long, value_name = "ARN")]
    principal: Option<String>,
    /// A role, by ARN (without path) or by name in any account.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// One session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A machine.
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// List what is revoked now.
    #[arg(long)]
    list: bool,
    /// Lift a revocation.
    #[arg(long, value_name = "ID")]
    lift: Option<String>,
}

/// Does what was asked.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    let subject = args.what.subject();
    if let Some((what, which)) = subject {
        let body = json!({
            "what": what, "which": which,
            "reason": args.reason.as_deref().map(clean_reason).unwrap_or_default(),
            "seconds": args.lasts.map(|lasts| lasts.as_secs()),
        });
        let answer: Value = gateway.post_json("/v1/revocations", &body).await?;
        if args.json {
            print_json(&answer)?;
        } else {
            let id = answer.get("id").and_then(Value::as_str).unwrap_or_default();
            print_line(&format!("revoked {what} {}", printable(&which)))?;
            print_line(&format!("lift it with: postern revoke --lift {}", printable(id)))?;
        }
    } else if let Some(id) = args.what.lift {
        let answer: Value = gateway.post_json(&format!("/v1/revocations/{id}/lift"), &json!({})).await?;
        if args.json { print_json(&answer)? } else { print_line(&format!("lifted {}", printable(&id)))? }
    } else {
        list(&gateway, args.json).await?;
    }
    Ok(ExitCode::SUCCESS)
}

impl What {
    fn subject(&self) -> Option<(&'static str, String)> {
        let named = [
            ("principal", &self.principal),
            ("role", &self.role),
            ("session", &self.session),
            ("target", &self.target),
        ];
        named.into_iter().find_map(|(what, which)| Some((what, which.clone()?)))
    }
}

async fn list(gateway: &Gateway, json: bool) -> anyhow::Result<()> {
    let answer: Value = gateway.get_json("/v1/revocations").await?;
    let found = answer.get("revocations").and_then(Value::as_array).cloned().unwrap_or_default();
    if json {
        return print_json(&Value::Array(found));
    }
    let rows: Vec<[String; 7]> = found.iter().map(cells).collect();
    print_table(["ID", "WHAT", "WHICH", "REASON", "BY", "SINCE", "UNTIL"], &rows)
}

fn cells(row: &Value) -> [String; 7] {
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let time = |key: &str| row.get(key).and_then(Value::as_i64).map(moment).unwrap_or_default();
    [text("id"), text("what"), text("which"), text("reason"), text("by"), time("at_ms"), time("until_ms")]
}

/// `90s`, `45m`, `8h` or `30d`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let unit = text.chars().last().context("write a time such as 90m or 8h")?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => anyhow::bail!("write a time such as 90s, 45m, 8h or 30d"),
    };
    let number: u64 = number.parse().context("write a time such as 90s, 45m, 8h or 30d")?;
    anyhow::ensure!(number > 0, "write a time of one second at least");
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_people_write_it() {
        for (text, seconds) in [("90s", 90), ("45m", 2700), ("8h", 28_800), ("30d", 2_592_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for bad in ["", "h", "0h", "-1h", "8", "8w", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
