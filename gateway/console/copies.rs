//! Copies of recordings that are not on this node: one each, and not too much.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::error::{ApiError, Blame, Code};
use crate::session::SessionId;
use crate::shipper;

/// Bytes of all copies at once; one that is larger is there alone.
const BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// Who makes a copy now, and how much all of them hold.
pub(super) struct Copies {
    making: Mutex<HashMap<SessionId, Weak<tokio::sync::Mutex<()>>>>,
    held: Arc<AtomicU64>,
    max: u64,
}

/// Bytes that a copy takes, counted until its file is gone.
#[derive(Debug)]
pub(super) struct Space {
    held: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Space {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Copies {
    pub(super) fn new() -> Self {
        Self { making: Mutex::default(), held: Arc::default(), max: BYTES_MAX }
    }

    /// Waits until nobody else opens this recording.
    pub(super) async fn turn(&self, id: &SessionId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            making.retain(|_, turn| turn.strong_count() > 0);
            let known = making.get(id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                making.insert(id.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Room for a copy of so many bytes; none if the others hold too much.
    pub(super) fn space(&self, bytes: u64) -> Option<Space> {
        let fits = |held: u64| {
            let sum = held.checked_add(bytes)?;
            (held == 0 || sum <= self.max).then_some(sum)
        };
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Space { held: Arc::clone(&self.held), bytes })
    }
}

/// What somebody is told for whose copy there is no room.
pub(super) fn no_space() -> ApiError {
    let sentence = "this gateway holds copies of as many archived recordings as it may; try again in a while";
    ApiError::new(Code::Throttling, Blame::Gateway, sentence)
}

/// A copy that is removed with this, and its space free after that.
pub(super) struct Copy {
    file: CopyFile,
    _space: Space,
}

/// Whose file a copy is.
pub(super) enum CopyFile {
    OfArchived(PathBuf),
    ReadBack(Box<shipper::Copy>),
}

impl Copy {
    pub(super) fn new(file: CopyFile, space: Space) -> Self {
        Self { file, _space: space }
    }

    pub(super) fn path(&self) -> &Path {
        match &self.file {
            CopyFile::OfArchived(path) => path,
            CopyFile::ReadBack(copy) => &copy.path,
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let CopyFile::OfArchived(path) = &self.file {
            // Somebody who cleaned up has removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_recording_is_copied_by_one_at_a_time_and_others_meanwhile() {
        let copies = Copies::new();
        let (one, other) = (SessionId::mint("alice"), SessionId::mint("alice"));
        let turn = copies.turn(&one).await;
        let _others = copies.turn(&other).await;
        let mut second = Box::pin(copies.turn(&one));
        assert!(futures_util::FutureExt::now_or_never(&mut second).is_none());
        drop(turn);
        second.await;
        copies.turn(&one).await;
        assert_eq!(copies.making.lock().unwrap().len(), 2);
    }

    #[test]
    fn copies_take_no_more_than_they_may_until_they_are_gone() {
        let copies = Copies { max: 100, ..Copies::new() };
        let large = copies.space(1000).unwrap();
        assert!(copies.space(1).is_none(), "a large one is there alone");
        drop(large);
        let (first, _second) = (copies.space(60).unwrap(), copies.space(40).unwrap());
        assert!(copies.space(1).is_none());
        drop(first);
        copies.space(60).unwrap();
    }
}
