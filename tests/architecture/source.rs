//! A Rust file as the architecture test reads it: code only, tests left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub struct Source {
    /// Where it is, from the folder that was searched.
    pub path: PathBuf,
    /// Everything in it.
    pub text: String,
    /// Its code without comments, strings and test modules.
    code: String,
}

/// Every Rust file below a folder; those only for tests have no code.
pub fn sources(folder: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    find(folder, Path::new(""), &mut paths);
    let mut sources: Vec<Source> = paths.iter().map(|path| Source::read(folder, path)).collect();
    let tests: BTreeSet<PathBuf> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        if tests.iter().any(|module| is_in(&source.path, module)) {
            source.code.clear();
        }
    }
    sources
}

/// Whether a file is a module or below it.
fn is_in(path: &Path, module: &Path) -> bool {
    path.with_extension("") == module || path.starts_with(module)
}

fn find(folder: &Path, below: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder.join(below)) else { return };
    for entry in entries {
        let path = below.join(entry.unwrap().file_name());
        if folder.join(&path).is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                find(folder, &path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    /// Reads a file of a folder.
    pub fn read(folder: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(folder.join(path)).unwrap();
        let code = without_tests(&code_only(&text));
        Self { path: path.to_owned(), text, code }
    }

    /// Rooms reached by `crate::room`, crates by their name.
    pub fn imports<'a>(&self, rooms: impl Iterator<Item = &'a str>, crates: &[&str]) -> BTreeSet<String> {
        let rooms: Vec<&str> = rooms.filter(|room| !crates.contains(room)).collect();
        let mut found =
            if self.is_of_a_crate(crates) { BTreeSet::new() } else { self.imports_of("crate", &rooms) };
        found.extend(crates.iter().filter(|name| self.mentions(name)).map(|name| (*name).to_owned()));
        found
    }

    /// Those of the names that follow `root::`, alone or in braces.
    pub fn imports_of(&self, root: &str, names: &[&str]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, _) in self.code.match_indices(root) {
            let Some(rest) = self.code[at + root.len()..].trim_start().strip_prefix("::") else { continue };
            if !self.code[..at].ends_with(is_word) {
                found.extend(heads(rest.trim_start()));
            }
        }
        found.retain(|name| names.contains(&name.as_str()));
        found
    }

    /// Whether the code has this path or word.
    pub fn mentions(&self, word: &str) -> bool {
        self.code.match_indices(word).any(|(at, _)| {
            let before = self.code[..at].ends_with(is_word);
            // A room or a variable of that name is reached by another path.
            let after = self.code[at + word.len()..].trim_start();
            let follows =
                after.starts_with("::") || word.contains("::") || word.starts_with(char::is_uppercase);
            !before && !self.code[..at].ends_with("::") && !after.starts_with(is_word) && follows
        })
    }

    /// Whether `super::` is repeated until it leaves the room.
    pub fn climbs_out(&self) -> bool {
        let file = self.path.with_extension("");
        let names = file.iter().filter(|name| *name != "mod" && *name != "lib").count();
        let inside_a_crate = self.path.iter().nth(1).is_some_and(|name| name == "src");
        let chain = "super::".repeat(names);
        !inside_a_crate && self.code.contains(&chain)
    }

    fn is_of_a_crate(&self, crates: &[&str]) -> bool {
        self.path.iter().next().is_some_and(|first| crates.iter().any(|name| first == *name))
    }

    /// The modules that this file declares for tests only.
    fn test_modules(&self) -> Vec<PathBuf> {
        let code = code_only(&self.text);
        let folder = match self.path.file_stem() {
            Some(stem) if stem != "mod" && stem != "lib" && stem != "main" => self.path.with_extension(""),
            _ => self.path.parent().unwrap_or(Path::new("")).to_owned(),
        };
        let declared = code.split("#[cfg(test)]").skip(1).filter_map(|after| {
            let name = after.trim_start().strip_prefix("mod ")?.split_once(';')?.0;
            name.chars().all(is_word).then(|| folder.join(name))
        });
        declared.collect()
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The first names of a path or of every path in braces.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(inside) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && is_word(character) => {
                names.push(word(&inside[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

/// The text without comments; strings and characters are empty.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let word_before = code.ends_with(is_word);
        let skipped = match character {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !word_before && raw_string(rest).is_some() => raw_string(rest).unwrap(),
            '\'' => character_literal(rest),
            _ => 0,
        };
        if skipped > 0 {
            code.push_str(if character == '/' { " " } else { "\"\"" });
            rest = &rest[skipped..];
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().unwrap().len_utf8();
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + inside.find(&end)? + end.len())
}

/// 0 for a lifetime.
fn character_literal(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |end| end + 4),
        Some((at, character)) => {
            let after = at + character.len_utf8();
            if text[after..].starts_with('\'') { after + 1 } else { 0 }
        }
        None => 0,
    }
}

/// The code without items that are only there for tests.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut parts = code.split("#[cfg(test)]");
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        kept.push_str(&part[item(part)..]);
    }
    kept
}

/// How long the item at the beginning is: up to `;` or its closing brace.
fn item(code: &str) -> usize {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn of(code: &str) -> Source {
    Source {
        path: PathBuf::from("relay/pump.rs"),
        text: code.to_owned(),
        code: without_tests(&code_only(code)),
    }
}

fn imported(code: &str) -> Vec<String> {
    of(code).imports(["policy", "broker", "recorder", "sigv4"].into_iter(), &["sigv4"]).into_iter().collect()
}

#[test]
fn imports_are_found_however_they_are_written() {
    assert_eq!(imported("use crate::policy::Policy;"), ["policy"]);
    assert_eq!(
        imported("use crate::{broker::{Broker, X}, recorder, other::policy};"),
        ["broker", "recorder"]
    );
    assert_eq!(imported("fn f() { crate :: policy::g(sigv4::sign()) }"), ["policy", "sigv4"]);
    assert_eq!(imported("use sigv4::Request;"), ["sigv4"]);
}

#[test]
fn what_is_no_import_is_not_found() {
    for code in [
        "// use crate::policy::X;",
        "/* crate::policy /* */ crate::broker */",
        "const X: &str = \"crate::policy\";",
        "const X: &str = r#\"a \" crate::policy\"#;",
        "const C: char = '\"'; // crate::policy\n",
        "fn f<'a>(x: &'a str) {} // '",
        "#[cfg(test)]\nmod tests { use crate::policy::{A, B}; fn f() { } }",
        "#[cfg(test)]\nuse crate::policy::X;",
        "use crate::policy_like::X; let sigv4 = 1;",
    ] {
        assert_eq!(imported(code), [""; 0], "{code}");
    }
    assert_eq!(imported("#[cfg(test)]\nmod t { }\nuse crate::broker::X;"), ["broker"]);
    assert_eq!(imported("let c = '\\''; use crate::broker::X;"), ["broker"]);
}

#[test]
fn leaving_a_room_by_super_is_found() {
    assert!(!of("use super::tap::Tap;").climbs_out());
    assert!(of("use super::super::policy;").climbs_out());
}
