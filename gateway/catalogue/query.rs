//! What is searched for, and which runs of three characters it must hold.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

use super::CatalogueError;

/// Longest text or expression, bytes.
const PATTERN_MAX: usize = 1000;
/// Memory of a compiled expression.
const COMPILED_MAX: usize = 1 << 20;
/// What no line holds.
const LINE_ENDS: [char; 2] = ['\n', '\r'];
/// Runs asked of the index; more of them make no answer better.
const RUNS_MAX: usize = 12;

/// What is searched for, and where.
#[derive(Debug, Clone)]
pub struct Query {
    /// What a line or command must hold.
    pub pattern: Pattern,
    /// Look at commands only.
    pub commands: bool,
    /// Only recordings of principals whose ARN holds this.
    pub principal: Option<String>,
    /// Only recordings of this machine.
    pub target: Option<String>,
    /// Only recordings that ended at or after, ms since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Only recordings that began before, ms since the Unix epoch.
    pub until_ms: Option<u64>,
}

impl Query {
    /// A search for that, everywhere.
    pub fn new(pattern: Pattern) -> Self {
        Self { pattern, commands: false, principal: None, target: None, since_ms: None, until_ms: None }
    }
}

/// A text or a regular expression; case makes no difference.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
    /// What the index must know of a block that holds it.
    runs: Vec<String>,
}

impl Pattern {
    /// Finds exactly this text, in any case.
    pub fn text(text: &str) -> Result<Self, CatalogueError> {
        if text.is_empty() {
            return Err(CatalogueError::Pattern("say what to search for".to_owned()));
        }
        if text.contains(LINE_ENDS) {
            return Err(over_lines());
        }
        Ok(Self { regex: compile(&regex::escape(text))?, runs: spread(runs_of(text)) })
    }

    /// Finds what the regular expression matches, in any case.
    pub fn regex(expression: &str) -> Result<Self, CatalogueError> {
        let regex = compile(expression)?;
        if regex.is_match("") {
            let why = "the expression matches an empty line, so it matches every line";
            return Err(CatalogueError::Pattern(why.to_owned()));
        }
        let mut runs = Vec::new();
        // It has been compiled, so it can be parsed.
        if let Ok(hir) = regex_syntax::parse(expression) {
            if needs_line_end(&hir) {
                return Err(over_lines());
            }
            needed(&hir, &mut runs);
        }
        Ok(Self { regex, runs: spread(runs) })
    }

    /// Where a line holds it, in bytes.
    pub(super) fn find(&self, line: &str) -> Option<std::ops::Range<usize>> {
        self.regex.find(line).map(|found| found.range())
    }

    /// The question for FTS5; `None`: every block has to be looked at.
    pub(super) fn words(&self) -> Option<String> {
        let quoted = |run: &String| format!("\"{}\"", run.replace('"', "\"\""));
        let words: Vec<String> = self.runs.iter().map(quoted).collect();
        (!words.is_empty()).then(|| words.join(" AND "))
    }
}

fn compile(expression: &str) -> Result<Regex, CatalogueError> {
    if expression.len() > PATTERN_MAX {
        let why = format!("what is searched for is longer than {PATTERN_MAX} bytes");
        return Err(CatalogueError::Pattern(why));
    }
    let built = RegexBuilder::new(expression).case_insensitive(true).size_limit(COMPILED_MAX).build();
    built.map_err(|error| CatalogueError::Pattern(format!("this is no regular expression: {error}")))
}

fn over_lines() -> CatalogueError {
    let why = "lines are searched one by one, so nothing is found that holds the end of a line; leave the `\\n` out";
    CatalogueError::Pattern(why.to_owned())
}

/// Whether every match holds the end of a line, so that no line matches.
fn needs_line_end(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.iter().any(|byte| LINE_ENDS.contains(&char::from(*byte))),
        HirKind::Class(class) => class.literal().is_some_and(|only| matches!(only.as_slice(), b"\n" | b"\r")),
        HirKind::Capture(capture) => needs_line_end(&capture.sub),
        HirKind::Repetition(repetition) => repetition.min > 0 && needs_line_end(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().any(needs_line_end),
        HirKind::Alternation(parts) => parts.iter().all(needs_line_end),
        HirKind::Empty | HirKind::Look(_) => false,
    }
}

/// Collects runs of the literals that every match holds.
fn needed(hir: &Hir, runs: &mut Vec<String>) {
    match hir.kind() {
        HirKind::Literal(literal) => {
            if let Ok(text) = std::str::from_utf8(&literal.0) {
                runs.extend(runs_of(text));
            }
        }
        HirKind::Capture(capture) => needed(&capture.sub, runs),
        HirKind::Repetition(repetition) if repetition.min > 0 => needed(&repetition.sub, runs),
        HirKind::Concat(parts) => parts.iter().for_each(|part| needed(part, runs)),
        _ => {}
    }
}

/// Every three characters in a row; none that other cases write differently.
fn runs_of(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let plain = |run: &&[char]| run.iter().all(|c| c.is_ascii() && !c.is_control());
    characters.windows(3).filter(plain).map(|run| run.iter().collect()).collect()
}

/// At most [`RUNS_MAX`] of them, from all over the text.
fn spread(mut runs: Vec<String>) -> Vec<String> {
    runs.iter_mut().for_each(|run| run.make_ascii_lowercase());
    runs.sort_unstable();
    runs.dedup();
    let step = runs.len().div_ceil(RUNS_MAX).max(1);
    runs.into_iter().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_only_match_over_lines_is_refused_in_words() {
        for over in [r"a\nb", r"(one|two)\r?\n", r"\x0A+", "a\nb", r"a\n|b\n"] {
            let refused = Pattern::regex(over).unwrap_err().to_string();
            assert!(refused.contains("lines are searched one by one"), "{over}: {refused}");
        }
        assert!(Pattern::text("one\ntwo").is_err());
        for within in [r"a[^\n]*b", r"a(\n|b)", r"a\s+b", r"a\n?b", "n"] {
            Pattern::regex(within).unwrap();
        }
    }
}
