//! The connection to AWS breaks in the middle; nobody notices.

use crate::support::{DEV, Heard, House, Recorded, Terminal};

/// Lines of the burst, about 2.7 MB.
const LINES: usize = 400_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_survives_cuts_and_byes_of_the_upstream_connection() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;

    terminal.type_line(&format!("seq 1 {LINES}")).await;
    for round in 1..=4_usize {
        while terminal.output.len() < round * 400_000 {
            assert!(matches!(terminal.next().await, Heard::Output(_) | Heard::Acknowledge(_)));
        }
        let broken = match round % 2 {
            0 => house.local.close_with_bye(&upstream).await,
            _ => house.local.drop_connections(&upstream).await,
        };
        assert!(broken, "round {round} had nothing to break");
    }
    terminal.until(&format!("{LINES}\r\n$ ")).await;
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");

    assert_eq!(house.local.counts(&upstream).unwrap().connections, 5);
    let sent = house.local.sent(&upstream);
    assert!(terminal.output == sent, "the terminal got other bytes than the agent sent");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(recorded.bytes() == sent, "the recording has other bytes than the agent sent");
    recorded.assert_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_while_upstream_is_away_arrives_once() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    for round in 0..10 {
        house.local.drop_connections(&upstream).await;
        terminal.type_line(&format!("echo r''ound-{round}")).await;
        terminal.until(&format!("round-{round}\r\n")).await;
        assert_eq!(terminal.text().matches(&format!("\nround-{round}\r\n")).count(), 1);
    }
}
