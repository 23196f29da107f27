//! Takes questions to the terminal out of what is played.
//!
//! A recorded program that asked its terminal something (who are you, where
//! is the cursor, what is in the clipboard) has its answer in the recording.
//! Asked again in a replay, the viewer's terminal would answer into the
//! player's keyboard. OSC 52 would also overwrite the viewer's clipboard.
//! Everything else passes unchanged.

/// Longest question: `DECRQM` and colour queries are far shorter.
const QUESTION_MAX: usize = 64;

const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const ESC: u8 = 0x1b;
/// Asks for the answerback message.
const ENQ: u8 = 0x05;

/// Removes questions from a stream, wherever its chunks are cut.
#[derive(Debug, Default)]
pub(super) struct Queries {
    state: State,
    /// The beginning of a sequence that may still be a question.
    held: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    Csi,
    /// Inside OSC or DCS, held or dropped until it ends.
    Text(Fate),
    /// After an ESC inside OSC or DCS.
    TextEscape(Fate),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Dropped,
}

impl Queries {
    /// Appends the bytes without the questions among them.
    pub fn remove(&mut self, bytes: &[u8], into: &mut Vec<u8>) {
        for byte in bytes {
            self.state = match self.state {
                State::Ground => self.ground(*byte, into),
                State::Escape => self.escape(*byte, into),
                State::Csi => self.csi(*byte, into),
                State::Text(fate) => self.text(fate, *byte, into),
                State::TextEscape(fate) => self.text_escape(fate, *byte, into),
            };
        }
    }

    fn ground(&mut self, byte: u8, into: &mut Vec<u8>) -> State {
        if byte == ESC {
            return self.cut_off();
        }
        control(byte, State::Ground, into)
    }

    fn escape(&mut self, byte: u8, into: &mut Vec<u8>) -> State {
        match byte {
            ESC => return self.cut_off(),
            CAN | SUB => {}
            0..0x20 => return control(byte, State::Escape, into),
            _ => {}
        }
        self.held.push(byte);
        match byte {
            b'[' => State::Csi,
            b']' | b'P' => State::Text(Fate::Open),
            _ => self.pass(into),
        }
    }

    fn csi(&mut self, byte: u8, into: &mut Vec<u8>) -> State {
        match byte {
            ESC => return self.cut_off(),
            CAN | SUB => {}
            0..0x20 => return control(byte, State::Csi, into),
            _ => {}
        }
        self.held.push(byte);
        match byte {
            0x40..=0x7e if asks(&self.held) => self.drop_held(),
            // Runes are in no sequence; terminals differ in what they do then.
            0x40..=0x7e | 0x80.. | CAN | SUB => self.pass(into),
            _ if self.held.len() > QUESTION_MAX => self.pass(into),
            _ => State::Csi,
        }
    }

    fn text(&mut self, fate: Fate, byte: u8, into: &mut Vec<u8>) -> State {
        match byte {
            ESC => return State::TextEscape(fate),
            BEL | CAN | SUB => return self.end_text(fate, &[byte], into),
            _ if fate == Fate::Dropped => return State::Text(fate),
            _ => self.held.push(byte),
        }
        if is_unwanted(&self.held) {
            self.held.clear();
            return State::Text(Fate::Dropped);
        }
        // No question is that long: an image, a link, a title.
        if self.held.len() > QUESTION_MAX { self.pass(into) } else { State::Text(fate) }
    }

    fn text_escape(&mut self, fate: Fate, byte: u8, into: &mut Vec<u8>) -> State {
        if byte == b'\\' {
            return self.end_text(fate, b"\x1b\\", into);
        }
        self.cut_off();
        self.escape(byte, into)
    }

    fn end_text(&mut self, fate: Fate, end: &[u8], into: &mut Vec<u8>) -> State {
        let asks = self.held.starts_with(b"\x1b]") && self.held.ends_with(b"?");
        if fate == Fate::Dropped || asks {
            return self.drop_held();
        }
        self.held.extend_from_slice(end);
        self.pass(into)
    }

    /// An escape inside a sequence begins a new one; terminals forget the
    /// old one, and must not find it open should the new one be removed.
    fn cut_off(&mut self) -> State {
        self.held.clear();
        self.held.push(ESC);
        State::Escape
    }

    fn pass(&mut self, into: &mut Vec<u8>) -> State {
        into.append(&mut self.held);
        State::Ground
    }

    fn drop_held(&mut self) -> State {
        self.held.clear();
        State::Ground
    }
}

