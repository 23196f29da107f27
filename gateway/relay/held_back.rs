//! Output that waits for its place of storage, and the word about it.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Meters;
use super::pump::Pump;
use crate::session::{Durability, now_ms};

/// Storing takes a second or so; who waits longer wants to know why.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// It goes on once nothing waits longer than it does on a good day.
const GOES_ON: Duration = Duration::from_secs(2);

/// Whether a session was told that its output is held back.
pub(super) struct HeldBack {
    /// Since when, if so.
    since: Option<Instant>,
    meters: Arc<Meters>,
}

impl HeldBack {
    pub(super) fn new(meters: Arc<Meters>) -> Self {
        Self { since: None, meters }
    }

    /// What there is to say now; said once.
    fn next(&mut self, waits: Option<(Instant, Durability)>, now: Instant) -> Option<String> {
        match (self.since, waits) {
            (None, Some((since, durability))) if since + TELL_AFTER <= now => {
                self.begins(since);
                Some(sentence(durability, since, now))
            }
            (Some(_), waits) if waits.is_none_or(|(since, _)| since + GOES_ON > now) => {
                self.ends();
                Some("what was held back is stored; the session goes on".to_owned())
            }
            _ => None,
        }
    }

    fn begins(&mut self, since: Instant) {
        self.since = Some(since);
        self.meters.held_back.inc();
    }

    fn ends(&mut self) {
        if let Some(since) = self.since.take() {
            self.meters.held_back.dec();
            self.meters.held_back_seconds.inc_by(since.elapsed().as_secs());
        }
    }
}

/// A session may end while it is held back.
impl Drop for HeldBack {
    fn drop(&mut self) {
        self.ends();
    }
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// When to say that output is held back.
    ///
    /// That it goes on needs no alarm: what is stored wakes the relay.
    pub(super) fn held_back_due(&mut self) -> Option<Instant> {
        let waits = self.waits_for_storage().filter(|_| self.held_back.since.is_none());
        waits.map(|(since, _)| since + TELL_AFTER).filter(|_| self.can_say())
    }

    /// What is to be said of it now.
    pub(super) fn held_back_notice(&mut self) -> Option<String> {
        if !self.can_say() {
            return None;
        }
        let waits = self.waits_for_storage();
        self.held_back.next(waits, self.now)
    }

    /// Since when the oldest acknowledge waits for storage, and for which.
    fn waits_for_storage(&mut self) -> Option<(Instant, Durability)> {
        let (position, since) = self.held.waits_since()?;
        (position > self.tap.recorded()).then(|| (since, self.tap.durability()))
    }
}

fn sentence(durability: Durability, since: Instant, now: Instant) -> String {
    let store = match durability {
        Durability::Remote => "CloudWatch Logs has it",
        Durability::Disk | Durability::Process => "it is on the gateway's disk",
    };
    format!("output is held back until {store}; nothing was stored since {}", clock(since, now))
}

/// `14:03:07 UTC`.
fn clock(at: Instant, now: Instant) -> String {
    let ago = u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX);
    let seconds = i64::try_from(now_ms().saturating_sub(ago) / 1000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(format_description!("[hour]:[minute]:[second] UTC")).unwrap_or_default()
}
