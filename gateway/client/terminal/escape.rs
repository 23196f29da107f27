//! The `~` escapes at the start of a line, as SSH has them.

/// What the person asked of this program rather than of the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `~.`: leave the session.
    Leave,
    /// `~?`: say what there is.
    Help,
}

/// Shown for `~?`.
pub const HELP: &str = "Escapes, after Enter:  ~.  end the session   ~~  send a tilde   ~?  this help";

/// Finds escapes in what is typed, chunk by chunk.
#[derive(Debug)]
pub struct Escapes {
    at_line_start: bool,
    tilde: bool,
}

impl Default for Escapes {
    fn default() -> Self {
        Self { at_line_start: true, tilde: false }
    }
}

impl Escapes {
    /// Appends what the far side gets; stops at the first escape.
    ///
    /// What was typed behind [`Escape::Leave`] goes nowhere, what was typed
    /// behind [`Escape::Help`] is passed on.
    pub fn pass(&mut self, typed: &[u8], onward: &mut Vec<u8>) -> Option<Escape> {
        let mut found = None;
        for byte in typed {
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => return Some(Escape::Leave),
                    b'?' => {
                        found = Some(Escape::Help);
                        // Nothing of it left, so the line still begins here.
                        self.at_line_start = true;
                        continue;
                    }
                    b'~' => {}
                    _ => onward.push(b'~'),
                }
            } else if *byte == b'~' && self.at_line_start {
                self.tilde = true;
                self.at_line_start = false;
                continue;
            }
            onward.push(*byte);
            self.at_line_start = matches!(byte, b'\r' | b'\n');
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(chunks: &[&str]) -> (String, Option<Escape>) {
        let (mut escapes, mut onward, mut found) = (Escapes::default(), Vec::new(), None);
        for chunk in chunks {
            found = found.or(escapes.pass(chunk.as_bytes(), &mut onward));
        }
        (String::from_utf8(onward).unwrap(), found)
    }

    #[test]
    fn a_tilde_and_a_dot_after_enter_leave() {
        for chunks in
            [&["~."][..], &["~", "."], &["ls\r~."], &["ls\r", "~", "."], &["ls\n~.rest"], &["\r~?~."]]
        {
            assert_eq!(pass(chunks).1, Some(Escape::Leave), "{chunks:?}");
        }
    }

    #[test]
    fn other_tildes_are_only_tildes() {
        for (typed, onward) in [
            ("cd ~.\r", "cd ~.\r"),
            ("~/bin\r", "~/bin\r"),
            ("~~.\r", "~.\r"),
            ("~\r", "~\r"),
            ("a~~b", "a~~b"),
            ("ü~.", "ü~."),
        ] {
            assert_eq!(pass(&[typed]), (onward.to_owned(), None));
        }
    }

    #[test]
    fn help_swallows_nothing_else() {
        assert_eq!(pass(&["\r~?", "ls ~."]), ("\rls ~.".to_owned(), Some(Escape::Help)));
        assert_eq!(pass(&["\r~?ls\r"]), ("\rls\r".to_owned(), Some(Escape::Help)));
    }
}
