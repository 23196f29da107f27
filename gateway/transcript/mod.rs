//! What was on the screen, and which commands were typed? No I/O.
//!
//! [`Transcript`] follows the events of a terminal's recording and gives
//! the lines that its screen showed, each with the time at which it was
//! begun, and the commands that were typed, each with how it is known.
//! Text and commands help to find a place; what happened is what the
//! recording says: a program can print marks and prompts like a shell's.

mod commands;
mod looks;
mod rows;
mod screen;
mod text;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use avt::Terminal;
use avt::observer::ShellTracker;
use serde::Serialize;

pub use avt::InvalidSize;
pub use screen::{parse_size, sane_size, terminal};
pub use text::Text;

use self::commands::Commands;
use self::rows::Rows;
use crate::asciicast::{Event, EventCode, Header};
use crate::session::SessionKind;

/// LNM: a line feed also returns, as where no terminal adds the return.
const LINE_FEED_RETURNS: &str = "\u{1b}[20h";

/// Longest text in a label, bytes: markers are cut at 4 KB.
const LABEL_MAX: usize = 4000;
/// Commands whose markers may be still to come; a paste has so many.
const LABELS_MAX: usize = 1024;

/// A line that was on the screen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When it was begun, milliseconds since the recording began.
    pub time_ms: u64,
    /// What it said: no control character, no blanks at its end.
    pub text: String,
    /// Whether a full-screen program showed it.
    pub full_screen: bool,
}

/// How a command is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The shell marked it (OSC 133).
    Shell,
    /// It was typed, and the screen showed it.
    Input,
    /// It followed what looks like a prompt.
    Guess,
}

impl Source {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Input => "input",
            Self::Guess => "guess",
        }
    }

    /// The source of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Shell, Self::Input, Self::Guess].into_iter().find(|source| source.as_str() == word)
    }
}

/// A command as the screen showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Command {
    /// When it was sent off, milliseconds since the recording began.
    pub time_ms: u64,
    /// Its text, without control characters.
    pub text: String,
    /// How it is known.
    pub source: Source,
}

/// What a transcript has to tell since it was asked last.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Lines that will not change any more.
    pub lines: Vec<Line>,
    /// Commands that were sent off.
    pub commands: Vec<Command>,
}

/// Follows a terminal; memory is bounded by the size of its screen.
pub struct Transcript {
    terminal: Terminal,
    rows: Rows,
    commands: Commands,
    shell: ShellTracker,
    /// Hashes of the labels of the last commands.
    labels: VecDeque<u64>,
}

impl Command {
    /// What its marker says: the text, and how it is known.
    pub fn label(&self) -> String {
        let text = self.text.get(..self.text.floor_char_boundary(LABEL_MAX)).unwrap_or_default();
        format!("{text} [{}]", self.source.as_str())
    }
}

/// Whether a marker's text may be the label of a command.
pub fn is_label(text: &str) -> bool {
    text.strip_suffix(']')
        .and_then(|text| text.rsplit_once(" ["))
        .is_some_and(|(_, word)| Source::parse(word).is_some())
}

impl Transcript {
    /// A transcript of what a terminal of that size shows from now on.
    pub fn sized((cols, rows): (u16, u16)) -> Result<Self, InvalidSize> {
        let terminal = terminal(cols, rows)?;
        let (rows, commands) = (Rows::default(), Commands::default());
        Ok(Self { terminal, rows, commands, shell: ShellTracker::new(), labels: VecDeque::new() })
    }

    /// A transcript of a recording with that header.
    pub fn of(header: &Header) -> Result<Self, InvalidSize> {
        let mut transcript = Self::sized((header.width, header.height))?;
        let kind = header.postern.as_ref().and_then(|about| about.get("kind"));
        let kind = kind.and_then(|kind| serde_json::from_value(kind.clone()).ok());
        if kind == Some(SessionKind::NonInteractiveCommand) {
            transcript.terminal.feed(LINE_FEED_RETURNS);
        }
        Ok(transcript)
    }

    /// Follows an event of any kind.
    pub fn event(&mut self, event: &Event) {
        match event.code {
            EventCode::Output => self.output(event.time_ms, &event.data),
            EventCode::Input => self.input(event.time_ms, &event.data),
            EventCode::Resize => {
                // Another text than `80x24` changes nothing.
                if let Some(size) = parse_size(&event.data) {
                    self.resize(event.time_ms, size);
                }
            }
            _ => {}
        }
    }

    /// Shows output; times in milliseconds since the recording began.
    pub fn output(&mut self, time_ms: u64, text: &str) {
        self.rows.now(time_ms);
        self.commands.now(time_ms);
        let observer = ((&mut self.shell, &mut self.commands), &mut self.rows);
        let ((events, ()), ()) = self.terminal.feed_with(text, observer);
        self.commands.shell_says(events);
    }

    /// Follows what a person typed, if it is recorded.
    pub fn input(&mut self, time_ms: u64, text: &str) {
        self.commands.now(time_ms);
        self.commands.typed(text, &mut self.terminal);
    }

    /// Follows a change of the window to so many columns and rows.
    pub fn resize(&mut self, time_ms: u64, (cols, rows): (u16, u16)) {
        let (cols, rows) = sane_size(cols, rows);
        self.rows.now(time_ms);
        let observer = (&mut self.shell, &mut self.rows);
        self.terminal.resize_with(cols, rows, observer);
    }

    /// What is certain by now; each line and command is given once.
    pub fn take(&mut self) -> Seen {
        let commands = self.commands.take();
        for command in &commands {
            if self.labels.len() >= LABELS_MAX {
                self.labels.pop_front();
            }
            self.labels.push_back(hash(&command.label()));
        }
        Seen { lines: self.rows.take(), commands }
    }

    /// Whether it is the marker of a command that this transcript has told.
    ///
    /// The gateway marks some commands as it sees them.
    pub fn has_told(&self, event: &Event) -> bool {
        event.code == EventCode::Marker && is_label(&event.data) && self.labels.contains(&hash(&event.data))
    }

    /// The output that makes a new terminal look as this one does now.
    pub fn screen(&self) -> String {
        self.terminal.dump()
    }

    /// Columns and rows of the terminal.
    pub fn size(&self) -> (u16, u16) {
        let (cols, rows) = self.terminal.size();
        (u16::try_from(cols).unwrap_or(u16::MAX), u16::try_from(rows).unwrap_or(u16::MAX))
    }

    /// The rest, with what the screen shows at the end.
    pub fn finish(mut self) -> Seen {
        self.rows.finish(&self.terminal);
        self.take()
    }
}

fn hash(text: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    text.hash(&mut hash);
    hash.finish()
}
