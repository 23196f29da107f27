//! Every end of a session reaches its user as a sentence.

use serde_json::json;

use crate::support::{Call, DEV, House, Recorded, Terminal, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_ends_a_session_without_a_word() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let answer = alice.api("TerminateSession", &json!({"SessionId": terminal.session})).await.ok();
    assert_eq!(answer["SessionId"], terminal.session.as_str());
    assert_eq!(terminal.closed().await, "");
    until("the end upstream", || house.local.live_sessions().is_empty()).await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "terminated");
    alice.api("TerminateSession", &json!({"SessionId": terminal.session})).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_ends_a_session_and_the_user_reads_why() {
    let house = House::start().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let path = format!("/v1/sessions/{}/end", terminal.session);
    carol.call(Call::post(&path, &json!({"reason": "not \u{1b}[31mnow"}))).await.ok();
    let told = terminal.closed().await;
    assert_eq!(told, "ended by carol: not [31mnow");
    Recorded::of(&house, &terminal.session).await;
    let record = carol.session(&terminal.session).await;
    assert_eq!(record["end_reason"], told);
    assert_eq!(record["state"], "Terminated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_cannot_end_a_session_nor_learn_of_it() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let id = json!({"SessionId": terminal.session});
    bob.api("TerminateSession", &id).await.refused("AccessDeniedException");
    let path = format!("/v1/sessions/{}", terminal.session);
    bob.call(Call::get(&path)).await.refused("DoesNotExistException");
    bob.call(Call::get(&format!("{path}/recording"))).await.refused("AccessDeniedException");
    let listed = bob.call(Call::get("/v1/sessions")).await.ok();
    assert_eq!(listed["sessions"], json!([]));
    terminal.type_line("echo a''live").await;
    terminal.until("alive").await;
}
