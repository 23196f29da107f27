//! Words of a user, made safe to show: what cannot be seen is taken out.

use super::InvalidNoun;

/// Longest `Reason` of the SSM API model, in characters.
const REASON_MAX: usize = 256;

/// Characters of the Unicode category Cf that show nothing.
///
/// They join, part or turn what stands around them, so a text can look like
/// another one, or like nothing. The category's number signs are visible.
const FORMATS: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e007f}'),
];

/// Characters of other categories that show nothing by themselves.
const BLANKS: &[(char, char)] = &[
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{e0080}', '\u{e0fff}'),
];

/// The text without control and format characters and line separators.
///
/// Anything a user wrote passes here before a terminal or a log sees it:
/// C0, C1, DEL, and what hides or turns the characters around it.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).collect()
}

/// Whether [`printable`] takes it out.
pub fn is_hidden(c: char) -> bool {
    // Whole recordings pass here, and most of them is ASCII.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || is_in(FORMATS, c)
}

/// Why somebody wants a session; `None` if nothing can be seen of it.
///
/// One of more than 256 characters is refused, as SSM does: half a reason
/// may say the opposite.
pub fn reason(text: &str) -> Result<Option<String>, InvalidNoun> {
    let text = printable(text);
    if text.chars().count() > REASON_MAX {
        return Err(InvalidNoun { noun: "reason", why: "it has more than 256 characters" });
    }
    Ok(is_visible(&text).then_some(text))
}

/// Any other reason, cleaned and cut; empty if nothing can be seen of it.
pub fn clean_reason(text: &str) -> String {
    let cut: String = printable(text).chars().take(REASON_MAX).collect();
    if is_visible(&cut) { cut } else { String::new() }
}

fn is_visible(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !is_in(BLANKS, c))
}

fn is_in(ranges: &[(char, char)], c: char) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_a_reason() {
        assert_eq!(clean_reason("fix\u{1b}[2J the\u{9b} disk\n"), "fix[2J the disk");
        assert_eq!(reason("fix\u{1b}[2J the\u{9b} disk\n").unwrap().unwrap(), "fix[2J the disk");
    }

    #[test]
    fn what_nobody_can_see_is_no_reason() {
        for nothing in [
            "",
            " ",
            "\u{200b}",
            "\u{202e}",
            "\u{2028}",
            "\u{a0}\u{3000}",
            "\u{ad}",
            "\u{2060}\u{feff}",
            "\u{3164}",
            "\u{2800}",
            "\u{fe0f}",
            "\u{e0041}",
            "\u{200d}\u{200c}",
            "\u{1b}\n\u{9b}",
        ] {
            assert_eq!(reason(nothing), Ok(None), "{nothing:?}");
            assert_eq!(clean_reason(nothing), "", "{nothing:?}");
        }
        for something in ["x", "!", "é", "🔥", "磁盘", "۳"] {
            assert_eq!(reason(something).unwrap().as_deref(), Some(something));
        }
    }

    #[test]
    fn what_turns_or_hides_other_characters_is_taken_out() {
        assert_eq!(printable("pay\u{202e}lortnoc\u{202c} a\u{200b}b\u{2066}c\u{feff}"), "paylortnoc abc");
        assert_eq!(printable("one\u{2028}two\u{2029}"), "onetwo");
        assert_eq!(printable("naïve 磁盘 مرحبا 🔥"), "naïve 磁盘 مرحبا 🔥");
    }

    #[test]
    fn a_reason_is_not_cut_in_secret() {
        assert!(reason(&"x".repeat(256)).is_ok());
        assert!(reason(&"x".repeat(257)).is_err());
        assert_eq!(clean_reason(&"x".repeat(300)).len(), 256);
    }
}
