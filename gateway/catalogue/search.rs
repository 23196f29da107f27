//! Looks through the catalogue, newest recordings first, page by page.

use std::collections::VecDeque;

use serde::Serialize;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row};

use super::block::{Block, Packed, TEXT_MAX};
use super::{Catalogue, CatalogueError, Query};
use crate::session::SessionId;
use crate::transcript::Source;

/// Blocks taken from SQLite at a time.
const BATCH_BLOCKS: i64 = 16;
/// Commands taken from SQLite at a time.
const BATCH_COMMANDS: i64 = 1000;
/// Text looked at for one page: half a second's work.
const LOOKED_AT_MAX: usize = 64 * 1024 * 1024;
/// Longest text of a hit, characters; a longer line is cut around it.
const SHOWN_MAX: usize = 400;
/// Characters shown before what was found, when a line is cut.
const SHOWN_BEFORE: usize = 100;

/// A recording that the catalogue knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// The session.
    pub session: SessionId,
    /// The principal's ARN, as the recording's header says.
    pub principal: String,
    /// The machine, as the recording's header says.
    pub target: String,
    /// When it began, ms since the Unix epoch.
    pub started_ms: u64,
}

/// A line or command that holds what was searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Where it is, milliseconds since the recording began.
    pub time_ms: u64,
    /// The line or command, or the part of it around what was found.
    pub text: String,
    /// How a command is known; none for a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// A block or command that may hold what is searched for.
pub struct Found {
    /// Of which recording.
    pub recording: Recorded,
    id: i64,
    content: Content,
}

enum Content {
    Lines(Packed),
    Command(Hit),
}

/// A search under way; ask [`Search::next`], then [`Search::hits`].
pub struct Search {
    catalogue: Catalogue,
    query: Query,
    batch: VecDeque<Found>,
    /// Where to go on: with this block, without so many of its hits.
    from: i64,
    skip: usize,
    looked_at: usize,
    exhausted: bool,
}

impl Catalogue {
    /// Begins a search, or goes on where a page's token says.
    pub fn search(&self, query: Query, token: Option<&str>) -> Result<Search, CatalogueError> {
        let (from, skip) = token.map_or(Ok((i64::MAX, 0)), read_token)?;
        let (catalogue, batch) = (self.clone(), VecDeque::new());
        Ok(Search { catalogue, query, batch, from, skip, looked_at: 0, exhausted: false })
    }
}

impl Search {
    /// The next block or command to look at; `None` at the end of a page.
    pub async fn next(&mut self) -> Result<Option<Found>, CatalogueError> {
        if self.looked_at > LOOKED_AT_MAX {
            return Ok(None);
        }
        if self.batch.is_empty() && !self.exhausted {
            self.fill().await?;
        }
        Ok(self.batch.pop_front())
    }

    /// The hits in it, latest first; the search goes on after them.
    pub fn hits(&mut self, found: &Found, most: usize) -> Result<Vec<Hit>, CatalogueError> {
        let skip = if found.id == self.from { self.skip } else { 0 };
        let hits: Vec<Hit> = match &found.content {
            Content::Command(hit) => {
                self.looked_at += hit.text.len();
                let matches = self.query.pattern.find(&hit.text).is_some();
                matches.then(|| hit.clone()).into_iter().take(most).collect()
            }
            Content::Lines(packed) => {
                let block = Block::unpack(packed)?;
                self.looked_at += block.text().len();
                let hits = block.lines().rev().filter_map(|(time_ms, line)| {
                    let at = self.query.pattern.find(line)?;
                    Some(Hit { time_ms, text: excerpt(line, at), source: None })
                });
                hits.skip(skip).take(most).collect()
            }
        };
        if hits.len() < most {
            self.go_past(found);
        } else {
            (self.from, self.skip) = (found.id, skip + hits.len());
        }
        Ok(hits)
    }

    /// Passes over it without a look.
    pub fn pass(&mut self, found: &Found) {
        self.looked_at += TEXT_MAX;
        self.go_past(found);
    }

    fn go_past(&mut self, found: &Found) {
        (self.from, self.skip) = (found.id.saturating_sub(1), 0);
    }

