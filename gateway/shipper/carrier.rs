//! Carries one session to its log stream, round by round, in order.

use std::sync::Arc;
use std::time::Duration;

use super::batch::{LogEvent, Window, batches};
use super::error::Trouble;
use super::maker::{Maker, Next, Round};
use super::pace::Backoff;
use super::post::Post;
use super::segment::encode_checkpoint;
use super::{Depot, ShipperError};
use crate::session::{SessionId, now_ms};

/// Attempts at once before a round is given up and waited for.
const ATTEMPTS: u32 = 3;
/// A round that was given up is kept if it is no larger, bytes.
const KEPT_MAX: usize = 64 * 1024;
/// AWS's clock may be behind ours; what was too new is said to be older.
const TOO_NEW_MS: i64 = 12 * 3_600_000;

/// One session on its way.
pub(super) struct Carrier {
    depot: Arc<Depot>,
    id: SessionId,
    post: Arc<Post>,
    /// None while it works on a thread that may block.
    maker: Option<Maker>,
    /// A round that could not be sent.
    held: Option<Round>,
    has_stream: bool,
    /// Waits of this session alone.
    backoff: Backoff,
}

enum Went {
    On,
    /// The session is wholly shipped, or gone.
    Done,
}

impl Carrier {
    pub(super) fn new(depot: Arc<Depot>, id: SessionId, post: Arc<Post>, maker: Maker) -> Self {
        let backoff = Backoff::default();
        Self { depot, id, post, maker: Some(maker), held: None, has_stream: false, backoff }
    }

    /// Runs until all of the session is in its log stream.
    pub(super) async fn run(mut self) {
        loop {
            if self.held.is_none() {
                self.post.wait().await;
            }
            match self.step().await {
                Ok(Went::On) => self.backoff.succeeded(),
                Ok(Went::Done) => break,
                Err(error) => {
                    let wait = self.depot.failed(&self.id, &error, &mut self.backoff).await;
                    tokio::time::sleep(wait).await;
                }
            }
        }
        self.depot.done(&self.id);
    }

    /// Sends one round, if there is one.
    async fn step(&mut self) -> Result<Went, ShipperError> {
        self.depot.weather().await;
        let depot = Arc::clone(&self.depot);
        let permits = self.maker.as_ref().filter(|_| self.held.is_none()).map_or(1, Maker::permits);
        // Closed only when the shipper ends, and this task with it.
        let _permits = depot.permits.acquire_many(permits).await;
        let mut round = match self.held.take() {
            Some(round) => round,
            None => match self.make(permits).await? {
                Next::Round(round) => *round,
                Next::Larger => {
                    self.post.look_at_spool(true);
                    return Ok(Went::On);
                }
                Next::Nothing => {
                    let batch = self.checkpoint(self.line());
                    if !batch.is_empty() {
                        self.put(batch).await?;
                    }
                    self.post.stored();
                    return Ok(Went::On);
                }
                Next::Gone => {
                    depot.cursors.forget(&self.id);
                    return Ok(Went::Done);
                }
            },
        };
        let sent = match depot.cursors.save(&self.id, &round.plan) {
            Ok(()) => self.send(&mut round).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => self.stored(&round),
            Err(error) => {
                self.hold(round);
                Err(error)
            }
        }
    }

    async fn make(&mut self, permits: u32) -> Result<Next, ShipperError> {
        let Some(mut maker) = self.maker.take() else { return Ok(Next::Gone) };
        let taken = self.post.take();
        let made = tokio::task::spawn_blocking(move || {
            let next = maker.next(taken.batches, taken.spool, permits);
            (maker, next)
        });
        let (maker, next) = made
            .await
            .map_err(|_| ShipperError::Config(format!("the thread that read session {} ended", self.id)))?;
        self.maker = Some(maker);
        if next.is_err() {
            self.post.look_at_spool(false);
        }
        next
    }

    fn stored(&mut self, round: &Round) -> Result<Went, ShipperError> {
        if let Some(maker) = &mut self.maker {
            maker.stored(round);
        }
        self.depot.stored(&self.id, round);
        self.post.stored();
        if round.last {
            self.depot.finished(&self.id)?;
            tracing::info!(session = %self.id, lines = round.after.line, "session shipped");
            return Ok(Went::Done);
        }
        if self.maker.as_ref().is_some_and(Maker::is_behind) {
            self.post.look_at_spool(true);
        }
        Ok(Went::On)
    }

    /// A small round waits in memory; a large one is made again later.
    fn hold(&mut self, round: Round) {
        if round.bytes <= KEPT_MAX {
            self.held = Some(round);
        } else if let Some(maker) = &mut self.maker {
            maker.given_up(&round);
            self.post.look_at_spool(false);
        }
    }

    /// Sends all of a round; what was sent of it before is sent again.
    async fn send(&mut self, round: &mut Round) -> Result<(), ShipperError> {
        let window = Window::at(now(), self.depot.retention_days());
        // Of a large one nothing is kept that would be sent again.
        let kept = round.bytes <= KEPT_MAX;
        let mut events = if kept { round.events.clone() } else { std::mem::take(&mut round.events) };
        let mut signed = self.checkpoint(round.after.line);
        // Parts of a frame are counted, so nothing comes between them.
        if !round.plan.packed {
            events.append(&mut signed);
        }
        for batch in batches(events, window) {
            let count = batch.len();
            self.put(batch).await?;
            round.stored += count;
        }
        for batch in batches(signed, window) {
            self.put(batch).await?;
        }
        Ok(())
    }

    /// What was signed last of so many lines, if it is not shipped yet.
    ///
    /// One that is lost with a failed call is followed by another.
    fn checkpoint(&self, lines: u64) -> Vec<LogEvent> {
        let signed = self.post.take_checkpoint(lines).filter(|_| self.depot.ships_recordings());
        signed.and_then(|checkpoint| encode_checkpoint(&checkpoint).ok()).into_iter().collect()
    }

    /// How many lines are shipped.
    fn line(&self) -> u64 {
        self.maker.as_ref().map_or(0, Maker::line)
    }

    async fn put(&mut self, mut batch: Vec<LogEvent>) -> Result<(), ShipperError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            if !self.has_stream {
                self.depot.logs.create_stream(self.id.as_str()).await?;
                self.has_stream = true;
            }
            match self.depot.logs.put(self.id.as_str(), &batch).await {
                Ok(rejected) if rejected.is_empty() => {
                    self.depot.counted(&batch);
                    return Ok(());
                }
                Ok(rejected) if attempt < ATTEMPTS => {
                    self.depot.count_error(Trouble::Rejected);
                    batch = retimed(rejected);
                }
                Ok(_) => return Err(ShipperError::rejected()),
                Err(error) => {
                    let trouble = error.trouble();
                    self.has_stream &= trouble != Some(Trouble::Missing);
                    if attempt >= ATTEMPTS || !trouble.is_some_and(Trouble::passes_soon) {
                        return Err(error);
                    }
                    self.depot.count_error(trouble.unwrap_or(Trouble::Unavailable));
                    tokio::time::sleep(Duration::from_millis(50) * attempt * attempt).await;
                }
            }
        }
    }
}

/// Events that AWS did not take for their time, with one that it takes.
pub(super) fn retimed(mut rejected: Vec<LogEvent>) -> Vec<LogEvent> {
    let now = now();
    for event in &mut rejected {
        event.at_ms = if event.at_ms > now - TOO_NEW_MS / 2 { now - TOO_NEW_MS } else { now };
    }
    rejected.sort_by_key(|event| event.at_ms);
    rejected
}

fn now() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}
