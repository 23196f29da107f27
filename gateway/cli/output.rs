//! How lists and documents are printed, for people and for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::session::{is_hidden, printable};

/// Prints a value as JSON on standard output.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(&visible_json(value)?)
}

/// Pretty JSON in which all can be seen, and nothing is left out.
///
/// JSON asks for an escape only below U+0020, but terminals act upon more.
fn visible_json(value: &impl Serialize) -> anyhow::Result<String> {
    let mut visible = String::new();
    for c in serde_json::to_string_pretty(value)?.chars() {
        if c == '\n' || !is_hidden(c) {
            visible.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(visible, "\\u{unit:04x}")?;
        }
    }
    Ok(visible)
}

/// Prints text and a line's end on standard output.
pub fn print_line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints text as it is on standard output, at once.
pub fn print_text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints rows under headings, each column as wide as its widest cell.
pub fn print_table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    write_table(&mut io::stdout().lock(), headings, rows)
}

/// Writes such a table somewhere else.
pub fn write_table<const N: usize>(
    out: &mut impl Write,
    headings: [&str; N],
    rows: &[[String; N]],
) -> anyhow::Result<()> {
    for line in table(Some(headings), rows) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The rows as lines, without headings.
pub fn lines<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    table(None, rows)
}

fn table<const N: usize>(headings: Option<[&str; N]>, rows: &[[String; N]]) -> Vec<String> {
    let headings = headings.map(|headings| headings.map(str::to_owned));
    let lines: Vec<[String; N]> =
        headings.iter().chain(rows).map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let print = |line: &[String; N]| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(print).collect()
}

/// A moment in UTC, to the second.
pub fn moment(ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    let moment = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
    moment.ok().and_then(|moment| moment.format(format).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_gone() {
        let rows = [["s-1".to_owned(), "Zoë\u{1b}[2J".to_owned()], ["session-2".to_owned(), String::new()]];
        assert_eq!(table(Some(["ID", "WHO"]), &rows), ["ID         WHO", "s-1        Zoë[2J", "session-2"]);
    }

    #[test]
    fn json_says_all_and_shows_all() {
        let said = ["Zoë \u{9b}2J\u{7f}\u{1b}[0m \u{202e}gnp.exe\u{e0041}\n"];
        let text = visible_json(&said).unwrap();
        assert!(text.contains(r"Zoë \u009b2J\u007f\u001b[0m \u202egnp.exe\udb40\udc41\n"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !is_hidden(c)), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), said);
    }

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(moment(1_795_342_500_999), "2026-11-22 10:15:00Z");
    }
}
