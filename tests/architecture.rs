//! The house stays as ARCHITECTURE.md says: rooms, imports, sizes, names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "architecture/source.rs"]
mod source;

use source::{Source, sources};

/// Nouns: what every room may speak of.
const NOUNS: &[&str] = &["session", "error", "metrics"];
/// The crates of the workspace, without I/O and without a clock.
const CRATES: &[&str] = &["data_channel", "sigv4"];

/// Who may import whom, in the order in which a session meets the rooms.
///
/// The same table is in ARCHITECTURE.md; a test compares the two. `nouns`
/// are [`NOUNS`]; `everything above` is every earlier row.
const TABLE: &[(&str, &str)] = &[
    ("session", "nothing"),
    ("error", "nothing"),
    ("metrics", "error"),
    ("socket", "nothing"),
    ("proxy", "nouns"),
    ("data_channel", "nothing"),
    ("sigv4", "nothing"),
    ("asciicast", "nothing"),
    ("transcript", "nouns, asciicast"),
    ("identity", "nouns, proxy, sigv4"),
    ("policy", "nouns"),
    ("broker", "nouns, socket, proxy, data_channel, sigv4"),
    ("registry", "nouns"),
    ("recorder", "nouns, asciicast"),
    ("store", "nouns, asciicast, recorder"),
    ("archive", "nouns, recorder"),
    ("shipper", "nouns, asciicast, transcript, broker, recorder"),
    ("replay", "nouns, asciicast, transcript, recorder, store"),
    ("catalogue", "nouns, asciicast, transcript, replay"),
    ("alerts", "nouns, asciicast, transcript, broker, registry, recorder"),
    ("relay", "nouns, data_channel, transcript, recorder"),
    ("lifecycle", "everything above"),
    ("front_door", "everything above"),
    ("console", "everything above"),
    ("client", "nouns, proxy, data_channel, sigv4"),
    ("local_ssm", "nouns, data_channel, sigv4"),
    ("config", "everything above"),
    ("serve", "everything above"),
    ("cli", "everything above"),
];

/// Longest file, in lines.
const FILE_MAX: usize = 500;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "types", "manager", "service", "handler", "misc"];
/// What a room without I/O and without a clock cannot mention.
const OUTSIDE: &[&str] =
    &["std::fs", "std::net", "std::process", "tokio", "SystemTime", "Instant", "now_utc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The rooms that a room may import, its row's words spelt out.
fn allowed(room: &str) -> BTreeSet<&'static str> {
    let row = TABLE.iter().position(|(name, _)| *name == room).unwrap_or_else(|| panic!("no row for {room}"));
    let mut rooms = BTreeSet::from([TABLE[row].0]);
    for word in TABLE[row].1.split(", ") {
        match word {
            "nothing" => {}
            "nouns" => rooms.extend(NOUNS),
            "everything above" => rooms.extend(TABLE[..row].iter().map(|(name, _)| *name)),
            name => rooms.extend(TABLE.iter().map(|(known, _)| *known).filter(|known| *known == name)),
        }
    }
    rooms
}

#[test]
fn every_room_is_listed_and_every_listed_room_is_there() {
    let mut listed: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found: BTreeSet<String> = fs::read_dir(root().join("gateway"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !matches!(name.as_str(), "main" | "lib"))
        .collect();
    assert_eq!(listed, found, "left: the table, right: gateway/");

    for name in CRATES {
        listed.remove(*name);
    }
    let lib = read("gateway/lib.rs");
    let modules: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let rows: Vec<&str> = TABLE.iter().map(|(name, _)| *name).filter(|name| !CRATES.contains(name)).collect();
    assert_eq!(modules, rows, "left: gateway/lib.rs, right: the table, in the same order");
}

#[test]
fn the_document_has_the_same_table() {
    let document = read("ARCHITECTURE.md");
    let rows: Vec<(String, String)> = document
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| `")?.trim_end_matches('|').split('|').collect();
            let room = cells.first()?.trim().trim_end_matches('`');
            Some((room.to_owned(), cells.get(2)?.replace('`', "").trim().to_owned()))
        })
        .collect();
    let table: Vec<(String, String)> =
        TABLE.iter().map(|(room, may)| ((*room).to_owned(), (*may).to_owned())).collect();
    assert_eq!(rows, table, "left: ARCHITECTURE.md, right: this test");
}

