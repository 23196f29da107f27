//! The two sides of a leg, alone and over a link that loses and reorders.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Arrival, Incoming, Outgoing, QueueFull};
use crate::message::{Draft, Message, MessageType};
use crate::payload::PayloadType;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn draft(payload: &[u8]) -> Draft<'_> {
    Draft {
        message_type: MessageType::OutputStreamData,
        created_ms: 1,
        sequence: -7,
        flags: 0,
        id: Uuid::nil(),
        payload_type: PayloadType::Output,
        payload,
    }
}

fn message(sequence: i64, payload: &[u8]) -> Message {
    Message::parse(Draft { sequence, ..draft(payload) }.encode()).unwrap()
}

fn numbers(due: impl IntoIterator<Item = Bytes>) -> Vec<i64> {
    due.into_iter().map(|raw| Message::parse(raw).unwrap().sequence()).collect()
}

fn all_due(outgoing: &mut Outgoing, now: Duration) -> Vec<i64> {
    numbers(std::iter::from_fn(|| outgoing.due(now)))
}

fn sent(count: u64) -> Outgoing {
    let mut outgoing = Outgoing::default();
    for _ in 0..count {
        outgoing.send(draft(b"x"), ms(0)).unwrap();
    }
    outgoing
}

#[test]
fn messages_are_numbered_from_the_start() {
    let mut outgoing = Outgoing::starting_at(5);
    let raw = [outgoing.send(draft(b"a"), ms(0)).unwrap(), outgoing.send(draft(b"b"), ms(0)).unwrap()];
    assert_eq!(numbers(raw), [5, 6]);
    assert_eq!((outgoing.next_sequence(), outgoing.waiting()), (7, 2));
}

#[test]
fn every_due_message_is_sent_again_and_once_a_timeout() {
    let mut outgoing = sent(3);
    assert_eq!(all_due(&mut outgoing, ms(199)), [0i64; 0]);
    assert_eq!(all_due(&mut outgoing, ms(200)), [0, 1, 2]);
    assert_eq!(all_due(&mut outgoing, ms(399)), [0i64; 0]);
    assert_eq!(all_due(&mut outgoing, ms(400)), [0, 1, 2]);
    assert_eq!(outgoing.waiting_since(), Some(ms(0)));
}

#[test]
fn an_acknowledge_stands_for_one_message() {
    let mut outgoing = sent(4);
    assert!(outgoing.acknowledged(2, ms(100)));
    assert!(!outgoing.acknowledged(2, ms(100)), "again");
    for unknown in [-1, 4, i64::MIN, i64::MAX] {
        assert!(!outgoing.acknowledged(unknown, ms(100)));
    }
    assert_eq!(outgoing.waiting(), 3);
    assert_eq!(all_due(&mut outgoing, ms(1_000)), [0, 1, 3]);
}

#[test]
fn nothing_is_due_when_all_is_acknowledged() {
    let mut outgoing = sent(2);
    assert!(outgoing.acknowledged(1, ms(5)) && outgoing.acknowledged(0, ms(5)));
    assert_eq!((outgoing.waiting(), outgoing.next_due(), outgoing.waiting_since()), (0, None, None));
    assert_eq!(outgoing.next_sequence(), 2);
}

#[test]
fn a_full_queue_refuses_and_discards_nothing() {
    let mut outgoing = Outgoing::default().with_limit(2);
    outgoing.send(draft(b"a"), ms(0)).unwrap();
    outgoing.send(draft(b"b"), ms(0)).unwrap();
    assert_eq!(outgoing.send(draft(b"c"), ms(0)), Err(QueueFull(2)));
    assert!(outgoing.acknowledged(1, ms(1)), "the oldest still waits");
    assert_eq!(outgoing.send(draft(b"c"), ms(1)), Err(QueueFull(1)));
    assert!(outgoing.acknowledged(0, ms(2)));
    assert_eq!(numbers([outgoing.send(draft(b"c"), ms(2)).unwrap()]), [2]);
    assert_eq!(sent(10_000).send(draft(b"x"), ms(0)), Err(QueueFull(10_000)));
}

