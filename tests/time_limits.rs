//! Sessions end when policy says so, with a sentence.

use postern::asciicast::exact_output;

use crate::support::{BRIEF, House, QUIET, Recorded, Terminal};

/// What the recording says the gateway itself has said.
fn notices(recorded: &Recorded) -> Vec<String> {
    let own = exact_output(&recorded.events).filter(|event| event.sequence.is_none());
    own.map(|event| String::from_utf8(event.content.into_owned()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_at_its_longest_duration() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, BRIEF).await;
    assert_eq!(terminal.closed().await, "the session reached its longest duration of 2s");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "max_duration");
    let warning = "\r\n*** postern: this session ends in 1 second because it reaches its longest duration of 2 seconds ***\r\n";
    assert_eq!(notices(&recorded), [warning]);
    assert_eq!(terminal.text().matches(warning).count(), 1, "{}", terminal.text());
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
    let warning = notices(&recorded).concat();
    assert!(
        warning.ends_with("because nothing happened for 1 second; press a key to stay ***\r\n"),
        "{warning}"
    );
    assert!(terminal.text().ends_with(&warning), "{}", terminal.text());
    recorded.assert_once();
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
