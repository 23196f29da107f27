//! The policy files, and which set of them is in force.

use std::path::Path;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::answer::Answer;
use super::visitor::Visitor;
use crate::error::{ApiError, Blame, Code};
use crate::policy::{Policy, PolicyError};

/// Largest file shown, bytes, and how many.
const SHOWN_MAX: u64 = 256 * 1024;
const FILES_MAX: usize = 200;

/// `GET policies`: the folder's files, and whether they are in force.
pub(super) async fn policies(State(console): Shared, visitor: Visitor) -> Answer {
    if !console.lifecycle.may_administer(&visitor.asker) {
        let sentence = "only who administers this gateway sees its policy files";
        return Err(ApiError::new(Code::AccessDenied, Blame::Policy, sentence).into());
    }
    let standing = console.lifecycle.policies();
    let set = standing.set();
    let in_force = json!({"policies": set.len(), "digest": set.digest()});
    let folder = standing.folder().to_owned();
    let digest = set.digest().to_owned();
    let work = move || state_of(&folder, &digest);
    let state = console.threads.read(&visitor.asker.principal, work).await?;
    Ok(Json(json!({"in_force": in_force, "folder": state})))
}

fn state_of(folder: &Path, digest: &str) -> Value {
    let loaded = Policy::load(folder);
    let problems: Vec<String> = match &loaded {
        Ok(_) => Vec::new(),
        Err(error) => vec![error.to_string()],
    };
    let state = match &loaded {
        Ok(set) if set.digest() == digest => "in_force",
        Ok(_) => "waiting",
        Err(PolicyError::Unreadable { .. }) => "unreadable",
        Err(_) => "refused",
    };
    let mut files = Vec::new();
    read(folder, "", &mut files);
    json!({"state": state, "problems": problems, "files": files})
}

fn read(folder: &Path, below: &str, files: &mut Vec<Value>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || files.len() >= FILES_MAX {
            continue;
        }
        let (path, full) = (entry.path(), format!("{below}{name}"));
        let Ok(about) = std::fs::metadata(&path) else { continue };
        if about.is_dir() && below.matches('/').count() < 8 {
            read(&path, &format!("{full}/"), files);
        } else if name.ends_with(".cedar") || name.ends_with(".cedarschema") || name.ends_with(".toml") {
            let text = (about.len() <= SHOWN_MAX).then(|| std::fs::read_to_string(&path).ok()).flatten();
            files.push(json!({"name": full, "bytes": about.len(), "text": text}));
        }
    }
}