#[test]
fn a_new_connection_makes_everything_due_in_order() {
    let mut outgoing = sent(4);
    assert!(outgoing.acknowledged(1, ms(50)));
    assert_eq!(outgoing.due(ms(250)).map(|raw| numbers([raw])), Some(vec![0]));
    outgoing.reconnected();
    assert_eq!(outgoing.next_due(), Some(ms(0)));
    assert_eq!(all_due(&mut outgoing, ms(251)), [0, 2, 3]);
    assert_eq!(all_due(&mut outgoing, ms(252)), [0i64; 0]);
}

#[test]
fn the_timeout_follows_the_round_trip_as_the_peers_have_it() {
    let mut outgoing = sent(3);
    assert_eq!(outgoing.rto(), ms(200));
    assert!(outgoing.acknowledged(0, ms(20)));
    // Variation (0·3 + 80)/4 = 20, RTT (100·7 + 20)/8 = 90, RTO 90 + 4·20.
    assert_eq!(outgoing.rto(), ms(170));
    assert!(outgoing.acknowledged(1, ms(90)));
    // Variation 15, RTT 90.
    assert_eq!(outgoing.rto(), ms(150));
    assert!(outgoing.acknowledged(2, Duration::from_secs(3_600)));
    assert_eq!(outgoing.rto(), ms(1_000));
}

#[test]
fn a_slow_link_is_not_flooded() {
    let mut outgoing = Outgoing::default();
    let (mut now, mut again) = (ms(0), 0);
    for sequence in 0..50 {
        outgoing.send(draft(b"x"), now).unwrap();
        for _ in 0..60 {
            now += ms(10);
            again += all_due(&mut outgoing, now).len();
        }
        assert!(outgoing.acknowledged(sequence, now));
    }
    assert!(again < 20, "{again} messages sent again on a link of 600 ms");
}

#[test]
fn acknowledged_messages_leave_no_timers_behind() {
    let mut outgoing = Outgoing::default();
    outgoing.send(draft(b"never acknowledged"), ms(0)).unwrap();
    for sequence in 1..5_000 {
        outgoing.send(draft(b"x"), ms(0)).unwrap();
        assert!(outgoing.acknowledged(sequence, ms(1)));
    }
    assert!(outgoing.timers.len() < 100, "{} timers", outgoing.timers.len());
}

