//! Open connections are counted until they are really closed.

use crate::support::{DEV, House, Terminal, until_some};

const OPEN: &str = "postern_connections";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_counts_as_a_connection_for_as_long_as_it_is_open() {
    let house = House::start().await;
    let alice = house.alice().await;
    let reaches = |count: f64| {
        let house = &house;
        async move {
            until_some("the count", || async { (house.metric(OPEN).await == count).then_some(()) }).await;
        }
    };
    reaches(0.0).await;
    let mut first = Terminal::shell(&alice, DEV).await;
    let mut second = Terminal::shell(&alice, DEV).await;
    reaches(2.0).await;
    first.cut();
    reaches(1.0).await;
    first.resume(&alice).await;
    first.type_line("echo b''ack").await;
    first.until("back").await;
    reaches(2.0).await;
    for terminal in [&mut first, &mut second] {
        terminal.type_line("exit").await;
        terminal.closed().await;
    }
    reaches(0.0).await;
}
