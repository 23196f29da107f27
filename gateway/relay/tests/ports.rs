//! Port sessions: held to what was allowed, and recorded.

use std::time::Duration;

use data_channel::smux::{self, Command};
use data_channel::{
    Acknowledge, ChannelClosed, Flag, HandshakeComplete, HandshakeRequest, HandshakeResponse, MessageType,
    PayloadType,
};
use serde_json::{Value, json};

use super::super::{Carries, Destination, Forward, Rules};
use super::played::{Rig, SESSION};
use crate::asciicast::{Direction, Event, EventCode, FlowEvent, FlowState, Mode, Side, Traffic};
use crate::recorder::verify;

const AGENT: &str = "3.3.0.0";
const CLIENT: &str = "1.2.764.0";

fn forward(capture: bool) -> Carries {
    Carries::Port(Forward { destination: Destination::new(None, 5432), capture, connections_max: 4 })
}

fn properties() -> Value {
    json!({"portNumber": "5432", "localPortNumber": "0", "type": "LocalPortForwarding"})
}

async fn port(capture: bool, rules: Rules) -> Rig {
    let content = if capture { "flows+traffic" } else { "flows" };
    let mut rig = Rig::start(forward(capture), content, rules).await;
    let request = HandshakeRequest::new(AGENT, "Port", properties());
    rig.agent.say(PayloadType::HandshakeRequest, &request.encode()).await;
    let heard = rig.client.hear_of(MessageType::OutputStreamData).await;
    assert_eq!(heard.payload(), request.encode(), "the handshake passes untouched");
    rig.client.acknowledge(&heard).await;
    let answer = HandshakeResponse::answering(&request, CLIENT).encode();
    rig.client.say(PayloadType::HandshakeResponse, &answer).await;
    let heard = rig.agent.hear_of(MessageType::InputStreamData).await;
    assert_eq!(heard.payload(), answer, "the answer passes untouched");
    rig.agent.acknowledge(&heard).await;
    rig.agent.say(PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).await;
    let heard = rig.client.hear_of(MessageType::OutputStreamData).await;
    assert_eq!(heard.payload_type(), PayloadType::HandshakeComplete);
    rig.client.acknowledge(&heard).await;
    rig
}