#[test]
fn every_invariant_names_tests_that_are_there() {
    let code: Vec<Source> =
        ["gateway", "tests"].iter().flat_map(|folder| sources(&root().join(folder))).collect();
    let document = read("ARCHITECTURE.md");
    let (_, rows) = document.split_once("| invariant | kept by |").unwrap();
    let rows: Vec<&str> = rows.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "only {} rows were read", rows.len());
    for row in rows {
        let named: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named in {row}");
        for test in named {
            let definition = format!("fn {test}(");
            assert!(code.iter().any(|source| source.text.contains(&definition)), "there is no test {test}");
        }
    }
}

#[test]
fn a_room_only_names_rooms_above_it() {
    for (row, (room, may)) in TABLE.iter().enumerate() {
        for word in may.split(", ").filter(|word| !matches!(*word, "nothing" | "nouns" | "everything above"))
        {
            let place = TABLE.iter().position(|(name, _)| *name == word);
            assert!(place.is_some_and(|place| place < row), "{room} names {word}, which is not above it");
        }
    }
}

#[test]
fn rooms_import_what_the_table_allows() {
    let mut wrong = Vec::new();
    for source in sources(&root().join("gateway")) {
        let Some(room) = room_of(&source) else { continue };
        let allowed = allowed(&room);
        for import in source.imports(TABLE.iter().map(|(name, _)| *name), CRATES) {
            if !allowed.contains(import.as_str()) {
                wrong.push(format!("{} imports {import}", source.path.display()));
            }
        }
        if source.climbs_out() {
            wrong.push(format!("{} reaches another room by super::", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_program_only_uses_the_commands() {
    let main = Source::read(&root().join("gateway"), Path::new("main.rs"));
    let rooms: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    assert_eq!(main.imports_of("postern", &rooms), BTreeSet::from(["cli".to_owned()]));
}

#[test]
fn formats_and_protocols_know_no_files_sockets_or_clocks() {
    for source in sources(&root().join("gateway")) {
        let room = room_of(&source).unwrap_or_default();
        if CRATES.contains(&room.as_str()) || matches!(room.as_str(), "asciicast" | "transcript") {
            for word in OUTSIDE {
                assert!(!source.mentions(word), "{} mentions {word}", source.path.display());
            }
        }
    }
}

#[test]
fn every_file_is_short_and_begins_with_what_it_is_for() {
    let mut wrong = Vec::new();
    for folder in ["gateway", "tests", "benches", "fuzz/fuzz_targets"] {
        for source in sources(&root().join(folder)) {
            let name = format!("{folder}/{}", source.path.display());
            let lines = source.text.lines().count();
            if lines > FILE_MAX {
                wrong.push(format!("{name} has {lines} lines, more than {FILE_MAX}"));
            }
            if !source.text.starts_with("//! ") {
                wrong.push(format!("{name} does not begin with `//! ` and a sentence"));
            }
            let named = source.path.iter().map(|part| part.to_string_lossy().replace(".rs", ""));
            wrong.extend(
                named
                    .filter(|part| EMPTY_NAMES.contains(&part.as_str()))
                    .map(|part| format!("{name}: {part:?} says nothing about what is inside")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The room a file of `gateway/` belongs to; none for main and lib.
fn room_of(source: &Source) -> Option<String> {
    let first = source.path.iter().next()?.to_string_lossy().replace(".rs", "");
    (!matches!(first.as_str(), "main" | "lib")).then_some(first)
}
