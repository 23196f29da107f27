//! `groups.toml`: who is in which group, by ARN, IdP group or address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::problem::{File, Problem};
use crate::session::Principal;

/// Parts of an ARN: `arn:partition:service:region:account:resource`.
const ARN_PARTS: usize = 6;
/// Longest group name, in characters: it is an entity id.
const NAME_MAX: usize = 64;
/// What the name of an IdP group begins with as a member.
pub(super) const IDP: &str = "idp:";
/// What an address begins with as a member.
pub(super) const EMAIL: &str = "email:";
/// Longest name of an IdP group or address, in characters.
const MEMBER_MAX: usize = 256;

/// What stands before the id of somebody's user in Identity Center.
///
/// Such a user is a group of one; no other group has a `/` in its name.
const USER: &str = "identity-center-user/";

/// The group of one that a user in Identity Center is.
pub(super) fn group_of_user(id: &str) -> String {
    format!("{USER}{id}")
}

/// The user in Identity Center that a group is, if it is one.
pub(super) fn user_of_group(name: &str) -> Option<&str> {
    name.strip_prefix(USER)
}

/// Groups by their members.
#[derive(Debug, Default)]
pub(super) struct Groups {
    names: Vec<String>,
    /// Members without a `*`, so that a long list of people costs one lookup.
    exact: HashMap<Member, BTreeSet<usize>>,
    patterns: Vec<(Pattern, usize)>,
    /// Names of IdP groups and addresses with a `*`.
    wild: Vec<(Member, usize)>,
    /// Groups that are members of another, as they were written.
    nested: Vec<Nested>,
    /// Each group with all that it is in, itself first.
    within: Vec<BTreeSet<usize>>,
}

/// One member that is a word to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Member {
    Arn(String),
    IdpGroup(String),
    /// In lower case: no provider tells two people apart by it.
    Email(String),
}

