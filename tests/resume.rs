//! ResumeSession never fails: a client would hang for ever on an error.

use serde_json::json;

use crate::support::{DEV, House, Person, Recorded, Terminal};

/// What a client gets for a session that it cannot come back to.
async fn resumes_to_nothing(person: &Person, session: &str) {
    let answer = person.api("ResumeSession", &json!({"SessionId": session})).await;
    assert_eq!(answer.ok(), json!({"SessionId": session}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_session_resumes_to_nothing() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    Recorded::of(&house, &terminal.session).await;
    resumes_to_nothing(&alice, &terminal.session).await;
    resumes_to_nothing(&alice, "alice-neverwasthere").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_session_resumes_to_nothing() {
    let house = House::start().await;
    let (alice, bob, carol) = (house.alice().await, house.sign_in("bob").await, house.sign_in("carol").await);
    let terminal = Terminal::shell(&alice, DEV).await;
    resumes_to_nothing(&bob, &terminal.session).await;
    // She may end and replay it, but not sit down at it.
    resumes_to_nothing(&carol, &terminal.session).await;
    assert!(alice.resume(&terminal.session).await.is_some());
}
