//! What is wholly shipped, and which of it may leave the spool.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use crate::session::SessionId;

const DAY_MS: u64 = 86_400_000;
/// Days that CloudWatch must still keep what leaves the spool.
const MARGIN_DAYS: u64 = 1;

/// Says whether a recording may leave the spool; `None` if it has to stay.
pub type MayLeave =
    Arc<dyn Fn(SessionId) -> Pin<Box<dyn Future<Output = Option<Leave>> + Send>> + Send + Sync>;

/// A recording that nobody needs in the spool, for as long as this lives.
pub struct Leave {
    /// When its session began.
    pub begun_ms: u64,
    /// Nobody comes to need it meanwhile.
    pub alone: OwnedMutexGuard<()>,
}

/// What is noted of a session that is wholly shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shipped {
    /// Where to.
    pub(super) log_group: String,
    /// Whether the recording can be rebuilt from what is there.
    pub(super) recording: bool,
}

impl Shipped {
    /// Reads the note; `None` if it says nothing, as those of earlier releases.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Whether the group that is shipped to now has all of the recording, and
    /// keeps it for a while. `retention` is the group's, days; 0: for ever.
    pub(super) fn replaces(&self, log_group: &str, retention: u32, (begun_ms, now_ms): (u64, u64)) -> bool {
        let last_day = u64::from(retention).saturating_sub(MARGIN_DAYS);
        let kept = retention == 0 || begun_ms.saturating_add(last_day * DAY_MS) > now_ms;
        self.recording && self.log_group == log_group && kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_recording_that_the_group_still_keeps_is_replaced() {
        let whole = Shipped { log_group: "/postern".into(), recording: true };
        let transcript = Shipped { recording: false, ..whole.clone() };
        let now = 100 * DAY_MS;
        assert!(whole.replaces("/postern", 0, (0, now)));
        assert!(!whole.replaces("/other", 0, (0, now)));
        assert!(!transcript.replaces("/postern", 0, (0, now)));
        assert!(whole.replaces("/postern", 7, (now - 5 * DAY_MS, now)));
        assert!(!whole.replaces("/postern", 7, (now - 6 * DAY_MS, now)));
        assert!(!whole.replaces("/postern", 1, (now, now)));
    }

    #[test]
    fn a_note_of_an_earlier_release_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.shipped");
        assert_eq!(Shipped::read(&path), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(Shipped::read(&path), None);
        let note = Shipped { log_group: "/postern".into(), recording: true };
        std::fs::write(&path, serde_json::to_vec(&note).unwrap()).unwrap();
        assert_eq!(Shipped::read(&path), Some(note));
    }
}