/// A group that is named as a member of another.
#[derive(Debug)]
struct Nested {
    inner: String,
    outer: usize,
    file: String,
    span: Range<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsFile {
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    /// Who the users of Identity Center are, by their ids.
    #[serde(default)]
    identity_center_users: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
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
                if let Err(why) = self.add_member(file, &member, index) {
                    problems.push(Problem::at(file, member.span(), why).help(HELP));
                }
            }
        }
        for (id, members) in parsed.identity_center_users {
            if !valid_name(id.get_ref()) {
                let problem = Problem::at(file, id.span(), "this is not the id of a user in Identity Center");
                problems
                    .push(problem.help("write the UserId that Identity Center shows, not the user's name"));
                continue;
            }
            let index = self.index_of(&group_of_user(id.get_ref()));
            for member in members {
                let added = one_person(member.get_ref()).and_then(|()| self.add_member(file, &member, index));
                if let Err(why) = added {
                    problems.push(Problem::at(file, member.span(), why).help(USER_HELP));
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Works out which group is in which, once every file is read.
    pub fn settle(&mut self, files: &[File]) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut edges: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.names.len()];
        for nested in &self.nested {
            let Some(file) = files.iter().find(|file| file.name == nested.file) else { continue };
            let inner = self.names.iter().position(|name| *name == nested.inner);
            match inner.and_then(|inner| edges.get_mut(inner)) {
                Some(outers) => {
                    outers.insert(nested.outer);
                }
                None => problems.push(
                    Problem::at(file, nested.span.clone(), "there is no such group")
                        .help("name a group of any groups.toml of this folder"),
                ),
            }
        }
        self.within = (0..self.names.len()).map(|group| reached(&edges, group)).collect();
        for nested in &self.nested {
            let Some(file) = files.iter().find(|file| file.name == nested.file) else { continue };
            let inner = self.names.iter().position(|name| *name == nested.inner);
            let around = self.within.get(nested.outer);
            if inner.zip(around).is_some_and(|(inner, around)| around.contains(&inner)) {
                problems.push(
                    Problem::at(file, nested.span.clone(), "these groups are in each other, in a circle")
                        .help("take one of them out of the other"),
                );
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The groups of a principal, by ARN, role, IdP groups and address.
    pub fn of(&self, principal: &Principal, role_arn: Option<&str>) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for arn in std::iter::once(principal.arn.as_str()).chain(role_arn) {
            found.extend(self.exact.get(&Member::Arn(arn.to_owned())).into_iter().flatten().copied());
            let matching = self.patterns.iter().filter(|(pattern, _)| pattern.matches(arn));
            found.extend(matching.map(|(_, index)| *index));
        }
        let facts = &principal.facts;
        let idp = facts.groups.iter().map(|name| Member::IdpGroup(name.clone()));
        let email = facts.email.iter().map(|email| Member::Email(email.to_lowercase()));
        for member in idp.chain(email) {
            found.extend(self.exact.get(&member).into_iter().flatten().copied());
            let matching = self.wild.iter().filter(|(pattern, _)| pattern.covers(&member));
            found.extend(matching.map(|(_, index)| *index));
        }
        let around = found.iter().filter_map(|index| self.within.get(*index)).flatten();
        let all: BTreeSet<usize> = around.chain(&found).copied().collect();
        all.into_iter().filter_map(|index| self.names.get(index)).map(String::as_str).collect()
    }

    /// A group and every one that it is in; nothing if there is none.
    pub fn around(&self, name: &str) -> Vec<&str> {
        let Some(index) = self.names.iter().position(|known| known == name) else { return Vec::new() };
        let outer = self.within.get(index).into_iter().flatten().filter(|other| **other != index);
        let outer = outer.filter_map(|index| self.names.get(*index));
        self.names.get(index).into_iter().chain(outer).map(String::as_str).collect()
    }

    /// Every member but groups, in the words of the files, sorted.
    pub fn members(&self) -> BTreeSet<String> {
        let patterns = self.patterns.iter().map(|(pattern, _)| pattern.0.join(":"));
        let words = self.exact.keys().chain(self.wild.iter().map(|(member, _)| member));
        words.map(ToString::to_string).chain(patterns).collect()
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

    fn add_member(
        &mut self,
        file: &File,
        member: &Spanned<String>,
        group: usize,
    ) -> Result<(), &'static str> {
        let text = member.get_ref().as_str();
        if let Some(inner) = text.strip_prefix("group:") {
            let (inner, file, span) = (inner.to_owned(), file.name.clone(), member.span());
            self.nested.push(Nested { inner, outer: group, file, span });
            return Ok(());
        }
        let named = if let Some(name) = text.strip_prefix(IDP) {
            Member::IdpGroup(word(name)?.to_owned())
        } else if let Some(email) = text.strip_prefix(EMAIL) {
            if email.split('@').filter(|part| !part.is_empty()).count() != 2 {
                return Err("an address has one @ with something before and after it");
            }
            Member::Email(word(email)?.to_lowercase())
        } else {
            let pattern = Pattern::parse(text)?;
            if text.contains('*') {
                self.patterns.push((pattern, group));
                return Ok(());
            }
            Member::Arn(text.to_owned())
        };
        if text.contains('*') {
            self.wild.push((named, group));
        } else {
            self.exact.entry(named).or_default().insert(group);
        }
        Ok(())
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arn(arn) => f.write_str(arn),
            Self::IdpGroup(name) => write!(f, "{IDP}{name}"),
            Self::Email(address) => write!(f, "{EMAIL}{address}"),
        }
    }
}

impl Member {
    /// Whether this pattern stands for that member.
    fn covers(&self, member: &Self) -> bool {
        match (self, member) {
            (Self::IdpGroup(pattern), Self::IdpGroup(text)) => wild(pattern, text),
            // A `*` never reaches over the @: another domain is another company.
            (Self::Email(pattern), Self::Email(text)) => {
                let (ours, theirs) = (pattern.split_once('@'), text.split_once('@'));
                ours.zip(theirs)
                    .is_some_and(|(ours, theirs)| wild(ours.0, theirs.0) && wild(ours.1, theirs.1))
            }
            _ => false,
        }
    }
}

/// Every group that this one is in; itself only if it is in a circle.
fn reached(edges: &[BTreeSet<usize>], group: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![group];
    while let Some(next) = waiting.pop() {
        for outer in edges.get(next).into_iter().flatten() {
            if found.insert(*outer) {
                waiting.push(*outer);
            }
        }
    }
    found
}

/// A name as a provider gives it: one printable line that is not empty.
fn word(text: &str) -> Result<&str, &'static str> {
    let fits = !text.trim().is_empty() && text.chars().count() <= MEMBER_MAX;
    if fits && !text.chars().any(char::is_control) { Ok(text) } else { Err("the name is empty or too long") }
}

const HELP: &str = "write: [groups] then name = [\"arn:aws:iam::123456789012:user/alice\", \
                    \"arn:aws:sts::123456789012:assumed-role/Developer/*\", \"idp:platform\", \
                    \"email:alice@example.com\", \"group:another\"]";

const USER_HELP: &str = "write: [identity_center_users] then \"<UserId>\" = \
    [\"arn:aws:sts::*:assumed-role/AWSReservedSSO_Engineer_0123456789abcdef/alice\", \"email:alice@example.com\"]";

