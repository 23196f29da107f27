//! The window: numbers, repeats, acknowledges and what they prove.

use data_channel::message::{Draft, MessageType};
use data_channel::payload::PayloadType;
use uuid::Uuid;

use super::*;

fn message(sequence: i64) -> Message {
    let draft = Draft {
        message_type: MessageType::OutputStreamData,
        created_ms: 1,
        sequence,
        flags: 0,
        id: Uuid::new_v4(),
        payload_type: PayloadType::Output,
        payload: b"x",
    };
    Message::parse(draft.encode()).unwrap()
}

fn accepted(count: i64) -> Output {
    let mut output = Output::default();
    for sequence in 0..count {
        assert_eq!(output.arrival(sequence), Arrival::Fresh);
        output.accept(message(sequence), Position::default(), Instant::now());
    }
    output
}

fn send_all(output: &mut Output) -> usize {
    std::iter::from_fn(|| output.send_next(Instant::now())).count()
}

#[test]
fn a_message_is_fresh_once_then_a_repeat_then_done() {
    let mut output = accepted(1);
    assert_eq!(output.arrival(0), Arrival::Repeat);
    assert_eq!(send_all(&mut output), 1);
    assert!(output.acknowledged(0).is_some());
    assert_eq!(output.arrival(0), Arrival::Done);
    assert!(output.acknowledged(0).is_none());
}

#[test]
fn a_message_before_its_turn_waits_for_the_gap() {
    let mut output = Output::default();
    assert_eq!(output.arrival(2), Arrival::Early);
    assert!(output.hold(message(2)));
    assert!(output.take_held().is_none());
    output.accept(message(0), Position::default(), Instant::now());
    output.accept(message(1), Position::default(), Instant::now());
    assert_eq!(output.take_held().unwrap().sequence(), 2);
    assert_eq!(output.arrival(9000), Arrival::TooEarly);
    assert_eq!(output.arrival(i64::MAX), Arrival::TooEarly);
    assert_eq!(output.arrival(i64::MIN), Arrival::Done);
}

#[test]
fn a_returning_client_gets_what_it_has_not_acknowledged() {
    let mut output = accepted(5);
    assert_eq!(send_all(&mut output), 5);
    output.acknowledged(0).unwrap();
    output.acknowledged(3).unwrap();
    output.restart();
    assert_eq!(send_all(&mut output), 3);
    assert!(output.all_sent());
}

