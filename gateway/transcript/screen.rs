//! The terminal that output is shown on, and where its text is.

use avt::{InvalidSize, Line, Terminal};

/// Widest and highest terminal kept in memory: a few screens' worth.
const COLS_MAX: u16 = 1000;
/// See [`COLS_MAX`].
const ROWS_MAX: u16 = 500;

/// Columns and rows of a terminal, made to fit the bounds.
pub fn sane_size(cols: u16, rows: u16) -> (usize, usize) {
    (usize::from(cols.clamp(1, COLS_MAX)), usize::from(rows.clamp(1, ROWS_MAX)))
}

/// A terminal without history; bounded whatever the recording says.
pub fn terminal(cols: u16, rows: u16) -> Result<Terminal, InvalidSize> {
    let (cols, rows) = sane_size(cols, rows);
    Terminal::new(cols, rows)
}

/// Reads the size out of a resize event: `80x24`.
pub fn parse_size(data: &str) -> Option<(u16, u16)> {
    let (cols, rows) = data.split_once('x')?;
    Some((cols.parse().ok()?, rows.parse().ok()?))
}

/// A place of the main screen: column and row, from its corner.
pub(super) type Spot = (usize, usize);

/// The text from a place to the end of its line, and the line's last row.
///
/// A line goes on below where the terminal wrapped it.
pub(super) fn text_from(terminal: &Terminal, (col, row): Spot) -> (String, usize) {
    let (mut text, mut last) = (String::new(), row);
    for (index, line) in terminal.primary_screen().visible_lines().skip(row).enumerate() {
        last = row + index;
        push_cells(line, if index == 0 { col } else { 0 }, usize::MAX, &mut text);
        if !line.is_wrapped() {
            break;
        }
    }
    text.truncate(text.trim_end().len());
    (text, last)
}

/// The text of a row before a place.
pub(super) fn text_before(terminal: &Terminal, (col, row): Spot) -> String {
    let mut text = String::new();
    if let Some(line) = terminal.primary_screen().line(row) {
        push_cells(line, 0, col, &mut text);
    }
    text
}

/// The row in which the line of that row begins.
pub(super) fn first_row(terminal: &Terminal, row: usize) -> usize {
    let wrapped: Vec<bool> =
        terminal.primary_screen().visible_lines().take(row).map(Line::is_wrapped).collect();
    row - wrapped.iter().rev().take_while(|wrapped| **wrapped).count()
}

fn push_cells(line: &Line, from: usize, until: usize, text: &mut String) {
    let cells = line.cells().iter().take(until).skip(from);
    text.extend(cells.filter(|cell| cell.width() != 0).map(avt::Cell::char));
}