fn frames(said: &[(Command, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (command, stream, data) in said {
        match command {
            Command::Data => smux::encode_data(*stream, data, &mut bytes),
            _ => smux::encode(*command, *stream, &mut bytes),
        }
    }
    bytes
}

fn flow_events(events: &[Event]) -> Vec<FlowEvent> {
    events.iter().filter_map(FlowEvent::of).map(Result::unwrap).collect()
}

fn captured(events: &[Event], connection: u64, direction: Direction) -> Vec<u8> {
    let traffic = events.iter().filter_map(Traffic::of).map(Result::unwrap);
    let of = |traffic: &Traffic| traffic.connection == connection && traffic.direction == direction;
    traffic.filter(of).flat_map(|traffic| traffic.bytes).collect()
}

/// A session that is refused at its handshake: what its client is told.
async fn refused(carries: Carries, request: &HandshakeRequest) -> (String, &'static str) {
    let mut rig = Rig::start(carries, "flows", Rules::default()).await;
    rig.agent.say(PayloadType::HandshakeRequest, &request.encode()).await;
    let (before, said) = rig.client.last_words().await;
    assert!(before.is_empty(), "something reached the client before: {before:?}");
    (said, rig.end().await.ended.reason())
}

#[tokio::test]
async fn a_connection_passes_and_its_record_is_sealed() {
    let mut rig = port(false, Rules::default()).await;
    let up = frames(&[(Command::Open, 3, b""), (Command::Data, 3, b"SELECT 1")]);
    rig.client.say(PayloadType::Output, &up).await;
    let heard = rig.agent.hear_of(MessageType::InputStreamData).await;
    assert_eq!(heard.payload(), up);
    assert_eq!((rig.counters.connections(), rig.counters.connections_open()), (1, 1));
    let down = frames(&[(Command::Data, 3, b"one"), (Command::Close, 3, b"")]);
    rig.agent.say(PayloadType::Output, &down).await;
    assert_eq!(rig.client.hear_of(MessageType::OutputStreamData).await.payload(), down);
    assert_eq!(rig.counters.connections_open(), 0);
    rig.agent.put(ChannelClosed::message(SESSION, "", 1)).await;
    rig.client.last_words().await;

    let ending = rig.end().await;
    let expected = [
        FlowEvent::Handshake { mode: Mode::Multiplexed, agent: AGENT.to_owned(), client: CLIENT.to_owned() },
        FlowEvent::Open { connection: 1 },
        FlowEvent::Close { connection: 1, up: 8, down: 3, by: Side::Target },
    ];
    assert_eq!(flow_events(&ending.events()), expected);
    assert_eq!(captured(&ending.events(), 1, Direction::Up), b"", "bytes are kept only when policy says so");
    let evidence = ending.evidence();
    assert_eq!(evidence.content.as_deref(), Some("flows"));
    assert!(evidence.segments.iter().all(|segment| segment.sequences.is_none()), "no message is claimed");
    let text = String::from_utf8(ending.metrics.render().unwrap()).unwrap();
    assert!(text.contains("postern_flows 0"));
    assert!(text.contains("postern_flows_ended_total{result=\"target\"} 1"));
}

#[tokio::test]
async fn a_handshake_for_another_destination_never_reaches_the_client() {
    for properties in [
        json!({"portNumber": "5433", "type": "LocalPortForwarding"}),
        json!({"portNumber": "5432", "host": "db.example.com", "type": "LocalPortForwarding"}),
    ] {
        let request = HandshakeRequest::new(AGENT, "Port", properties);
        let (said, reason) = refused(forward(false), &request).await;
        assert_eq!(reason, "wrong_destination");
        assert!(said.contains("localhost:5432 was allowed"), "{said}");
    }
}

#[tokio::test]
async fn a_session_is_of_the_kind_that_was_allowed() {
    let terminal = HandshakeRequest::new(AGENT, "Standard_Stream", Value::Null);
    assert_eq!(refused(forward(false), &terminal).await.1, "wrong_kind");
    let port = HandshakeRequest::new(AGENT, "Port", properties());
    assert_eq!(refused(Carries::Terminal, &port).await.1, "not_recordable");
}

#[tokio::test]
async fn ends_that_disagree_on_the_mode_never_meet() {
    let mut rig = Rig::start(forward(false), "flows", Rules::default()).await;
    let request = HandshakeRequest::new(AGENT, "Port", properties());
    rig.agent.say(PayloadType::HandshakeRequest, &request.encode()).await;
    rig.client.hear_of(MessageType::OutputStreamData).await;
    let answer = HandshakeResponse::answering(&request, "1.1.69.0").encode();
    rig.client.say(PayloadType::HandshakeResponse, &answer).await;
    let (_, said) = rig.client.last_words().await;
    assert!(said.contains("1.1.69.0"), "{said}");
    assert!(rig.agent.hears_no(MessageType::InputStreamData).await, "the answer reached the agent");
    assert_eq!(rig.end().await.ended.reason(), "version_mismatch");
}

#[tokio::test]
async fn bytes_that_are_no_smux_end_the_session() {
    let mut rig = port(false, Rules::default()).await;
    rig.client.say(PayloadType::Output, b"GET / HTTP/1.1\r\n").await;
    let (_, said) = rig.client.last_words().await;
    assert!(said.contains("not smux"), "{said}");
    assert!(rig.agent.hears_no(MessageType::InputStreamData).await, "the bytes reached the agent");
    assert_eq!(rig.end().await.ended.reason(), "malformed_flow");
}

#[tokio::test]
async fn too_many_connections_end_the_session_with_a_sentence() {
    let mut rig = port(false, Rules::default()).await;
    for stream in [3, 5, 7, 9, 11] {
        rig.client.say(PayloadType::Output, &frames(&[(Command::Open, stream, b"")])).await;
    }
    let (_, said) = rig.client.last_words().await;
    assert!(said.contains("more than 4 connections at once"), "{said}");
    let ending = rig.end().await;
    assert_eq!(ending.ended.reason(), "too_many_connections");
    let closed = flow_events(&ending.events());
    let by_session = |event: &&FlowEvent| matches!(event, FlowEvent::Close { by: Side::Session, .. });
    assert_eq!(closed.iter().filter(by_session).count(), 4, "{closed:?}");
}

#[tokio::test]
async fn captured_bytes_are_recorded_before_their_acknowledge_passes() {
    let mut rig = port(true, Rules::default()).await;
    let up = frames(&[(Command::Open, 3, b""), (Command::Data, 3, b"up\0\xff")]);
    rig.client.say(PayloadType::Output, &up).await;
    rig.agent.hear_of(MessageType::InputStreamData).await;
    let down = frames(&[(Command::Data, 3, b"down\xfe")]);
    rig.agent.say(PayloadType::Output, &down).await;
    let heard = rig.client.hear_of(MessageType::OutputStreamData).await;
    rig.client.acknowledge(&heard).await;
    loop {
        let acknowledge = rig.agent.hear_of(MessageType::Acknowledge).await;
        if Acknowledge::parse(acknowledge.payload()).unwrap().sequence == heard.sequence() {
            break;
        }
    }
    let left = rig.crashed();
    assert_eq!(captured(&left, 1, Direction::Down), b"down\xfe");
    assert_eq!(captured(&left, 1, Direction::Up), b"up\0\xff");
    assert_eq!(flow_events(&left)[1], FlowEvent::Open { connection: 1 });
}

#[tokio::test]
async fn a_flipped_byte_of_a_flow_recording_is_found() {
    let mut rig = port(true, Rules::default()).await;
    rig.client.say(PayloadType::Output, &frames(&[(Command::Open, 3, b""), (Command::Data, 3, b"x")])).await;
    rig.agent.hear_of(MessageType::InputStreamData).await;
    rig.agent.put(ChannelClosed::message(SESSION, "", 1)).await;
    rig.client.last_words().await;
    let ending = rig.end().await;
    assert_eq!(ending.evidence().content.as_deref(), Some("flows+traffic"));
    let bytes = std::fs::read(&ending.sealed.path).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        std::fs::write(&ending.sealed.path, flipped).unwrap();
        assert!(verify(&ending.sealed.path, std::slice::from_ref(&ending.key)).is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn other_bytes_under_a_number_that_was_seen_do_not_pass() {
    let mut rig = port(false, Rules::default()).await;
    let first = frames(&[(Command::Open, 3, b"")]);
    rig.client.say_at(1, PayloadType::Output, &first).await;
    assert_eq!(rig.agent.hear_of(MessageType::InputStreamData).await.payload(), first);
    // The stock plugin numbers a flag like the data that it sends meanwhile.
    rig.client.say_at(1, PayloadType::Flag, &Flag::TerminateSession.encode()).await;
    rig.client.say_at(1, PayloadType::Output, &first).await;
    assert_eq!(rig.agent.hear_of(MessageType::InputStreamData).await.payload(), first);
}

#[tokio::test]
async fn input_reaches_the_agent_in_order_and_after_it_was_seen() {
    let mut rig = port(true, Rules::default()).await;
    let open = frames(&[(Command::Open, 3, b"")]);
    let data = [b"a", b"b"].map(|bytes| frames(&[(Command::Data, 3, bytes)]));
    for _ in 0..2 {
        rig.client.say_at(3, PayloadType::Output, &data[1]).await;
        rig.client.say_at(2, PayloadType::Output, &data[0]).await;
    }
    rig.client.say_at(1, PayloadType::Output, &open).await;
    for (sequence, expected) in (1..).zip([&open, &data[0], &data[1]]) {
        let heard = rig.agent.hear_of(MessageType::InputStreamData).await;
        assert_eq!((heard.sequence(), heard.payload()), (sequence, &expected[..]));
    }
    // What the agent did not get is passed again as it comes again.
    rig.client.say_at(2, PayloadType::Output, &data[0]).await;
    assert_eq!(rig.agent.hear_of(MessageType::InputStreamData).await.sequence(), 2);
    rig.agent.put(ChannelClosed::message(SESSION, "", 1)).await;
    rig.client.last_words().await;
    assert_eq!(captured(&rig.end().await.events(), 1, Direction::Up), b"ab");
}

#[tokio::test]
async fn keep_alives_do_not_keep_a_session_from_being_idle() {
    let rules = Rules { idle_timeout: Some(Duration::from_millis(300)), ..Rules::default() };
    let mut rig = port(false, rules).await;
    let agent = &mut rig.agent;
    let alive = async {
        loop {
            agent.say(PayloadType::Output, &frames(&[(Command::KeepAlive, 0, b"")])).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // If they counted, the session would not end and nothing would be said.
    let (_, said) = tokio::select! {
        () = alive => unreachable!(),
        words = rig.client.last_words() => words,
    };
    assert!(said.contains("nothing happened"), "{said}");
    assert_eq!(rig.end().await.ended.reason(), "idle_timeout");
}

#[tokio::test]
async fn a_banner_comes_with_the_end_of_the_handshake() {
    let rules = Rules { banner: Some("recorded".to_owned()), ..Rules::default() };
    let mut rig = Rig::start(forward(false), "flows", rules).await;
    let request = HandshakeRequest::new(AGENT, "Port", properties());
    rig.agent.say(PayloadType::HandshakeRequest, &request.encode()).await;
    rig.client.hear_of(MessageType::OutputStreamData).await;
    let answer = HandshakeResponse::answering(&request, CLIENT).encode();
    rig.client.say(PayloadType::HandshakeResponse, &answer).await;
    rig.agent.hear_of(MessageType::InputStreamData).await;
    rig.agent.say(PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).await;
    let heard = rig.client.hear_of(MessageType::OutputStreamData).await;
    assert_eq!(HandshakeComplete::parse(heard.payload()).unwrap().customer_message, "recorded");
    assert!(heard.digest_matches());
    let data = frames(&[(Command::KeepAlive, 0, b"")]);
    rig.agent.say(PayloadType::Output, &data).await;
    assert_eq!(rig.client.hear_of(MessageType::OutputStreamData).await.payload(), data);
}

/// Has the handshake answered, without the agent's acknowledge of the answer.
async fn answered(rig: &mut Rig) -> data_channel::Message {
    let request = HandshakeRequest::new(AGENT, "Port", properties());
    rig.agent.say(PayloadType::HandshakeRequest, &request.encode()).await;
    let heard = rig.client.hear_of(MessageType::OutputStreamData).await;
    rig.client.acknowledge(&heard).await;
    let answer = HandshakeResponse::answering(&request, CLIENT).encode();
    rig.client.say(PayloadType::HandshakeResponse, &answer).await;
    rig.agent.hear_of(MessageType::InputStreamData).await
}

#[tokio::test]
async fn a_client_that_begins_hears_nothing_but_the_end_of_the_handshake() {
    let mut rig = Rig::start(forward(false), "flows", Rules::default()).await;
    let answer = answered(&mut rig).await;
    // The agent's acknowledge and its first frame come right after the end of the handshake.
    rig.agent.say(PayloadType::HandshakeComplete, &HandshakeComplete::default().encode()).await;
    rig.agent.acknowledge(&answer).await;
    let first = frames(&[(Command::KeepAlive, 0, b"")]);
    rig.agent.say(PayloadType::Output, &first).await;
    let acknowledge = rig.client.hear().await.unwrap();
    assert_eq!(acknowledge.message_type(), MessageType::Acknowledge, "the acknowledge goes first");
    let said = Acknowledge::parse(acknowledge.payload()).unwrap();
    assert_eq!((said.sequence, said.message_id), (answer.sequence(), answer.id()));
    let complete = rig.client.hear().await.unwrap();
    assert_eq!(complete.payload_type(), PayloadType::HandshakeComplete);
    // The agent's own acknowledge is not given again.
    let next = rig.client.hear().await.unwrap();
    assert_eq!(next.payload(), first);
}

#[tokio::test]
async fn what_is_typed_into_a_port_leaves_no_digest_that_can_be_tried() {
    let mut rig = port(false, Rules::default()).await;
    let up = frames(&[(Command::Open, 3, b""), (Command::Data, 3, b"AUTH hunter2")]);
    rig.client.say(PayloadType::Output, &up).await;
    rig.agent.hear_of(MessageType::InputStreamData).await;
    rig.agent.put(ChannelClosed::message(SESSION, "", 1)).await;
    rig.client.last_words().await;
    let events = rig.end().await.events();
    let notes: Vec<FlowState> = events.iter().filter_map(FlowState::of).map(Result::unwrap).collect();
    let noted: Vec<_> = notes.iter().flat_map(FlowState::digests).map(|(_, digest)| digest).collect();
    assert_eq!(noted.len(), 2, "{noted:?}");
    let guess = ring::digest::digest(&ring::digest::SHA256, &up);
    assert!(noted.iter().all(|digest| !guess.as_ref().starts_with(digest)));
}

#[tokio::test]
async fn text_that_the_agent_shows_at_begin_and_end_is_on_record() {
    let mut rig = Rig::start(forward(false), "flows", Rules::default()).await;
    let answer = answered(&mut rig).await;
    rig.agent.acknowledge(&answer).await;
    let told = "update your\npassword at evil.example";
    let complete = HandshakeComplete { customer_message: told.to_owned(), ..HandshakeComplete::default() };
    rig.agent.say(PayloadType::HandshakeComplete, &complete.encode()).await;
    rig.client.hear_of(MessageType::OutputStreamData).await;
    rig.agent.put(ChannelClosed::message(SESSION, "call \u{1b}[1m555", 1)).await;
    rig.client.last_words().await;
    let events = rig.end().await.events();
    let marks: Vec<&str> = events
        .iter()
        .filter(|event| event.code == EventCode::Marker)
        .map(|event| event.data.as_str())
        .collect();
    assert!(marks.contains(&"the client showed at its beginning: update your password at evil.example"));
    assert!(marks.contains(&"the client showed at its end: call [1m555"), "{marks:?}");
}
