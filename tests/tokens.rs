//! A bad token is refused after the upgrade, in words that clients print.

use data_channel::OpenDataChannel;
use postern::identity::KeyRing;
use serde_json::json;

use crate::support::{DEV, House, Terminal, Ticket, refusal, signed_upgrade};

const INVALID: &str = "the token is not valid any more; start or resume the session again";

fn opening(token: &str) -> String {
    OpenDataChannel::new(token, "a-client", Some("1.2.764.0")).to_text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_or_foreign_token_opens_nothing() {
    let house = House::start().await;
    let alice = house.alice().await;
    let (mine, other) = (alice.start(DEV).await, alice.start(DEV).await);
    let mut forged = mine.token.clone();
    forged.replace_range(20..21, if forged.as_bytes()[20] == b'A' { "B" } else { "A" });
    for token in [forged.as_str(), "", "x", &other.token, &"A".repeat(2000)] {
        assert_eq!(refusal(&house.door, &mine.url, &[], &opening(token)).await, INVALID);
    }
    let mut terminal = Terminal::open(&house.door, &mine).await;
    terminal.until("$ ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_opens_nothing() {
    let house = House::start().await;
    let ticket = house.alice().await.start(DEV).await;
    // The gateway's own key ring seals it, so only its age is wrong.
    let ring = KeyRing::open(&house.folder.path().join("state/keys/ring.key")).unwrap();
    let minted = |age: i64| {
        let issued = time::OffsetDateTime::now_utc().unix_timestamp() - age;
        let token = json!({"s": ticket.session, "n": "n", "t": issued}).to_string();
        Ticket { token: ring.seal("stream-token", token.as_bytes()), ..ticket.clone() }
    };
    assert_eq!(refusal(&house.door, &ticket.url, &[], &opening(&minted(120).token)).await, INVALID);
    let mut terminal = Terminal::open(&house.door, &minted(10)).await;
    terminal.until("$ ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_use_is_of_no_use_to_another_client() {
    let house = House::start().await;
    let ticket = house.alice().await.start(DEV).await;
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    terminal.until("$ ").await;
    let told = refusal(&house.door, &ticket.url, &[], &opening(&ticket.token)).await;
    assert_eq!(told, "the session is in use by another client");
    // The same client dials again with the same token, as plugins do.
    terminal.cut();
    terminal.attach(&house.door, &ticket).await;
    terminal.type_line("echo m''ine").await;
    terminal.until("mine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_upgrade_must_be_signed_by_the_owner() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let ticket = alice.start(DEV).await;
    let text = opening(&ticket.token);

    let told = refusal(&house.door, &ticket.url, &signed_upgrade(&bob, &ticket.url), &text).await;
    assert_eq!(told, "the connection is signed by somebody else than the session's owner");
    let mut spoilt = signed_upgrade(&alice, &ticket.url);
    for (name, value) in &mut spoilt {
        if name == "authorization" {
            value.replace_range(value.len() - 4.., "0000");
        }
    }
    let told = refusal(&house.door, &ticket.url, &spoilt, &text).await;
    assert!(told.contains("signature"), "{told}");

    let ticket = alice.resume(&ticket.session).await.unwrap();
    let mut terminal = Terminal::new(&ticket.session);
    terminal.attach_with(&house.door, &ticket, &signed_upgrade(&alice, &ticket.url)).await;
    terminal.until("$ ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_message_that_is_none_is_refused_in_words() {
    let house = House::start().await;
    let ticket = house.alice().await.start(DEV).await;
    for text in ["", "{}", "not json", &"x".repeat(5000), &format!("{{\"TokenValue\":\"{}\"", ticket.token)] {
        let told = refusal(&house.door, &ticket.url, &[], text).await;
        assert_eq!(told, "the opening message is missing or not valid");
    }
}
