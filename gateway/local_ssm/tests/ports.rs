//! Port sessions: smux, basic mode, SSH, refusals, bounds.

use data_channel::smux::Command;
use data_channel::{Flag, HandshakeRequest, PayloadType};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

use super::support::*;
use super::tunnel::*;
use crate::local_ssm::{LocalConfig, LocalSsm, Running};

const SSH: &str = "AWS-StartSSHSession";
const TO_HOST: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// A plugin from before multiplexing.
const OLD_CLIENT: &str = "1.1.61.0";

/// A stand-in whose target has this server at a port.
async fn start_with(port: u16, server: std::net::SocketAddr) -> Running {
    LocalSsm::start(with_port(port, server)).await.unwrap()
}

fn with_port(port: u16, server: std::net::SocketAddr) -> LocalConfig {
    let mut config = config();
    config.targets[0].ports.insert(port, server);
    config
}

async fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn handshake(client: &Client) -> HandshakeRequest {
    HandshakeRequest::parse(&client.of_type(PayloadType::HandshakeRequest)).unwrap()
}

#[tokio::test]
async fn many_connections_are_echoed_at_once() {
    let running = start_with(80, echo().await).await;
    let mut tunnel = Tunnel::open(&running).await;
    let streams: Vec<u32> = (0..5).map(|n| 3 + 2 * n).collect();
    let sent: Vec<_> = streams.iter().map(|stream| pattern(40_000, *stream)).collect();
    for stream in &streams {
        tunnel.say(Command::Open, *stream).await;
    }
    for part in 0..4 {
        for (stream, data) in streams.iter().zip(&sent) {
            tunnel.write(*stream, &data[part * 10_000..(part + 1) * 10_000]).await;
        }
    }
    for (stream, data) in streams.iter().zip(&sent) {
        tunnel.until(*stream, data).await;
    }
    for stream in &streams {
        tunnel.say(Command::Close, *stream).await;
        tunnel.until_ended(*stream).await;
    }
    assert!(tunnel.client.received.iter().all(|(_, payload)| payload.len() <= 1_024));
    tunnel.client.send(PayloadType::Flag, &Flag::TerminateSession.encode()).await;
    assert_eq!(tunnel.client.closed().await, "");
    running.stop().await;
}

#[tokio::test]
async fn a_handshake_tells_the_resolved_properties_and_defaults() {
    let running = start_with(80, echo().await).await;
    let mut client = connect_with(&running, Some(FORWARD), &[]).await;
    client.until_type(PayloadType::HandshakeComplete).await;
    let request = handshake(&client);
    let action = request.session_type().unwrap();
    assert_eq!(action.session_type, "Port");
    let properties = json!({"portNumber": "80", "localPortNumber": "0", "type": "LocalPortForwarding"});
    assert_eq!(action.properties, properties);
    assert_eq!(request.agent_version, "3.3.1957.0");
    running.stop().await;
}