    /// What to ask with for the hits after these, if there may be any.
    pub fn token(&self) -> Option<String> {
        let over = self.exhausted && self.batch.is_empty() && self.skip == 0;
        (!over).then(|| format!("{}.{}", self.from, self.skip))
    }

    async fn fill(&mut self) -> Result<(), CatalogueError> {
        let batch = if self.query.commands { BATCH_COMMANDS } else { BATCH_BLOCKS };
        let mut query = self.statement();
        query.push_bind(batch);
        let rows = query.build().fetch_all(&self.catalogue.reader).await?;
        self.exhausted = i64::try_from(rows.len()).unwrap_or(i64::MAX) < batch;
        for row in &rows {
            self.batch.push_back(read(row, self.query.commands)?);
        }
        Ok(())
    }

    /// Everything but the number of rows.
    ///
    /// CROSS JOIN keeps the order: the index gives blocks newest first, and
    /// SQLite stops once it has enough.
    fn statement(&self) -> QueryBuilder<Sqlite> {
        let words = self.query.pattern.words().filter(|_| !self.query.commands);
        let (columns, table, id) = match (self.query.commands, &words) {
            (true, _) => ("t.id, t.time_ms, t.source, t.text", "commands t", "t.id"),
            (false, None) => ("t.id, t.times, t.text", "blocks t", "t.id"),
            (false, Some(_)) => {
                ("t.id, t.times, t.text", "words w CROSS JOIN blocks t ON t.id = w.rowid", "w.rowid")
            }
        };
        let mut query = QueryBuilder::new(format!(
            "SELECT {columns}, r.session, r.principal, r.target, r.started_ms \
             FROM {table} CROSS JOIN recordings r ON r.id = t.recording WHERE {id} <= "
        ));
        query.push_bind(self.from);
        if let Some(words) = words {
            query.push(" AND w.words MATCH ").push_bind(words);
        }
        self.filter(&mut query);
        query.push(" ORDER BY ").push(id).push(" DESC LIMIT ");
        query
    }

    fn filter(&self, query: &mut QueryBuilder<Sqlite>) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        if let Some(principal) = &self.query.principal {
            query.push(" AND instr(lower(r.principal), ").push_bind(principal.to_lowercase()).push(") > 0");
        }
        if let Some(target) = &self.query.target {
            query.push(" AND r.target = ").push_bind(target.clone());
        }
        if let Some(since) = self.query.since_ms {
            query.push(" AND r.started_ms + r.duration_ms >= ").push_bind(signed(since));
        }
        if let Some(until) = self.query.until_ms {
            query.push(" AND r.started_ms < ").push_bind(signed(until));
        }
    }
}

fn read(row: &SqliteRow, command: bool) -> Result<Found, CatalogueError> {
    let session: String = row.try_get("session")?;
    let session = SessionId::parse(&session).map_err(|error| CatalogueError::Damaged(error.to_string()))?;
    let recording = Recorded {
        session,
        principal: row.try_get("principal")?,
        target: row.try_get("target")?,
        started_ms: unsigned(row.try_get("started_ms")?),
    };
    let content = if command {
        let source: String = row.try_get("source")?;
        let time_ms = unsigned(row.try_get("time_ms")?);
        Content::Command(Hit { time_ms, text: row.try_get("text")?, source: Source::parse(&source) })
    } else {
        Content::Lines(Packed { times: row.try_get("times")?, text: row.try_get("text")? })
    };
    Ok(Found { recording, id: row.try_get("id")?, content })
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn read_token(token: &str) -> Result<(i64, usize), CatalogueError> {
    let parts =
        token.split_once('.').and_then(|(before, skip)| Some((before.parse().ok()?, skip.parse().ok()?)));
    parts.ok_or(CatalogueError::Token)
}

/// A line, cut around what was found if it is long.
fn excerpt(line: &str, at: std::ops::Range<usize>) -> String {
    if line.chars().count() <= SHOWN_MAX {
        return line.to_owned();
    }
    let before = line.get(..at.start).unwrap_or_default();
    let skip = before.chars().count().saturating_sub(SHOWN_BEFORE);
    let shown: String = line.chars().skip(skip).take(SHOWN_MAX).collect();
    if skip > 0 { format!("…{shown}…") } else { format!("{shown}…") }
}
