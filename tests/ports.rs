//! Port and SSH sessions: carried, held to what was allowed, recorded.

use std::path::Path;
use std::process::{Command as Process, Output};

use data_channel::PayloadType;
use data_channel::smux::Command;
use postern::asciicast::{Direction, FlowEvent, Mode, Side, Traffic};
use postern::local_ssm::LocalConfig;
use serde_json::json;

use crate::support::{DEV, Heard, House, Recorded, Terminal, Tunnel, echo, silent_port, until_some};

const FIRST: u32 = 3;

/// Says that the bytes of forwards on development machines are kept.
const CAPTURE: &str = r#"
@id("keep-traffic")
@capture_traffic
permit (
  principal in Postern::Group::"developers",
  action in [Postern::Action::"forwardPort", Postern::Action::"forwardPortToHost"],
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "dev" };
"#;

async fn capturing() -> House {
    House::with(|config| {
        std::fs::write(config.policy.directory.join("capture.cedar"), CAPTURE).unwrap();
    })
    .await
}

fn flows(recorded: &Recorded) -> Vec<FlowEvent> {
    recorded.events.iter().filter_map(FlowEvent::of).map(Result::unwrap).collect()
}

fn captured(recorded: &Recorded, direction: Direction) -> Vec<u8> {
    let traffic = recorded.events.iter().filter_map(Traffic::of).map(Result::unwrap);
    traffic.filter(|traffic| traffic.direction == direction).flat_map(|traffic| traffic.bytes).collect()
}

fn replay(arguments: &[&str], folder: &Path) -> Output {
    let postern = env!("CARGO_BIN_EXE_postern");
    Process::new(postern).arg("replay").args(arguments).current_dir(folder).output().unwrap()
}

/// Ends a session and waits for the seal.
async fn ended(house: &House, person: &crate::support::Person, session: &str) -> Recorded {
    person.api("TerminateSession", &json!({"SessionId": session})).await.ok();
    Recorded::of(house, session).await
}

#[tokio::test]
async fn a_forward_carries_connections_and_its_record_says_what_they_did() {
    let (house, server) = (House::start().await, echo().await);
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    let session = tunnel.terminal.session.clone();
    let body: Vec<u8> = (0..100_000u32).map(|number| (number * 7) as u8).collect();
    tunnel.say(Command::Open, FIRST).await;
    tunnel.write(FIRST, &body).await;
    tunnel.until(FIRST, &body).await;

    let shown = alice.session(&session).await;
    assert_eq!((shown["kind"].as_str(), shown["host"].as_str()), (Some("port"), Some("localhost")));
    assert_eq!(shown["port"], server.port());
    assert_eq!((shown["connections"].as_u64(), shown["connections_open"].as_u64()), (Some(1), Some(1)));
    assert!(house.metric("postern_flows").await >= 1.0);

    tunnel.say(Command::Close, FIRST).await;
    tunnel.until_ended(FIRST).await;
    let recorded = ended(&house, &alice, &session).await;
    let about = recorded.header.postern.as_ref().unwrap();
    assert_eq!((&about["kind"], &about["content"]), (&json!("port"), &json!("flows")));
    assert_eq!((&about["host"], &about["port"]), (&json!("localhost"), &json!(server.port())));
    assert_eq!(recorded.evidence.content.as_deref(), Some("flows"));
    assert!(recorded.sequences().is_empty(), "no message is claimed to be there");
    let (seen, length) = (flows(&recorded), body.len() as u64);
    assert!(matches!(seen[0], FlowEvent::Handshake { mode: Mode::Multiplexed, .. }), "{seen:?}");
    assert_eq!(seen[1], FlowEvent::Open { connection: 1 });
    let close = FlowEvent::Close { connection: 1, up: length, down: length, by: Side::Client };
    assert!(seen.contains(&close), "{seen:?}");
    assert!(captured(&recorded, Direction::Up).is_empty());

    let file = format!("{session}.cast.zst");
    let table = replay(&[&file, "--format", "text"], &house.spool);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with(&format!("1 connections to localhost:{}, {length} bytes up", server.port())));
    let refused = replay(&[&file, "--output", "x.pcapng"], house.folder.path());
    assert!(!refused.status.success());
    let refused = replay(&[&file, "--output", "x.pcapng"], &house.spool);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("@capture_traffic"));
}

#[tokio::test]
async fn captured_traffic_is_the_very_bytes_and_becomes_a_capture_file() {
    let (house, server) = (capturing().await, echo().await);
    let alice = house.alice().await;
    let parameters = json!({
        "host": ["localhost"], "portNumber": [server.port().to_string()], "localPortNumber": ["0"],
    });
    let document = "AWS-StartPortForwardingSessionToRemoteHost";
    let mut tunnel = Tunnel::start(&alice, DEV, document, parameters).await;
    let session = tunnel.terminal.session.clone();
    let request = b"GET / HTTP/1.1\r\nHost: db.example.com\r\n\r\n\0\xff";
    tunnel.say(Command::Open, FIRST).await;
    tunnel.write(FIRST, request).await;
    tunnel.until(FIRST, request).await;
    let recorded = ended(&house, &alice, &session).await;
    assert_eq!(captured(&recorded, Direction::Up), request);
    assert_eq!(captured(&recorded, Direction::Down), request);
    assert_eq!(recorded.evidence.content.as_deref(), Some("flows+traffic"));
    let http = |event: &FlowEvent| match event {
        FlowEvent::Protocol { guess, from: Side::Client, .. } => {
            guess.host.as_deref() == Some("db.example.com")
        }
        _ => false,
    };
    assert!(flows(&recorded).iter().any(http), "{:?}", flows(&recorded));

    let file = format!("{session}.cast.zst");
    let written = replay(&[&file, "--output", "x.pcapng"], &house.spool);
    assert!(written.status.success(), "{written:?}");
    let capture = std::fs::read(house.spool.join("x.pcapng")).unwrap();
    assert_eq!(capture[..4], [0x0a, 0x0d, 0x0d, 0x0a], "it begins as a pcapng does");
    assert!(capture.windows(request.len()).any(|window| window == request));
}

