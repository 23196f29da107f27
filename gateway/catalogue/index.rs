//! Puts recordings into the catalogue, and takes them out.

use std::collections::HashSet;
use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::mpsc;

use super::block::{Block, Packed};
use super::{Catalogue, CatalogueError};
use crate::asciicast::Header;
use crate::replay::{End, Outline, Outliner, ReplayError, Timeline, holds_flows};
use crate::session::{SessionId, printable};
use crate::transcript::{Command, Seen, Transcript};

/// Blocks that wait for SQLite while the next are read.
const AHEAD: usize = 8;
/// Scenes from which on an outline is kept: some 8 MB of output.
const SCENES_KEPT: usize = 20;
/// Commands of one recording that are kept: a week of typing.
const COMMANDS_MAX: usize = 100_000;

impl Catalogue {
    /// The sessions whose whole recordings are in it.
    pub async fn known(&self) -> Result<HashSet<String>, CatalogueError> {
        let ids = sqlx::query_scalar("SELECT session FROM recordings WHERE whole");
        Ok(ids.fetch_all(&self.reader).await?.into_iter().collect())
    }

    /// Whether a whole recording is in it.
    pub async fn knows(&self, session: &SessionId) -> Result<bool, CatalogueError> {
        let found =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM recordings WHERE session = $1 AND whole)");
        Ok(found.bind(session.as_str()).fetch_one(&self.reader).await?)
    }

    /// Reads a recording into the catalogue, in place of what it had of it.
    ///
    /// One transaction: a recording is in it or not, never in part.
    pub async fn add(&self, session: &SessionId, path: &Path) -> Result<(), CatalogueError> {
        let (to_here, mut blocks) = mpsc::channel(AHEAD);
        let from = path.to_owned();
        let reading = tokio::task::spawn_blocking(move || read(&from, &to_here));
        let mut transaction = self.writer.begin().await?;
        remove(session, &mut transaction).await?;
        let recording: i64 = sqlx::query_scalar(
            "INSERT INTO recordings (session, principal, target, started_ms, duration_ms, whole) \
             VALUES ($1, '', '', 0, 0, false) RETURNING id",
        )
        .bind(session.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        while let Some((packed, text)) = blocks.recv().await {
            add_block(recording, packed, &text, &mut transaction).await?;
        }
        let failed = |why| CatalogueError::Recording { session: session.clone(), why };
        // The task ends by itself and does not panic; if it did, nothing was read.
        let read = reading.await.unwrap_or(Err(ReplayError::Empty)).map_err(failed)?;
        for command in &read.commands {
            add_command(recording, command, &mut transaction).await?;
        }
        if let Some(outline) = &read.outline {
            sqlx::query("INSERT INTO outlines (recording, packed) VALUES ($1, $2)")
                .bind(recording)
                .bind(outline)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query(
            "UPDATE recordings SET principal = $2, target = $3, started_ms = $4, duration_ms = $5, \
             whole = $6 WHERE id = $1",
        )
        .bind(recording)
        .bind(about(&read.header, "principal"))
        .bind(about(&read.header, "target"))
        .bind(read.header.timestamp.saturating_mul(1000))
        .bind(i64::try_from(read.duration_ms).unwrap_or(i64::MAX))
        .bind(read.whole)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Where the scenes of a whole recording begin, if it is a long one.
    ///
    /// What cannot be read any more is left out: it can be found again.
    pub async fn outline(&self, session: &SessionId) -> Result<Option<Outline>, CatalogueError> {
        Ok(self.packed_outline(session).await?.and_then(|packed| Outline::unpack(&packed)))
    }

    /// The same as [`Outline::unpack`] reads it.
    pub async fn packed_outline(&self, session: &SessionId) -> Result<Option<Vec<u8>>, CatalogueError> {
        let statement = "SELECT packed FROM outlines o JOIN recordings r ON r.id = o.recording \
             WHERE r.session = $1 AND r.whole";
        Ok(sqlx::query_scalar(statement).bind(session.as_str()).fetch_optional(&self.reader).await?)
    }

    /// Forgets a recording.
    pub async fn remove(&self, session: &SessionId) -> Result<(), CatalogueError> {
        let mut transaction = self.writer.begin().await?;
        remove(session, &mut transaction).await?;
        Ok(transaction.commit().await?)
    }
}

async fn remove(session: &SessionId, on: &mut SqliteConnection) -> Result<(), CatalogueError> {
    for statement in [
        "DELETE FROM words WHERE rowid IN (SELECT b.id FROM blocks b JOIN recordings r ON r.id = b.recording \
         WHERE r.session = $1)",
        "DELETE FROM blocks WHERE recording IN (SELECT id FROM recordings WHERE session = $1)",
        "DELETE FROM outlines WHERE recording IN (SELECT id FROM recordings WHERE session = $1)",
        "DELETE FROM commands WHERE recording IN (SELECT id FROM recordings WHERE session = $1)",
        "DELETE FROM recordings WHERE session = $1",
    ] {
        sqlx::query(statement).bind(session.as_str()).execute(&mut *on).await?;
    }
    Ok(())
}

async fn add_block(
    recording: i64,
    packed: Packed,
    text: &str,
    on: &mut SqliteConnection,
) -> Result<(), CatalogueError> {
    let block: i64 =
        sqlx::query_scalar("INSERT INTO blocks (recording, times, text) VALUES ($1, $2, $3) RETURNING id")
            .bind(recording)
            .bind(packed.times)
            .bind(packed.text)
            .fetch_one(&mut *on)
            .await?;
    let words = sqlx::query("INSERT INTO words (rowid, text) VALUES ($1, $2)");
    words.bind(block).bind(text).execute(&mut *on).await?;
    Ok(())
}

async fn add_command(
    recording: i64,
    command: &Command,
    on: &mut SqliteConnection,
) -> Result<(), CatalogueError> {
    sqlx::query("INSERT INTO commands (recording, time_ms, source, text) VALUES ($1, $2, $3, $4)")
        .bind(recording)
        .bind(i64::try_from(command.time_ms).unwrap_or(i64::MAX))
        .bind(command.source.as_str())
        .bind(&command.text)
        .execute(&mut *on)
        .await?;
    Ok(())
}

fn about(header: &Header, name: &str) -> String {
    header.said(name).map(printable).unwrap_or_default()
}

/// What is known of a recording once it was read.
struct Read {
    header: Header,
    duration_ms: u64,
    whole: bool,
    commands: Vec<Command>,
    /// Its outline, packed; none if a pass finds it in a moment.
    outline: Option<Vec<u8>>,
}

type Blocks = mpsc::Sender<(Packed, String)>;

/// Reads a recording to its end; its blocks go out on the way.
fn read(path: &Path, blocks: &Blocks) -> Result<Read, ReplayError> {
    let mut timeline = Timeline::open(path)?;
    let header = timeline.header().clone();
    let transcript = Transcript::of(&header);
    let mut transcript = transcript.map_err(|error| ReplayError::NotARecording(error.to_string()))?;
    let (mut block, mut commands, mut duration_ms) = (Block::default(), Vec::new(), 0);
    let mut outliner = Outliner::begin(&timeline, &transcript);
    let mut outline = None;
    if !holds_flows(&header) {
        loop {
            let place = timeline.place();
            let Some(event) = timeline.next_event()? else { break };
            duration_ms = event.time_ms;
            outliner.before(&event, place, &transcript);
            transcript.event(&event);
            let seen = transcript.take();
            outliner.commands(&seen.commands);
            take(seen, (&mut block, &mut commands), blocks)?;
        }
        let seen = transcript.finish();
        outliner.commands(&seen.commands);
        take(seen, (&mut block, &mut commands), blocks)?;
        send(&mut block, blocks)?;
        outline = packed(&outliner.done(&mut timeline))?;
    }
    Ok(Read { header, duration_ms, whole: timeline.end() == End::Whole, commands, outline })
}

/// The outline of a recording that is not read through in a moment.
fn packed(outline: &Outline) -> Result<Option<Vec<u8>>, ReplayError> {
    if outline.scenes() < SCENES_KEPT {
        return Ok(None);
    }
    outline.pack().map(Some).map_err(ReplayError::Write)
}

fn take(
    seen: Seen,
    (block, commands): (&mut Block, &mut Vec<Command>),
    blocks: &Blocks,
) -> Result<(), ReplayError> {
    for line in seen.lines.iter().filter(|line| !line.text.is_empty()) {
        if block.push(line.time_ms, &line.text) {
            send(block, blocks)?;
        }
    }
    let room = COMMANDS_MAX.saturating_sub(commands.len());
    commands.extend(seen.commands.into_iter().take(room));
    Ok(())
}

fn send(block: &mut Block, blocks: &Blocks) -> Result<(), ReplayError> {
    if block.is_empty() {
        return Ok(());
    }
    let packed = block.pack().map_err(ReplayError::Write)?;
    let text = block.text().to_owned();
    *block = Block::default();
    let gone = |_| ReplayError::Write(std::io::Error::other("the catalogue takes no more"));
    blocks.blocking_send((packed, text)).map_err(gone)
}
