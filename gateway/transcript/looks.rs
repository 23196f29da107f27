//! Rows that were shown and did not leave by the top: erased, overwritten.
//!
//! A screen is looked at before output changes it, at most every
//! [`LOOK_MS`]. A row that has stood for so long and is then not there any
//! more, nor longer now, nor somewhere else, was lost: it is given once,
//! however often a program shows it again.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use avt::Terminal;

use super::{Line, hash};
use crate::session::printable;

/// Time between two looks; what stands for a shorter time nobody reads.
const LOOK_MS: u64 = 250;
/// Different lost rows that are given, and then one more for each second:
/// `top` makes them for ever.
const LOST_MAX: u64 = 20_000;
/// Rows that left by the top since the last look and are still known.
const LEFT_MAX: usize = 2_000;

/// What one screen showed when it was looked at last.
#[derive(Default)]
pub(super) struct Looks {
    full_screen: bool,
    looked_ms: Option<u64>,
    /// When all of it was taken.
    taken_ms: Option<u64>,
    rows: VecDeque<Row>,
    /// When each row was changed last, from the top.
    changed: Vec<u64>,
    /// Rows that something else took the place of before it left.
    replaced: Vec<Row>,
    /// Hashes of the rows that left by the top since then.
    left: HashSet<u64>,
    known: HashSet<u64>,
    given: u64,
}

/// A row as it was seen.
struct Row {
    text: String,
    /// It goes on in the next one.
    wrapped: bool,
    /// When it was changed, and when something changed it next.
    stood: (u64, Option<u64>),
}

impl Looks {
    /// Those of the screen of full-screen programs.
    pub fn full_screen() -> Self {
        Self { full_screen: true, ..Self::default() }
    }

    /// Looks at the active screen, unless it has just been looked at.
    pub fn look(&mut self, terminal: &Terminal, now_ms: u64, lines: &mut Vec<Line>) {
        if is_over(self.looked_ms, now_ms) {
            self.surely(terminal, now_ms, lines);
        }
    }

    /// Looks at the active screen.
    pub fn surely(&mut self, terminal: &Terminal, now_ms: u64, lines: &mut Vec<Line>) {
        self.looked_ms = Some(now_ms);
        let shown = terminal.screen();
        let mut rows: VecDeque<Row> = shown
            .visible_lines()
            .enumerate()
            .map(|(index, row)| Row {
                text: seen(row),
                wrapped: row.is_wrapped(),
                stood: (self.changed.get(index).copied().unwrap_or_default(), None),
            })
            .collect();
        let mut lost = std::mem::take(&mut self.replaced);
        for (index, old) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            match rows.get_mut(index) {
                Some(row) if row.text == old.text => row.stood.0 = old.stood.0,
                Some(row) if row.text.starts_with(&old.text) => {}
                _ => lost.push(old),
            }
        }
        if !lost.is_empty() {
            // What a longer row begins with is still there to be read.
            lost.retain(|old| !self.left.contains(&hash(old.text.trim_end())));
            lost.retain(|old| !rows.iter().any(|row| row.text.starts_with(&old.text)));
            lost.retain(|row| row.stood.1.unwrap_or(now_ms).saturating_sub(row.stood.0) >= LOOK_MS);
            self.give(lost, now_ms, lines);
        }
        self.rows = rows;
        self.left.clear();
    }

    /// Takes all that the active screen shows, before a page of it goes.
    pub fn page(&mut self, terminal: &Terminal, now_ms: u64, lines: &mut Vec<Line>) {
        if is_over(self.taken_ms, now_ms) {
            self.all(terminal, now_ms, lines);
        }
    }

    /// Takes all that the active screen shows, however long it did.
    pub fn all(&mut self, terminal: &Terminal, now_ms: u64, lines: &mut Vec<Line>) {
        self.surely(terminal, now_ms, lines);
        self.taken_ms = Some(now_ms);
        let rows = std::mem::take(&mut self.rows);
        self.give(rows, now_ms, lines);
    }

    /// Those rows change now.
    pub fn change(&mut self, rows: Range<usize>, now_ms: u64) {
        if self.changed.len() < rows.end {
            self.changed.resize(rows.end, 0);
        }
        self.changed.iter_mut().take(rows.end).skip(rows.start).for_each(|changed| *changed = now_ms);
        for row in self.rows.iter_mut().take(rows.end).skip(rows.start) {
            row.stood.1.get_or_insert(now_ms);
        }
    }

    /// The top row has left the screen, which said this then.
    pub fn leaves(&mut self, text: &str) {
        if self.rows.is_empty() && self.replaced.is_empty() {
            return;
        }
        if self.left.len() < LEFT_MAX {
            self.left.insert(hash(text.trim_end()));
        }
        self.replaced.extend(self.rows.pop_front().filter(|old| !text.starts_with(&old.text)));
    }

    /// The rows are cut anew; all that was there still is.
    pub fn forget(&mut self) {
        self.rows.clear();
        self.replaced.clear();
    }

    fn give(&mut self, lost: impl IntoIterator<Item = Row>, now_ms: u64, lines: &mut Vec<Line>) {
        let mut begun: Option<Row> = None;
        for row in lost {
            let mut row = match begun.take() {
                Some(mut whole) => {
                    whole.text.push_str(&row.text);
                    Row { wrapped: row.wrapped, ..whole }
                }
                None => row,
            };
            if row.wrapped && row.text.len() < super::rows::LINE_MAX {
                begun = Some(row);
                continue;
            }
            row.wrapped = false;
            self.line(row, now_ms, lines);
        }
        if let Some(row) = begun {
            self.line(row, now_ms, lines);
        }
    }

    fn line(&mut self, mut row: Row, now_ms: u64, lines: &mut Vec<Line>) {
        row.text.truncate(row.text.trim_end().len());
        if row.text.is_empty() || self.given >= LOST_MAX.saturating_add(now_ms / 1000) {
            return;
        }
        if self.known.len() as u64 >= LOST_MAX {
            self.known.clear();
        }
        if self.known.insert(hash(&row.text)) {
            self.given += 1;
            lines.push(Line { time_ms: row.stood.0, text: row.text, full_screen: self.full_screen });
        }
    }
}

/// A row that goes on in the next one keeps the blanks at its end.
fn seen(row: &avt::Line) -> String {
    let text = row.text();
    printable(if row.is_wrapped() { &text } else { text.trim_end() })
}

fn is_over(last_ms: Option<u64>, now_ms: u64) -> bool {
    last_ms.is_none_or(|last| now_ms >= last.saturating_add(LOOK_MS))
}