#[tokio::test]
async fn a_destination_that_refuses_is_told_and_recorded() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, silent_port().await).await;
    tunnel.say(Command::Open, FIRST).await;
    tunnel.until_ended(FIRST).await;
    assert!(tunnel.is_refused());
    let session = tunnel.terminal.session.clone();
    let recorded = ended(&house, &alice, &session).await;
    assert!(flows(&recorded).contains(&FlowEvent::Refused { connection: 1 }), "{:?}", flows(&recorded));
}

#[tokio::test]
async fn an_ssh_session_is_one_connection_with_its_banner() {
    let (house, server) = (House::start().await, echo().await);
    let alice = house.alice().await;
    let parameters = json!({"portNumber": [server.port().to_string()]});
    let mut tunnel = Tunnel::start(&alice, DEV, "AWS-StartSSHSession", parameters).await;
    let session = tunnel.terminal.session.clone();
    tunnel.send(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    tunnel.terminal.until("SSH-2.0-OpenSSH_9.9\r\n").await;
    assert_eq!(alice.session(&session).await["kind"], "ssh");
    let recorded = ended(&house, &alice, &session).await;
    let seen = flows(&recorded);
    assert!(matches!(seen[0], FlowEvent::Handshake { mode: Mode::Basic, .. }), "{seen:?}");
    let banner = |event: &&FlowEvent| match event {
        FlowEvent::Protocol { guess, .. } => guess.version.as_deref() == Some("SSH-2.0-OpenSSH_9.9"),
        _ => false,
    };
    assert_eq!(seen.iter().filter(banner).count(), 2, "{seen:?}");
    let close = FlowEvent::Close { connection: 1, up: 21, down: 21, by: Side::Session };
    assert_eq!(seen.last(), Some(&close));
}

#[tokio::test]
async fn bytes_that_cannot_be_recorded_end_the_session_with_a_sentence() {
    let (house, server) = (House::start().await, echo().await);
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    tunnel.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let said = tunnel.terminal.closed().await;
    assert!(said.contains("not smux"), "{said}");
    let session = tunnel.terminal.session.clone();
    let over = until_some("the end in the registry", || async {
        Some(alice.session(&session).await).filter(|shown| !shown["ended_ms"].is_null())
    });
    assert!(over.await["end_reason"].as_str().unwrap().contains("not smux"));
}

#[tokio::test]
async fn an_agent_that_names_another_port_is_not_followed() {
    let house = House::with_aws(|aws| aws.habits.handshake_port = Some(22), |_| {}).await;
    let alice = house.alice().await;
    let body = json!({
        "Target": DEV, "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": {"portNumber": ["5432"], "localPortNumber": ["0"]},
    });
    let mut terminal = Terminal::open(&alice.door, &alice.start_as(&body).await).await;
    let said = terminal.closed().await;
    assert!(said.contains("would connect to localhost:22") && said.contains("localhost:5432"), "{said}");
    assert!(terminal.arrivals.is_empty(), "the handshake reached the client");
}

#[tokio::test]
async fn an_old_agent_and_a_new_client_are_told_apart_before_they_meet() {
    let old = |aws: &mut LocalConfig| {
        aws.targets.iter_mut().for_each(|target| target.agent_version = Some("3.0.196.0".to_owned()));
    };
    let (house, server) = (House::with_aws(old, |_| {}).await, echo().await);
    let alice = house.alice().await;
    let body = json!({
        "Target": DEV, "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": {"portNumber": [server.port().to_string()], "localPortNumber": ["0"]},
    });
    let mut terminal = Terminal::open(&alice.door, &alice.start_as(&body).await).await;
    let said = terminal.closed().await;
    assert!(said.contains("3.0.196.0") && said.contains("update the older"), "{said}");
}

#[tokio::test]
async fn an_acknowledge_that_the_agent_gives_late_comes_before_the_handshake_ends() {
    let late = |aws: &mut LocalConfig| aws.habits.acknowledge_after_complete = true;
    let (house, server) = (House::with_aws(late, |_| {}).await, echo().await);
    let alice = house.alice().await;
    let body = json!({
        "Target": DEV, "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": {"portNumber": [server.port().to_string()], "localPortNumber": ["0"]},
    });
    let mut terminal = Terminal::open(&alice.door, &alice.start_as(&body).await).await;
    let mut acknowledged = false;
    while !terminal.others.iter().any(|(kind, _)| *kind == PayloadType::HandshakeComplete) {
        acknowledged |= matches!(terminal.next().await, Heard::Acknowledge);
    }
    assert!(acknowledged, "a stock plugin would die of the acknowledge that comes now");
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    tunnel.say(Command::Open, FIRST).await;
    tunnel.write(FIRST, b"there and back").await;
    tunnel.until(FIRST, b"there and back").await;
}
