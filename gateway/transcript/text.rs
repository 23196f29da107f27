//! Output as lines of text, at once and complete, as Session Manager has it.
//!
//! Escape sequences are taken out, blanks stand for tabs, and a line ends at
//! a line feed or at a return: text that was overwritten was still shown.
//! What a screen finally looked like is another question; see [`super::Transcript`].

/// Longest line in one piece, bytes; a longer one comes in several.
const LINE_MAX: usize = 30_000;

/// The text of a stream of output, up to where its last line ends.
#[derive(Debug, Default, Clone)]
pub struct Text {
    line: String,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    /// After ESC.
    Begun,
    /// ESC and an intermediate: one more character follows.
    Short,
    /// In a control sequence, up to its final letter.
    Control,
    /// In a string (title, link, image), up to BEL or ESC.
    String,
}

impl Text {
    /// Takes output; gives the lines that it ends.
    pub fn output(&mut self, text: &str, lines: &mut Vec<String>) {
        for c in text.chars() {
            self.take(c, lines);
            if self.line.len() >= LINE_MAX {
                self.end_line(lines);
            }
        }
    }

    /// The line that was never ended.
    pub fn finish(&mut self, lines: &mut Vec<String>) {
        self.end_line(lines);
    }

    fn take(&mut self, c: char, lines: &mut Vec<String>) {
        self.escape = match (self.escape, c) {
            (Escape::No | Escape::String, '\u{1b}') => Escape::Begun,
            (Escape::No, '\u{9b}') => Escape::Control,
            (Escape::No, '\u{90}' | '\u{9d}') => Escape::String,
            (Escape::No, _) => {
                self.show(c, lines);
                Escape::No
            }
            (Escape::Begun, '[') => Escape::Control,
            (Escape::Begun, ']' | 'P' | 'X' | '^' | '_') => Escape::String,
            (Escape::Begun, ' '..='/') => Escape::Short,
            (Escape::Control, '@'..='~') => Escape::No,
            (Escape::String, '\u{7}' | '\u{9c}') => Escape::No,
            // A sequence that is broken off hides no line.
            (Escape::Control | Escape::Begun | Escape::Short | Escape::String, '\n' | '\r') => {
                self.show(c, lines);
                Escape::No
            }
            (Escape::Begun | Escape::Short, _) => Escape::No,
            (within, _) => within,
        };
    }

    fn show(&mut self, c: char, lines: &mut Vec<String>) {
        match c {
            '\n' | '\r' => self.end_line(lines),
            '\t' => self.line.push(' '),
            '\u{8}' => drop(self.line.pop()),
            c if c.is_control() => {}
            c => self.line.push(c),
        }
    }

    /// An empty line is none: a return before a line feed ends nothing more.
    fn end_line(&mut self, lines: &mut Vec<String>) {
        let shown = self.line.trim_end();
        if !shown.is_empty() {
            lines.push(shown.to_owned());
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&str]) -> Vec<String> {
        let (mut text, mut lines) = (Text::default(), Vec::new());
        pieces.iter().for_each(|piece| text.output(piece, &mut lines));
        text.finish(&mut lines);
        lines
    }

    #[test]
    fn lines_have_no_escape_sequence_however_output_is_cut() {
        let whole =
            "\u{1b}[1;32mok\u{1b}[0m\tfine\r\n\u{1b}]0;title\u{7}$ ls\u{1b}(B\u{1b}[K\r\n\u{9b}31mred\n";
        let expected = ["ok fine", "$ ls", "red"];
        assert_eq!(lines(&[whole]), expected);
        let one_by_one: Vec<String> = whole.chars().map(String::from).collect();
        let pieces: Vec<&str> = one_by_one.iter().map(String::as_str).collect();
        assert_eq!(lines(&pieces), expected);
    }

    #[test]
    fn text_that_is_overwritten_is_kept() {
        assert_eq!(lines(&["evil\rgood\n"]), ["evil", "good"]);
        assert_eq!(lines(&["sux\u{8}do"]), ["sudo"]);
    }

    #[test]
    fn a_string_that_is_never_ended_hides_no_further_line() {
        assert_eq!(lines(&["\u{1b}]0;title", " goes on\u{1b}\\shown\n"]), ["shown"]);
        assert_eq!(lines(&["\u{1b}Phidden\nshown\n"]), ["shown"]);
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let long = "x".repeat(70_000);
        assert_eq!(lines(&[&long]).iter().map(String::len).collect::<Vec<_>>(), [30_000, 30_000, 10_000]);
    }

    #[test]
    fn no_control_character_gets_through() {
        let all: String = (0..0x300_u32).filter_map(char::from_u32).collect();
        assert!(lines(&[&all, "\n"]).iter().all(|line| !line.chars().any(char::is_control)));
    }
}
