//! `groups.toml`: which IAM identities are in which group.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use toml::Spanned;

use super::problem::{File, Problem};
use crate::session::Principal;

/// Parts of an ARN: `arn:partition:service:region:account:resource`.
const ARN_PARTS: usize = 6;
/// Longest group name, in characters: it is an entity id.
const NAME_MAX: usize = 64;

/// Groups by the ARNs of their members.
#[derive(Debug, Default)]
pub(super) struct Groups {
    names: Vec<String>,
    /// ARNs without a `*`, so that a long list of people costs one lookup.
    exact: HashMap<String, BTreeSet<usize>>,
    patterns: Vec<(Pattern, usize)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsFile {
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
}

impl Groups {
    /// Adds the groups of one file; names met before grow.
    pub fn add(&mut self, file: &File) -> Result<(), Vec<Problem>> {
        let parsed: GroupsFile = toml::from_str(&file.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            vec![Problem::at(file, span, error.message()).help(HELP)]
        })?;
        let mut problems = Vec::new();
        for (name, members) in parsed.groups {
            if !valid_name(name.get_ref()) {
                problems.push(
                    Problem::at(file, name.span(), "this is not a group name")
                        .help("use 1 to 64 letters, digits and . _ -"),
                );
                continue;
            }
            let index = self.index_of(name.get_ref());
            for member in members {
                match Pattern::parse(member.get_ref()) {
                    Ok(pattern) => self.add_member(pattern, member.get_ref(), index),
                    Err(why) => problems.push(Problem::at(file, member.span(), why).help(HELP)),
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The groups of a principal, by its ARN or its role's ARN.
    pub fn of(&self, principal: &Principal, role_arn: Option<&str>) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for arn in std::iter::once(principal.arn.as_str()).chain(role_arn) {
            found.extend(self.exact.get(arn).into_iter().flatten().copied());
            let matching = self.patterns.iter().filter(|(pattern, _)| pattern.matches(arn));
            found.extend(matching.map(|(_, index)| *index));
        }
        found.into_iter().filter_map(|index| self.names.get(index)).map(String::as_str).collect()
    }

    /// Every member, in the words of the files, sorted.
    pub fn members(&self) -> Vec<String> {
        let patterns = self.patterns.iter().map(|(pattern, _)| pattern.0.join(":"));
        let all: BTreeSet<String> = self.exact.keys().cloned().chain(patterns).collect();
        all.into_iter().collect()
    }

    /// Whether there is a group of that name.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    fn index_of(&mut self, name: &str) -> usize {
        if let Some(index) = self.names.iter().position(|known| known == name) {
            return index;
        }
        self.names.push(name.to_owned());
        self.names.len() - 1
    }

    fn add_member(&mut self, pattern: Pattern, arn: &str, group: usize) {
        if arn.contains('*') {
            self.patterns.push((pattern, group));
        } else {
            self.exact.entry(arn.to_owned()).or_default().insert(group);
        }
    }
}

const HELP: &str = "write: [groups] then name = [\"arn:aws:iam::123456789012:user/alice\", \
                    \"arn:aws:sts::123456789012:assumed-role/Developer/*\"]";

fn valid_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain)
}

/// An ARN in which `*` stands for any characters within one of its parts.
///
/// The parts are matched one by one: a `*` for an account never swallows a
/// piece of a user's path, which may hold colons and is not ours to trust.
#[derive(Debug)]
struct Pattern(Vec<String>);

impl Pattern {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let parts: Vec<String> = text.splitn(ARN_PARTS, ':').map(str::to_owned).collect();
        if parts.len() != ARN_PARTS || parts.first().is_none_or(|first| first != "arn") {
            return Err("a member of a group is the ARN of a user or an assumed role");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("an ARN has no spaces or control characters");
        }
        Ok(Self(parts))
    }

    fn matches(&self, arn: &str) -> bool {
        let mut parts = arn.splitn(ARN_PARTS, ':');
        self.0.iter().all(|pattern| parts.next().is_some_and(|part| wild(pattern, part)))
            && parts.next().is_none()
    }
}

/// Whether the text is the pattern with something for every `*`.
fn wild(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    // The first place that fits is as good as any for all but the last piece.
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return text.ends_with(piece);
        }
        match text.find(piece) {
            Some(at) => text = text.get(at + piece.len()..).unwrap_or(""),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, arn: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(arn)
    }

    #[test]
    fn a_star_stands_for_any_characters_of_its_part() {
        let alice = "arn:aws:sts::000000000000:assumed-role/Developer/alice";
        assert!(matches("arn:aws:sts::000000000000:assumed-role/Developer/*", alice));
        assert!(matches("arn:aws:sts::*:assumed-role/Dev*per/al*", alice));
        assert!(matches("arn:*:sts::*:*", alice));
        assert!(!matches("arn:aws:sts::000000000000:assumed-role/Dev/*", alice));
        assert!(!matches("arn:aws:sts::000000000000:assumed-role/Developer/*x", alice));
        assert!(!matches("arn:aws:iam::*:*", alice));
    }

    #[test]
    fn a_star_never_reaches_into_the_next_part() {
        let crafted = "arn:aws:iam::666666666666:user/x:assumed-role/Admin/eve";
        assert!(!matches("arn:aws:iam::*:assumed-role/Admin/eve", crafted));
    }

    #[test]
    fn a_pattern_without_a_star_is_the_arn_itself() {
        assert!(wild("alice", "alice"));
        assert!(!wild("alice", "alice2"));
        assert!(!wild("a*a", "a"));
        assert!(wild("a*a", "aa"));
        assert!(wild("*", ""));
        assert!(wild("a*b*c", "aXbbYc"));
    }

    #[test]
    fn a_member_that_is_no_arn_is_refused() {
        for bad in
            ["alice", "*", "arn:aws:iam", "arn:aws:iam::*", "arn:aws:iam::1:user/a b", "group:developers"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad} was accepted");
        }
    }
}
