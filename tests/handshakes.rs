//! Sessions that begin with a handshake, with clients slow to be ready.

use serde_json::json;

use crate::support::{DEV, Heard, House, Recorded, Terminal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_right_behind_the_handshake_is_there_when_the_client_is_ready() {
    let house = House::start().await;
    let alice = house.alice().await;
    let asked = json!({
        "Target": DEV, "DocumentName": "AWS-StartNonInteractiveCommand",
        "Parameters": {"command": ["seq 1 3000"]},
    });
    let ticket = alice.start_as(&asked).await;
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    // A stock client drops what comes before its handler is there, and what it drops is the agent's to repeat.
    terminal.unready = 3;
    terminal.until("3000\n").await;
    assert_eq!(terminal.unready, 0);
    let told = loop {
        match terminal.next().await {
            Heard::Closed(text) => break text,
            Heard::Output | Heard::Acknowledge => {}
            gone @ Heard::Gone(_) => panic!("{gone:?}"),
        }
    };
    assert_eq!(told, "");
    let lines: Vec<String> = (1..=3000).map(|line| line.to_string()).collect();
    let printed: Vec<&str> = std::str::from_utf8(&terminal.output).unwrap().lines().collect();
    assert_eq!(printed, lines);
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.bytes(), terminal.output);
    recorded.assert_once();
}
