//! Watching a session that runs, by its recording.

use postern::recorder::is_sealed;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{Call, DEV, House, Person, Terminal, auditors_administer, until, within};

fn path(terminal: &Terminal) -> String {
    format!("/v1/sessions/{}/recording?follow=true", terminal.session)
}

/// Somebody who has asked, and reads nothing yet.
async fn asked(person: &Person, path: &str) -> TlsStream<TcpStream> {
    let call = person.sign(Call::get(path));
    let mut stream = person.door.connect().await;
    stream.write_all(&call.bytes(&person.door)).await.unwrap();
    stream
}

/// A follower that has its place, or was refused: the answer's first bytes.
async fn begin(person: &Person, path: &str) -> (TlsStream<TcpStream>, String) {
    let mut stream = asked(person, path).await;
    let mut first = vec![0; 4096];
    let read = within("the first bytes", stream.read(&mut first)).await.unwrap();
    (stream, String::from_utf8_lossy(&first[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_every_line_to_the_end_of_the_session() {
    let house = House::start().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo be''fore").await;
    terminal.until("before\r\n$ ").await;
    let call = carol.sign(Call::get(&format!("/v1/sessions/{}/recording?follow=true", terminal.session)));
    let door = house.door.clone();
    let followed = tokio::spawn(async move { call.send(&door).await });

    terminal.type_line("echo af''ter").await;
    terminal.until("after\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let answer = within("the end of the lines", followed).await.unwrap();
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.contains("\"version\":2"), "{text}");
    let output: String = text
        .lines()
        .filter_map(|line| serde_json::from_str::<(f64, String, String)>(line).ok())
        .filter_map(|(_, code, data)| (code == "o").then_some(data))
        .collect();
    assert_eq!(output.as_bytes(), terminal.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_watch_follows_nothing() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let terminal = Terminal::shell(&alice, DEV).await;
    let path = format!("/v1/sessions/{}/recording?follow=true", terminal.session);
    bob.call(Call::get(&path)).await.refused("AccessDeniedException");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_cannot_take_all_places_of_the_watchers() {
    let house = House::start().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let terminal = Terminal::shell(&alice, DEV).await;
    let mut places = Vec::new();
    for _ in 0..12 {
        let (stream, first) = begin(&alice, &path(&terminal)).await;
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        places.push(stream);
    }
    let (_, refused) = begin(&alice, &path(&terminal)).await;
    assert!(refused.contains("ThrottlingException"), "{refused}");
    let (_carols, first) = begin(&carol, &path(&terminal)).await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_who_is_revoked_gets_nothing_more() {
    let house = House::with(auditors_administer).await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    // The session is alice's and goes on: only who watches it is shut out.
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let (mut stream, first) = begin(&carol, &path(&terminal)).await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let role = json!({"what": "role", "which": "Auditor"});
    carol.call(Call::post("/v1/revocations", &role)).await.ok();
    terminal.type_line("echo af''ter").await;
    terminal.until("after\r\n$ ").await;
    let mut rest = Vec::new();
    let _ = within("the end of the lines", stream.read_to_end(&mut rest)).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("after"), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_what_cannot_be_read_is_not_told_that_it_ended() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo be''fore").await;
    terminal.until("before\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let file = house.spool.join(format!("{}.cast.zst", terminal.session));
    until("the seal", || is_sealed(&file).unwrap_or(false)).await;
    let follow = async || {
        let (mut stream, mut all) = (asked(&alice, &path(&terminal)).await, Vec::new());
        // It breaks off, and TLS may say so.
        let _ = within("the end of the answer", stream.read_to_end(&mut all)).await;
        all
    };
    let has_end = |all: &[u8]| all.starts_with(b"HTTP/1.1 200") && all.ends_with(b"\r\n0\r\n\r\n");
    assert!(has_end(&follow().await), "a whole recording has an end");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 0xff;
    std::fs::write(&file, bytes).unwrap();
    // What is wrong may be found before the answer has begun: then there is none.
    let all = follow().await;
    let is_answer = all.is_empty() || all.starts_with(b"HTTP/1.1 200");
    assert!(is_answer && !has_end(&all), "{}", String::from_utf8_lossy(&all));
}
