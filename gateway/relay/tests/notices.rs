//! Warnings before an end, and the numbers that they take.

use std::time::Duration;

use data_channel::handshake::HandshakeRequest;
use data_channel::message::MessageType;
use data_channel::payload::PayloadType;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Presence, Rules};
use super::rig::{Rig, acknowledge, closed, hear, press, stream};
use crate::session::Durability;

const MINUTE: Duration = Duration::from_secs(60);
const IDLE: &str = "\r\n*** postern: this session ends in 1 minute because nothing happened for 14 minutes; press a key to stay ***\r\n";

fn idle(limit: Duration) -> Rules {
    Rules { idle_timeout: Some(limit), ..Rules::default() }
}

/// The nearest whole number; what went before took some milliseconds.
fn seconds_since(start: Instant) -> u64 {
    (start.elapsed() + Duration::from_millis(500)).as_secs()
}

/// What the recording says the gateway itself has said.
fn recorded_notices(rig: &Rig) -> Vec<String> {
    let hand = rig.hand.lock().unwrap();
    let own = hand.output.iter().filter(|event| event.sequence.is_none());
    own.map(|event| String::from_utf8(event.content.clone()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_quiet_session_is_warned_and_then_ended() {
    let (mut rig, mut client) = Rig::lit(idle(15 * MINUTE)).await;
    let start = Instant::now();
    let warning = hear(&mut client).await;
    assert_eq!(seconds_since(start), 14 * 60);
    assert_eq!((warning.sequence(), warning.payload_type()), (1, PayloadType::Output));
    assert_eq!(String::from_utf8_lossy(warning.payload()), IDLE);
    assert!(warning.digest_matches());
    acknowledge(&client, 1);

    assert_eq!(closed(&mut client).await, "nothing happened in the session for 900s");
    assert_eq!(seconds_since(start), 15 * 60);
    assert_eq!(recorded_notices(&rig), [IDLE]);
    assert!(rig.upstream.hear().await.is_none(), "the agent heard of the warning");
    drop(client);
    assert_eq!(rig.ended().await.reason(), "idle_timeout");
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_the_session_and_numbers_go_on_behind_the_warning() {
    let (mut rig, mut client) = Rig::lit(idle(15 * MINUTE)).await;
    assert_eq!(hear(&mut client).await.sequence(), 1);
    acknowledge(&client, 1);
    press(&client, 0, b" ");
    assert_eq!(hear(&mut rig.upstream).await.payload(), b" ");

    for number in 1..4 {
        rig.say(number, b"more");
        let message = hear(&mut client).await;
        assert_eq!((message.sequence(), message.payload()), (number + 1, &b"more"[..]));
        assert!(message.digest_matches());
        acknowledge(&client, number + 1);
        assert_eq!(rig.acknowledged().await, number);
    }
    // Quiet again: the next warning comes after what the agent said.
    let start = Instant::now();
    let warning = hear(&mut client).await;
    assert_eq!((warning.sequence(), seconds_since(start)), (5, 14 * 60));
    press(&client, 1, b" ");
    assert_eq!(hear(&mut rig.upstream).await.payload(), b" ");
    rig.say(4, b"end");
    assert_eq!(hear(&mut client).await.sequence(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_the_agent_reaches_the_client_under_the_clients_number() {
    let (mut rig, mut client) = Rig::lit(idle(15 * MINUTE)).await;
    assert_eq!(hear(&mut client).await.sequence(), 1);
    acknowledge(&client, 1);
    press(&client, 0, b" ");
    hear(&mut rig.upstream).await;
    rig.say(1, b"once");
    assert_eq!(hear(&mut client).await.sequence(), 2);
    rig.say(1, b"once");
    let repeat = hear(&mut client).await;
    assert_eq!((repeat.sequence(), repeat.payload()), (2, &b"once"[..]));
    acknowledge(&client, 2);
    assert_eq!(rig.acknowledged().await, 1);
    rig.say(1, b"once");
    assert_eq!(rig.acknowledged().await, 1, "an acknowledge that got lost is not given again");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_is_warned_when_it_is_back() {
    let (mut rig, client) = Rig::lit(idle(10 * MINUTE)).await;
    drop(client);
    assert_eq!(rig.becomes().await, Presence::Disconnected);
    sleep(9 * MINUTE + MINUTE / 2).await;
    let mut client = rig.attach().await;
    let warning = hear(&mut client).await;
    let text = String::from_utf8_lossy(warning.payload()).into_owned();
    assert!(text.contains("ends in 30 seconds because nothing happened for 10 minutes"), "{text}");
    assert_eq!(warning.sequence(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_warning_that_was_not_acknowledged_is_shown_to_the_client_that_comes_back() {
    let (mut rig, mut client) = Rig::lit(idle(15 * MINUTE)).await;
    let warning = hear(&mut client).await;
    // A stock client that is not ready for it drops it; so it comes again.
    assert_eq!(hear(&mut client).await, warning);
    let mut client = rig.comes_back(client).await;
    assert_eq!(hear(&mut client).await, warning);
    acknowledge(&client, 1);
    press(&client, 0, b" ");
    assert_eq!(hear(&mut rig.upstream).await.message_type(), MessageType::InputStreamData);
    assert!(timeout(MINUTE, client.hear()).await.is_err(), "the warning came again");
    assert_eq!(recorded_notices(&rig), [IDLE]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_is_warned_of_while_there_is_work() {
    let rules = Rules { max_duration: Some(60 * MINUTE), ..Rules::default() };
    let (rig, mut client) = Rig::lit(rules).await;
    for key in 0..118 {
        sleep(MINUTE / 2).await;
        press(&client, key, b" ");
    }
    let text = String::from_utf8(hear(&mut client).await.payload().to_vec()).unwrap();
    let wanted =
        "*** postern: this session ends in 1 minute because it reaches its longest duration of 1 hour ***";
    assert_eq!(text.trim(), wanted);
    assert_eq!(closed(&mut client).await, "the session reached its longest duration of 3600s");
    drop(client);
    assert_eq!(rig.ended().await.reason(), "max_duration");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_the_agents_first_output() {
    let mut rig = Rig::start(idle(15 * MINUTE)).await;
    let mut client = rig.attach().await;
    let first = hear(&mut client).await;
    assert_eq!(first.message_type(), MessageType::ChannelClosed);
    assert!(recorded_notices(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_is_warned_on_standard_error_and_after_its_handshake() {
    let mut rig = Rig::start(idle(15 * MINUTE)).await;
    let mut client = rig.attach().await;
    let request = HandshakeRequest::new("3.3.0.0", "NonInteractiveCommands", serde_json::Value::Null);
    let request = (PayloadType::HandshakeRequest, &request.encode()[..]);
    rig.upstream.put(stream(MessageType::OutputStreamData, 0, request));
    let complete = (PayloadType::HandshakeComplete, &br#"{"HandshakeTimeToComplete":1}"#[..]);
    rig.upstream.put(stream(MessageType::OutputStreamData, 1, complete));
    for number in 0..2 {
        assert_eq!(hear(&mut client).await.sequence(), number);
        acknowledge(&client, number);
    }
    sleep(13 * MINUTE).await;
    rig.say(2, b"working");
    assert_eq!(hear(&mut client).await.payload(), b"working");
    let warning = hear(&mut client).await;
    assert_eq!((warning.sequence(), warning.payload_type()), (3, PayloadType::StdErr));
}

#[tokio::test(start_paused = true)]
async fn the_banner_rides_on_the_first_output_and_is_recorded_as_the_gateways() {
    let rules = Rules { banner: Some("Be careful.".to_owned()), ..Rules::default() };
    let mut rig = Rig::start(rules).await;
    let mut client = rig.attach().await;
    rig.say(0, b"$ ");
    rig.say(1, b"ls");
    let first = hear(&mut client).await;
    assert_eq!((first.sequence(), first.payload()), (0, &b"Be careful.\r\n$ "[..]));
    assert!(first.digest_matches());
    assert_eq!(hear(&mut client).await.payload(), b"ls");
    acknowledge(&client, 0);
    assert_eq!(rig.acknowledged().await, 0);
    let hand = rig.hand.lock().unwrap();
    let recorded: Vec<_> =
        hand.output.iter().map(|event| (event.sequence, event.content.as_slice())).collect();
    assert_eq!(recorded, [(None, &b"Be careful.\r\n"[..]), (Some(0), b"$ "), (Some(1), b"ls")]);
}

#[tokio::test(start_paused = true)]
async fn whose_output_is_held_back_is_told_why_once_and_when_it_goes_on() {
    let mut rig = Rig::recorded(Rules::default(), Durability::Remote).await;
    let mut client = rig.attach().await;
    rig.say(0, b"$ ");
    assert_eq!(hear(&mut client).await.payload(), b"$ ");
    acknowledge(&client, 0);
    // Nobody stores it elsewhere.
    let start = Instant::now();
    let told = hear(&mut client).await;
    assert_eq!((told.sequence(), seconds_since(start)), (1, 5));
    let text = String::from_utf8(told.payload().to_vec()).unwrap();
    let before = "*** postern: output is held back until CloudWatch Logs has it; nothing was stored since ";
    let clock = text.trim().strip_prefix(before).and_then(|rest| rest.strip_suffix(" UTC ***")).unwrap();
    assert!(clock.len() == 8 && clock.chars().all(|c| c.is_ascii_digit() || c == ':'), "{text}");
    assert_eq!(rig.metrics.held_back_sessions.get(), 1);
    acknowledge(&client, 1);
    rig.say(1, b"more");
    assert_eq!(hear(&mut client).await.sequence(), 2);
    acknowledge(&client, 2);
    // However long it lasts, it is not said again.
    assert!(timeout(60 * MINUTE, client.hear()).await.is_err(), "it was said again");

    rig.hand.lock().unwrap().accept();
    assert_eq!(rig.acknowledged().await, 0);
    assert_eq!(rig.acknowledged().await, 1);
    let on = hear(&mut client).await;
    assert_eq!(on.sequence(), 3);
    let text = String::from_utf8(on.payload().to_vec()).unwrap();
    assert_eq!(text.trim(), "*** postern: what was held back is stored; the session goes on ***");
    acknowledge(&client, 3);
    assert_eq!((rig.metrics.held_back_sessions.get(), rig.metrics.held_back_seconds.get()), (0, 3605));
    assert_eq!(recorded_notices(&rig).len(), 2, "what was said is recorded");

    // And again, if it happens again.
    rig.say(2, b"later");
    assert_eq!(hear(&mut client).await.sequence(), 4);
    acknowledge(&client, 4);
    let again = hear(&mut client).await;
    assert!(String::from_utf8_lossy(again.payload()).contains("output is held back until CloudWatch Logs"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_of_output_that_is_stored_in_time() {
    let mut rig = Rig::recorded(Rules::default(), Durability::Remote).await;
    let mut client = rig.attach().await;
    for number in 0..20 {
        rig.say(number, b"x");
        assert_eq!(hear(&mut client).await.sequence(), number);
        acknowledge(&client, number);
        sleep(Duration::from_secs(2)).await;
        rig.hand.lock().unwrap().accept();
        assert_eq!(rig.acknowledged().await, number);
    }
    assert!(recorded_notices(&rig).is_empty());
}
