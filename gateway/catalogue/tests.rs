//! Tests.

use super::*;
use crate::asciicast::{EventCode, Header, encode_event};

/// A recording of these events; each is `(ms, code, data)`.
fn record(folder: &Path, id: &str, begun_s: i64, events: &[(u64, char, &str)]) -> (SessionId, PathBuf) {
    let mut header = Header::new(begun_s);
    let about = serde_json::json!({
        "principal": format!("arn:aws:iam::111122223333:user/{id}"), "target": "i-0123456789abcdef0",
    });
    header.postern = about.as_object().cloned();
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    for (ms, code, data) in events {
        encode_event(&mut bytes, *ms, EventCode::from(*code), data);
    }
    let path = folder.join(format!("{id}.cast"));
    std::fs::write(&path, bytes).unwrap();
    (SessionId::parse(id).unwrap(), path)
}

type Events<'a> = &'a [(u64, char, &'a str)];

async fn catalogue(recordings: &[(&str, Events<'_>)]) -> (Catalogue, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(&folder.path().join(FILE_NAME)).await.unwrap();
    for (index, (id, events)) in recordings.iter().enumerate() {
        let (session, path) = record(folder.path(), id, 1000 * (index as i64 + 1), events);
        catalogue.add(&session, &path).await.unwrap();
    }
    (catalogue, folder)
}

/// One page: `session@ms text`, and the token of the next.
async fn page(
    catalogue: &Catalogue,
    query: &Query,
    (limit, token): (usize, Option<&str>),
) -> (Vec<String>, Option<String>) {
    let mut search = catalogue.search(query.clone(), token).unwrap();
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(next) = search.next().await.unwrap() else { break };
        let hits = search.hits(&next, limit - found.len()).unwrap();
        found.extend(
            hits.iter().map(|hit| format!("{}@{} {}", next.recording.session, hit.time_ms, hit.text)),
        );
    }
    (found, search.token())
}

async fn all(catalogue: &Catalogue, query: &Query) -> Vec<String> {
    page(catalogue, query, (1000, None)).await.0
}

fn text(text: &str) -> Query {
    Query::new(Pattern::text(text).unwrap())
}

fn regex(expression: &str) -> Query {
    Query::new(Pattern::regex(expression).unwrap())
}

#[tokio::test]
async fn text_is_found_newest_first_with_its_time() {
    let (catalogue, _folder) = catalogue(&[
        ("old-1", &[(0, 'o', "nothing\r\n"), (1500, 'o', "Permission denied\r\n")]),
        ("new-1", &[(83_000, 'o', "cat: x: permission denied\r\n"), (90_000, 'o', "\"50%\" äß\r\n")]),
    ])
    .await;
    let expected = ["new-1@83000 cat: x: permission denied", "old-1@1500 Permission denied"];
    assert_eq!(all(&catalogue, &text("PERMISSION DEN")).await, expected);
    assert_eq!(all(&catalogue, &regex("permission|äß")).await.len(), 3);
    assert_eq!(all(&catalogue, &regex(r"^cat: \w+: perm")).await, expected[..1]);
    assert_eq!(all(&catalogue, &text("\"50%\" ä")).await, ["new-1@90000 \"50%\" äß"]);
    assert_eq!(all(&catalogue, &text("ß")).await.len(), 1);
    assert_eq!(all(&catalogue, &text("absent")).await, Vec::<String>::new());
}

#[tokio::test]
async fn pages_give_every_hit_once() {
    let many: Vec<String> =
        (0..3000).map(|n| format!("line {n} of many more than a block holds\r\n")).collect();
    let events: Vec<(u64, char, &str)> =
        many.iter().enumerate().map(|(n, s)| (n as u64, 'o', s.as_str())).collect();
    let (catalogue, _folder) = catalogue(&[("a-1", &events), ("b-1", &events[..10])]).await;
    let (query, mut token, mut found) = (text("many more"), None, Vec::new());
    loop {
        let (hits, next) = page(&catalogue, &query, (97, token.as_deref())).await;
        found.extend(hits);
        let Some(next) = next else { break };
        token = Some(next);
    }
    assert_eq!(found.len(), 3010);
    assert_eq!(found[0], "b-1@9 line 9 of many more than a block holds");
    let different: std::collections::HashSet<&String> = found.iter().collect();
    assert_eq!(different.len(), found.len());
}

#[tokio::test]
async fn what_the_index_knows_nothing_of_is_looked_for_everywhere() {
    let many: Vec<String> =
        (0..9000).map(|n| format!("line {n} of many more than blocks hold\r\n")).collect();
    let mut events: Vec<(u64, char, &str)> = vec![(0, 'o', "zq\r\n")];
    events.extend(many.iter().enumerate().map(|(n, s)| (n as u64 + 1, 'o', s.as_str())));
    let (catalogue, _folder) = catalogue(&[("a-1", &events)]).await;
    for query in [text("zq"), text("ZQ"), regex("z.?q"), regex("[z]q$")] {
        assert_eq!(all(&catalogue, &query).await, ["a-1@0 zq"], "{query:?}");
    }
}

#[tokio::test]
async fn commands_are_searched_apart_and_say_how_they_are_known() {
    let events = [(0, 'o', "$ "), (100, 'o', "id -u"), (200, 'o', "\r\n1000 id -u\r\n$ ")];
    let (catalogue, _folder) = catalogue(&[("a-1", &events)]).await;
    let query = Query { commands: true, ..text("id") };
    let mut search = catalogue.search(query, None).unwrap();
    let found = search.next().await.unwrap().unwrap();
    let hits = search.hits(&found, 10).unwrap();
    let guess = Some(crate::transcript::Source::Guess);
    assert_eq!(hits, [Hit { time_ms: 200, text: "id -u".into(), source: guess }]);
    assert!(search.next().await.unwrap().is_none());
    assert_eq!(search.token(), None);
}

#[tokio::test]
async fn a_search_is_narrowed_by_who_where_and_when() {
    let line: &[(u64, char, &str)] = &[(0, 'o', "hello\r\n"), (5000, 'o', "bye\r\n")];
    let (catalogue, _folder) = catalogue(&[("a-1", line), ("b-1", line)]).await;
    let narrowed = |change: fn(&mut Query)| {
        let mut query = text("hello");
        change(&mut query);
        query
    };
    for (query, expected) in [
        (narrowed(|q| q.principal = Some("USER/A".into())), vec!["a-1@0 hello"]),
        (narrowed(|q| q.target = Some("i-0123456789abcdef0".into())), vec!["b-1@0 hello", "a-1@0 hello"]),
        (narrowed(|q| q.target = Some("i-other".into())), vec![]),
        (narrowed(|q| q.since_ms = Some(1_005_001)), vec!["b-1@0 hello"]),
        (narrowed(|q| q.until_ms = Some(2_000_000)), vec!["a-1@0 hello"]),
    ] {
        assert_eq!(all(&catalogue, &query).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn a_recording_is_in_it_once_or_not_at_all() {
    let (catalogue, folder) = catalogue(&[("a-1", &[(0, 'o', "first\r\n")])]).await;
    let (session, path) = record(folder.path(), "a-1", 5, &[(0, 'o', "second\r\n")]);
    catalogue.add(&session, &path).await.unwrap();
    assert_eq!(all(&catalogue, &text("first")).await.len(), 0);
    assert_eq!(all(&catalogue, &text("second")).await.len(), 1);
    assert_eq!(catalogue.known().await.unwrap().len(), 1);

    std::fs::write(&path, "no recording\n").unwrap();
    assert!(catalogue.add(&session, &path).await.is_err());
    assert_eq!(all(&catalogue, &text("second")).await.len(), 1, "the old entry stays");
    catalogue.remove(&session).await.unwrap();
    assert_eq!(all(&catalogue, &text("second")).await.len(), 0);
    assert!(catalogue.known().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_with_other_tables_is_made_anew() {
    let (catalogue, folder) = catalogue(&[("a-1", &[(0, 'o', "first\r\n")])]).await;
    sqlx::query("PRAGMA user_version = 99").execute(&catalogue.writer).await.unwrap();
    assert!(!catalogue.is_closed());
    catalogue.close().await;
    assert!(catalogue.is_closed());
    let again = Catalogue::open(&folder.path().join(FILE_NAME)).await.unwrap();
    assert!(again.known().await.unwrap().is_empty());
}

#[test]
fn what_cannot_be_searched_for_is_said() {
    for bad in ["(", "a*", "x{9999999}"] {
        assert!(Pattern::regex(bad).is_err(), "{bad}");
    }
    assert!(Pattern::text("").is_err());
    assert_eq!(Pattern::regex("(root|admin) logged in").unwrap().words().unwrap().matches("AND").count(), 7);
}

#[tokio::test]
async fn a_long_recording_is_opened_by_its_outline_as_by_a_pass_through_it() {
    use crate::replay::Scenes;

    let line = "x".repeat(40_000);
    let events: Vec<(u64, char, &str)> = (0..300).map(|n| (n * 50, 'o', line.as_str())).collect();
    let short: Events<'_> = &[(0, 'o', "short")];
    let (catalogue, folder) = catalogue(&[("long", &events), ("short", short)]).await;
    let id = |name| SessionId::parse(name).unwrap();
    let outline = catalogue.outline(&id("long")).await.unwrap().unwrap();
    assert!(catalogue.outline(&id("short")).await.unwrap().is_none(), "a pass finds that in a moment");

    let path = folder.path().join("long.cast");
    let (found, known) = (Scenes::of(&path).unwrap(), Scenes::with(&path, outline).unwrap());
    let starts = found.starts(None);
    assert!(starts.len() > 20, "{}", starts.len());
    assert_eq!(known.starts(None), starts);
    for index in [starts.len() - 1, 0, starts.len() / 2] {
        assert_eq!(known.scene(index, None).unwrap(), found.scene(index, None).unwrap());
    }
    catalogue.remove(&id("long")).await.unwrap();
    assert!(catalogue.outline(&id("long")).await.unwrap().is_none());
}