#[tokio::test]
async fn an_end_on_either_side_ends_the_connection_and_no_other() {
    let (listener, address) = listener().await;
    let running = start_with(80, address).await;
    let mut tunnel = Tunnel::open(&running).await;
    let mut servers = Vec::new();
    for stream in [3, 5, 7] {
        tunnel.say(Command::Open, stream).await;
        servers.push(listener.accept().await.unwrap().0);
    }
    writes(&mut servers[0], b"bye").await;
    drop(servers.remove(0));
    tunnel.until_ended(3).await;
    assert_eq!(tunnel.of(3), b"bye");
    tunnel.write(5, b"last words").await;
    tunnel.say(Command::Close, 5).await;
    tunnel.until_ended(5).await;
    assert_eq!(ends(&mut servers[0]).await, b"last words");
    tunnel.write(3, b"too late").await;
    tunnel.write(7, b"still").await;
    reads(&mut servers[1], b"still").await;
    assert_eq!(tunnel.refusals(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_refused_port_is_told_and_the_session_goes_on() {
    // Bound, so that nobody else takes the port; refusing, as none listens.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let running = start_with(80, socket.local_addr().unwrap()).await;
    let mut tunnel = Tunnel::open(&running).await;
    tunnel.say(Command::Open, 3).await;
    tunnel.until_ended(3).await;
    assert_eq!(tunnel.refusals(), 1);
    let listener = socket.listen(8).unwrap();
    tunnel.say(Command::Open, 5).await;
    tunnel.write(5, b"hello").await;
    reads(&mut listener.accept().await.unwrap().0, b"hello").await;
    assert_eq!(tunnel.refusals(), 1);
    running.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_refused() {
    let running = start_with(80, echo().await).await;
    let mut tunnel = Tunnel::open(&running).await;
    for n in 0..=256 {
        tunnel.say(Command::Open, 3 + 2 * n).await;
    }
    let last = 3 + 2 * 256;
    tunnel.until_ended(last).await;
    assert_eq!((tunnel.refusals(), tunnel.ended.len()), (1, 1));
    tunnel.say(Command::Close, 3).await;
    tunnel.until_ended(3).await;
    tunnel.say(Command::Open, last + 2).await;
    tunnel.write(last + 2, b"room again").await;
    tunnel.until(last + 2, b"room again").await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_smux_ends_the_session() {
    let running = start_with(80, echo().await).await;
    let mut tunnel = Tunnel::open(&running).await;
    tunnel.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let told = tunnel.client.closed().await;
    assert!(told.contains("not smux version 1"), "{told}");
    running.stop().await;
}

#[tokio::test]
async fn input_for_a_connection_that_does_not_read_is_not_acknowledged() {
    let (listener, address) = listener().await;
    let mut config = with_port(80, address);
    config.habits.acknowledge_delay = std::time::Duration::ZERO;
    let running = LocalSsm::start(config).await.unwrap();
    let mut tunnel = Tunnel::open(&running).await;
    tunnel.say(Command::Open, 3).await;
    let (mut server, _) = listener.accept().await.unwrap();
    tunnel.client.barrier().await;
    let mut sent = Vec::new();
    while tunnel.client.unacknowledged() == 0 {
        let part = pattern(256 << 10, sent.len() as u32);
        tunnel.write(3, &part).await;
        sent.extend(part);
        tunnel.client.barrier().await;
        // The agent's 4 MiB waiting and 4 MiB early, and the kernel's.
        assert!(sent.len() < 64 << 20, "the agent took {} bytes", sent.len());
    }
    let length = sent.len();
    let reading = tokio::spawn(async move {
        let mut got = vec![0; length];
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut got).await.unwrap();
        got
    });
    while tunnel.client.unacknowledged() > 0 {
        tunnel.client.send_due().await;
        tunnel.client.barrier().await;
    }
    assert!(reading.await.unwrap() == sent, "what came is not what was sent");
    running.stop().await;
}

#[tokio::test]
async fn an_old_client_gets_keep_alives_and_must_send_some() {
    let mut config = with_port(80, echo().await);
    config.habits.keep_alive = std::time::Duration::from_millis(20);
    let running = LocalSsm::start(config).await.unwrap();
    let mut client = connect_with(&running, Some(FORWARD), &[]).await;
    client.client_version = "1.2.331.0".to_owned();
    let mut tunnel = Tunnel::over(client).await;
    while tunnel.keep_alives == 0 {
        tunnel.next().await;
    }
    assert_eq!(tunnel.client.closed().await, "");
    running.stop().await;
}

#[tokio::test]
async fn a_basic_session_dials_again_after_either_side_closed() {
    let (listener, address) = listener().await;
    let running = start_with(80, address).await;
    let mut client = connect_with(&running, Some(FORWARD), &[]).await;
    client.client_version = OLD_CLIENT.to_owned();
    client.until_type(PayloadType::HandshakeComplete).await;
    let (mut first, _) = listener.accept().await.unwrap();
    client.send(PayloadType::Output, b"one").await;
    reads(&mut first, b"one").await;
    writes(&mut first, b"answer").await;
    client.until("answer").await;
    client.send(PayloadType::Output, b" more").await;
    client.send(PayloadType::Flag, &Flag::DisconnectToPort.encode()).await;
    assert_eq!(ends(&mut first).await, b" more");
    client.send(PayloadType::Output, b"two").await;
    let (mut second, _) = listener.accept().await.unwrap();
    reads(&mut second, b"two").await;
    drop(second);
    client.send(PayloadType::Flag, &Flag::DisconnectToPort.encode()).await;
    client.send(PayloadType::Output, b"three").await;
    let (mut third, _) = listener.accept().await.unwrap();
    reads(&mut third, b"three").await;
    client.send(PayloadType::Flag, &Flag::TerminateSession.encode()).await;
    assert_eq!(client.closed().await, "");
    assert_eq!(ends(&mut third).await, b"");
    running.stop().await;
}

#[tokio::test]
async fn an_old_agent_speaks_basic_with_a_new_client() {
    let mut config = with_port(80, echo().await);
    config.targets[0].agent_version = Some("3.0.196.0".to_owned());
    let running = LocalSsm::start(config).await.unwrap();
    let mut client = connect_with(&running, Some(FORWARD), &[]).await;
    client.until_type(PayloadType::HandshakeComplete).await;
    assert_eq!(handshake(&client).agent_version, "3.0.196.0");
    client.send(PayloadType::Output, b"not smux").await;
    client.until("not smux").await;
    running.stop().await;
}

#[tokio::test]
async fn a_basic_session_to_a_refused_port_fails_with_a_text() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let running = start_with(22, socket.local_addr().unwrap()).await;
    let mut client = connect_with(&running, Some(SSH), &[]).await;
    let told = client.closed().await;
    assert!(told.starts_with("Unable to connect to specified port: dial tcp 127.0.0.1:"), "{told}");
    running.stop().await;
}

#[tokio::test]
async fn an_ssh_session_carries_bytes_until_the_server_closes() {
    let (listener, address) = listener().await;
    let running = start_with(2222, address).await;
    let mut client = connect_with(&running, Some(SSH), &[("portNumber", "2222")]).await;
    client.until_type(PayloadType::HandshakeComplete).await;
    assert_eq!(handshake(&client).session_type().unwrap().properties, json!({"portNumber": "2222"}));
    let (mut server, _) = listener.accept().await.unwrap();
    writes(&mut server, b"SSH-2.0-test\r\n").await;
    client.until("SSH-2.0-test\r\n").await;
    let bytes = pattern(3_000, 7);
    for payload in bytes.chunks(1_024) {
        client.send(PayloadType::Output, payload).await;
    }
    reads(&mut server, &bytes).await;
    // No text: bytes that are no UTF-8 and are cut anywhere.
    writes(&mut server, &bytes).await;
    drop(server);
    assert_eq!(client.closed().await, "");
    assert_eq!(client.output(), [b"SSH-2.0-test\r\n".as_slice(), &bytes].concat());
    running.stop().await;
}

#[tokio::test]
async fn a_port_of_this_machine_is_reached_without_a_map() {
    let port = echo().await.port().to_string();
    let running = start().await;
    for (document, host) in [(FORWARD, None), (TO_HOST, Some("127.0.0.1")), (TO_HOST, None)] {
        let mut parameters = vec![("portNumber", port.as_str())];
        parameters.extend(host.map(|host| ("host", host)));
        let mut tunnel = Tunnel::over(connect_with(&running, Some(document), &parameters).await).await;
        tunnel.say(Command::Open, 3).await;
        tunnel.write(3, b"hello").await;
        tunnel.until(3, b"hello").await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_remote_host_is_reached_by_its_name() {
    let mut config = config();
    config.targets[0].hosts.insert(("db.internal".to_owned(), 5432), echo().await);
    let running = LocalSsm::start(config).await.unwrap();
    let parameters = [("host", "db.internal"), ("portNumber", "5432")];
    let mut tunnel = Tunnel::over(connect_with(&running, Some(TO_HOST), &parameters).await).await;
    let properties = handshake(&tunnel.client).session_type().unwrap().properties;
    assert_eq!((&properties["host"], &properties["portNumber"]), (&json!("db.internal"), &json!("5432")));
    tunnel.say(Command::Open, 3).await;
    tunnel.write(3, b"select 1").await;
    tunnel.until(3, b"select 1").await;
    running.stop().await;
}

#[tokio::test]
async fn the_metadata_address_is_forbidden() {
    let running = start().await;
    let mut client = connect_with(&running, Some(TO_HOST), &[("host", "169.254.169.254")]).await;
    assert_eq!(client.closed().await, "Forwarding to IP address 169.254.169.254 is forbidden.");
    running.stop().await;
}

#[tokio::test]
async fn an_agent_can_be_made_to_name_another_port() {
    let mut config = with_port(80, echo().await);
    config.habits.handshake_port = Some(22);
    let running = LocalSsm::start(config).await.unwrap();
    let client = Tunnel::open(&running).await.client;
    assert_eq!(handshake(&client).session_type().unwrap().properties["portNumber"], "22");
    running.stop().await;
}

#[tokio::test]
async fn an_end_of_the_session_closes_its_connections() {
    let (listener, address) = listener().await;
    let running = start_with(80, address).await;
    let mut tunnel = Tunnel::open(&running).await;
    tunnel.say(Command::Open, 3).await;
    let (mut first, _) = listener.accept().await.unwrap();
    let api = ssm(&running, alice());
    api.terminate_session().session_id(&tunnel.client.session).send().await.unwrap();
    assert_eq!(tunnel.client.closed().await, "");
    assert_eq!(ends(&mut first).await, b"");
    let mut tunnel = Tunnel::open(&running).await;
    tunnel.say(Command::Open, 3).await;
    let (mut second, _) = listener.accept().await.unwrap();
    running.stop().await;
    assert_eq!(ends(&mut second).await, b"");
}

#[tokio::test]
async fn output_keeps_its_pace_when_it_is_asked_to() {
    let mut config = with_port(80, echo().await);
    config.habits.pace = std::time::Duration::from_millis(1);
    let running = LocalSsm::start(config).await.unwrap();
    let mut tunnel = Tunnel::open(&running).await;
    let sent = pattern(30_000, 1);
    tunnel.say(Command::Open, 3).await;
    tunnel.write(3, &sent).await;
    tunnel.until(3, &sent).await;
    running.stop().await;
}
