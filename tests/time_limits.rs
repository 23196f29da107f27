//! Sessions end when policy says so, with a sentence.

use crate::support::{BRIEF, House, QUIET, Recorded, Terminal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_at_its_longest_duration() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, BRIEF).await;
    assert_eq!(terminal.closed().await, "the session reached its longest duration of 2s");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "max_duration");
    assert!(alice.resume(&terminal.session).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_which_nothing_happens_ends() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, QUIET).await;
    assert_eq!(terminal.closed().await, "nothing happened in the session for 1s");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "idle_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_nobody_comes_to_ends() {
    let house = House::with(|config| {
        config.sessions.first_client_seconds = 1;
        config.sessions.client_away_seconds = 1;
    })
    .await;
    let alice = house.alice().await;
    let ticket = alice.start(crate::support::DEV).await;
    let recorded = Recorded::of(&house, &ticket.session).await;
    assert_eq!(recorded.evidence.end.reason, "client_away");
    let mut terminal = Terminal::shell(&alice, crate::support::DEV).await;
    terminal.cut();
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "client_away");
    crate::support::until("the end upstream", || house.local.live_sessions().is_empty()).await;
}
