//! The lines of a screen: as they leave it, or as a program shows them.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use avt::operation::Operation;
use avt::parser::{DecMode, EdScope, Function};
use avt::{Observation, Observer, ScreenKind, Terminal};

use super::Line;
use crate::session::printable;

/// Longest line in one piece, bytes; a longer one comes in several.
const LINE_MAX: usize = 16 * 1024;
/// Time between two looks at a full-screen program: what can be read.
const LOOK_MS: u64 = 250;
/// Different lines of full-screen programs kept; `top` makes them for ever.
const FULL_SCREEN_MAX: usize = 20_000;

/// Takes rows as they leave the top of the main screen.
#[derive(Default)]
pub(super) struct Rows {
    now_ms: u64,
    lines: Vec<Line>,
    /// The line that the last rows were parts of.
    part: Option<Line>,
    /// When each row was begun, from the top of the screen.
    begun: VecDeque<u64>,
    full_screen: FullScreen,
}

impl Rows {
    /// Says when it is.
    pub fn now(&mut self, time_ms: u64) {
        self.now_ms = time_ms;
    }

    pub fn take(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// Takes what is on the screen at the end.
    pub fn finish(&mut self, terminal: &Terminal) {
        self.full_screen.look(terminal, (self.now_ms, true), &mut self.lines);
        self.take_screen(terminal);
        self.lines.extend(self.part.take());
    }

    fn push(&mut self, row: &avt::Line) {
        let begun = self.begun.pop_front().unwrap_or(self.now_ms);
        let empty = || Line { time_ms: begun, text: String::new(), full_screen: false };
        let mut line = self.part.take().unwrap_or_else(empty);
        line.text.push_str(&printable(&row.text()));
        if row.is_wrapped() && line.text.len() < LINE_MAX {
            self.part = Some(line);
            return;
        }
        line.text.truncate(line.text.trim_end().len());
        self.lines.push(line);
    }

    fn take_screen(&mut self, terminal: &Terminal) {
        let rows: Vec<&avt::Line> = terminal.primary_screen().all_lines().collect();
        let used = rows.iter().rposition(|row| !row.text().trim_end().is_empty());
        for row in rows.iter().take(used.map_or(0, |last| last + 1)) {
            self.push(row);
        }
    }
}

impl Observer for Rows {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let Operation::Function(function) = operation else { return };
        match function {
            // A full reset clears the screen; what it showed was seen.
            Function::Ris => {
                self.full_screen.look(context.terminal(), (self.now_ms, true), &mut self.lines);
                self.take_screen(context.terminal());
                self.begun.clear();
            }
            // A program leaves the screen, or clears it for its next page.
            Function::Decrst(modes) if modes.as_slice().iter().any(is_screen) => {
                self.full_screen.look(context.terminal(), (self.now_ms, true), &mut self.lines);
            }
            Function::Ed(EdScope::All) => {
                self.full_screen.look(context.terminal(), (self.now_ms, false), &mut self.lines);
            }
            _ => {}
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, row: &avt::Line) {
        self.push(row);
    }

    fn end(&mut self, context: &mut Observation<'_>) {
        let terminal = context.terminal();
        if terminal.active_screen_kind() == ScreenKind::Alternate {
            return self.full_screen.look(terminal, (self.now_ms, false), &mut self.lines);
        }
        // A row without a character is not begun yet.
        let cursor = terminal.cursor();
        let rows = cursor.row + usize::from(cursor.col > 0);
        if self.begun.len() < rows {
            self.begun.resize(rows, self.now_ms);
        }
    }
}

fn is_screen(mode: &DecMode) -> bool {
    matches!(mode, DecMode::AltScreenBuffer | DecMode::SaveCursorAltScreenBuffer)
}

/// Takes each different line of full-screen programs once.
#[derive(Default)]
struct FullScreen {
    looked_ms: Option<u64>,
    known: HashSet<u64>,
}

impl FullScreen {
    /// Looks at the screen, unless it has just been looked at.
    fn look(&mut self, terminal: &Terminal, (now_ms, surely): (u64, bool), lines: &mut Vec<Line>) {
        let just = self.looked_ms.is_some_and(|looked| now_ms < looked.saturating_add(LOOK_MS));
        let there = terminal.active_screen_kind() == ScreenKind::Alternate;
        if !there || (just && !surely) || self.known.len() >= FULL_SCREEN_MAX {
            return;
        }
        self.looked_ms = Some(now_ms);
        for text in terminal.screen().text() {
            let text = printable(text.trim_end());
            let mut hash = DefaultHasher::new();
            text.hash(&mut hash);
            if !text.is_empty() && self.known.insert(hash.finish()) {
                lines.push(Line { time_ms: now_ms, text, full_screen: true });
            }
        }
    }
}
