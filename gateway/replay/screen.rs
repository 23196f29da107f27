//! What a terminal shows after some output: for seeking and for text.

use avt::observer::{Observation, Observer};
use avt::parser::Function;
use avt::{Line, Operation, ScreenKind, Terminal};

use super::{Place, ReplayError};
use crate::session::printable;

/// Widest and highest terminal kept in memory: a few screens' worth.
const COLS_MAX: u16 = 1000;
/// See [`COLS_MAX`].
const ROWS_MAX: u16 = 500;
/// Output between two snapshots: what is re-read in about 10 ms.
const SNAPSHOT_SPACING: u64 = 256 * 1024;
/// Snapshots kept in memory, all together.
const SNAPSHOTS_MAX_BYTES: usize = 16 * 1024 * 1024;

/// RIS: everything as in a new terminal; also ends an open sequence.
const RESET: &str = "\u{1b}c";

/// Columns and rows of a terminal, made to fit the bounds.
fn sane(cols: u16, rows: u16) -> (usize, usize) {
    (usize::from(cols.clamp(1, COLS_MAX)), usize::from(rows.clamp(1, ROWS_MAX)))
}

/// A terminal without history; bounded whatever the recording says.
fn terminal(cols: u16, rows: u16) -> Result<Terminal, ReplayError> {
    let (cols, rows) = sane(cols, rows);
    Terminal::new(cols, rows).map_err(|error| ReplayError::NotARecording(error.to_string()))
}

/// Reads the size out of a resize event: `80x24`.
pub(super) fn parse_size(data: &str) -> Option<(u16, u16)> {
    let (cols, rows) = data.split_once('x')?;
    Some((cols.parse().ok()?, rows.parse().ok()?))
}

/// The screen at one place of a recording, as bytes that rebuild it.
struct Snapshot {
    place: Place,
    output: u64,
    dump: String,
}

/// The window's content as the player's output makes it.
pub(super) struct Screen {
    terminal: Terminal,
    output: u64,
    snapshots: Vec<Snapshot>,
    spacing: u64,
}

impl Screen {
    /// An empty screen of the window's size.
    pub fn new(cols: u16, rows: u16) -> Result<Self, ReplayError> {
        let terminal = terminal(cols, rows)?;
        Ok(Self { terminal, output: 0, snapshots: Vec::new(), spacing: SNAPSHOT_SPACING })
    }

    /// Shows output; `after` is the place that follows it.
    pub fn feed(&mut self, text: &str, after: impl FnOnce() -> Place) {
        self.terminal.feed(text);
        self.output = self.output.saturating_add(text.len() as u64);
        let last = self.snapshots.last().map_or(0, |snapshot| snapshot.output);
        if self.output >= last.saturating_add(self.spacing) {
            self.remember(after());
        }
    }

    /// The bytes that make a cleared terminal of this size look like this.
    pub fn dump(&self) -> String {
        self.terminal.dump()
    }

    /// Whether a full-screen program has the screen.
    pub fn is_alternate(&self) -> bool {
        self.terminal.active_screen_kind() == ScreenKind::Alternate
    }

    /// Whether the cursor is in the first column.
    pub fn is_at_line_start(&self) -> bool {
        self.terminal.cursor().col == 0
    }

    /// The window changed its size; snapshots of the old one are useless.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = sane(cols, rows);
        self.terminal.resize(cols, rows);
        self.snapshots.clear();
        self.spacing = SNAPSHOT_SPACING;
    }

    /// Goes back to the last snapshot not after that time, or to nothing.
    ///
    /// `None`: start again at the first event.
    pub fn rewind(&mut self, time_ms: u64) -> Option<Place> {
        self.terminal.feed(RESET);
        let later = self.snapshots.partition_point(|snapshot| snapshot.place.time_ms <= time_ms);
        let Some(snapshot) = later.checked_sub(1).and_then(|last| self.snapshots.get(last)) else {
            self.output = 0;
            return None;
        };
        self.terminal.feed(snapshot.dump.as_str());
        self.output = snapshot.output;
        Some(snapshot.place)
    }

    fn remember(&mut self, place: Place) {
        self.snapshots.push(Snapshot { place, output: self.output, dump: self.terminal.dump() });
        let bytes: usize = self.snapshots.iter().map(|snapshot| snapshot.dump.len()).sum();
        if bytes > SNAPSHOTS_MAX_BYTES {
            let mut nth = 0usize;
            self.snapshots.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.spacing = self.spacing.saturating_mul(2);
        }
    }
}

/// The lines that went through a terminal, as text.
pub(super) struct Transcript {
    terminal: Terminal,
    rows: Rows,
}

impl Transcript {
    /// A transcript of a terminal of that size.
    pub fn new(cols: u16, rows: u16) -> Result<Self, ReplayError> {
        Ok(Self { terminal: terminal(cols, rows)?, rows: Rows::default() })
    }

    /// Shows output.
    pub fn feed(&mut self, text: &str) {
        self.terminal.feed_with(text, &mut self.rows);
    }

    /// Follows a resize event.
    pub fn resize(&mut self, data: &str) {
        if let Some((cols, rows)) = parse_size(data) {
            let (cols, rows) = sane(cols, rows);
            self.terminal.resize_with(cols, rows, &mut self.rows);
        }
    }

    /// The text that is certain by now; the caller takes it out.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.rows.text
    }

    /// The rest of the text, with what the screen shows at the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.rows.take_screen(&self.terminal);
        self.rows.text
    }
}

/// Takes rows as they leave the top of the main screen.
#[derive(Default)]
struct Rows {
    text: Vec<u8>,
}

impl Rows {
    fn push(&mut self, row: &Line) {
        let text = printable(&row.text());
        if row.is_wrapped() {
            self.text.extend_from_slice(text.as_bytes());
        } else {
            self.text.extend_from_slice(text.trim_end().as_bytes());
            self.text.push(b'\n');
        }
    }

    fn take_screen(&mut self, terminal: &Terminal) {
        let rows: Vec<&Line> = terminal.primary_screen().all_lines().collect();
        let used = rows.iter().rposition(|row| !row.text().trim_end().is_empty());
        for row in rows.iter().take(used.map_or(0, |last| last + 1)) {
            self.push(row);
        }
    }
}

impl Observer for Rows {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        // A full reset clears the screen; what it showed was seen.
        if matches!(operation, Operation::Function(Function::Ris)) {
            self.take_screen(context.terminal());
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, row: &Line) {
        self.push(row);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}