#[test]
fn early_messages_are_held_and_delivered_in_order() {
    let (mut incoming, mut out) = (Incoming::default(), Vec::new());
    assert_eq!(incoming.receive(message(2, b"c"), &mut out), Arrival::Held);
    assert_eq!(incoming.receive(message(1, b"b"), &mut out), Arrival::Held);
    assert!(out.is_empty());
    assert_eq!(incoming.receive(message(0, b"a"), &mut out), Arrival::Deliver);
    assert_eq!(out.iter().map(Message::sequence).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((incoming.expected(), incoming.held(), incoming.held_bytes), (3, 0, 0));
}

#[test]
fn what_came_before_is_a_duplicate_and_the_first_one_counts() {
    let (mut incoming, mut out) = (Incoming::expecting(4), Vec::new());
    assert_eq!(incoming.receive(message(3, b"old"), &mut out), Arrival::Duplicate);
    assert_eq!(incoming.receive(message(i64::MIN, b"odd"), &mut out), Arrival::Duplicate);
    assert_eq!(incoming.receive(message(5, b"first"), &mut out), Arrival::Held);
    assert_eq!(incoming.receive(message(5, b"second"), &mut out), Arrival::Duplicate);
    assert_eq!(incoming.receive(message(4, b"now"), &mut out), Arrival::Deliver);
    assert_eq!(out.iter().map(Message::payload).collect::<Vec<_>>(), [&b"now"[..], b"first"]);
    assert!(Arrival::Duplicate.wants_acknowledge() && !Arrival::Full.wants_acknowledge());
}

#[test]
fn a_full_reorder_buffer_still_takes_the_expected_message() {
    let (mut incoming, mut out) = (Incoming::default().with_limits(3, 2 * 121), Vec::new());
    assert_eq!(incoming.receive(message(4, b"x"), &mut out), Arrival::Full, "too far ahead");
    assert_eq!(incoming.receive(message(i64::MAX, b"x"), &mut out), Arrival::Full);
    assert_eq!(incoming.receive(message(3, b"x"), &mut out), Arrival::Held);
    assert_eq!(incoming.receive(message(2, b"x"), &mut out), Arrival::Held);
    assert_eq!(incoming.receive(message(1, b"x"), &mut out), Arrival::Full, "too many bytes");
    assert_eq!(incoming.receive(message(0, b"x"), &mut out), Arrival::Deliver);
    assert_eq!(incoming.receive(message(1, b"x"), &mut out), Arrival::Deliver);
    assert_eq!(out.iter().map(Message::sequence).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// A link with its own dice: loses, doubles and delays what is put in.
struct Link<T> {
    dice: u64,
    loss: u64,
    doubling: u64,
    under_way: BTreeMap<(Duration, u64), T>,
}

impl<T: Clone> Link<T> {
    fn new(seed: u64, loss: u64, doubling: u64) -> Self {
        Self { dice: seed | 1, loss, doubling, under_way: BTreeMap::new() }
    }

    /// A number from 0 up to the given one (xorshift64).
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn put(&mut self, thing: &T, now: Duration) {
        let copies = if self.roll(100) < self.doubling { 2 } else { 1 };
        for _ in 0..copies {
            if self.roll(100) >= self.loss {
                let key = (now + ms(5 + self.roll(300)), self.roll(u64::MAX));
                self.under_way.insert(key, thing.clone());
            }
        }
    }

    fn arrived(&mut self, now: Duration) -> Vec<T> {
        let later = self.under_way.split_off(&(now + ms(1), 0));
        std::mem::replace(&mut self.under_way, later).into_values().collect()
    }

    fn cut(&mut self) {
        self.under_way.clear();
    }
}

/// Runs payloads over a bad link; gives back what was delivered.
fn carried(
    payloads: &[Vec<u8>],
    seed: u64,
    loss: u64,
    doubling: u64,
    limits: (usize, usize),
) -> Vec<Vec<u8>> {
    let mut there = Link::new(seed, loss, doubling);
    let mut back = Link::new(seed.rotate_left(17), loss, doubling);
    let mut outgoing = Outgoing::default().with_limit(limits.0);
    let mut incoming = Incoming::default().with_limits(limits.1, limits.1 * 200);
    let (mut todo, mut delivered) = (payloads.iter().peekable(), Vec::new());
    for step in 0..60_000u64 {
        let now = ms(step * 10);
        while !outgoing.is_full() {
            let Some(payload) = todo.next() else { break };
            there.put(&outgoing.send(draft(payload), now).unwrap(), now);
        }
        while let Some(raw) = outgoing.due(now) {
            there.put(&raw, now);
        }
        for raw in there.arrived(now) {
            let message = Message::parse(raw).unwrap();
            let sequence = message.sequence();
            if incoming.receive(message, &mut delivered).wants_acknowledge() {
                back.put(&sequence, now);
            }
        }
        for sequence in back.arrived(now) {
            outgoing.acknowledged(sequence, now);
        }
        if step % 500 == 499 {
            there.cut();
            back.cut();
            outgoing.reconnected();
        }
        if outgoing.waiting() == 0 && todo.peek().is_none() {
            break;
        }
    }
    delivered.iter().map(|message| message.payload().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_payload_arrives_once_and_in_order(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..120),
        seed in any::<u64>(), loss in 0u64..60, doubling in 0u64..40,
        sending in 1usize..60, holding in 1usize..60,
    ) {
        prop_assert_eq!(carried(&payloads, seed, loss, doubling, (sending, holding)), payloads);
    }
}
