//! Watching a session that runs, by its recording.

use crate::support::{Call, DEV, House, Terminal, within};

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
