//! A client that loses its connection comes back and has missed nothing.

use crate::support::{DEV, Heard, House, Recorded, Terminal, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_gets_every_message_once() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    let agent_heard = || house.local.counts(&upstream).unwrap().acknowledges;

    terminal.type_line("echo be''fore").await;
    terminal.until("before\r\n$ ").await;
    until("every acknowledge at the agent", || agent_heard() == terminal.acknowledged.len() as u64).await;
    let settled = terminal.acknowledged.clone();

    terminal.cut();
    terminal.resume(&alice).await;
    terminal.type_line("seq 1 20000").await;
    while terminal.output.len() < 40_000 {
        assert!(matches!(terminal.next().await, Heard::Output(_) | Heard::Acknowledge(_)));
    }
    terminal.cut();
    terminal.resume(&alice).await;
    terminal.until("20000\r\n$ ").await;
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");

    let sent = house.local.sent(&upstream);
    assert_eq!(terminal.output, sent);
    let again: Vec<_> = settled.iter().filter(|number| terminal.arrivals[number] > 1).collect();
    assert!(again.is_empty(), "acknowledged, and sent again: {again:?}");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.bytes(), sent);
    recorded.assert_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_while_the_client_is_away_is_kept_for_it() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line("read -r _; seq 1 5000; echo a''ll").await;
    terminal.type_line("go").await;
    terminal.delivered().await;
    terminal.cut();
    until("the output", || house.local.sent(&upstream).windows(3).any(|window| window == b"all")).await;

    terminal.resume(&alice).await;
    terminal.until("all\r\n$ ").await;
    assert_eq!(terminal.output, house.local.sent(&upstream));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_of_the_same_client_replaces_the_first() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let first = terminal.abandon();
    terminal.resume(&alice).await;
    terminal.type_line("echo still h''ere").await;
    terminal.until("still here").await;
    drop(first);
    terminal.type_line("echo and h''ere").await;
    terminal.until("and here").await;
}
