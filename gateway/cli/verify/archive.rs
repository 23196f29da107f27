//! `postern verify --archive`: everything in an archive, and what is missing.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use super::{DAMAGED, Told, UNPROVED};
use crate::archive::Finding;
use crate::cli::output::print_line;
use crate::cli::{elsewhere, sessions};
use crate::client::{Gateway, Profile};
use crate::recorder::PublicKey;
use crate::session::SessionId;

/// What is said where nobody knows what should be there.
const NOT_COMPARED: &str = "what was removed together with its manifest is not seen; with --profile it is compared \
     with the sessions that the gateway has archived";

/// Sessions that ended, with the SHA-256 of their recordings if it is known.
type Registered = BTreeMap<String, Option<String>>;

/// Checks every recording that is there against its manifest.
///
/// With `registered`, which gateway to ask, also what should be there.
pub(super) async fn check(
    location: &str,
    (trusted, registered): (&[PublicKey], Option<Option<&str>>),
    json: bool,
) -> anyhow::Result<u8> {
    let archive = elsewhere::archive(location).await?;
    let gateway = match registered {
        Some(profile) => Some(Gateway::open(Profile::load(profile).await?).await?),
        None => None,
    };
    // Asked first: what is archived meanwhile is in the archive's list.
    let mut expected = match &gateway {
        Some(gateway) => past(gateway).await.context("the gateway does not say what it has archived")?,
        None => Registered::new(),
    };
    let mut report = Told { worst: 0, findings: Vec::new(), json };
    for session in archive.sessions().await? {
        let found = archive.check(&session, trusted, &std::env::temp_dir()).await?;
        let sha256 = expected.remove(session.as_str()).flatten();
        let (status, finding) = told(&session, found, sha256.as_deref());
        report.add(status, finding, words)?;
    }
    if let Some(gateway) = &gateway {
        for session in expected.into_keys() {
            let known: Value = gateway.get_json(&format!("/v1/sessions/{session}")).await?;
            if known.get("archived_ms").is_some() {
                report.add(DAMAGED, json!({"session": session, "result": "missing"}), words)?;
            }
        }
    }
    if !json {
        print_line(&format!("{} recordings looked at", report.findings.len()))?;
        if gateway.is_none() {
            print_line(NOT_COMPARED)?;
        }
    }
    report.status()
}

/// The sessions that are over and that the caller may see.
async fn past(gateway: &Gateway) -> anyhow::Result<Registered> {
    let rows = sessions::newest(gateway, "history", usize::MAX).await?;
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(rows.iter().filter_map(|row| Some((text(row, "id")?, text(row, "recording_sha256")))).collect())
}

fn told(session: &SessionId, found: Finding, registered: Option<&str>) -> (u8, Value) {
    match found {
        Finding::Whole(manifest, _) if registered.is_some_and(|sha256| sha256 != manifest.sha256) => {
            let what = "it is not the recording that the gateway sealed: the registry has another SHA-256";
            (DAMAGED, json!({"session": session, "result": "damaged", "what": what}))
        }
        Finding::Whole(manifest, doubts) => (
            super::whole(&doubts),
            json!({
                "session": session, "result": "whole", "principal": manifest.principal,
                "target": manifest.target, "bytes": manifest.bytes, "sha256": manifest.sha256,
                "key": manifest.key_id, "end": manifest.end, "doubts": doubts,
            }),
        ),
        Finding::Wrong(what) => (DAMAGED, json!({"session": session, "result": "damaged", "what": what})),
        Finding::Unfinished { evidence } => (
            UNPROVED,
            json!({
                "session": session, "result": "unfinished", "key": evidence.key_id,
                "lines_sha256": evidence.lines_sha256, "end": evidence.end.reason,
            }),
        ),
    }
}

fn words(finding: &Value) -> Vec<String> {
    vec![sentence(finding)]
}

fn sentence(finding: &Value) -> String {
    let text = |key: &str| super::text_of(finding, key);
    let session = text("session");
    match text("result").as_str() {
        "whole" => format!(
            "{session}: whole and unaltered, {} on {}{}",
            text("principal"),
            text("target"),
            super::doubts_of(finding)
        ),
        "damaged" => format!("{session}: {}", text("what")),
        "missing" => format!("{session}: the gateway has archived it, and it is not there"),
        _ => format!(
            "{session}: sealed and unaltered (key {}), but it has no manifest: it is being archived or deleted \
             just now, or somebody has removed the manifest",
            text("key")
        ),
    }
}
