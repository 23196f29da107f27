//! The gateway is killed or stopped; its sessions go on with the next start.

use postern::asciicast::EventCode;

use serde_json::json;

use crate::support::{DEV, DISK, FakeLogs, GROUP, Heard, House, PROD, REMOTE, Recorded, Terminal, until};

/// Lines of the burst, about 2.7 MB.
const LINES: usize = 400_000;

/// How a process ends.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Kill,
    Terminate,
}

async fn restart(house: &mut House, stop: Stop) {
    let gateway = house.apart.take().unwrap();
    match stop {
        Stop::Kill => gateway.kill(),
        Stop::Terminate => assert_eq!(gateway.terminate().await, Some(0)),
    }
    house.again().await;
}

/// Reads so much output.
async fn read(terminal: &mut Terminal, bytes: usize) {
    while terminal.output.len() < bytes {
        let heard = terminal.next().await;
        assert!(matches!(heard, Heard::Output | Heard::Acknowledge), "{heard:?}");
    }
}

/// What reached client, agent and recording are the same bytes, each once.
async fn assert_exact(house: &House, terminal: &mut Terminal, upstream: &str) -> Recorded {
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");
    let sent = house.local.sent(upstream);
    assert!(terminal.output == sent, "the terminal got other bytes than the agent sent");
    let recorded = Recorded::of(house, &terminal.session).await;
    assert!(recorded.bytes() == sent, "the recording has other bytes than the agent sent");
    recorded.assert_once();
    assert_eq!(recorded.evidence.end.missing_bytes, 0);
    assert_eq!(recorded.evidence.end.reason, "target_closed");
    recorded
}

async fn burst(target: &str, stop: Stop, silent: bool, drained: bool) {
    burst_in(House::apart().await, target, stop, silent, drained).await;
}