#[test]
fn a_lost_acknowledge_is_repaired_once_a_later_message_is_acknowledged() {
    let mut output = accepted(10);
    send_all(&mut output);
    for sequence in 0..4 {
        output.acknowledged(sequence).unwrap();
    }
    // Number 4 was printed by the client, its acknowledge got lost, and the agent repeats it.
    assert!(output.repeat(4, Instant::now()).is_some());
    let (_, lost) = output.acknowledged(5).unwrap();
    assert!(lost.is_empty(), "5 was sent before the repeat, so it proves nothing");
    output.accept(message(10), Position::default(), Instant::now());
    send_all(&mut output);
    let (_, lost) = output.acknowledged(10).unwrap();
    assert_eq!(lost.iter().map(|owed| owed.acknowledge.sequence).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_handshake_is_the_agents_until_the_client_has_it() {
    let now = Instant::now();
    let mut output = Output::default();
    let complete = |sequence| {
        let draft = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type: PayloadType::HandshakeComplete,
            payload: b"{}",
        };
        Message::parse(draft.encode()).unwrap()
    };
    output.accept(complete(0), Position::default(), now);
    send_all(&mut output);
    for _ in 0..2 * IGNORED_REPEATS {
        output.repeat(0, now).unwrap();
        assert!(output.silence(0, now).is_empty());
    }
    // What the client types now shows that it has it.
    output.settle();
    assert_eq!(output.silence(0, now).len(), 1);
}

#[test]
fn a_repeat_from_before_the_client_was_ready_proves_nothing() {
    let now = Instant::now();
    let mut output = accepted(2);
    send_all(&mut output);
    output.acknowledged(0).unwrap();
    // The client drops 1, and its repeat too; then it is ready, and holds 2 for later.
    assert!(output.repeat(1, now).is_some());
    output.accept(message(2), Position::default(), now);
    send_all(&mut output);
    output.settle();
    assert!(output.acknowledged(2).unwrap().1.is_empty());
    // One that is passed over afterwards was printed before.
    assert!(output.repeat(1, now).is_some());
    output.accept(message(3), Position::default(), now);
    send_all(&mut output);
    assert_eq!(output.acknowledged(3).unwrap().1.len(), 1);
}

#[test]
fn nothing_is_repaired_before_the_client_has_settled() {
    let mut output = accepted(3);
    send_all(&mut output);
    assert!(output.repeat(0, Instant::now()).is_some());
    output.accept(message(3), Position::default(), Instant::now());
    send_all(&mut output);
    let (_, lost) = output.acknowledged(3).unwrap();
    assert!(lost.is_empty());
}

fn sequence_of(raw: &Bytes) -> i64 {
    Message::parse(raw.clone()).unwrap().sequence()
}

#[test]
fn after_a_notice_the_client_counts_one_more() {
    let now = Instant::now();
    let mut output = accepted(2);
    output.accept_notice(message(output.client_next()), Position::default(), now);
    output.accept(message(2), Position::default(), now);
    output.accept_notice(message(output.client_next()), Position::default(), now);
    output.accept(message(3), Position::default(), now);
    let sent: Vec<i64> = std::iter::from_fn(|| output.send_next(now)).map(|raw| sequence_of(&raw)).collect();
    assert_eq!(sent, [0, 1, 2, 3, 4, 5]);
    for (agent, client) in [(0, 0), (1, 1), (2, 3), (3, 5)] {
        assert_eq!(output.arrival(agent), Arrival::Repeat);
        assert_eq!(sequence_of(&output.repeat(agent, now).unwrap()), client);
    }
    let numbers: Vec<Option<i64>> =
        (0..6).map(|client| agents_number(output.acknowledged(client).unwrap().0)).collect();
    assert_eq!(numbers, [Some(0), Some(1), None, Some(2), None, Some(3)]);
    assert_eq!(output.arrival(3), Arrival::Done);
    assert_eq!(output.arrival(4), Arrival::Fresh);
    output.accept(message(4), Position::default(), now);
    assert_eq!(sequence_of(&output.send_next(now).unwrap()), 6);
    assert_eq!(agents_number(output.acknowledged(6).unwrap().0), Some(4));
}

#[test]
fn a_notice_is_sent_again_until_it_is_acknowledged() {
    let start = Instant::now();
    let mut output = accepted(1);
    output.accept_notice(message(1), Position::default(), start);
    while output.send_next(start).is_some() {}
    assert_eq!(output.due_again(), None, "the oldest is the agent's, which it repeats itself");
    output.acknowledged(0).unwrap();
    assert!(output.repeat_oldest(start).is_none());
    let due = output.due_again().unwrap();
    assert_eq!(sequence_of(&output.repeat_oldest(due).unwrap()), 1);
    assert!(output.due_again().unwrap() > due);
    output.acknowledged(1).unwrap();
    assert_eq!(output.due_again(), None);
}

#[test]
fn an_agent_does_not_wait_for_ever_for_a_client_that_keeps_silent() {
    let mut output = accepted(5);
    send_all(&mut output);
    output.acknowledged(0).unwrap();
    let now = Instant::now() + SILENCE;
    for _ in 1..IGNORED_REPEATS {
        output.repeat(1, now).unwrap();
        assert!(output.silence(1, now).is_empty());
    }
    output.accept(message(5), Position::default(), now);
    output.send_next(now).unwrap();
    output.repeat(1, now).unwrap();
    let owed: Vec<i64> = output.silence(1, now).iter().map(|owed| owed.acknowledge.sequence).collect();
    assert_eq!(owed, [1, 2, 3, 4], "5 was sent too late to be judged");
    assert_eq!(output.arrival(1), Arrival::Done);
    assert_eq!(output.arrival(5), Arrival::Repeat);
    // The client still gets them, from here alone, and owes nobody anything for it.
    let due = output.due_again().unwrap();
    assert_eq!(sequence_of(&output.repeat_oldest(due).unwrap()), 1);
    output.restart();
    assert_eq!(send_all(&mut output), 5);
    assert!(output.acknowledged(1).unwrap().0.is_none());
}

fn agents_number(owed: Option<Owed>) -> Option<i64> {
    owed.map(|owed| owed.acknowledge.sequence)
}

#[test]
fn a_full_window_opens_a_little_for_a_client_that_came_back() {
    let mut output = accepted(UNACKNOWLEDGED_MAX as i64);
    output.restart();
    send_all(&mut output);
    assert!(!output.has_room());
    // All of them were printed, and all their acknowledges lost: the client says no word.
    output.restart();
    send_all(&mut output);
    assert!(output.has_room());
    for _ in 0..10_000 {
        output.restart();
    }
    let mut most = UNACKNOWLEDGED_MAX as i64;
    while output.has_room() {
        output.accept(message(most), Position::default(), Instant::now());
        most += 1;
    }
    assert_eq!(most as usize, UNACKNOWLEDGED_MAX + PROBE * PROBES_MAX);
}

#[test]
fn reading_stops_when_a_client_acknowledges_nothing() {
    let output = accepted(UNACKNOWLEDGED_MAX as i64);
    assert!(!output.has_room());
}
