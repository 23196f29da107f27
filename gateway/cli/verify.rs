//! `postern verify`: finds damage in a recording, and who sealed it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::output::{moment, print_json, print_line};
use crate::archive::{Archive, ArchiveConfig, Finding};
use crate::client::{Gateway, Profile};
use crate::recorder::{Checkpoint, PublicKey, Report, Takeover, verify};
use crate::serve::archive_access;
use crate::session::{SessionId, printable};
use crate::shipper::Reader;

/// What a damaged recording makes the command exit with.
const DAMAGED: u8 = 1;
/// What an unproved recording makes the command exit with.
const UNPROVED: u8 = 2;
/// What a sealed one of which not everything is proved makes it exit with.
const DOUBTED: u8 = 3;
/// The statuses, the worst last.
const ORDER: [u8; 4] = [0, DOUBTED, UNPROVED, DAMAGED];

/// What `postern verify` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern verify session.cast.zst --key recording.key.pub\n  \
    postern verify session.cast.zst --profile gw        keys from the gateway\n  \
    postern verify --cloudwatch /postern/sessions alice-abcdefghijklmnopqrstuvwxyz\n  \
    postern verify --archive s3://example-recordings/postern --key recording.key.pub\n\n\
    Exit status: 0 sealed and unaltered, 1 damaged, 2 not sealed (running or interrupted),\n\
    3 sealed and unaltered, but lines were lost, or a crash left more unsigned than it should.\n\
    Of several recordings the worst counts: 1, then 2, then 3.")]
pub struct Args {
    /// The recording, a .cast.zst file; with --cloudwatch, a session.
    #[arg(value_name = "FILE|SESSION", required_unless_present = "archive")]
    files: Vec<PathBuf>,
    /// Check everything in an archive: a directory, or s3://bucket/prefix.
    ///
    /// S3 is reached as the AWS configuration says (AWS_PROFILE, AWS_REGION,
    /// AWS_ENDPOINT_URL_S3).
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["files", "cloudwatch"])]
    archive: Option<String>,
    /// Check what is in this log group of CloudWatch Logs, with the AWS
    /// credentials and the region of your environment.
    #[arg(long, value_name = "LOG_GROUP")]
    cloudwatch: Option<String>,
    /// A public key that you trust, PEM; may be given more than once.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// The AWS profile that points at the gateway, to ask it for its keys.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Checks each file; the worst finding is the exit status.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let trusted = trusted(&args)?;
    if let Some(location) = &args.archive {
        return super::block_on(check_archive(location, &trusted, args.json));
    }
    let cloud = args.cloudwatch.as_deref().map(LogGroup::open).transpose()?;
    let mut worst = 0;
    let mut findings = Vec::new();
    for file in &args.files {
        let (status, finding) = match &cloud {
            Some(cloud) => cloud.check(file, &trusted)?,
            None => check(file, &trusted)?,
        };
        worst = worse(worst, status);
        if !args.json {
            print_line(&sentence(&finding))?;
        }
        findings.push(finding);
    }
    if args.json {
        print_json(&findings)?;
    }
    Ok(ExitCode::from(worst))
}

fn worse(one: u8, other: u8) -> u8 {
    let place = |status: u8| ORDER.iter().position(|known| *known == status);
    if place(one) > place(other) { one } else { other }
}

/// The status of an unaltered recording with these doubts.
fn whole(doubts: &[String]) -> u8 {
    if doubts.is_empty() { 0 } else { DOUBTED }
}

fn trusted(args: &Args) -> anyhow::Result<Vec<PublicKey>> {
    if !args.keys.is_empty() {
        return Ok(args.keys.iter().map(|path| PublicKey::read(path)).collect::<Result<_, _>>()?);
    }
    let profile = args.profile.as_deref();
    let asked = super::block_on(async {
        let gateway = Gateway::open(Profile::load(profile).await?).await?;
        Ok(gateway.get_json::<Value>("/v1/recording-keys").await?)
    });
    let asked = asked.context("no key to check with; give --key FILE or the --profile of the gateway")?;
    let pems = asked.as_array().into_iter().flatten().filter_map(|key| key.get("pem")?.as_str());
    Ok(pems.map(PublicKey::from_pem).collect::<Result<_, _>>()?)
}

