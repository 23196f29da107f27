//! The commands that were typed: by marks, by keys, or by prompts.

use std::collections::VecDeque;

use avt::observer::ShellEvent;
use avt::operation::Operation;
use avt::parser::{Function, Osc, ShellIntegration};
use avt::{Anchor, Observation, Observer, ScreenKind, Terminal};

use super::screen::{Spot, first_row, text_before, text_from};
use super::{Command, Source};
use crate::session::printable;

/// Lines sent off whose echo is awaited; a paste has more.
const SENT_MAX: usize = 64;
/// Longest line of keys that is kept, bytes.
const TYPED_MAX: usize = 4096;
/// Longest prompt, characters.
const PROMPT_MAX: usize = 200;
/// Shortest prompt that is known again, bytes: lines of documents begin `$ `.
const KNOWN_PROMPT_MIN: usize = 4;
/// What prompts end with, before a blank.
const PROMPT_ENDS: [char; 7] = ['$', '#', '%', '>', '❯', '➜', 'λ'];

/// Finds commands while a terminal is fed.
#[derive(Default)]
pub(super) struct Commands {
    now_ms: u64,
    found: Vec<Command>,
    /// Found at a marked prompt: kept if the shell's marks give no text.
    held: Vec<Command>,
    /// Between the shell's mark before a prompt and that of its command.
    at_marked_prompt: bool,
    /// Keys are recorded, so nothing has to be guessed.
    has_input: bool,
    keys: Keys,
    sent: VecDeque<Keyed>,
    prompt: Option<Prompt>,
    /// The last prompt's text: what is typed ahead comes at once with it.
    known_prompt: String,
}

/// A line as it was typed.
#[derive(Default)]
struct Keyed {
    time_ms: u64,
    text: String,
    /// Keys moved, completed or recalled, so `text` is not the line.
    edited: bool,
    /// Where the cursor was at the first key.
    start: Option<Anchor>,
}

/// The line that is being typed, and the escape sequence in it.
#[derive(Default)]
struct Keys {
    line: Keyed,
    escape: Escape,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    /// After ESC.
    Begun,
    /// In a sequence that ends with a letter.
    Sequence,
}

/// Output stopped after something that looks like a prompt.
struct Prompt {
    after: Anchor,
    text: String,
}

impl Commands {
    /// Says when it is.
    pub fn now(&mut self, time_ms: u64) {
        self.now_ms = time_ms;
    }

    pub fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.found)
    }

    /// What the shell's marks said.
    pub fn shell_says(&mut self, events: Vec<ShellEvent>) {
        for event in events {
            match event {
                ShellEvent::CommandSubmitted(command) => {
                    let held = std::mem::take(&mut self.held);
                    match command.text {
                        Some(text) => push(&mut self.found, self.now_ms, &text, Source::Shell),
                        None => self.found.extend(held),
                    }
                }
                ShellEvent::CommandCancelled { .. } => self.held.clear(),
                ShellEvent::PromptStarted(_) | ShellEvent::CommandFinished { .. } => {}
            }
        }
    }

    /// Follows keys.
    pub fn typed(&mut self, keys: &str, terminal: &mut Terminal) {
        self.has_input = true;
        self.prompt = None;
        if terminal.active_screen_kind() == ScreenKind::Alternate {
            self.keys = Keys::default();
            return;
        }
        for key in keys.chars() {
            if matches!(key, '\r' | '\n') {
                let line = Keyed { time_ms: self.now_ms, ..std::mem::take(&mut self.keys).line };
                if self.sent.len() < SENT_MAX {
                    self.sent.push_back(line);
                }
                continue;
            }
            // Before that the cursor is somewhere in what is still to come.
            if self.sent.is_empty() && self.keys.line.start.is_none() {
                self.keys.line.start = Some(terminal.anchor_at_cursor());
            }
            self.keys.key(key);
        }
    }

    /// A line ends: was it a command?
    fn line_ends(&mut self, context: &Observation<'_>) {
        let terminal = context.terminal();
        let row = terminal.cursor().row;
        let prompt = self.prompt.take();
        let (time_ms, text, source) = if let Some(sent) = self.sent.pop_front() {
            (sent.time_ms, echoed(context, &sent, row), Source::Input)
        } else {
            // A shell that draws its prompt again moves the line from its place.
            let after = prompt.filter(|_| !self.has_input).and_then(|prompt| prompt.command(context, row));
            let text = after.or_else(|| self.typed_ahead(terminal, row));
            (self.now_ms, text, Source::Guess)
        };
        let list = if self.at_marked_prompt { &mut self.held } else { &mut self.found };
        push(list, time_ms, &text.unwrap_or_default(), source);
    }

    /// What stands after a prompt that was seen before.
    fn typed_ahead(&self, terminal: &Terminal, row: usize) -> Option<String> {
        if self.has_input || self.known_prompt.len() < KNOWN_PROMPT_MIN {
            return None;
        }
        let (text, _) = text_from(terminal, (0, first_row(terminal, row)));
        let text = text.strip_prefix(&self.known_prompt)?;
        (!text.ends_with("^C")).then(|| text.to_owned())
    }

    /// Output has stopped: is this a prompt?
    fn output_stops(&mut self, context: &mut Observation<'_>) {
        let terminal = context.terminal();
        let cursor = terminal.cursor();
        if self.has_input || terminal.active_screen_kind() == ScreenKind::Alternate || cursor.col == 0 {
            return;
        }
        if self.prompt.as_ref().is_some_and(|prompt| prompt.stands(context, cursor.row)) {
            return;
        }
        let text = text_before(context.terminal(), (cursor.col, cursor.row));
        if looks_like_a_prompt(&text) {
            self.known_prompt.clone_from(&text);
            self.prompt = Some(Prompt { after: context.anchor_at_cursor(), text });
        } else {
            self.prompt = None;
        }
    }
}

