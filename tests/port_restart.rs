//! The gateway is killed or stopped; connections of port sessions go on.

use std::collections::BTreeMap;

use data_channel::smux::{self, Command};
use postern::asciicast::{EventCode, FlowEvent, Mode, Side};
use serde_json::json;

use crate::support::{DEV, House, Person, Recorded, Tunnel, echo};

const FIRST: u32 = 3;
/// What each connection carries up, and down again, bytes.
const LENGTH: usize = 1_500_000;
/// Restarts in the middle of it.
const RESTARTS: usize = 3;

/// How a process ends.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Kill,
    Terminate,
}

async fn restart(house: &mut House, alice: &Person, tunnel: &mut Tunnel, stop: Stop) {
    let gateway = house.apart.take().unwrap();
    match stop {
        Stop::Kill => gateway.kill(),
        Stop::Terminate => {
            let (code, _) = tokio::join!(gateway.terminate(), tunnel.terminal.gone());
            assert_eq!(code, Some(0));
        }
    }
    house.again().await;
    tunnel.terminal.resume(alice).await;
}

fn body(salt: u32) -> Vec<u8> {
    (0..LENGTH as u32).map(|number| (number.wrapping_mul(salt) >> 7) as u8).collect()
}

fn flows(recorded: &Recorded) -> Vec<FlowEvent> {
    recorded.events.iter().filter_map(FlowEvent::of).map(Result::unwrap).collect()
}

/// Ends the session and checks that its record has every connection once.
async fn assert_whole(house: &House, alice: &Person, session: &str, carried: &[u64]) -> Recorded {
    alice.api("TerminateSession", &json!({"SessionId": session})).await.ok();
    let recorded = Recorded::of(house, session).await;
    assert_eq!(recorded.evidence.end.missing_bytes, 0);
    assert_eq!(recorded.evidence.end.reason, "terminated");
    let (mut opened, mut closed, mut counts) = (Vec::new(), Vec::new(), BTreeMap::new());
    for event in flows(&recorded) {
        match event {
            FlowEvent::Open { connection } => opened.push(connection),
            FlowEvent::Bytes { connection, up, down } => drop(counts.insert(connection, (up, down))),
            FlowEvent::Close { connection, up, down, .. } => {
                closed.push(connection);
                counts.insert(connection, (up, down));
            }
            _ => {}
        }
    }
    closed.sort_unstable();
    let numbers: Vec<u64> = (1..=carried.len() as u64).collect();
    assert_eq!((&opened, &closed), (&numbers, &numbers));
    let expected = numbers.into_iter().zip(carried.iter().map(|bytes| (*bytes, *bytes)));
    assert_eq!(counts, expected.collect());
    let marks = recorded.of_kind(EventCode::Marker);
    assert_eq!(marks.iter().filter(|mark| mark.starts_with("gateway restarted")).count(), RESTARTS);
    recorded
}