/// A user in Identity Center is one person: an ARN or an address of theirs.
fn one_person(member: &str) -> Result<(), &'static str> {
    if member.starts_with("group:") || member.starts_with("idp:") {
        return Err("a user in Identity Center is one person, and no group of them");
    }
    // The account may be any: their role sessions have the same name in all.
    let person =
        if member.starts_with("email:") { Some(member) } else { member.splitn(ARN_PARTS, ':').last() };
    if person.is_some_and(|person| person.contains('*')) {
        return Err(
            "a user in Identity Center is one person, and their role one role: a `*` is for accounts",
        );
    }
    Ok(())
}

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
    use crate::session::{AuthMethod, Facts};

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
        for bad in ["alice", "*", "arn:aws:iam", "arn:aws:iam::*", "arn:aws:iam::1:user/a b", "developers"] {
            assert!(Pattern::parse(bad).is_err(), "{bad} was accepted");
        }
    }

    fn groups(text: &str) -> Result<Groups, Vec<Problem>> {
        let file = File { name: "groups.toml".to_owned(), text: text.to_owned() };
        let mut groups = Groups::default();
        groups.add(&file)?;
        groups.settle(&[file])?;
        Ok(groups)
    }

    /// A person of the identity provider.
    fn person(email: Option<&str>, idp: &[&str]) -> Principal {
        let facts = Facts {
            email: email.map(str::to_owned),
            groups: idp.iter().map(|name| (*name).to_owned()).collect(),
            ..Facts::default()
        };
        Principal {
            id: "https://idp.example.com|1".to_owned(),
            arn: "https://idp.example.com|1".to_owned(),
            account: String::new(),
            name: "alice".to_owned(),
            role: None,
            method: AuthMethod::Oidc,
            authenticated_at: 0,
            facts,
        }
    }

    #[test]
    fn idp_groups_and_addresses_are_members() {
        let groups = groups(
            "[groups]\ndevelopers = [\"idp:Platform Team\", \"email:alice@example.com\"]\n\
             staff = [\"email:*@example.com\"]\nops = [\"idp:ops-*\"]\n",
        )
        .unwrap();
        let of = |person: &Principal| groups.of(person, None).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of(&person(Some("Alice@Example.com"), &[])), "developers staff");
        assert_eq!(of(&person(None, &["Platform Team", "ops-eu"])), "developers ops");
        // Another domain, another case of a group, and a name that only looks like an address.
        assert_eq!(of(&person(Some("alice@evil.com@example.com"), &["platform team"])), "");
        assert_eq!(of(&person(Some("alice@example.com.evil.com"), &["email:alice@example.com"])), "");
    }

    #[test]
    fn a_group_may_be_in_another_and_a_circle_is_refused() {
        let nested = "[groups]\nadmins = [\"idp:root\"]\nops = [\"group:admins\"]\nall = [\"group:ops\"]\n";
        let nested = groups(nested).unwrap();
        let found: Vec<&str> = nested.of(&person(None, &["root"]), None).into_iter().collect();
        assert_eq!(found, ["admins", "all", "ops"]);
        for circle in [
            "[groups]\na = [\"group:a\"]\n",
            "[groups]\na = [\"group:b\"]\nb = [\"group:c\"]\nc = [\"group:a\"]\n",
        ] {
            assert!(groups(circle).is_err(), "{circle}");
        }
        assert!(groups("[groups]\na = [\"group:nobody\"]\n").is_err());
    }

    #[test]
    fn a_user_in_identity_center_is_one_person() {
        let users =
            |member: &str| groups(&format!("[identity_center_users]\n\"9067-0a\" = [\"{member}\"]\n"));
        let role = "arn:aws:sts::*:assumed-role/AWSReservedSSO_Ops_0123456789abcdef";
        for bad in [
            format!("{role}/*").as_str(),
            "arn:aws:sts::*:assumed-role/AWSReservedSSO_*/ada",
            "email:*@example.com",
            "idp:ops",
            "group:ops",
            "ada",
        ] {
            assert!(users(bad).is_err(), "{bad} was accepted");
        }
        assert!(groups("[identity_center_users]\n\"ada/x\" = []\n").is_err());
        let known = users("email:ada@example.com").unwrap();
        let found: Vec<&str> = known.of(&person(Some("ada@example.com"), &[]), None).into_iter().collect();
        assert_eq!(found, ["identity-center-user/9067-0a"]);
        assert_eq!(found.first().and_then(|name| user_of_group(name)), Some("9067-0a"));
        // Nobody makes such a group by hand.
        assert!(groups("[groups]\n\"identity-center-user/9067-0a\" = []\n").is_err());
    }

    #[test]
    fn a_member_that_means_nothing_is_refused() {
        for bad in ["idp:", "idp: ", "email:alice", "email:@example.com", "email:a@b@c", "mail:a@b"] {
            assert!(groups(&format!("[groups]\na = [\"{bad}\"]\n")).is_err(), "{bad} was accepted");
        }
    }
}
