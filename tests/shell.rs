//! A shell from StartSession to its sealed recording.

use postern::asciicast::EventCode;

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
