//! A shell from StartSession to its sealed recording.

use data_channel::PayloadType;
use postern::asciicast::EventCode;
use serde_json::json;

use crate::support::{DEV, House, Recorded, Terminal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_is_recorded_as_the_agent_sent_it() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;

    terminal.resize(132, 43).await;
    terminal.type_line("printf 'caf\\303\\251 \\377\\376 \\033[1m%s\\n' d''one; stty size").await;
    terminal.until("43 132").await;
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");

    let recorded = Recorded::of(&house, &terminal.session).await;
    let sent = house.local.sent(&upstream);
    assert_eq!(terminal.output, sent);
    assert_eq!(recorded.bytes(), sent);
    recorded.assert_once();
    assert_eq!(recorded.of_kind(EventCode::Resize), ["132x43"]);
    assert_eq!(recorded.evidence.session, terminal.session);
    assert_eq!(recorded.evidence.end.reason, "target_closed");
    assert!(!recorded.evidence.end.recovered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_on_a_terminal_and_ends_with_it() {
    let house = House::start().await;
    let alice = house.alice().await;
    let ticket = alice.start_command(DEV, "printf one; sleep 0; printf two").await;
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    assert_eq!(terminal.closed().await, "");
    assert_eq!(terminal.text(), "onetwo");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.bytes(), b"onetwo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_a_terminal_tells_its_exit_code() {
    let house = House::start().await;
    let alice = house.alice().await;
    let asked = json!({
        "Target": DEV, "DocumentName": "AWS-StartNonInteractiveCommand",
        "Parameters": {"command": ["sh -c 'echo out; echo err >&2; exit 7'"]},
    });
    let ticket = alice.start_as(&asked).await;
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    assert_eq!(terminal.closed().await, "");
    let of = |wanted| {
        terminal.others.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, data)| data.clone())
    };
    assert_eq!(terminal.output, b"out\n");
    assert_eq!(of(PayloadType::StdErr).collect::<Vec<_>>().concat(), b"err\n");
    assert_eq!(of(PayloadType::ExitCode).collect::<Vec<_>>().concat(), b"EXIT_CODE: 7");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.of_kind(EventCode::Exit), ["7"]);
    recorded.assert_once();
}
