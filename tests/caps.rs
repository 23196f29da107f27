//! Nobody takes all the places: those of the node, and those of one person.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{DEV, House, Terminal, until, within};

/// A connection from one of loopback's addresses.
async fn dial(house: &House, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    within("a connection", socket.connect(house.door.address)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_gets_so_many_connections_and_another_still_gets_one() {
    let house = House::with(|config| config.listen.connections_per_source = 2).await;
    let (first, _second) = (dial(&house, "127.0.0.2").await, dial(&house, "127.0.0.2").await);
    let mut third = dial(&house, "127.0.0.2").await;
    // No hello comes back: it is closed before TLS.
    let _ = third.write_all(b"hello").await;
    let read = within("the hang-up", third.read(&mut [0; 16])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    // Everybody else comes from 127.0.0.1, and the two are still there.
    house.alice().await;
    // What Alice signed in by is closed, and counted until the gateway has noticed.
    crate::support::until_some("the two alone", || async {
        (house.metric("postern_connections").await == 2.0).then_some(())
    })
    .await;
    drop(first);
    crate::support::until_some("the place to be free", || async {
        (house.metric("postern_connections").await < 2.0).then_some(())
    })
    .await;
}

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
