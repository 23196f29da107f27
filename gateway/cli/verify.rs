//! `postern verify`: finds damage in a recording, and who sealed it.

mod archive;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::elsewhere::{self, LogGroup};
use super::output::{moment, print_json, print_line};
use crate::recorder::{
    Checkpoint, PublicKey, RECORDING_SUFFIX, Report, Takeover, recorded_session, verify, verify_without_key,
};
use crate::session::{SessionId, printable};

/// What a damaged recording makes the command exit with.
const DAMAGED: u8 = 1;
/// What an unproved recording makes the command exit with.
const UNPROVED: u8 = 2;
/// What a sealed one of which not everything is proved makes it exit with.
const DOUBTED: u8 = 3;
/// What a recording whose signature was not checked makes it exit with.
const KEYLESS: u8 = 4;
/// The statuses, the worst last.
const ORDER: [u8; 5] = [0, DOUBTED, UNPROVED, KEYLESS, DAMAGED];

/// What `postern verify` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern verify session.cast.zst --key recording.key.pub\n  \
    postern verify session.cast.zst --profile gw        keys from the gateway\n  \
    postern verify --cloudwatch /postern/sessions alice-abcdefghijklmnopqrstuvwxyz\n  \
    postern verify --archive s3://example-recordings/postern --key recording.key.pub\n\n\
    Exit status: 0 sealed and unaltered, 1 damaged, of another session, missing, or with something\n\
    else in its log stream, 2 not sealed (running or interrupted), or in an archive without manifest,\n\
    3 sealed and unaltered, but lines were lost, or a crash left more unsigned than it should,\n\
    4 whole as far as it says of itself, but there was no key to check its signature with.\n\
    Of several recordings the worst counts: 1, then 4, then 2, then 3.")]
pub struct Args {
    /// The recording, a .cast.zst file; with --cloudwatch, a session.
    #[arg(value_name = "FILE|SESSION", required_unless_present = "archive")]
    files: Vec<PathBuf>,
    /// Check everything in an archive: a directory, or s3://bucket/prefix.
    ///
    /// S3 is reached as the AWS configuration says (AWS_PROFILE, AWS_REGION,
    /// AWS_ENDPOINT_URL_S3). With --profile, or keys from the gateway, it is
    /// also compared with what the gateway has archived.
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
    let profile = args.profile.as_deref();
    let trusted = match elsewhere::trusted(&args.keys, profile) {
        // Files can be held against themselves, if no gateway was named.
        Err(why) if args.keys.is_empty() && profile.is_none() && are_files(&args) => {
            return without_key(&args, &why);
        }
        trusted => trusted?,
    };
    if let Some(location) = &args.archive {
        let gateway = (args.keys.is_empty() || profile.is_some()).then_some(profile);
        let checked = archive::check(location, (&trusted, gateway), args.json);
        return Ok(ExitCode::from(super::block_on(checked)?));
    }
    let cloud = args.cloudwatch.as_deref().map(LogGroup::open).transpose()?;
    let mut told = Told { worst: 0, findings: Vec::new(), json: args.json };
    for file in &args.files {
        let (status, finding) = match &cloud {
            Some(cloud) => check_shipped(cloud, file, &trusted)?,
            None => check_file(file, Some(&trusted))?,
        };
        told.add(status, finding, |finding| [vec![sentence(finding)], notes(finding)].concat())?;
    }
    Ok(ExitCode::from(told.status()?))
}

fn are_files(args: &Args) -> bool {
    args.archive.is_none() && args.cloudwatch.is_none()
}

/// Checks files as far as that goes without a key, and says how far.
fn without_key(args: &Args, why: &anyhow::Error) -> anyhow::Result<ExitCode> {
    let mut told = Told { worst: KEYLESS, findings: Vec::new(), json: args.json };
    for file in &args.files {
        let (status, mut finding) = check_file(file, None)?;
        if let (true, Some(fields)) = (status != DAMAGED, finding.as_object_mut()) {
            fields.insert("signature".to_owned(), "not checked".into());
        }
        told.add(worse(status, KEYLESS), finding, |finding| [keyless(finding), notes(finding)].concat())?;
    }
    let status = told.status()?;
    eprintln!("postern: the signature was not checked: {}", printable(&format!("{why:#}")));
    Ok(ExitCode::from(status))
}

