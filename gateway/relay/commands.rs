//! Commands that a shell marks (OSC 133), found while output passes.
//!
//! Output is kept from a prompt's mark to that of its command, as it came, and
//! shown to a terminal only then: a shell may wait at its prompt for days, and
//! a terminal takes more memory than all the rest of a quiet session.

use memchr::memmem;

use crate::recorder::Runes;
use crate::transcript::{Command, Source, Transcript};

/// What every mark of a shell begins with; a letter follows.
const MARK: &[u8] = b"\x1b]133;";
/// What says that the command runs.
const RUNS: &str = "\x1b]133;C\x07";
/// Output after a prompt's mark that is kept at most, bytes.
///
/// A shell that never says that its command runs costs no more than this.
const PROMPT_MAX: usize = 64 * 1024;
/// Cells of the terminals that the commands of one message take for a moment;
/// the one that goes past them is the message's last.
///
/// A program that prints nothing but marks would hold others up. What is
/// passed over here, exports and searches find.
const CELLS_MAX: u64 = 40_000;
/// Sizes of the window at one prompt that are kept at most.
const SIZES_MAX: usize = 8;
/// The window before its size is told.
const SIZE: (u16, u16) = (80, 24);

/// Follows the output of one session.
pub(super) struct Commands {
    size: (u16, u16),
    prompt: Option<Prompt>,
    /// So many bytes of a mark were the last ones, and no prompt.
    cut: usize,
}

/// What is shown since a shell's prompt began.
struct Prompt {
    bytes: Vec<u8>,
    /// Up to where the marks in it are known.
    looked: usize,
    /// Sizes of the window, and from which byte on it had them.
    sizes: Vec<(usize, (u16, u16))>,
}

/// What the marks at a prompt say.
enum Marked {
    /// The prompt stands.
    Waits,
    /// It is over, with so many bytes left; up to that byte it was shown.
    Over { left: usize, command: Option<usize> },
}

impl Default for Commands {
    fn default() -> Self {
        Self { size: SIZE, prompt: None, cut: 0 }
    }
}

impl Commands {
    /// The window has another size.
    pub(super) fn resize(&mut self, cols: u16, rows: u16) {
        self.size = (cols, rows);
        self.prompt.take_if(|prompt| !prompt.resize(self.size));
    }

    /// The commands that are sent off with this output.
    pub(super) fn output(&mut self, at_ms: u64, bytes: &[u8]) -> Vec<Command> {
        let (mut commands, mut rest, mut cells) = (Vec::new(), bytes, 0);
        loop {
            if self.prompt.is_none() {
                let Some(mark) = self.begins(rest) else { return commands };
                rest = mark;
            }
            let Some(prompt) = &mut self.prompt else { return commands };
            match prompt.take(rest, self.size) {
                Marked::Over { left, command } => {
                    commands.extend(command.into_iter().flat_map(|end| prompt.commands(at_ms, end)));
                    rest = rest.get(rest.len().saturating_sub(left)..).unwrap_or_default();
                    self.prompt = None;
                    cells += command.map_or(0, |_| u64::from(self.size.0) * u64::from(self.size.1));
                    if cells >= CELLS_MAX {
                        return commands;
                    }
                }
                Marked::Waits => {
                    self.prompt.take_if(|prompt| prompt.bytes.len() > PROMPT_MAX);
                    return commands;
                }
            }
        }
    }
}

impl Commands {
    /// Looks for the first mark, and begins a prompt with it.
    fn begins<'a>(&mut self, output: &'a [u8]) -> Option<&'a [u8]> {
        let cut = std::mem::take(&mut self.cut);
        let (before, missing) = MARK.split_at_checked(cut).unwrap_or((MARK, &[]));
        if cut > 0 && output.starts_with(missing) {
            self.prompt.insert(Prompt::new(self.size)).keep(before);
            return Some(output);
        }
        if cut > 0 && missing.starts_with(output) {
            self.cut = cut + output.len();
            return None;
        }
        let Some(first) = memmem::find(output, MARK) else {
            let begun = (1..MARK.len()).rev().filter_map(|length| MARK.get(..length));
            self.cut = begun.into_iter().find(|begun| output.ends_with(begun)).map_or(0, <[u8]>::len);
            return None;
        };
        self.prompt = Some(Prompt::new(self.size));
        output.get(first..)
    }
}

