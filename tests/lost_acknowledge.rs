//! An acknowledge that a client loses does not jam its session.

use crate::support::{DEV, House, Recorded, Terminal, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledge_that_the_client_lost_is_made_good() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    for settling in 0..4 {
        terminal.type_line(&format!("echo s''ettling-{settling}")).await;
        terminal.until(&format!("settling-{settling}\r\n$ ")).await;
    }
    let lost = terminal.expected();
    terminal.keep.insert(lost);
    terminal.type_line("echo lo''st").await;
    terminal.until("lost\r\n$ ").await;

    // The agent repeats it, and the gateway lets the client try again.
    while terminal.arrivals[&lost] < 2 {
        terminal.next().await;
    }
    terminal.type_line("echo la''ter").await;
    terminal.until("later\r\n$ ").await;
    let owed = terminal.acknowledged.len() as u64 + 1;
    until("the repaired acknowledge", || house.local.counts(&upstream).unwrap().acknowledges == owed).await;

    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    recorded.assert_once();
    assert_eq!(recorded.bytes(), house.local.sent(&upstream));
}
