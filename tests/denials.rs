//! What policy says reaches the person: denials, reasons, banners.

use postern::asciicast::EventCode;
use serde_json::json;

use crate::support::{CLOSED, Call, DEV, House, PROD, Recorded, Terminal, Ticket};

const BANNER: &str = "Production. This session is recorded.";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_names_policy_reason_and_decision() {
    let house = House::start().await;
    let (alice, dave) = (house.alice().await, house.sign_in("dave").await);
    let told = alice.api("StartSession", &json!({"Target": CLOSED})).await.refused("AccessDeniedException");
    assert!(told.contains("\"closed-to-all\": this machine is being taken down"), "{told}");
    assert!(told.contains("(decision ") && !told.contains('\n'), "{told}");
    let told = dave.api("StartSession", &json!({"Target": DEV})).await.refused("AccessDeniedException");
    assert!(told.contains("no policy permits"), "{told}");
    assert!(house.local.live_sessions().is_empty());
    let denied = house.metric("postern_decisions_total{action=\"startShell\",result=\"deny\"}").await;
    assert_eq!(denied, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_wants_a_reason_gets_one() {
    let house = House::start().await;
    let alice = house.alice().await;
    for reason in [json!(null), json!(""), json!(" \t")] {
        let asked = json!({"Target": PROD, "Reason": reason});
        let told = alice.api("StartSession", &asked).await.refused("AccessDeniedException");
        assert!(told.contains("\"developers-prod\"") && told.contains("--reason"), "{told}");
        assert!(told.contains("production wants to know why"), "{told}");
    }
    let asked = json!({"Target": PROD, "Reason": "disk \u{1b}]0;full\u{7}"});
    let ticket = Ticket::of(&alice.api("StartSession", &asked).await.ok()).unwrap();
    assert_eq!(alice.session(&ticket.session).await["reason"], "disk ]0;full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_would_be_refused_hears_what_they_could_do() {
    let house = House::start().await;
    let (alice, dave) = (house.alice().await, house.sign_in("dave").await);
    let path = format!("/v1/access?target={PROD}");
    let told = alice.call(Call::get(&path)).await.ok();
    assert_eq!((&told["allowed"], &told["hints"]), (&json!(false), &json!(["give a reason"])));
    // Dave would need a group, and does not learn of which.
    let told = dave.call(Call::get(&path)).await.ok();
    assert_eq!((&told["allowed"], &told["hints"]), (&json!(false), &json!([])));
    assert!(!told.to_string().contains("developers"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_banner_is_shown_once_and_keystrokes_are_recorded() {
    let house = House::start().await;
    let alice = house.alice().await;
    let asked = json!({"Target": PROD, "Reason": "disk full"});
    let ticket = Ticket::of(&alice.api("StartSession", &asked).await.ok()).unwrap();
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    terminal.until("$ ").await;
    assert!(terminal.text().starts_with(BANNER), "{}", terminal.text());
    terminal.cut();
    terminal.resume(&alice).await;
    terminal.type_line("echo b''ack").await;
    terminal.until("back\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;

    assert_eq!(terminal.text().matches(BANNER).count(), 1);
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.bytes(), terminal.output);
    recorded.assert_once();
    assert_eq!(recorded.of_kind(EventCode::Input).concat(), "echo b''ack\rexit\r");
    let about = recorded.header.postern.unwrap();
    assert_eq!(about["reason"], "disk full");
    assert_eq!(about["principal"], "arn:aws:iam::111122223333:user/alice");
}
