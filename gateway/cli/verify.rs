//! `postern verify`: finds damage in a recording, and says where.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{print_json, print_line};
use super::recording::Fetched;
use super::replay::locate;
use crate::client::{Gateway, Profile};
use crate::recorder::{Damage, Evidence, PublicKey, Report, verify};
use crate::session::printable;

/// Exit code for a recording that is not as it was sealed.
const DAMAGED: u8 = 1;
/// Exit code for a recording that nobody has signed yet.
const UNSEALED: u8 = 2;

/// What `postern verify` can be told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 sealed and whole, 1 damaged, 2 not sealed, 255 not checked.\n\nExamples:\n  \
    postern verify recording.cast.zst --key recording.key.pub\n  \
    postern verify alice-abcdefghijklmnopqrstuvwxyz"
)]
pub struct Args {
    /// A recording's file, or a session id.
    #[arg(value_name = "FILE|SESSION")]
    recording: String,
    /// Trust this public key (PEM); the gateway's keys if none is given.
    #[arg(long = "key", value_name = "FILE", env = "POSTERN_RECORDING_KEY")]
    keys: Vec<PathBuf>,
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Checks a recording and says what was found.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut fetched = None;
    let path = locate(&args.recording, |id| {
        let copy = Fetched::fetch(id, args.profile.as_deref())?;
        Ok(fetched.insert(copy).path().to_owned())
    })?;
    // What cannot be read is neither whole nor damaged.
    std::fs::File::open(&path).with_context(|| printable(&path.display().to_string()))?;
    let trusted = trusted(&args)?;
    let found = verify(&path, &trusted);
    if args.json {
        print_json(&as_json(&found))?;
    } else {
        print_line(&sentence(&path, &found))?;
    }
    Ok(match found {
        Ok(Report::Sealed(_)) => ExitCode::SUCCESS,
        Ok(Report::Unsealed { .. }) => ExitCode::from(UNSEALED),
        Err(_) => ExitCode::from(DAMAGED),
    })
}

/// The keys that were named, else those that the gateway publishes.
fn trusted(args: &Args) -> Result<Vec<PublicKey>> {
    if args.keys.is_empty() {
        let profile = args.profile.as_deref();
        return super::block_on(published(profile))
            .context("no --key was given, and the gateway's keys cannot be had");
    }
    args.keys.iter().map(|path| Ok(PublicKey::read(path)?)).collect()
}

/// A key as the gateway publishes it.
#[derive(Deserialize)]
struct Published {
    pem: String,
}

async fn published(profile: Option<&str>) -> Result<Vec<PublicKey>> {
    let gateway = Gateway::open(Profile::load(profile).await?).await?;
    let keys: Vec<Published> = gateway.get_json("/v1/recording-keys").await?;
    keys.iter().map(|key| Ok(PublicKey::from_pem(&key.pem)?)).collect()
}

fn sentence(path: &Path, found: &Result<Report, Damage>) -> String {
    let name = path.display();
    let text = match found {
        Ok(Report::Sealed(evidence)) => format!("{name}: {}", sealed(evidence)),
        Ok(Report::Unsealed { lines, duration_ms }) => {
            let seconds = seconds(*duration_ms);
            format!(
                "{name}: not sealed, so nothing is proved: {lines} lines, {seconds} s can be read; \
                 the session runs, or was interrupted"
            )
        }
        Err(damage) => format!("{name}: {damage}"),
    };
    printable(&text)
}

fn sealed(evidence: &Evidence) -> String {
    let (totals, end) = (&evidence.totals, &evidence.end);
    let mut text = format!(
        "whole: session {}, {} lines, {} s, ended: {}, signed by key {}",
        evidence.session,
        totals.lines,
        seconds(totals.duration_ms),
        end.reason,
        evidence.key_id
    );
    if end.recovered {
        text.push_str(&format!(
            "; put together after a crash or error, {} bytes are known to be missing",
            end.missing_bytes
        ));
    }
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn as_json(found: &Result<Report, Damage>) -> Value {
    match found {
        Ok(Report::Sealed(evidence)) => json!({
            "result": "whole", "session": evidence.session, "lines": evidence.totals.lines,
            "duration_ms": evidence.totals.duration_ms, "lines_sha256": evidence.lines_sha256,
            "end": evidence.end, "key_id": evidence.key_id,
        }),
        Ok(Report::Unsealed { lines, duration_ms }) => {
            json!({"result": "unsealed", "lines": lines, "duration_ms": duration_ms})
        }
        Err(damage) => json!({
            "result": "damaged", "what": damage.what,
            "bytes": [damage.bytes.start, damage.bytes.end],
            "lines": damage.lines.as_ref().map(|lines| [lines.start, lines.end]),
            "times_ms": damage.times_ms.as_ref().map(|times| [times.start, times.end]),
        }),
    }
}
