//! The rules of `alerts.toml`: what is worth telling somebody.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use regex::{RegexSet, RegexSetBuilder};
use serde::Deserialize;
use toml::Spanned;

use crate::session::printable;

/// Most rules: each looks at every line.
const RULES_MAX: usize = 200;
/// Largest file, bytes.
const FILE_MAX: u64 = 1 << 20;
/// Longest name, bytes: it stands in metrics, marks and policies.
const NAME_MAX: usize = 64;
/// What the patterns of one kind may take in memory, bytes.
const PATTERNS_MAX: usize = 16 << 20;

/// Why the rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or a bound says.
        why: String,
    },
    /// Something in it is wrong.
    #[error("{}{}: {why}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: Option<usize>,
        /// What is wrong and what to write instead.
        why: String,
    },
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// Commands, as far as they are known.
    Command,
    /// Each line of output.
    Output,
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::Output => "output",
        })
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name: `a-z 0-9 . _ -`.
    pub name: String,
    /// What it looks at.
    pub on: On,
    /// Whether it is published.
    pub publish: bool,
}

/// All rules of a file.
#[derive(Debug, Default)]
pub struct Rules {
    commands: Kind,
    output: Kind,
}

/// The rules that look at the same thing.
#[derive(Debug, Default)]
struct Kind {
    rules: Vec<Rule>,
    patterns: RegexSet,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    alert: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Spanned<String>,
    on: On,
    matches: Spanned<String>,
    #[serde(default)]
    publish: bool,
}

impl Rules {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        let failed = |why: String| RulesError::Read { path: path.to_owned(), why };
        let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
        if size > FILE_MAX {
            return Err(failed(format!("more than {FILE_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text).map_err(|(span, why)| RulesError::Wrong {
            path: path.to_owned(),
            line: span.and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1),
            why: printable(&why),
        })
    }

    fn parse(text: &str) -> Result<Self, (Option<Range<usize>>, String)> {
        let file: File = toml::from_str(text).map_err(|error| (error.span(), error.message().to_owned()))?;
        if file.alert.len() > RULES_MAX {
            return Err((None, format!("there are more than {RULES_MAX} rules")));
        }
        let mut names = HashSet::new();
        for rule in &file.alert {
            let name = rule.name.get_ref();
            if !is_name(name) {
                let why = format!("a name is 1 to {NAME_MAX} of a-z 0-9 . _ -");
                return Err((Some(rule.name.span()), why));
            }
            if !names.insert(name.clone()) {
                return Err((Some(rule.name.span()), format!("the name {name:?} is taken")));
            }
            if let Err(error) = regex::Regex::new(rule.matches.get_ref()) {
                let why =
                    format!("the pattern of {name:?} is not a regular expression: {}", last_line(&error));
                return Err((Some(rule.matches.span()), why));
            }
        }
        let of = |on: On| Kind::new(file.alert.iter().filter(|rule| rule.on == on));
        let too_large = |error: regex::Error| (None, format!("the patterns are too large: {error}"));
        Ok(Self { commands: of(On::Command).map_err(too_large)?, output: of(On::Output).map_err(too_large)? })
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.commands.rules.len() + self.output.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.commands.rules.iter().chain(&self.output.rules)
    }

    /// Whether any looks at that.
    pub fn look_at(&self, on: On) -> bool {
        !self.of(on).rules.is_empty()
    }

    /// The rules that a text meets.
    pub fn met(&self, on: On, text: &str) -> impl Iterator<Item = &Rule> {
        let kind = self.of(on);
        let met = kind.patterns.matches(text);
        kind.rules.iter().enumerate().filter(move |(index, _)| met.matched(*index)).map(|(_, rule)| rule)
    }

    fn of(&self, on: On) -> &Kind {
        match on {
            On::Command => &self.commands,
            On::Output => &self.output,
        }
    }
}

impl Kind {
    fn new<'a>(written: impl Iterator<Item = &'a Written>) -> Result<Self, regex::Error> {
        let (mut rules, mut patterns) = (Vec::new(), Vec::new());
        for rule in written {
            rules.push(Rule { name: rule.name.get_ref().clone(), on: rule.on, publish: rule.publish });
            patterns.push(rule.matches.get_ref().as_str());
        }
        let patterns = RegexSetBuilder::new(patterns).size_limit(PATTERNS_MAX).build()?;
        Ok(Self { rules, patterns })
    }
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain)
}

/// What is wrong, without the picture of the pattern.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.toml");
        std::fs::write(&path, text).unwrap();
        let told = Rules::load(&path).map(|rules| rules.len()).unwrap_err().to_string();
        told.replace(&dir.path().display().to_string(), "")
    }

    #[test]
    fn the_rules_that_ship_can_be_used() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/alerts.toml");
        let rules = Rules::load(&path).unwrap();
        let met = |on, text| rules.met(on, text).map(|rule| rule.name.as_str()).collect::<Vec<_>>();
        assert_eq!(met(On::Command, "sudo cat /etc/shadow"), ["sudo", "reads-shadow"]);
        assert_eq!(met(On::Output, "-----BEGIN OPENSSH PRIVATE KEY-----"), ["private-key"]);
    }

    #[test]
    fn a_text_meets_the_rules_of_its_kind() {
        let rules = Rules::parse(
            "[[alert]]\nname = \"sudo\"\non = \"command\"\nmatches = '^sudo\\b'\npublish = true\n\
             [[alert]]\nname = \"root\"\non = \"command\"\nmatches = '\\broot\\b'\n\
             [[alert]]\nname = \"oom\"\non = \"output\"\nmatches = 'Out of memory'\n",
        )
        .unwrap();
        let met = |on, text| rules.met(on, text).map(|rule| rule.name.as_str()).collect::<Vec<_>>();
        assert_eq!(met(On::Command, "sudo -u root id"), ["sudo", "root"]);
        assert_eq!(met(On::Command, "echo sudo"), Vec::<&str>::new());
        assert_eq!(met(On::Output, "sudo"), Vec::<&str>::new());
        assert_eq!(met(On::Output, "kernel: Out of memory: killed"), ["oom"]);
        assert!(rules.met(On::Command, "sudo id").all(|rule| rule.publish));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let rule = |name: &str, on: &str, matches: &str| {
            format!("[[alert]]\nname = \"{name}\"\non = \"{on}\"\nmatches = '{matches}'\n")
        };
        for (text, expected) in [
            (rule("Sudo!", "command", "x"), "alerts.toml:2: a name is"),
            (rule("a", "screen", "x"), "alerts.toml:3: "),
            (rule("a", "command", "(x"), "alerts.toml:4: the pattern of \"a\" is not a regular expression"),
            (rule("a", "command", "x") + &rule("a", "output", "y"), "alerts.toml:6: the name \"a\" is taken"),
            ("[[alert]]\nname = \"a\"\n".to_owned(), "alerts.toml:1: missing field"),
            ("[[alarm]]\n".to_owned(), "alerts.toml:1: unknown field"),
            (rule("a", "output", r"(\pL{1000}){1000}"), "regular expression"),
        ] {
            let told = refused(&text);
            assert!(told.contains(expected), "{text}\n{told}");
        }
        assert!(Rules::load(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn no_file_of_rules_takes_much() {
        let many: String = (0..=RULES_MAX)
            .map(|n| format!("[[alert]]\nname = \"n{n}\"\non = \"output\"\nmatches = 'x'\n"))
            .collect();
        assert!(refused(&many).contains("more than 200 rules"));
    }
}