/// Checks every recording that is in an archive against its manifest.
async fn check_archive(location: &str, trusted: &[PublicKey], json: bool) -> anyhow::Result<ExitCode> {
    let config = ArchiveConfig { location: Some(location.to_owned()), ..ArchiveConfig::default() };
    let far = config.needs_access();
    anyhow::ensure!(far || Path::new(location).is_dir(), "{location} is no directory");
    let access = if far { Some(archive_access(None, None).await?) } else { None };
    let archive = Archive::open(&config, access.as_ref())?;
    let (mut worst, mut findings) = (0, Vec::new());
    for session in archive.sessions().await? {
        let (status, finding) = match archive.check(&session, trusted, &std::env::temp_dir()).await? {
            Finding::Whole(manifest, doubts) => (
                whole(&doubts),
                json!({
                    "session": session, "result": "whole", "principal": manifest.principal,
                    "target": manifest.target, "bytes": manifest.bytes, "sha256": manifest.sha256,
                    "key": manifest.key_id, "end": manifest.end, "doubts": doubts,
                }),
            ),
            Finding::Wrong(what) => (DAMAGED, json!({"session": session, "result": "damaged", "what": what})),
            Finding::Unfinished => (UNPROVED, json!({"session": session, "result": "unfinished"})),
        };
        worst = worse(worst, status);
        if !json {
            print_line(&archived_sentence(&finding))?;
        }
        findings.push(finding);
    }
    if json {
        print_json(&findings)?;
    } else {
        print_line(&format!("{} recordings looked at", findings.len()))?;
    }
    Ok(ExitCode::from(worst))
}

fn archived_sentence(finding: &Value) -> String {
    let text = |key: &str| finding.get(key).and_then(Value::as_str).map(printable).unwrap_or_default();
    let session = text("session");
    match text("result").as_str() {
        "whole" => format!(
            "{session}: whole and unaltered, {} on {}{}",
            text("principal"),
            text("target"),
            doubts_of(finding)
        ),
        "damaged" => format!("{session}: {}", text("what")),
        _ => format!("{session}: it has no manifest: it is being archived or deleted just now"),
    }
}

/// A log group, and a folder for what is read from it.
struct LogGroup {
    name: String,
    folder: PathBuf,
}