/// Passes a byte that a terminal acts on at once, even inside a sequence.
fn control(byte: u8, state: State, into: &mut Vec<u8>) -> State {
    if byte != ENQ {
        into.push(byte);
    }
    state
}

/// Whether a text is known to be the clipboard or a question to the end.
fn is_unwanted(text: &[u8]) -> bool {
    let Some(command) = text.strip_prefix(b"\x1b]") else {
        return text.starts_with(b"\x1bP+q") || text.starts_with(b"\x1bP$q");
    };
    // Terminals read `0052` as 52.
    let zeros = command.iter().take_while(|byte| **byte == b'0').count();
    let number = command.get(zeros..).unwrap_or_default();
    number.starts_with(b"52;") || text.len() > QUESTION_MAX && number.len() < 3
}

/// Whether a whole CSI sequence makes a terminal answer.
fn asks(sequence: &[u8]) -> bool {
    let Some((last, rest)) = sequence.split_last() else { return false };
    let parameters = rest.strip_prefix(b"\x1b[").unwrap_or_default();
    match last {
        b'n' | b'c' | b'x' => true,
        b'p' => parameters.ends_with(b"$"),
        b'q' => parameters.starts_with(b">"),
        b'u' => parameters.starts_with(b"?"),
        b't' => {
            let first = parameters.split(|byte| *byte == b';').next().unwrap_or_default();
            matches!(first, b"11" | b"13" | b"14" | b"15" | b"16" | b"18" | b"19" | b"20" | b"21")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn removed(chunks: &[&[u8]]) -> String {
        let (mut queries, mut out) = (Queries::default(), Vec::new());
        for chunk in chunks {
            queries.remove(chunk, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn questions_to_the_terminal_are_removed() {
        let questions = [
            "\x1b[6n",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[=0c",
            "\x1b[?u",
            "\x1b[?2026$p",
            "\x1b[>q",
            "\x1b[18t",
            "\x1b[x",
            "\x1b]11;?\x07",
            "\x1b]4;1;?\x1b\\",
            "\x1b]52;c;aGk=\x07",
            "\x1bP+q544e\x1b\\",
            "\x1bP$qm\x1b\\",
            "\x05",
        ];
        for question in questions {
            assert_eq!(removed(&[b"a", question.as_bytes(), b"b"]), "ab", "{question:?} passed");
        }
    }

    #[test]
    fn everything_else_passes() {
        let others = [
            "\x1b[31m",
            "\x1b[2J",
            "\x1b[?1049h",
            "\x1b]0;title?!\x07",
            "\x1b]8;;http://x/\x1b\\",
            "\x1b[4 q",
            "\x1b[1;5r",
            "\x1b7",
            "\x1b(B",
            "\x1bPq#0;2\x1b\\",
            "\x1b[22;0t",
            "\x1b[u",
            "héß\x7f",
        ];
        for other in others {
            assert_eq!(removed(&[b"a", other.as_bytes(), b"b"]), format!("a{other}b"));
        }
    }

    #[test]
    fn a_sequence_that_is_cut_off_leaves_nothing_open() {
        for cut in ["\x1b[12\x1b[6nb", "\x1b\x1b[6nb", "\x1b]0;x\x1b[6nb"] {
            assert_eq!(removed(&[cut.as_bytes()]), "b");
        }
    }

    #[test]
    fn a_long_text_is_not_held_back() {
        let long = format!("\x1bPq{}", "x".repeat(5000));
        let (mut queries, mut out) = (Queries::default(), Vec::new());
        queries.remove(long.as_bytes(), &mut out);
        assert_eq!(out, long.as_bytes());
    }

    proptest! {
        #[test]
        fn where_chunks_are_cut_makes_no_difference(
            pieces in proptest::collection::vec("\x1b\\[6n|\x1b\\[1m|\x1b\\]52;c;a\x07|\x1b\\]0;t\x1b\\\\|[a-c\x1b\\[\\]P?;n]{0,4}", 0..8),
            size in 1usize..5,
        ) {
            let whole = pieces.concat();
            let chunks: Vec<&[u8]> = whole.as_bytes().chunks(size).collect();
            prop_assert_eq!(removed(&chunks), removed(&[whole.as_bytes()]));
        }

        #[test]
        fn text_without_escapes_is_unchanged(text in "[ -~\r\n\té😀]{0,200}") {
            prop_assert_eq!(removed(&[text.as_bytes()]), text);
        }
    }
}
