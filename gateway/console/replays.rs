//! Recordings that somebody looks at: a file here, and its scenes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path as Route, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::answer::{Answer, ConsoleError};
use super::copies::{Copies, Copy, CopyFile, Space, no_space};
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::archive::Reading;
use crate::asciicast::EventCode;
use crate::error::{ApiError, Code};
use crate::front_door::noun;
use crate::lifecycle::RecordingFile;
use crate::replay::{End, ReplayError, Scenes};
use crate::session::SessionId;

/// Recordings kept open; the one unused longest makes room.
const OPEN_MAX: usize = 24;
/// Looks that are remembered, of everybody.
const ADMITTED_MAX: usize = 1000;
/// How long one is kept that nobody looks at.
const UNUSED: Duration = Duration::from_secs(15 * 60);
/// Longest pause that can be asked for, seconds.
const LIMIT_MAX: u64 = 3600;

/// The recordings that are being looked at.
pub(super) struct Replays {
    folder: PathBuf,
    open: Mutex<VecDeque<(SessionId, Instant, Arc<Opened>)>>,
    /// Who was admitted to what, and when: one look is one decision on record.
    admitted: Mutex<VecDeque<(SessionId, String, Instant)>>,
    copies: Copies,
}

/// A recording as a file on this node.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) sealed: bool,
    scenes: OnceCell<Scenes>,
    /// Removed with this, if it is a copy.
    copy: Option<Copy>,
}

impl Replays {
    pub(super) fn new(folder: PathBuf) -> Self {
        // What a process left that was killed.
        let _ = std::fs::remove_dir_all(&folder);
        Self { folder, open: Mutex::default(), admitted: Mutex::default(), copies: Copies::new() }
    }

    fn cached(&self, id: &SessionId) -> Option<Arc<Opened>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, used, _)| used.elapsed() < UNUSED);
        let place = open.iter().position(|(known, ..)| known == id)?;
        let (known, _, opened) = open.remove(place)?;
        open.push_back((known, Instant::now(), Arc::clone(&opened)));
        Some(opened)
    }

    /// Room for a copy, also of those that nobody looks at now.
    fn space(&self, bytes: u64) -> Result<Space, ApiError> {
        loop {
            if let Some(space) = self.copies.space(bytes) {
                return Ok(space);
            }
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let unused =
                |(.., opened): &(_, _, Arc<Opened>)| opened.copy.is_some() && Arc::strong_count(opened) == 1;
            let place = open.iter().position(unused).ok_or_else(no_space)?;
            open.remove(place);
        }
    }

    fn keep(&self, id: &SessionId, opened: &Arc<Opened>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(known, ..)| known != id);
        if open.len() >= OPEN_MAX {
            open.pop_front();
        }
        open.push_back((id.clone(), Instant::now(), Arc::clone(opened)));
    }
}

impl Replays {
    fn was_admitted(&self, id: &SessionId, principal: &str) -> bool {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.retain(|(.., at)| at.elapsed() < UNUSED);
        admitted.iter().any(|(known, who, _)| known == id && who == principal)
    }

    fn admit(&self, id: &SessionId, principal: &str) {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if admitted.len() >= ADMITTED_MAX {
            admitted.pop_front();
        }
        admitted.push_back((id.clone(), principal.to_owned(), Instant::now()));
    }
}

impl Console {
    /// A recording for somebody who asks to see it.
    ///
    /// Policy is asked every time; a person who goes on looking at the same
    /// recording is on record once in a quarter of an hour.
    pub(super) async fn opened(
        &self,
        visitor: &Visitor,
        id: &SessionId,
    ) -> Result<Arc<Opened>, ConsoleError> {
        self.admit_to(visitor, id).await?;
        match self.replays.cached(id).filter(|opened| opened.sealed) {
            Some(opened) => Ok(opened),
            None => self.open(id).await,
        }
    }

    /// The same for somebody who goes on: what was read of a recording that
    /// is still written stays as it was.
    async fn still_open(&self, visitor: &Visitor, id: &SessionId) -> Result<Arc<Opened>, ConsoleError> {
        self.admit_to(visitor, id).await?;
        match self.replays.cached(id) {
            Some(opened) => Ok(opened),
            None => self.open(id).await,
        }
    }

    async fn admit_to(&self, visitor: &Visitor, id: &SessionId) -> Result<(), ConsoleError> {
        let principal = &visitor.asker.principal.id;
        let goes_on = self.replays.was_admitted(id, principal);
        if !goes_on || !self.lifecycle.may_replay(&visitor.asker, id).await? {
            self.lifecycle.admitted_to_replay(&visitor.asker, id).await?;
            self.replays.admit(id, principal);
        }
        Ok(())
    }

    async fn open(&self, id: &SessionId) -> Result<Arc<Opened>, ConsoleError> {
        // Whoever waits for somebody else's copy has it too.
        let _turn = self.replays.copies.turn(id).await;
        if let Some(opened) = self.replays.cached(id).filter(|opened| opened.sealed) {
            return Ok(opened);
        }
        let mut stored = self.lifecycle.stored(id).await?;
        let mut archived = None;
        if let RecordingFile::Archived(reading) = stored {
            archived = self.copy(id, reading).await?;
            // It broke off, which is known now: it may be whole elsewhere.
            stored = match &archived {
                Some(copy) => RecordingFile::Here { path: copy.path().to_owned(), sealed: true },
                None => self.lifecycle.stored(id).await?,
            };
        }
        let (path, sealed, copy) = match stored {
            RecordingFile::Here { path, sealed } => (path, sealed, archived),
            RecordingFile::Archived(_) => return Err(unreadable_archive().into()),
            RecordingFile::ReadBack { copy, .. } => {
                let bytes = std::fs::metadata(&copy.path).map_or(0, |about| about.len());
                let space = self.replays.space(bytes)?;
                (copy.path.clone(), copy.sealed, Some(Copy::new(CopyFile::ReadBack(Box::new(copy)), space)))
            }
        };
        let opened = Arc::new(Opened { path, sealed, scenes: OnceCell::new(), copy });
        self.replays.keep(id, &opened);
        Ok(opened)
    }

