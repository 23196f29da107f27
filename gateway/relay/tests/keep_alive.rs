//! Peers that are gone without a word, away for long, or do not read.

use std::time::Duration;

use data_channel::message::MessageType;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Control, Ending, Presence, Rules, Times};
use super::rig::{Rig, acknowledge, hear, press};

/// More messages than any window of the relay holds.
const MORE: i64 = 20_000;

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_counts_as_gone_and_may_come_back() {
    let (mut rig, client) = Rig::lit(Rules::default()).await;
    client.freeze();
    let start = Instant::now();
    rig.say(1, b"into the void");
    assert_eq!(rig.becomes().await, Presence::Disconnected);
    assert!(start.elapsed() <= Times::default().ping * 5, "{:?}", start.elapsed());

    let mut back = rig.attach().await;
    let message = hear(&mut back).await;
    assert_eq!((message.sequence(), message.payload()), (1, &b"into the void"[..]));
    drop(client);
    acknowledge(&back, 1);
    assert_eq!(rig.acknowledged().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays_for_hours() {
    let (mut rig, mut client) = Rig::lit(Rules::default()).await;
    sleep(Duration::from_secs(3 * 3600)).await;
    rig.say(1, b"good morning");
    assert_eq!(hear(&mut client).await.sequence(), 1);
    assert!(rig.presence.try_recv().is_err(), "it was taken for gone");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_no_ping_is_dialled_again() {
    let (mut rig, mut client) = Rig::lit(Rules::default()).await;
    rig.upstream.freeze();
    let frozen = Instant::now();
    press(&client, 0, b"x");
    sleep(Duration::from_secs(1)).await;
    let _dead = rig.redialled().await;
    assert!(frozen.elapsed() <= Times::default().ping * 5, "{:?}", frozen.elapsed());
    // The client has no acknowledge of its key, so it sends it again; and numbers go on.
    press(&client, 0, b"x");
    assert_eq!(hear(&mut rig.upstream).await.payload(), b"x");
    rig.say(1, b"y");
    assert_eq!(hear(&mut client).await.sequence(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_hourly_bye_is_not_noticed() {
    let (mut rig, mut client) = Rig::lit(Rules::default()).await;
    for hour in 1..=8 {
        sleep(Duration::from_secs(3600)).await;
        rig.upstream.bye();
        rig.redialled().await;
        rig.say(hour, b"still here");
        assert_eq!(hear(&mut client).await.sequence(), hour);
        acknowledge(&client, hour);
        assert_eq!(rig.acknowledged().await, hour);
    }
    assert!(rig.presence.try_recv().is_err(), "the client was let go");
}

#[tokio::test(start_paused = true)]
async fn a_client_away_for_five_minutes_gets_everything_in_order() {
    let (mut rig, client) = Rig::lit(Rules::default()).await;
    drop(client);
    assert_eq!(rig.becomes().await, Presence::Disconnected);
    for number in 1..=300 {
        sleep(Duration::from_secs(1)).await;
        rig.say(number, format!("line {number}\r\n").as_bytes());
    }
    let mut client = rig.attach().await;
    for number in 1..=300 {
        let message = hear(&mut client).await;
        assert_eq!(message.sequence(), number);
        assert_eq!(message.payload(), format!("line {number}\r\n").as_bytes());
        acknowledge(&client, number);
        assert_eq!(rig.acknowledged().await, number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_comes_back_is_given_up() {
    let (mut rig, client) = Rig::lit(Rules::default()).await;
    drop(client);
    assert_eq!(rig.becomes().await, Presence::Disconnected);
    let start = Instant::now();
    let ended = rig.ended().await;
    assert_eq!(ended.reason(), "client_away");
    assert_eq!(start.elapsed().as_secs(), Times::default().client_away.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_sends_and_does_not_read_is_dialled_again() {
    let (mut rig, mut client) = Rig::lit(Rules::default()).await;
    rig.upstream.stop_reading();
    for number in 1..=MORE {
        rig.say(number, b"x");
    }
    // What it says is read only as far as acknowledges may pile up for it.
    let mut heard = 0;
    let _deaf = loop {
        tokio::select! {
            biased;
            message = hear(&mut client) => {
                heard = message.sequence();
                acknowledge(&client, heard);
            }
            deaf = rig.redialled() => break deaf,
        }
    };
    assert!(heard > 8_000 && heard < MORE - 5_000, "{heard} were read");
    assert!(rig.acknowledged().await > 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_whose_acknowledges_are_all_lost_does_not_jam() {
    let (mut rig, client) = Rig::lit(Rules::default()).await;
    press(&client, 0, b"x");
    assert_eq!(hear(&mut rig.upstream).await.payload(), b"x");
    for number in 1..=MORE {
        rig.say(number, b"x");
    }
    // It prints whatever fits into the window, and loses its connection with every acknowledge.
    let mut client = rig.comes_back(client).await;
    let mut printed = 0;
    while let Ok(message) = timeout(Duration::from_secs(1), hear(&mut client)).await {
        printed = message.sequence();
    }
    assert!(printed > 8_000 && printed < MORE, "{printed}");
    let mut client = rig.comes_back(client).await;
    let mut acknowledged = 0;
    while acknowledged < MORE {
        tokio::select! {
            biased;
            message = hear(&mut client) => {
                // A stock client is silent about what it has printed.
                if message.sequence() > printed {
                    printed = message.sequence();
                    acknowledge(&client, printed);
                }
            }
            number = rig.acknowledged() => acknowledged = acknowledged.max(number),
        }
    }
    assert_eq!(printed, MORE);
}

#[tokio::test(start_paused = true)]
async fn an_order_to_end_is_told_to_a_client_that_is_there() {
    let (rig, mut client) = Rig::lit(Rules::default()).await;
    let ending = Ending { reason: "terminated", sentence: "ended by carol".to_owned() };
    rig.orders.send(Control::End(ending)).await.unwrap();
    let message = hear(&mut client).await;
    assert_eq!(message.message_type(), MessageType::ChannelClosed);
    drop(client);
    assert_eq!(rig.ended().await.reason(), "terminated");
}
