//! Clients that stall cost a bounded amount, and may recover.

use crate::support::{DEV, House, Recorded, Terminal, until_some};

/// Unacknowledged output that the gateway holds for one client, and some
/// more for what is in its buffers.
const HELD_MESSAGES: i64 = 8192 + 256;
const ENDLESS: &str = "yes 0123456789012345678901234567890123456789012345678901234567890123456789";

/// Waits until the relayed bytes stop growing; how many there are.
async fn standstill(house: &House) -> f64 {
    let bytes = "postern_relay_bytes_total{direction=\"output\"}";
    let mut last = (0.0, 0);
    until_some("a standstill", || async {
        let now = house.metric(bytes).await;
        Some(now)
    })
    .await;
    loop {
        let now = within_a_moment(house, bytes).await;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        if last.1 == 100 && now > 1_000_000.0 {
            return now;
        }
        assert!(now < 64_000_000.0, "the gateway takes everything in");
    }
}

async fn within_a_moment(house: &House, series: &str) -> f64 {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    house.metric(series).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_acknowledges_nothing_gets_a_bounded_amount() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.keep_from = Some(terminal.expected());
    terminal.type_line(ENDLESS).await;
    let still = {
        let reading = async {
            loop {
                terminal.next().await;
            }
        };
        tokio::select! { still = standstill(&house) => still, () = reading => unreachable!() }
    };
    assert!(terminal.expected() <= HELD_MESSAGES, "{} messages", terminal.expected());
    assert!(still <= 10_000_000.0, "{still} bytes");
    assert_eq!(house.local.counts(&upstream).unwrap().connections, 1, "upstream was dialled again");

    terminal.release_all().await;
    terminal.send(data_channel::PayloadType::Output, b"\x03").await;
    terminal.until("^C").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    recorded.assert_once();
    assert!(recorded.bytes() == house.local.sent(&upstream));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_of_a_flood_costs_little_memory() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    let gateway = house.apart.as_ref().unwrap();
    let before = gateway.memory_peak();
    terminal.type_line(ENDLESS).await;
    standstill(&house).await;
    let grown = gateway.memory_peak() - before;
    assert!(grown < 40 << 20, "the gateway grew by {grown} bytes");

    terminal.send(data_channel::PayloadType::Output, b"\x03").await;
    terminal.until("^C").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    assert!(terminal.output == house.local.sent(&upstream), "the terminal got other bytes than were sent");
    Recorded::of(&house, &terminal.session).await.assert_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_let_go_and_may_come_back() {
    let house = House::with(|config| config.sessions.ping_seconds = 1).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line(ENDLESS).await;
    terminal.delivered().await;
    let half_open = terminal.abandon();

    until_some("the gateway's notice", || async {
        let session = alice.session(&terminal.session).await;
        (session["state"] == "Disconnected").then_some(())
    })
    .await;
    assert!(standstill(&house).await <= 10_000_000.0);
    assert_eq!(house.metric("postern_sessions{state=\"disconnected\"}").await, 1.0);
    drop(half_open);

    terminal.resume(&alice).await;
    terminal.send(data_channel::PayloadType::Output, b"\x03").await;
    terminal.until("^C").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    assert!(terminal.output == house.local.sent(&upstream));
}
