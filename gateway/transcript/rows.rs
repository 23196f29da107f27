//! The lines of a screen: as they leave it, or as a program shows them.

use std::collections::VecDeque;
use std::ops::Range;

use avt::operation::Operation;
use avt::parser::{DecMode, EdScope, Function};
use avt::{Observation, Observer, ScreenKind, Terminal};

use super::Line;
use super::looks::Looks;
use crate::session::printable;

/// Longest line in one piece, bytes; a longer one comes in several.
pub(super) const LINE_MAX: usize = 16 * 1024;

/// Takes rows as they leave the top of the main screen.
pub(super) struct Rows {
    now_ms: u64,
    /// A full-screen program's output begins.
    is_full: bool,
    lines: Vec<Line>,
    /// The line that the last rows were parts of.
    part: Option<Line>,
    /// When each row was begun, from the top of the screen.
    begun: VecDeque<u64>,
    /// What the main screen loses otherwise.
    main: Looks,
    full_screen: Looks,
}

impl Default for Rows {
    fn default() -> Self {
        let (lines, begun) = (Vec::new(), VecDeque::new());
        let (main, full_screen) = (Looks::default(), Looks::full_screen());
        Self { now_ms: 0, is_full: false, lines, part: None, begun, main, full_screen }
    }
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
        self.leave(terminal);
        self.take_screen(terminal);
        self.lines.extend(self.part.take());
    }

    /// Takes what a full-screen program shows, or what the main screen lost.
    fn leave(&mut self, terminal: &Terminal) {
        match terminal.active_screen_kind() {
            ScreenKind::Alternate => self.full_screen.all(terminal, self.now_ms, &mut self.lines),
            ScreenKind::Primary => self.main.surely(terminal, self.now_ms, &mut self.lines),
        }
    }

    fn push(&mut self, row: &avt::Line, text: &str) {
        let begun = self.begun.pop_front().unwrap_or(self.now_ms);
        let empty = || Line { time_ms: begun, text: String::new(), full_screen: false };
        let mut line = self.part.take().unwrap_or_else(empty);
        line.text.push_str(text);
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
            self.push(row, &printable(&row.text()));
        }
    }
}

impl Observer for Rows {
    type Output = ();

    fn begin(&mut self, context: &mut Observation<'_>) {
        let terminal = context.terminal();
        self.is_full = terminal.active_screen_kind() == ScreenKind::Alternate;
        let looks = if self.is_full { &mut self.full_screen } else { &mut self.main };
        looks.look(terminal, self.now_ms, &mut self.lines);
    }

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let Operation::Function(function) = operation else { return };
        let terminal = context.terminal();
        let full_screen = terminal.active_screen_kind() == ScreenKind::Alternate;
        match function {
            // A full reset clears the screen; what it showed was seen.
            Function::Ris => {
                self.leave(terminal);
                self.take_screen(terminal);
                self.begun.clear();
                self.main.forget();
            }
            // A program leaves the screen, or clears it for its next page.
            Function::Decrst(modes) if full_screen && modes.as_slice().iter().any(is_screen) => {
                self.leave(terminal);
            }
            Function::Ed(EdScope::All) if full_screen => {
                self.full_screen.page(terminal, self.now_ms, &mut self.lines);
            }
            _ => {}
        }
    }

    fn dirty(&mut self, rows: Range<usize>) {
        let looks = if self.is_full { &mut self.full_screen } else { &mut self.main };
        looks.change(rows, self.now_ms);
    }

    fn resized(&mut self, _: usize, _: usize) {
        self.main.forget();
        self.full_screen.forget();
    }

    fn evicted(&mut self, _: &mut Observation<'_>, row: &avt::Line) {
        let text = printable(&row.text());
        self.main.leaves(&text);
        self.push(row, &text);
    }

    fn end(&mut self, context: &mut Observation<'_>) {
        let terminal = context.terminal();
        if terminal.active_screen_kind() == ScreenKind::Alternate {
            return;
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