impl Prompt {
    fn new(size: (u16, u16)) -> Self {
        Self { bytes: Vec::new(), looked: 0, sizes: vec![(0, size)] }
    }

    /// Notes another size; false if there were too many.
    fn resize(&mut self, size: (u16, u16)) -> bool {
        let from = self.bytes.len();
        self.sizes.pop_if(|(last, _)| *last == from);
        self.sizes.push((from, size));
        self.sizes.len() <= SIZES_MAX
    }

    /// Keeps output, up to the end of the prompt.
    fn take(&mut self, mut output: &[u8], size: (u16, u16)) -> Marked {
        while !output.is_empty() {
            let mark = memmem::find(output, MARK).map_or(output.len(), |at| at + MARK.len() + 1);
            let (piece, rest) = output.split_at_checked(mark).unwrap_or((output, &[]));
            self.keep(piece);
            if let Some(Marked::Over { left, command }) = self.look(size) {
                return Marked::Over { left: left + rest.len(), command };
            }
            output = rest;
        }
        Marked::Waits
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.bytes.len() + piece.len() > self.bytes.capacity() {
            // Twice the room would be more than most prompts ever need.
            self.bytes.reserve_exact(piece.len() + self.bytes.len() / 4);
        }
        self.bytes.extend_from_slice(piece);
    }

    /// Looks for marks in what is new.
    fn look(&mut self, size: (u16, u16)) -> Option<Marked> {
        while let Some(found) = memmem::find(self.bytes.get(self.looked..).unwrap_or_default(), MARK) {
            let mark = self.looked + found;
            self.looked = mark;
            let kind = *self.bytes.get(mark + MARK.len())?;
            let left = self.bytes.len() - mark - MARK.len() - 1;
            self.looked += MARK.len();
            match kind {
                b'A' => self.begin_at(mark, size),
                b'C' => return Some(Marked::Over { left, command: (mark > 0).then_some(mark) }),
                b'D' => return Some(Marked::Over { left, command: None }),
                _ => {}
            }
        }
        self.looked = self.looked.max((self.bytes.len() + 1).saturating_sub(MARK.len()));
        None
    }

    /// Another prompt begins there: what was before it says nothing of its command.
    fn begin_at(&mut self, start: usize, size: (u16, u16)) {
        if start > 0 {
            self.bytes.drain(..start);
            self.bytes.shrink_to_fit();
            self.looked -= start;
        }
        self.sizes = vec![(0, size)];
    }