async fn burst_in(mut house: House, target: &str, stop: Stop, silent: bool, drained: bool) {
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, target).await;
    terminal.silent_on_repeats = silent;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line(&format!("seq 1 {LINES}")).await;
    for round in 1..=3_usize {
        // A moment that nobody chose.
        let more = usize::from(data_channel::Uuid::new_v4().as_bytes()[0]) * 512;
        read(&mut terminal, round * 500_000 + more).await;
        let gateway = house.apart.take().unwrap();
        match (stop, drained) {
            (Stop::Kill, false) => gateway.kill(),
            (Stop::Kill, true) => {
                gateway.kill();
                // What was on its way to the client still arrives there.
                terminal.gone().await;
            }
            (Stop::Terminate, _) => {
                let (code, _) = tokio::join!(gateway.terminate(), terminal.gone());
                assert_eq!(code, Some(0));
            }
        }
        house.again().await;
        terminal.resume(&alice).await;
    }
    terminal.until(&format!("{LINES}\r\n$ ")).await;
    let recorded = assert_exact(&house, &mut terminal, &upstream).await;
    let marks = recorded.of_kind(EventCode::Marker);
    assert_eq!(marks.iter().filter(|mark| mark.starts_with("gateway restarted")).count(), 3, "{marks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_survives_kills_of_the_gateway() {
    burst(DEV, Stop::Kill, false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_that_is_stored_elsewhere_survives_kills_of_the_gateway() {
    let logs = FakeLogs::start().await;
    logs.make_group(GROUP);
    let (house, url) = (|_: &mut _| {}, logs.url.clone());
    let house = House::apart_with(house, |config| {
        config.shipper.log_group = GROUP.to_owned();
        config.shipper.endpoint_url = Some(url);
    })
    .await;
    burst_in(house, REMOTE, Stop::Kill, false, false).await;
    logs.assert_kept_to_quotas();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_that_is_recorded_on_disk_survives_kills_of_the_gateway() {
    burst(DISK, Stop::Kill, false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_ignores_repeats_survives_kills_of_the_gateway() {
    burst(DEV, Stop::Kill, true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_survives_stops_of_the_gateway() {
    burst(DEV, Stop::Terminate, true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_shell_goes_on_for_each_of_two_people() {
    for stop in [Stop::Kill, Stop::Terminate] {
        let mut house = House::apart().await;
        let people = [house.alice().await, house.sign_in("bob").await];
        let mut shells = Vec::new();
        for person in &people {
            let mut shell = Terminal::shell(person, DEV).await;
            shell.silent_on_repeats = true;
            shell.type_line("kept=$((20+1))").await;
            shell.until("20+1))\r\n$ ").await;
            let upstream = person.upstream(&shell.session).await;
            shells.push((shell, upstream));
        }
        restart(&mut house, stop).await;
        for ((shell, upstream), person) in shells.iter_mut().zip(&people) {
            shell.resume(person).await;
            shell.type_line("echo still-$kept").await;
            shell.until("still-21\r\n$ ").await;
            assert_exact(&house, shell, upstream).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_around_a_restart_is_recorded_once() {
    let told = typed_around_restarts(PROD).await;
    assert_eq!(told.matches("Production. This session is recorded.").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_is_on_disk_once_whatever_restarts() {
    typed_around_restarts(DISK).await;
}

/// Types lines into kills and stops; gives what the terminal showed.
async fn typed_around_restarts(target: &str) -> String {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let ticket = alice.start_as(&json!({"Target": target, "Reason": "a look"})).await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.until("$ ").await;
    for round in 0..4 {
        terminal.type_line(&format!("echo r''ound-{round}")).await;
        // The line is on its way, and nobody knows how far it came.
        let stop = if round % 2 == 0 { Stop::Kill } else { Stop::Terminate };
        restart(&mut house, stop).await;
        terminal.resume(&alice).await;
        terminal.until(&format!("round-{round}\r\n$ ")).await;
    }
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(String::from_utf8_lossy(&recorded.bytes()), terminal.text());
    assert!(terminal.output.ends_with(&house.local.sent(&upstream)));
    let typed = recorded.of_kind(EventCode::Input).concat();
    let expected: String = (0..4).map(|round| format!("echo r''ound-{round}\r")).collect();
    assert_eq!(typed, expected + "exit\r");
    terminal.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ended_meanwhile_is_told_to_its_client_and_sealed() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line("echo la''st words").await;
    terminal.until("last words\r\n$ ").await;
    house.apart.take().unwrap().kill();
    assert!(house.local.terminate(&upstream));
    until("the end upstream", || house.local.live_sessions().is_empty()).await;
    house.again().await;
    terminal.resume(&alice).await;
    // Nobody knows how it ended, so nobody is told that all was well.
    let told = terminal.closed().await;
    assert!(told.contains("how it ended is not known"), "{told}");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "upstream_over");
    recorded.assert_once();
    // What was not recorded yet is gone with it; what was, the client has too.
    assert!(house.local.sent(&upstream).starts_with(&recorded.bytes()));
    assert!(terminal.output.starts_with(&recorded.bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_that_exits_while_the_gateway_is_away_says_its_last_words() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line("sleep 0.3; echo la''st words; exit").await;
    terminal.delivered().await;
    house.apart.take().unwrap().kill();
    let said = || house.local.sent(&upstream).windows(4).any(|window| window == b"last");
    until("the last words", said).await;
    house.again().await;
    terminal.resume(&alice).await;
    assert_eq!(terminal.closed().await, "");
    assert_eq!(terminal.output, house.local.sent(&upstream));
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.bytes(), terminal.output);
    recorded.assert_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_policy_forbids_meanwhile_is_ended_in_words() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let gateway = house.apart.take().unwrap();
    gateway.kill();
    let forbid = r#"@id("no-more") @message("dev is closed today")
        forbid (principal, action in Postern::Action::"startSession", resource is Postern::Instance)
        when { resource.hasTag("env") && resource.getTag("env") == "dev" };"#;
    std::fs::write(house.folder.path().join("policies/new.cedar"), forbid).unwrap();
    house.again().await;
    until("the end upstream", || house.local.live_sessions().is_empty()).await;
    terminal.resume(&alice).await;
    let told = terminal.closed().await;
    assert!(told.contains("dev is closed today") && told.contains("no-more"), "{told}");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "policy");
    assert_eq!(house.metric("postern_sessions_adopted_total{result=\"denied\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_was_never_there_still_gets_in() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let ticket = alice.start(DEV).await;
    let upstream = alice.upstream(&ticket.session).await;
    until("the prompt", || !house.local.sent(&upstream).is_empty()).await;
    restart(&mut house, Stop::Kill).await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    terminal.until("$ ").await;
    assert_exact(&house, &mut terminal, &upstream).await;
}