    /// A copy of an archived recording; none if that is damaged.
    async fn copy(&self, id: &SessionId, reading: Reading) -> Result<Option<Copy>, ConsoleError> {
        let space = self.replays.space(reading.bytes())?;
        let path = self.replays.folder.join(format!("{}.cast.zst", uuid::Uuid::new_v4()));
        let mut file = private_file(&self.replays.folder, &path).map_err(|error| {
            tracing::error!(%error, "an archived recording could not be copied");
            unreadable_archive()
        })?;
        let copy = Copy::new(CopyFile::OfArchived(path), space);
        match reading.copy(&mut file).await {
            Ok(()) => Ok(Some(copy)),
            Err(error) => match self.lifecycle.archive_broke_off(id, &error) {
                (_, true) => Ok(None),
                (told, false) => Err(told.into()),
            },
        }
    }

    async fn scenes<'a>(
        &self,
        visitor: &Visitor,
        id: &SessionId,
        opened: &'a Opened,
    ) -> Result<&'a Scenes, ConsoleError> {
        let pass = || async {
            let known = if opened.sealed { self.lifecycle.outline(id).await } else { None };
            if let Some(scenes) = known.and_then(|outline| Scenes::with(&opened.path, outline).ok()) {
                return Ok(scenes);
            }
            let path = opened.path.clone();
            let read = self.threads.pass(&visitor.asker.principal, move || Scenes::of(&path)).await?;
            read.map_err(|error| unreadable(&error))
        };
        Ok(opened.scenes.get_or_try_init(pass).await?)
    }
}

fn unreadable_archive() -> ApiError {
    ApiError::gateway("the gateway could not read the recording from its archive; try again")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cut {
    /// Pauses are cut to so many seconds.
    idle: Option<u64>,
}

impl Cut {
    fn limit(&self) -> Option<u64> {
        self.idle.map(|seconds| seconds.clamp(1, LIMIT_MAX) * 1000)
    }
}

/// `GET sessions/{id}/replay`: the player's index of scenes and marks.
pub(super) async fn index(
    State(console): Shared,
    visitor: Visitor,
    Route(id): Route<String>,
    Query(cut): Query<Cut>,
) -> Answer {
    let id = noun(SessionId::parse(&id))?;
    let opened = console.opened(&visitor, &id).await?;
    let scenes = console.scenes(&visitor, &id, &opened).await?;
    let limit = cut.limit();
    let idle = limit.map(|limit| format!("?idle={}", limit / 1000)).unwrap_or_default();
    let url = |index: usize| format!("/console/api/sessions/{id}/replay/{index}{idle}");
    let starts = scenes.starts(limit).into_iter().enumerate();
    let segments: Vec<Value> =
        starts.map(|(index, start)| json!({"start": seconds(start), "url": url(index)})).collect();
    let marks: Vec<Value> =
        scenes.marks(limit).into_iter().map(|(time, label)| json!([seconds(time), label])).collect();
    let (cols, rows) = scenes.size();
    Ok(Json(json!({
        "version": 1,
        "duration": seconds(scenes.duration_ms(limit)),
        "term": {"cols": cols, "rows": rows},
        "segments": segments,
        "markers": marks,
        "cuts": limit.map(|limit| scenes.cuts(limit)),
        "sealed": opened.sealed,
        "whole": scenes.end() == End::Whole,
    })))
}

/// `GET sessions/{id}/replay/{scene}`: a screen and the events from there.
pub(super) async fn scene(
    State(console): Shared,
    visitor: Visitor,
    Route((id, number)): Route<(String, usize)>,
    Query(cut): Query<Cut>,
) -> Answer {
    let id = noun(SessionId::parse(&id))?;
    let opened = console.still_open(&visitor, &id).await?;
    console.scenes(&visitor, &id, &opened).await?;
    let read = console.threads.read(&visitor.asker.principal, move || {
        let shown = opened.scenes.get().map(|scenes| scenes.scene(number, cut.limit()));
        shown.transpose().map(Option::flatten)
    });
    let shown = read.await?.map_err(|error| unreadable(&error))?.ok_or(ConsoleError::NotFound)?;
    let events: Vec<Value> = shown
        .events
        .iter()
        .filter(|event| event.code != EventCode::Input)
        .map(|event| json!([seconds(event.time_ms), event.code.as_char(), event.data]))
        .collect();
    let (cols, rows) = shown.size;
    Ok(Json(json!({"snapshot": {"cols": cols, "rows": rows, "init": shown.screen}, "events": events})))
}

pub(super) fn unreadable(error: &ReplayError) -> ApiError {
    tracing::warn!(%error, "a recording could not be read");
    ApiError::client(Code::Validation, error.to_string())
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn private_file(folder: &Path, path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
