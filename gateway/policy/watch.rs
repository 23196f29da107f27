//! When does the policy folder change?
//!
//! The system tells of changes in the folder and beside it: mounted volumes
//! and git-sync exchange a link. What it tells nothing of (network file
//! systems, a folder that was replaced) is found by looking again anyway.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::apart;

/// A change is taken up once nothing more has changed for so long.
const QUIET: Duration = Duration::from_millis(50);
/// Or at the latest after this: somebody may write all the time.
const LATEST: Duration = Duration::from_millis(250);
/// How often to look without having been told.
const ANYWAY: Duration = Duration::from_secs(5);
/// Files looked at without having been told; no policy folder has more.
const FILES_MAX: usize = 20_000;
/// Levels of folders looked at.
const DEPTH_MAX: usize = 8;

/// Waits for changes of one folder.
pub struct Watch {
    folder: PathBuf,
    changed: Arc<Notify>,
    /// How long to wait without being told.
    anyway: Duration,
    /// None if the system cannot watch now; looking anyway remains.
    watcher: Option<RecommendedWatcher>,
    /// What the folder looked like last.
    seen: Option<u64>,
}

impl Watch {
    /// Begins to watch; a folder that cannot be watched is looked at anyway.
    pub fn new(folder: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = watch(folder, Arc::clone(&changed));
        Self { folder: folder.to_owned(), changed, anyway: ANYWAY, watcher, seen: None }
    }

    /// Returns when the folder is to be read again.
    pub async fn changed(&mut self) {
        loop {
            let told = timeout(self.anyway, self.changed.notified()).await.is_ok();
            if told {
                self.settle().await;
            }
            // The folder may be another one by now, under the same name.
            self.watcher = watch(&self.folder, Arc::clone(&self.changed)).or(self.watcher.take());
            let folder = self.folder.clone();
            let looks = apart(move || looks(&folder)).await;
            // Reading it means validating all of it: not for nothing.
            if std::mem::replace(&mut self.seen, looks) != looks || told {
                return;
            }
        }
    }

    /// What was read could not be used: it may be another time.
    pub fn look_again(&mut self) {
        self.seen = None;
    }

    /// Waits until whoever writes is done, within a limit.
    async fn settle(&self) {
        let latest = Instant::now() + LATEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, self.changed.notified()).await.is_err() {
                return sleep_until(quiet).await;
            }
        }
    }
}

/// A number that changes with any file of the folder: names, sizes, times.
fn looks(folder: &Path) -> u64 {
    let (mut hash, mut files) = (DefaultHasher::new(), 0);
    look_into(folder, 0, &mut files, &mut hash);
    hash.finish()
}

fn look_into(folder: &Path, depth: usize, files: &mut usize, hash: &mut DefaultHasher) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        *files += 1;
        let about = fs::metadata(&path).ok();
        path.hash(hash);
        let state = |about: &Metadata| (about.ino(), about.len(), about.mtime(), about.mtime_nsec());
        about.as_ref().map(state).hash(hash);
        if *files < FILES_MAX && depth < DEPTH_MAX && about.is_some_and(|about| about.is_dir()) {
            look_into(&path, depth + 1, files, hash);
        }
    }
}

fn watch(folder: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let name = folder.file_name().map(ToOwned::to_owned);
    let watched = folder.to_owned();
    let concerns = move |path: &Path| path.starts_with(&watched) || path.file_name() == name.as_deref();
    let told = move |event: notify::Result<notify::Event>| {
        // Events that cannot be read may be of any kind.
        let concerned = event.map_or(true, |event| {
            !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(|path| concerns(path))
        });
        if concerned {
            changed.notify_one();
        }
    };
    let begin = || -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(told)?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    };
    begin().inspect_err(|error| tracing::debug!(%error, "the policy folder cannot be watched")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch that finds nothing unless it is told.
    fn watch(folder: &Path) -> Watch {
        Watch { anyway: Duration::MAX, ..Watch::new(folder) }
    }

    #[tokio::test]
    async fn a_file_that_is_written_renamed_or_removed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("policies");
        fs::create_dir(&folder).unwrap();
        let mut watch = watch(&folder);
        fs::write(folder.join("a.cedar"), "one").unwrap();
        watch.changed().await;
        fs::write(dir.path().join("next"), "two").unwrap();
        fs::rename(dir.path().join("next"), folder.join("a.cedar")).unwrap();
        watch.changed().await;
        fs::remove_file(folder.join("a.cedar")).unwrap();
        watch.changed().await;
    }

    #[test]
    fn what_nobody_tells_of_is_found_and_what_is_as_before_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tests")).unwrap();
        fs::write(dir.path().join("tests/a.json"), "one").unwrap();
        let before = looks(dir.path());
        assert_eq!(looks(dir.path()), before);
        fs::write(dir.path().join("tests/a.json"), "four").unwrap();
        let after = looks(dir.path());
        assert_ne!(after, before);
        fs::rename(dir.path().join("tests/a.json"), dir.path().join("tests/b.json")).unwrap();
        assert_ne!(looks(dir.path()), after);
        assert_ne!(looks(&dir.path().join("gone")), looks(dir.path()));
    }

    #[tokio::test]
    async fn a_link_that_is_exchanged_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let link = dir.path().join("current");
        std::os::unix::fs::symlink("one", &link).unwrap();
        let mut watch = watch(&link);
        for name in ["two", "one"] {
            std::os::unix::fs::symlink(name, dir.path().join("next")).unwrap();
            fs::rename(dir.path().join("next"), &link).unwrap();
            watch.changed().await;
        }
    }
}