/// Two connections carry something both ways while the gateway ends thrice.
async fn transfer(stop: Stop, silent: bool) {
    let (mut house, server) = (House::apart().await, echo().await);
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    tunnel.terminal.silent_on_repeats = silent;
    let session = tunnel.terminal.session.clone();
    let bodies = [(FIRST, body(2_654_435_761)), (FIRST + 2, body(40_503))];
    let mut frames = Vec::new();
    for (stream, _) in &bodies {
        smux::encode(Command::Open, *stream, &mut frames);
    }
    for at in (0..LENGTH).step_by(10_000) {
        for (stream, body) in &bodies {
            smux::encode_data(*stream, &body[at..at + 10_000], &mut frames);
        }
    }
    for part in frames.chunks(frames.len() / (RESTARTS + 1) + 1) {
        if part.as_ptr() != frames.as_ptr() {
            restart(&mut house, &alice, &mut tunnel, stop).await;
        }
        tunnel.terminal.paste(part).await;
    }
    for (stream, body) in &bodies {
        tunnel.until(*stream, body).await;
    }
    let shown = alice.session(&session).await;
    assert_eq!((shown["connections"].as_u64(), shown["connections_open"].as_u64()), (Some(2), Some(2)));
    assert!(house.metric("postern_flows").await >= 2.0);
    for (stream, _) in &bodies {
        tunnel.say(Command::Close, *stream).await;
        tunnel.until_ended(*stream).await;
    }
    let recorded = assert_whole(&house, &alice, &session, &[LENGTH as u64; 2]).await;
    assert!(matches!(flows(&recorded)[0], FlowEvent::Handshake { mode: Mode::Multiplexed, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_survive_kills_of_the_gateway() {
    transfer(Stop::Kill, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_survive_stops_of_the_gateway() {
    transfer(Stop::Terminate, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_acknowledges_repeats_keeps_its_connections_over_kills() {
    transfer(Stop::Kill, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ssh_session_survives_kills_and_stops_of_the_gateway() {
    let (mut house, server) = (House::apart().await, echo().await);
    let alice = house.alice().await;
    let parameters = json!({"portNumber": [server.port().to_string()]});
    let mut tunnel = Tunnel::start(&alice, DEV, "AWS-StartSSHSession", parameters).await;
    tunnel.terminal.silent_on_repeats = true;
    let (session, body) = (tunnel.terminal.session.clone(), body(2_654_435_761));
    for (at, part) in body.chunks(LENGTH / (RESTARTS + 1)).enumerate() {
        if at > 0 {
            let stop = if at % 2 == 0 { Stop::Kill } else { Stop::Terminate };
            restart(&mut house, &alice, &mut tunnel, stop).await;
        }
        tunnel.terminal.paste(part).await;
    }
    tunnel.until_bytes(body.len()).await;
    assert!(tunnel.terminal.output == body, "the echo is not what was sent");
    let recorded = assert_whole(&house, &alice, &session, &[LENGTH as u64]).await;
    assert!(matches!(flows(&recorded)[0], FlowEvent::Handshake { mode: Mode::Basic, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_forward_opens_connections_after_restarts() {
    let (mut house, server) = (House::apart().await, echo().await);
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    tunnel.terminal.silent_on_repeats = true;
    let session = tunnel.terminal.session.clone();
    let mut stream = FIRST;
    for stop in [Stop::Kill, Stop::Terminate, Stop::Kill] {
        restart(&mut house, &alice, &mut tunnel, stop).await;
        tunnel.say(Command::Open, stream).await;
        tunnel.write(stream, b"hello").await;
        tunnel.until(stream, b"hello").await;
        tunnel.say(Command::Close, stream).await;
        tunnel.until_ended(stream).await;
        stream += 2;
    }
    assert_whole(&house, &alice, &session, &[5; 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_that_policy_forbids_meanwhile_is_ended_in_words_and_its_connections_closed() {
    let (mut house, server) = (House::apart().await, echo().await);
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    tunnel.say(Command::Open, FIRST).await;
    tunnel.write(FIRST, b"hello").await;
    tunnel.until(FIRST, b"hello").await;
    tunnel.terminal.delivered().await;
    house.apart.take().unwrap().kill();
    let forbid = r#"@id("no-more") @message("dev is closed today")
        forbid (principal, action in Postern::Action::"startSession", resource is Postern::Instance)
        when { resource.hasTag("env") && resource.getTag("env") == "dev" };"#;
    std::fs::write(house.folder.path().join("policies/new.cedar"), forbid).unwrap();
    house.again().await;
    tunnel.terminal.resume(&alice).await;
    let told = tunnel.terminal.closed().await;
    assert!(told.contains("dev is closed today") && told.contains("no-more"), "{told}");
    let recorded = Recorded::of(&house, &tunnel.terminal.session).await;
    assert_eq!(recorded.evidence.end.reason, "policy");
    let close = |event: &FlowEvent| matches!(event, FlowEvent::Close { up: 5, by: Side::Session, .. });
    assert_eq!(flows(&recorded).iter().filter(|event| close(event)).count(), 1, "{:?}", flows(&recorded));
}