impl LogGroup {
    fn open(name: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("postern-verify-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { name: name.to_owned(), folder })
    }

    /// Makes the recording again from its log stream, then checks it.
    fn check(&self, session: &Path, trusted: &[PublicKey]) -> anyhow::Result<(u8, Value)> {
        let id = SessionId::parse(&session.to_string_lossy())?;
        let read = super::block_on(async {
            Ok(Reader::open(&self.name, &self.folder).await?.recording(&id).await)
        })?;
        let file = format!("{}:{id}", self.name);
        match read {
            Ok(copy) => {
                let (status, mut finding) = check(&copy.path, trusted)?;
                if let Some(name) = finding.get_mut("file") {
                    *name = file.into();
                }
                Ok((status, finding))
            }
            Err(error) if error.is_damage() => {
                Ok((DAMAGED, json!({"file": file, "result": "damaged", "what": error.to_string()})))
            }
            Err(error) => Err(error).context(file),
        }
    }
}

impl Drop for LogGroup {
    fn drop(&mut self) {
        // What is left is a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn check(file: &Path, trusted: &[PublicKey]) -> anyhow::Result<(u8, Value)> {
    let name = file.display().to_string();
    // A file that cannot be read is no damaged recording.
    std::fs::metadata(file).with_context(|| name.clone())?;
    Ok(match verify(file, trusted) {
        Ok(Report::Sealed(evidence)) => {
            let doubts = evidence.doubts();
            let finding = json!({
                "file": name, "result": "sealed", "session": evidence.session,
                "content": evidence.content, "key": evidence.key_id,
                "lines_sha256": evidence.lines_sha256, "segments": evidence.segments.len(),
                "lines": evidence.totals.lines,
                "end": evidence.end.reason, "recovered": evidence.end.recovered,
                "missing_bytes": evidence.end.missing_bytes, "checkpoint": evidence.checkpoint,
                "takeovers": evidence.takeovers, "doubts": doubts,
            });
            (whole(&doubts), finding)
        }
        Ok(Report::Unsealed { lines, duration_ms, proved }) => (
            UNPROVED,
            json!({
                "file": name, "result": "unsealed", "lines": lines, "duration_ms": duration_ms,
                "proved": proved,
            }),
        ),
        Err(damage) => {
            let bytes = [damage.bytes.start, damage.bytes.end];
            (DAMAGED, json!({"file": name, "result": "damaged", "bytes": bytes, "what": damage.to_string()}))
        }
    })
}

fn sentence(finding: &Value) -> String {
    let text = |key: &str| finding.get(key).and_then(Value::as_str).map(printable).unwrap_or_default();
    let file = text("file");
    match text("result").as_str() {
        "sealed" => format!(
            "{file}: sealed and unaltered\n  session {}\n  holds: {}\n  ended: {}\n  key {}\n  sha256 of its lines {}{}{}",
            text("session"),
            holds(&text("content")),
            text("end"),
            text("key"),
            text("lines_sha256"),
            interruptions(finding),
            doubts_of(finding)
        ),
        "unsealed" => {
            let proved = finding.get("proved").and_then(|proved| serde_json::from_value(proved.clone()).ok());
            let proved = proved.as_ref().map_or("nothing is proved yet".to_owned(), up_to);
            format!("{file}: not sealed: the session runs or was interrupted; {proved}")
        }
        _ => format!("{file}: {}", text("what")),
    }
}

/// What a sealed recording does not prove, a line each.
fn doubts_of(finding: &Value) -> String {
    let doubts = finding.get("doubts").and_then(Value::as_array).into_iter().flatten();
    doubts.filter_map(Value::as_str).map(|doubt| format!("\n  not proved: {}", printable(doubt))).collect()
}

/// When no gateway watched over the recording, and what was signed before.
fn interruptions(finding: &Value) -> String {
    let takeovers = finding.get("takeovers").cloned().unwrap_or_default();
    let takeovers: Vec<Takeover> = serde_json::from_value(takeovers).unwrap_or_default();
    let told = takeovers.iter().map(|taken| {
        let at = |ms: u64| i64::try_from(ms).map(moment).unwrap_or_default();
        let (then, before) = (at(taken.at_ms), at(taken.signed_ms));
        let (lines, signed) = (taken.lines, taken.signed_lines);
        format!("\n  went on after a restart: {then}, with {lines} lines, {signed} of them signed {before}")
    });
    let told: String = told.collect();
    if finding.get("recovered") != Some(&Value::Bool(true)) {
        return told;
    }
    let lines = finding.get("lines").and_then(Value::as_u64).unwrap_or_default();
    let signed = finding.pointer("/checkpoint/lines").and_then(Value::as_u64).unwrap_or_default();
    format!("{told}\n  put together after a crash: {lines} lines, {signed} of them signed before")
}

/// Up to where a recording that is not sealed is proved.
fn up_to(checkpoint: &Checkpoint) -> String {
    let at = i64::try_from(checkpoint.signed_ms).map(moment);
    format!(
        "proved are its first {} lines, up to {:.3} s\n  signed: {}\n  key {}",
        checkpoint.lines,
        checkpoint.until_ms as f64 / 1000.0,
        at.unwrap_or_default(),
        printable(&checkpoint.key_id),
    )
}

/// What was proved, and what was never recorded.
fn holds(content: &str) -> &str {
    match content {
        "flows" => "what its connections did, not their bytes",
        "flows+traffic" => "what its connections did, and their bytes",
        _ => "what the terminal showed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_recordings_is_the_status() {
        let worst = |found: &[u8]| found.iter().copied().fold(0, worse);
        assert_eq!(worst(&[0, 0]), 0);
        assert_eq!(worst(&[0, DOUBTED, 0]), DOUBTED);
        assert_eq!(worst(&[DOUBTED, UNPROVED, DOUBTED]), UNPROVED);
        assert_eq!(worst(&[UNPROVED, DAMAGED, DOUBTED]), DAMAGED);
    }

    #[test]
    fn what_is_lost_is_said() {
        let finding = json!({
            "file": "x.cast.zst", "result": "sealed", "recovered": true, "lines": 40,
            "checkpoint": {"lines": 30}, "doubts": ["230 bytes of its lines are lost"],
        });
        let told = sentence(&finding);
        assert!(told.contains("put together after a crash: 40 lines, 30 of them signed before"), "{told}");
        assert!(told.ends_with("not proved: 230 bytes of its lines are lost"), "{told}");
    }
}
