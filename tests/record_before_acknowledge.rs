//! Nothing is acknowledged to the agent before it is recorded.

use serde_json::json;

use crate::support::{DEV, DISK, House, REMOTE, Recorded, Terminal, spool_holds, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledge_at_the_agent_means_that_the_spool_has_it() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    let heard = || house.local.counts(&upstream).unwrap().acknowledges;
    until("the first acknowledges", || heard() == terminal.acknowledged.len() as u64).await;

    for round in 0..20 {
        let before = heard();
        terminal.keep_from = Some(terminal.expected());
        terminal.type_line(&format!("echo m''ark-{round}")).await;
        terminal.until(&format!("mark-{round}\r\n$ ")).await;
        assert_eq!(heard(), before, "the client has acknowledged nothing yet");
        let owed = terminal.kept_back.len() as u64;
        terminal.release_all().await;
        until("the acknowledges", || heard() == before + owed).await;
        assert!(spool_holds(&house, &terminal.session, &format!("mark-{round}")));
    }
    assert_eq!(house.local.counts(&upstream).unwrap().stray_acknowledges, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_stores_elsewhere_does_not_begin() {
    let house = House::start().await;
    let alice = house.alice().await;
    let asked = json!({"Target": REMOTE});
    let told = alice.api("StartSession", &asked).await.refused("AccessDeniedException");
    assert!(told.contains("@record(\"remote\"), but this gateway ships recordings nowhere"), "{told}");
    until("no session upstream", || house.local.live_sessions().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_the_session_in_words_and_starts_no_other() {
    for target in [DEV, DISK] {
        full_disk(target).await;
    }
}

async fn full_disk(target: &str) {
    let house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, target).await;
    let upstream = alice.upstream(&terminal.session).await;
    let heard = || house.local.counts(&upstream).unwrap().acknowledges;
    until("the first acknowledges", || heard() == terminal.acknowledged.len() as u64).await;
    let before = heard();

    let gateway = house.apart.as_ref().unwrap();
    gateway.fill_disk(true);
    terminal.type_line("echo un''recorded").await;
    let told = terminal.closed().await;
    assert!(told.starts_with("the session ended because it can no longer be recorded"), "{told}");
    assert!(!terminal.acknowledged.is_empty());
    assert_eq!(heard(), before, "something was acknowledged that is not recorded");
    until("the end upstream", || house.local.live_sessions().is_empty()).await;

    let asked = json!({"Target": DEV});
    let told = alice.api("StartSession", &asked).await.refused("ServiceUnavailableException");
    assert!(told.starts_with("this gateway takes no sessions now"), "{told}");
    assert_eq!(house.admin("/readyz").await.0, 503);
    assert_eq!(house.admin("/healthz").await.0, 200);

    gateway.fill_disk(false);
    crate::support::until_some("readiness", || async {
        (house.admin("/readyz").await.0 == 200).then_some(())
    })
    .await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    Recorded::of(&house, &terminal.session).await;
    assert!(!gateway.said("panicked"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_death_of_the_gateway() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line("seq 1 30000").await;
    while terminal.output.len() < 100_000 {
        terminal.next().await;
    }
    house.apart.take().unwrap().kill();
    let acknowledged = house.local.counts(&upstream).unwrap().acknowledges;
    // Without its row nobody goes on with the session: the recording is all there is.
    std::fs::remove_file(house.folder.path().join("state/postern.db")).unwrap();
    house.again().await;

    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(recorded.evidence.end.recovered);
    recorded.assert_once();
    assert!(recorded.sequences().len() as u64 >= acknowledged, "{acknowledged} were acknowledged");
    assert!(house.local.sent(&upstream).starts_with(&recorded.bytes()));
    assert!(house.alice().await.resume(&terminal.session).await.is_none());
}