impl Observer for Commands {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        match operation {
            Operation::Function(Function::Lf | Function::Nel)
                if context.terminal().active_screen_kind() == ScreenKind::Primary =>
            {
                self.line_ends(context);
            }
            Operation::Function(Function::Osc(Osc::ShellIntegration(mark))) => {
                use ShellIntegration::{CommandStart, PromptStart};
                self.at_marked_prompt = matches!(mark, PromptStart | CommandStart);
            }
            _ => {}
        }
    }

    fn end(&mut self, context: &mut Observation<'_>) {
        self.output_stops(context);
    }
}

impl Keys {
    fn key(&mut self, key: char) {
        let line = &mut self.line;
        match (self.escape, key) {
            (_, '\u{1b}') => {
                self.escape = Escape::Begun;
                line.edited = true;
            }
            (Escape::Begun, '[' | 'O') => self.escape = Escape::Sequence,
            (Escape::Begun, _) => self.escape = Escape::No,
            (Escape::Sequence, '@'..='~') => self.escape = Escape::No,
            (Escape::Sequence, _) => {}
            // Erase, and kill the line or give it up.
            (Escape::No, '\u{7f}' | '\u{8}') => {
                line.text.pop();
            }
            (Escape::No, '\u{15}' | '\u{3}') => {
                *line = Keyed { start: line.start.take(), ..Keyed::default() }
            }
            (Escape::No, key) if key.is_control() => line.edited = true,
            (Escape::No, key) if line.text.len() < TYPED_MAX => line.text.push(key),
            (Escape::No, _) => line.edited = true,
        }
    }
}

/// The typed line, if the screen shows it: what is not echoed is a secret.
fn echoed(context: &Observation<'_>, sent: &Keyed, row: usize) -> Option<String> {
    let terminal = context.terminal();
    if !sent.edited {
        let (shown, _) = text_from(terminal, (0, first_row(terminal, row)));
        let typed = sent.text.trim();
        return shown.ends_with(typed).then(|| typed.to_owned());
    }
    let (text, last) = text_from(terminal, spot(context, sent.start.as_ref()?)?);
    (last >= row).then_some(text)
}

/// Where an anchor is on the main screen, if it is there still.
fn spot(context: &Observation<'_>, anchor: &Anchor) -> Option<Spot> {
    let at = context.resolve(anchor).filter(|at| at.screen == ScreenKind::Primary)?;
    Some((at.col, usize::try_from(at.row).ok()?))
}

impl Prompt {
    /// Whether the prompt is still there, in that row's line.
    fn stands(&self, context: &Observation<'_>, row: usize) -> bool {
        let Some(at) = spot(context, &self.after) else { return false };
        let (_, last) = text_from(context.terminal(), at);
        (at.1..=last).contains(&row) && text_before(context.terminal(), at) == self.text
    }

    /// What stands after it, once its line ends.
    fn command(&self, context: &Observation<'_>, row: usize) -> Option<String> {
        let at = spot(context, &self.after).filter(|_| self.stands(context, row))?;
        let (text, _) = text_from(context.terminal(), at);
        // The line was given up.
        (!text.ends_with("^C")).then_some(text)
    }
}

/// `$ `, `root@web:/# `, `>>> `; but not `87% `.
fn looks_like_a_prompt(text: &str) -> bool {
    let Some(prompt) = text.strip_suffix(' ') else { return false };
    let mut ending = prompt.trim_end().chars().rev();
    let (end, before) = (ending.next(), ending.next());
    let percentage = end == Some('%') && before.is_some_and(|c| c.is_ascii_digit());
    end.is_some_and(|end| PROMPT_ENDS.contains(&end)) && !percentage && text.chars().count() <= PROMPT_MAX
}

fn push(list: &mut Vec<Command>, time_ms: u64, text: &str, source: Source) {
    let text = printable(text.trim());
    // Some programs show a secret as so many stars.
    if !text.chars().all(|c| matches!(c, '*' | '•' | '●')) {
        list.push(Command { time_ms, text, source });
    }
}