    /// What a terminal shows as the command, once it runs.
    fn commands(&self, at_ms: u64, end: usize) -> Vec<Command> {
        let Some(Ok(mut transcript)) = self.sizes.first().map(|(_, size)| Transcript::sized(*size)) else {
            return Vec::new();
        };
        let (mut runes, mut scratch) = (Runes::default(), Vec::new());
        for (number, (from, size)) in self.sizes.iter().enumerate() {
            let until = self.sizes.get(number + 1).map_or(end, |(next, _)| end.min(*next));
            if number > 0 {
                transcript.resize(at_ms, *size);
            }
            let shown = self.bytes.get(*from..until).unwrap_or_default();
            transcript.output(at_ms, &runes.take(shown, &mut scratch).text);
        }
        transcript.output(at_ms, RUNS);
        let mut commands = transcript.take().commands;
        commands.retain(|command| command.source == Source::Shell);
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &[u8] = b"\x1b]133;A\x07$ \x1b]133;B\x07";

    /// Bytes that it holds of a prompt.
    fn held(commands: &Commands) -> usize {
        commands.prompt.as_ref().map_or(0, |prompt| prompt.bytes.capacity())
    }

    fn found(commands: &mut Commands, pieces: &[&[u8]]) -> Vec<String> {
        pieces.iter().flat_map(|piece| commands.output(1, piece)).map(|command| command.label()).collect()
    }

    #[test]
    fn output_is_kept_from_the_prompt_to_the_command_only() {
        let mut commands = Commands::default();
        assert_eq!(found(&mut commands, &[b"motd\r\n", b"$ ls\r\n"]), Vec::<String>::new());
        assert!(commands.prompt.is_none(), "output without a mark is not kept");
        let typed: &[&[u8]] = &[b"old\r\n", PROMPT, b"l", b"x\x08\x1b[Ks", b"\r\n\x1b]133;", b"C\x07"];
        assert_eq!(found(&mut commands, typed), ["ls [shell]"]);
        assert!(commands.prompt.is_none(), "what a command prints is not kept");
        assert_eq!(found(&mut commands, &[b"lots\r\n", b"\x1b]133;D;0\x07", PROMPT]), Vec::<String>::new());
        let typed: &[&[u8]] = &["echo ü".as_bytes().split_at(6).0, b"\xbc", b"\r\n\x1b]133;C\x07out\r\n"];
        assert_eq!(found(&mut commands, typed), ["echo ü [shell]"]);
    }

    #[test]
    fn a_prompt_without_an_end_is_given_up() {
        let mut commands = Commands::default();
        commands.output(0, PROMPT);
        assert!(commands.prompt.is_some());
        for _ in 0..=PROMPT_MAX / 1024 {
            commands.output(1, &[b'x'; 1024]);
        }
        assert!(commands.prompt.is_none());
    }

    #[test]
    fn a_session_that_waits_at_its_prompt_holds_little_more_than_the_prompt() {
        let mut commands = Commands::default();
        commands.resize(200, 50);
        for _ in 0..1000 {
            // Enter at an empty prompt, a line that is given up, and what a command said before.
            commands.output(0, b"lots\r\n\x1b]133;D;0\x07");
            commands.output(1, PROMPT);
            commands.output(2, b"\r\n");
            commands.output(3, PROMPT);
            commands.output(4, b"half a com");
        }
        let all = PROMPT.len() + b"half a com".len();
        assert!((all..2 * all).contains(&held(&commands)), "{}", held(&commands));
        assert_eq!(found(&mut commands, &[b"mand\r\n\x1b]133;C\x07"]), ["half a command [shell]"]);
        assert_eq!(held(&commands), 0);
    }

    #[test]
    fn wherever_output_is_cut_its_commands_are_the_same() {
        let all = [
            b"motd\r\n",
            PROMPT,
            "echo gr\u{fc}n".as_bytes(),
            b"\x08\x08\x1b[K\xc3\xbcn\r\n\x1b]133;C\x07out\r\n\x1b]133;D;0\x07",
            PROMPT,
            b"^C\r\n\x1b]133;D;130\x07",
            PROMPT,
            b"true\r\n\x1b]133;C;x=y\x07\x1b]133;D\x07",
            PROMPT,
            b"ls",
        ]
        .concat();
        for first in 0..all.len() {
            for second in [first, first + 1, first + 7, all.len()] {
                let (start, rest) = all.split_at(first);
                let (middle, end) = rest.split_at(second.min(all.len()) - first);
                let mut commands = Commands::default();
                let labels = found(&mut commands, &[start, middle, end]);
                assert_eq!(labels, ["echo gr\u{fc}n [shell]", "true [shell]"], "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_window_that_changes_at_the_prompt_changes_nothing() {
        let mut commands = Commands::default();
        commands.resize(12, 4);
        commands.output(0, PROMPT);
        commands.output(1, b"echo one two ");
        for cols in 12..40 {
            commands.resize(cols, 4);
        }
        assert_eq!(found(&mut commands, &[b"three\r\n\x1b]133;C\x07"]), ["echo one two three [shell]"]);
        commands.output(2, PROMPT);
        for cols in 0..2 * SIZES_MAX as u16 {
            commands.resize(20 + cols, 4);
            commands.output(3, b"x");
        }
        assert!(commands.prompt.is_none(), "so many sizes are not kept");
    }

    #[test]
    fn marks_alone_take_no_more_than_a_few_terminals() {
        let mut commands = Commands::default();
        let marks = [PROMPT, b"x\r\n\x1b]133;C\x07"].concat().repeat(1000);
        let cells = u64::from(SIZE.0) * u64::from(SIZE.1);
        assert_eq!(commands.output(0, &marks).len() as u64, CELLS_MAX.div_ceil(cells));
        commands.resize(1000, 500);
        assert_eq!(commands.output(0, &marks).len(), 1);
        assert_eq!(found(&mut commands, &[PROMPT, b"ls\r\n\x1b]133;C\x07"]), ["ls [shell]"]);
    }
}