/// What was checked and what not, a line each.
fn keyless(finding: &Value) -> Vec<String> {
    let file = text_of(finding, "file");
    let (whole, by) = match text_of(finding, "result").as_str() {
        "sealed" => ("whole in itself", text_of(finding, "key")),
        "unsealed" => (
            "not sealed: the session runs or was interrupted; what there is can be read",
            finding.pointer("/proved/key_id").and_then(Value::as_str).map(printable).unwrap_or_default(),
        ),
        _ => return vec![sentence(finding)],
    };
    let by = if by.is_empty() { "no key".to_owned() } else { format!("key {by}") };
    vec![
        format!("{file}: {whole}, BUT NOT PROVED: there is no key to check its signature with"),
        "  checked: its lines, frames and hash chain are those that the file itself tells of".to_owned(),
        format!("  not checked: the signature, and whose key that is; the file names {by}"),
        "  whoever can write the file could have made all of it anew".to_owned(),
        "  to prove it: --key FILE with recording.key.pub of the gateway (state/keys), from somebody you trust,"
            .to_owned(),
        "  or --profile NAME of a gateway, which is then asked for its keys".to_owned(),
    ]
}

/// What was found so far; in words it is printed as it is found.
struct Told {
    worst: u8,
    findings: Vec<Value>,
    json: bool,
}

impl Told {
    fn add(
        &mut self,
        status: u8,
        finding: Value,
        words: impl FnOnce(&Value) -> Vec<String>,
    ) -> anyhow::Result<()> {
        self.worst = worse(self.worst, status);
        if !self.json {
            words(&finding).iter().try_for_each(|line| print_line(line))?;
        }
        self.findings.push(finding);
        Ok(())
    }

    /// The worst status; what is told in JSON is printed now.
    fn status(self) -> anyhow::Result<u8> {
        if self.json {
            print_json(&self.findings)?;
        }
        Ok(self.worst)
    }
}

fn worse(one: u8, other: u8) -> u8 {
    let place = |status: u8| ORDER.iter().position(|known| *known == status);
    if place(one) > place(other) { one } else { other }
}

/// The status of an unaltered recording with these doubts.
fn whole(doubts: &[String]) -> u8 {
    if doubts.is_empty() { 0 } else { DOUBTED }
}

/// A file, and a note if its name says another session than it does.
fn check_file(file: &Path, trusted: Option<&[PublicKey]>) -> anyhow::Result<(u8, Value)> {
    let (status, mut finding) = check(file, trusted)?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let named = name.strip_suffix(RECORDING_SUFFIX).and_then(|stem| SessionId::parse(stem).ok());
    if let (Some(named), Some(session)) = (named.filter(is_minted), recorded_session(file))
        && session != named.as_str()
        && let Some(fields) = finding.as_object_mut()
    {
        fields.insert("note".to_owned(), format!("it is of session {session}, not of {named}").into());
    }
    Ok((status, finding))
}

/// Whether it looks like an id of a gateway: people name files otherwise, too.
fn is_minted(id: &SessionId) -> bool {
    id.as_str().rsplit_once('-').is_some_and(|(_, random)| random.len() == 26)
}

/// Makes the recording again from its log stream, then checks it.
fn check_shipped(group: &LogGroup, session: &Path, trusted: &[PublicKey]) -> anyhow::Result<(u8, Value)> {
    let id = SessionId::parse(&session.to_string_lossy())?;
    let file = format!("{}:{id}", group.name);
    match super::block_on(async { Ok(group.recording(&id, trusted).await) })? {
        Ok(copy) => {
            let (status, mut finding) = check(&copy.path, Some(trusted))?;
            if let Some(fields) = finding.as_object_mut() {
                fields.insert("file".to_owned(), file.into());
                if !copy.others.is_empty() {
                    fields.insert("others".to_owned(), copy.others.clone().into());
                }
            }
            // Whoever has put that there may do so again.
            Ok((if copy.others.is_empty() { status } else { DAMAGED }, finding))
        }
        Err(error) if error.is_damage() => {
            Ok((DAMAGED, json!({"file": file, "result": "damaged", "what": error.to_string()})))
        }
        Err(error) => Err(error).context(file),
    }
}

fn check(file: &Path, trusted: Option<&[PublicKey]>) -> anyhow::Result<(u8, Value)> {
    let name = file.display().to_string();
    // A file that cannot be read is no damaged recording.
    std::fs::metadata(file).with_context(|| name.clone())?;
    Ok(match trusted.map_or_else(|| verify_without_key(file), |trusted| verify(file, trusted)) {
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
    let text = |key: &str| text_of(finding, key);
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

/// A field of a finding, safe to show.
fn text_of(finding: &Value, key: &str) -> String {
    finding.get(key).and_then(Value::as_str).map(printable).unwrap_or_default()
}

/// What there is to say besides.
fn notes(finding: &Value) -> Vec<String> {
    let others = finding.get("others").and_then(Value::as_array).into_iter().flatten();
    let others = others.filter_map(Value::as_str).map(|other| format!("  {}", elsewhere::strange(other)));
    let note = finding.get("note").map(|_| format!("  note: {}", text_of(finding, "note")));
    others.chain(note).collect()
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
        assert_eq!(worst(&[UNPROVED, KEYLESS]), KEYLESS);
        assert_eq!(worst(&[KEYLESS, UNPROVED, DAMAGED, DOUBTED]), DAMAGED);
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
