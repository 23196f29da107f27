//! Commands that a shell marks (OSC 133), found while output passes.
//!
//! A terminal follows from a prompt's mark to that of its command, and no
//! further: what a command prints is only looked through for the next mark.

use memchr::memmem;

use crate::recorder::Runes;
use crate::transcript::{Command, Source, Transcript};

/// What every mark of a shell begins with, after ESC.
const MARK: &[u8] = b"]133;";
/// Output after a prompt's mark that is followed at most, bytes.
///
/// A shell that never says that its command runs costs no more than this.
const PROMPT_MAX: usize = 64 * 1024;
/// The window before its size is told.
const SIZE: (u16, u16) = (80, 24);

/// Follows the output of one session.
pub(super) struct Commands {
    size: (u16, u16),
    prompt: Option<Prompt>,
}

/// What is shown since a shell's prompt began.
struct Prompt {
    transcript: Transcript,
    runes: Runes,
    scratch: Vec<u8>,
    bytes: usize,
}

impl Default for Commands {
    fn default() -> Self {
        Self { size: SIZE, prompt: None }
    }
}

impl Commands {
    /// The window has another size.
    pub(super) fn resize(&mut self, at_ms: u64, cols: u16, rows: u16) {
        self.size = (cols, rows);
        if let Some(prompt) = &mut self.prompt {
            prompt.transcript.resize(at_ms, self.size);
        }
    }

    /// The commands that are sent off with this output.
    pub(super) fn output(&mut self, at_ms: u64, bytes: &[u8]) -> Vec<Command> {
        let mut from = 0;
        if self.prompt.is_none() {
            let Some(first) = memmem::find(bytes, MARK) else { return Vec::new() };
            // The mark begins with an escape, one byte before.
            from = first.saturating_sub(1);
            self.prompt = Transcript::sized(self.size).ok().map(Prompt::of);
        }
        self.follow(at_ms, bytes.get(from..).unwrap_or_default())
    }

    fn follow(&mut self, at_ms: u64, bytes: &[u8]) -> Vec<Command> {
        let Some(prompt) = &mut self.prompt else { return Vec::new() };
        let piece = prompt.runes.take(bytes, &mut prompt.scratch);
        prompt.transcript.output(at_ms, &piece.text);
        let mut commands = prompt.transcript.take().commands;
        commands.retain(|command| command.source == Source::Shell);
        let last = memmem::rfind(bytes, MARK).map(|at| bytes.get(at + MARK.len()));
        prompt.bytes = if last.is_some() { 0 } else { prompt.bytes + bytes.len() };
        let runs = match last {
            Some(mark) => mark == Some(&b'C'),
            None => !commands.is_empty() || prompt.bytes > PROMPT_MAX,
        };
        if runs {
            self.prompt = None;
        }
        commands
    }
}

impl Prompt {
    fn of(transcript: Transcript) -> Self {
        Self { transcript, runes: Runes::default(), scratch: Vec::new(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &[u8] = b"\x1b]133;A\x07$ \x1b]133;B\x07";

    fn found(commands: &mut Commands, pieces: &[&[u8]]) -> Vec<String> {
        pieces.iter().flat_map(|piece| commands.output(1, piece)).map(|command| command.label()).collect()
    }

    #[test]
    fn a_terminal_follows_from_the_prompt_to_the_command_only() {
        let mut commands = Commands::default();
        assert_eq!(found(&mut commands, &[b"motd\r\n", b"$ ls\r\n"]), Vec::<String>::new());
        assert!(commands.prompt.is_none(), "output without a mark needs no terminal");
        let typed: &[&[u8]] = &[b"old\r\n", PROMPT, b"l", b"x\x08\x1b[Ks", b"\r\n\x1b]133;", b"C\x07"];
        assert_eq!(found(&mut commands, typed), ["ls [shell]"]);
        assert!(commands.prompt.is_none(), "a command that runs needs no terminal");
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
}
