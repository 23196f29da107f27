//! The gateway's keys on disk, so that one sign-in serves an hour of commands.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::ClientError;
use crate::client::sign_in::Keys;

/// New keys are fetched when less is left: the AWS CLI wants 15 minutes.
const FRESH_LEFT: Duration = Duration::from_secs(20 * 60);
/// With less left keys are no use even when the gateway is away.
const USABLE_LEFT: Duration = Duration::from_secs(60);
/// Longest wait for another process that is signing in.
const LOCK_WAIT: Duration = Duration::from_secs(40);
/// Pause between two looks at the lock.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Largest cache file that is read, bytes; keys have 2 KB.
const FILE_MAX: u64 = 16 * 1024;

/// The keys of one identity at one gateway.
pub struct KeyCache {
    dir: PathBuf,
    file: PathBuf,
}

impl KeyCache {
    /// The cache of whatever these words stand for, in the user's cache.
    pub fn open(words: &[&[u8]]) -> Option<Self> {
        Some(Self::open_in(&directory()?, words))
    }

    /// The cache of these words in a given directory.
    pub fn open_in(dir: &Path, words: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for word in words {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            context.update(&word.len().to_be_bytes());
            context.update(word);
        }
        let digest = context.finish();
        let name = data_encoding::HEXLOWER.encode(digest.as_ref().get(..16).unwrap_or_default());
        Self { file: dir.join(format!("{name}.json")), dir: dir.to_owned() }
    }

    /// Keys that are good for a while yet.
    pub fn fresh(&self, now: OffsetDateTime) -> Option<Keys> {
        self.read().filter(|keys| left(keys, now) >= FRESH_LEFT)
    }

    /// Keys that still work, for when no new ones can be had.
    pub fn usable(&self, now: OffsetDateTime) -> Option<Keys> {
        self.read().filter(|keys| left(keys, now) >= USABLE_LEFT)
    }

    /// Keeps others from signing in at the same time until it is dropped.
    pub fn lock(&self) -> Result<File, ClientError> {
        let path = self.file.with_extension("lock");
        let fail = |e| ClientError::io("lock", &path, e);
        self.make_dir().map_err(|e| ClientError::io("make", &self.dir, e))?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(fail)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(fail(io::Error::new(io::ErrorKind::TimedOut, "another sign-in hangs")));
                }
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }

    /// Writes the keys, readable by their owner only, whole or not at all.
    pub fn store(&self, keys: &Keys) -> Result<(), ClientError> {
        let fail = |e| ClientError::io("write", &self.file, e);
        self.make_dir().map_err(fail)?;
        let draft = self.file.with_extension(format!("{}.tmp", std::process::id()));
        // A draft left by a process of the same number would keep its mode.
        let _ = fs::remove_file(&draft);
        let text = serde_json::to_vec(keys).map_err(|e| fail(e.into()))?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(fail)?;
        file.write_all(&text).and_then(|()| fs::rename(&draft, &self.file)).map_err(fail)
    }

    fn read(&self) -> Option<Keys> {
        let meta = fs::metadata(&self.file).ok()?;
        // Keys that others could have written are not ours.
        let is_private = meta.mode() & 0o077 == 0 && meta.len() <= FILE_MAX;
        let text = is_private.then(|| fs::read(&self.file).ok()).flatten()?;
        serde_json::from_slice(&text).ok()
    }

    fn make_dir(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        if fs::metadata(&self.dir)?.mode() & 0o077 != 0 {
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }
}

fn left(keys: &Keys, now: OffsetDateTime) -> Duration {
    let end = OffsetDateTime::parse(&keys.expiration, &Rfc3339);
    end.ok().and_then(|end| Duration::try_from(end - now).ok()).unwrap_or_default()
}

fn directory() -> Option<PathBuf> {
    let set = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("POSTERN_CACHE_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("postern")))
        .or_else(|| Some(set("HOME")?.join(".cache/postern")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    fn keys(expiration: &str) -> Keys {
        Keys {
            version: 1,
            access_key_id: "GWSA1".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: "token".to_owned(),
            expiration: expiration.to_owned(),
            account_id: Some("123456789012".to_owned()),
        }
    }

    #[test]
    fn keys_are_kept_until_twenty_minutes_are_left() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KeyCache::open_in(dir.path(), &[b"gw", b"alice"]);
        assert_eq!(cache.fresh(NOW), None);
        cache.store(&keys("2026-11-22T10:20:00Z")).unwrap();
        assert_eq!(cache.fresh(NOW).unwrap().access_key_id, "GWSA1");
        let later = NOW + Duration::from_secs(1);
        assert_eq!(cache.fresh(later), None);
        assert!(cache.usable(later).is_some());
        assert_eq!(cache.usable(datetime!(2026-11-22 10:19:30 UTC)), None);
    }

    #[test]
    fn only_the_owner_can_read_keys() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KeyCache::open_in(&dir.path().join("new"), &[b"gw"]);
        cache.store(&keys("2026-11-22T11:00:00Z")).unwrap();
        assert_eq!(fs::metadata(&cache.file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&cache.dir).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&cache.file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(cache.fresh(NOW), None, "keys that anybody can read were used");
    }

    #[test]
    fn identities_and_gateways_do_not_share_keys() {
        let dir = Path::new("/nowhere");
        let files: Vec<PathBuf> = [&[&b"ab"[..], b"c"], &[b"a", b"bc"], &[b"abc", b""]]
            .iter()
            .map(|words| KeyCache::open_in(dir, *words).file)
            .collect();
        assert!(files[0] != files[1] && files[1] != files[2] && files[0] != files[2]);
    }

    #[test]
    fn garbage_in_the_cache_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KeyCache::open_in(dir.path(), &[b"gw"]);
        cache.store(&keys("soon")).unwrap();
        assert_eq!(cache.usable(NOW), None);
        fs::write(&cache.file, b"{\"Version\":1").unwrap();
        assert_eq!(cache.usable(NOW), None);
    }

    #[test]
    fn two_processes_do_not_sign_in_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KeyCache::open_in(dir.path(), &[b"gw"]);
        let held = cache.lock().unwrap();
        let second = File::open(cache.file.with_extension("lock")).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(second.try_lock().is_ok());
    }
}
