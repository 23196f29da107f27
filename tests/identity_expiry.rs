//! A session ends some time after the proof of its person, unless renewed.

use data_encoding::HEXLOWER;
use postern::config::{Config, IdentityExpiry};
use postern::registry::{Registry, RegistryConfig, Visit};
use postern::session::{Principal, now_ms};
use ring::digest::{SHA256, digest};

use crate::support::{Browser, DEV, House, Recorded, Terminal, until_some};

/// How long the proofs of these tests count, milliseconds.
const SHORT_MS: u64 = 4000;

fn at_once(config: &mut Config) {
    config.sessions.identity_grace_minutes = 0;
}

async fn registry(house: &House) -> Registry {
    let url = format!("sqlite:{}", house.folder.path().join("state/postern.db").display());
    Registry::open(&RegistryConfig { url }).await.unwrap()
}

/// Alice, as the gateway knows her since she signed in.
async fn alice(house: &House) -> Principal {
    house.alice().await;
    registry(house).await.proofs(&["AIDAALICE".to_owned()]).await.unwrap().remove(0).principal
}

/// A browser of somebody who counts as proved for some seconds more.
async fn browser_of(house: &House, principal: &Principal) -> (Browser, u64) {
    let kept = format!("a-secret-of-{}", principal.id);
    let id = HEXLOWER.encode(digest(&SHA256, kept.as_bytes()).as_ref());
    let until_ms = now_ms() + SHORT_MS;
    let visit = Visit { principal: principal.clone(), until_ms };
    registry(house).await.begin_visit(&id, &visit, now_ms()).await.unwrap();
    (Browser::with(house, format!("__Host-postern={kept}")).await, until_ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_warned_and_ends_with_the_proof_of_its_person() {
    let house = House::with(at_once).await;
    // The same rights under an id of which there is no other proof.
    let other = Principal { id: "AIDAOTHERALICE".to_owned(), ..alice(&house).await };
    let (browser, until_ms) = browser_of(&house, &other).await;
    let mut terminal = browser.shell(&house).await;
    let spared = house.alice().await;
    let mut hers = Terminal::shell(&spared, DEV).await;
    terminal.until("because your proof of identity expires at ").await;
    terminal.until("sign in again elsewhere to stay").await;
    let sentence = terminal.closed().await;
    assert!(now_ms() >= until_ms, "it ended before the proof did");
    assert!(sentence.contains("denied: your proof of identity expired at "), "{sentence}");
    assert!(sentence.contains("; sign in again and open it anew (decision "), "{sentence}");
    assert_eq!(Recorded::of(&house, &terminal.session).await.evidence.end.reason, "policy");
    hers.type_line("echo still-$((40 + 2))").await;
    hers.until("still-42").await;
    // The denial is on record, as every other one.
    let rows = registry(&house).await;
    let id = sentence.rsplit_once("(decision ").unwrap().1.trim_end_matches(')');
    let decision = rows.decision(id).await.unwrap().unwrap();
    assert_eq!((decision.allowed, decision.policies), (false, vec!["identity/expired".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_themselves_anew_keeps_their_session() {
    let house = House::with(at_once).await;
    // Her own id, proved for an hour by her sign-in: another node would read it so.
    let alice = alice(&house).await;
    let (browser, until_ms) = browser_of(&house, &alice).await;
    let mut terminal = browser.shell(&house).await;
    let renewed = "postern_sessions_asked_again_total{result=\"permitted\"}";
    // Once as it opens, once as the proof is renewed.
    until_some(renewed, || async { (house.metric(renewed).await >= 2.0).then_some(()) }).await;
    until_some("the end of the first proof", || async { (now_ms() > until_ms + 1500).then_some(()) }).await;
    terminal.type_line("echo still-$((40 + 2))").await;
    terminal.until("still-42").await;
    assert!(!terminal.text().contains("proof of identity"), "{}", terminal.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_ended_while_the_gateway_was_away_has_ended() {
    let mut house = House::with(at_once).await;
    let other = Principal { id: "AIDAOTHERALICE".to_owned(), ..alice(&house).await };
    let (browser, until_ms) = browser_of(&house, &other).await;
    let mut terminal = browser.shell(&house).await;
    terminal.cut();
    house.take_gateway().stop().await;
    until_some("the end of the proof", || async { (now_ms() > until_ms).then_some(()) }).await;
    house.start_again().await;
    let rows = registry(&house).await;
    let id = postern::session::SessionId::parse(&terminal.session).unwrap();
    let why = || async { rows.session(&id).await.unwrap().unwrap().end_reason };
    let why = until_some("the end in the registry", why).await;
    assert!(why.contains("your proof of identity expired at "), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_alone_decides_where_it_is_set_so() {
    let house = House::with(|config| {
        config.sessions.identity_expiry = IdentityExpiry::Ask;
        config.sessions.identity_grace_minutes = 0;
    })
    .await;
    let other = Principal { id: "AIDAOTHERALICE".to_owned(), ..alice(&house).await };
    let (browser, until_ms) = browser_of(&house, &other).await;
    let mut terminal = browser.shell(&house).await;
    let asked = "postern_sessions_asked_again_total{result=\"permitted\"}";
    // Once as it opens, once as the proof ends.
    until_some(asked, || async { (house.metric(asked).await >= 2.0).then_some(()) }).await;
    assert!(now_ms() >= until_ms, "policy was asked too early");
    terminal.type_line("echo still-$((40 + 2))").await;
    terminal.until("still-42").await;
}
