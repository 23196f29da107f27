//! Frames that are none: dropped or the end of a connection, never of more.

use data_channel::message::SYN_FIN;
use data_channel::{Acknowledge, ChannelClosed, Draft, Message, MessageType, PayloadType, Uuid};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::support::{DEV, Heard, House, Person, Terminal, draft};

/// A frame of so many bytes that look like nothing.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 151 % 251) as u8).collect()
}

fn of_type(message_type: MessageType) -> Vec<u8> {
    Draft { message_type, flags: SYN_FIN, ..draft(PayloadType::Output, b"touch /tmp/owned\r") }
        .encode()
        .to_vec()
}

/// Input whose payload was changed after its digest was made.
fn wrong_digest(sequence: i64) -> Vec<u8> {
    let mut raw = Draft { sequence, ..draft(PayloadType::Output, b"echo evil\r") }.encode().to_vec();
    *raw.last_mut().unwrap() = b'\n';
    raw
}

/// The session answers, on this connection or the next.
async fn works(terminal: &mut Terminal, person: &Person, word: &str) {
    terminal.type_line(&format!("echo '{word}'''-ok")).await;
    loop {
        if terminal.text().contains(&format!("{word}-ok\r\n")) {
            return;
        }
        if matches!(terminal.next().await, Heard::Gone(_)) {
            terminal.resume(person).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_harm_nobody() {
    let house = House::apart().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let mut victim = Terminal::shell(&bob, DEV).await;
    let mut attacker = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&attacker.session).await;

    let whole = draft(PayloadType::Output, b"x").encode().to_vec();
    let mut huge_header = whole.clone();
    huge_header[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("short", noise(7)),
        ("noise", noise(1000)),
        ("truncated", whole[..119].to_vec()),
        ("header", huge_header),
        ("digest", wrong_digest(1_000)),
        ("far", Draft { sequence: i64::MAX, ..draft(PayloadType::Output, b"x") }.encode().to_vec()),
        ("negative", Draft { sequence: i64::MIN, ..draft(PayloadType::Output, b"x") }.encode().to_vec()),
        ("output", of_type(MessageType::OutputStreamData)),
        ("publication", of_type(MessageType::PausePublication)),
        ("task", of_type(MessageType::AgentTaskComplete)),
        ("closed", ChannelClosed::message(&attacker.session, "bye", 1).to_vec()),
        ("acknowledge", forged_acknowledge(i64::MAX)),
        ("early", forged_acknowledge(attacker.expected() + 500)),
    ];
    for (what, raw) in bad {
        attacker.put_bytes(raw).await;
        works(&mut attacker, &alice, what).await;
        works(&mut victim, &bob, what).await;
    }
    assert_eq!(house.local.counts(&upstream).unwrap().rejects, 0, "bad frames reached the agent");
    assert!(!attacker.text().contains("owned"));
    let gateway = house.apart.as_ref().unwrap();
    assert!(!gateway.said("panicked"), "{}", gateway.log());
}

fn forged_acknowledge(sequence: i64) -> Vec<u8> {
    let message_type = MessageType::OutputStreamData;
    Acknowledge { message_type, message_id: Uuid::new_v4(), sequence }.encode(1).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_floods_and_giants_end_the_connection_but_not_the_session() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.put(Frame::text("a second opening message")).await;
    assert_eq!(terminal.gone().await, Some(1008));
    terminal.resume(&alice).await;
    terminal.put_bytes(noise(300 * 1024)).await;
    terminal.gone().await;
    terminal.resume(&alice).await;
    for _ in 0..200 {
        terminal.put_bytes(noise(64)).await;
    }
    assert_eq!(terminal.gone().await, Some(1008));
    terminal.resume(&alice).await;
    works(&mut terminal, &alice, "after").await;
    let dropped = house.metric("postern_relay_dropped_messages_total{reason=\"malformed\"}").await;
    assert!(dropped >= 64.0, "{dropped}");
    let gateway = house.apart.as_ref().unwrap();
    assert!(!gateway.said("panicked"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_message_is_typed_once() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let raw = draft(PayloadType::Output, b"echo o''nce\r").encode();
    assert_eq!(Message::parse(raw.clone()).unwrap().sequence(), 0);
    for _ in 0..5 {
        terminal.put_bytes(raw.clone()).await;
    }
    terminal.until("once\r\n$ ").await;
    let upstream = alice.upstream(&terminal.session).await;
    crate::support::until("the repeats", || house.local.counts(&upstream).unwrap().duplicates == 4).await;
    assert_eq!(terminal.text().matches("once\r\n").count(), 1);
}
