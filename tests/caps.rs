//! Nobody takes all the places: those of the node, and those of one person.

use serde_json::json;

use crate::support::{DEV, House, Terminal, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_gets_so_many_sessions_and_another_still_gets_one() {
    let house = House::with(|config| config.sessions.per_principal = 2).await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let mut first = Terminal::shell(&alice, DEV).await;
    let _second = Terminal::shell(&alice, DEV).await;
    let told = alice.api("StartSession", &json!({"Target": DEV})).await.refused("ThrottlingException");
    assert!(told.contains("2 sessions open") && told.contains("postern sessions end"), "{told}");
    Terminal::shell(&bob, DEV).await;
    first.type_line("exit").await;
    first.closed().await;
    until("the end upstream", || house.local.live_sessions().len() == 2).await;
    crate::support::until_some("a place", || async {
        let answer = alice.api("StartSession", &json!({"Target": DEV, "Reason": "again"})).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_so_many_sessions_and_no_more() {
    let house = House::with(|config| config.sessions.maximum = 1).await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let _only = Terminal::shell(&alice, DEV).await;
    let told = bob.api("StartSession", &json!({"Target": DEV})).await.refused("ThrottlingException");
    assert!(told.contains("as many sessions as it may"), "{told}");
    assert_eq!(house.local.live_sessions().len(), 1);
}
