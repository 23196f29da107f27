//! Who is shut out is out at once, and stays out until that is lifted.

use serde_json::{Value, json};

use crate::support::{
    Answer, Call, DEV, House, Person, QUIET, Recorded, Terminal, Ticket, auditors_administer, until,
};

/// A house in which carol administers.
async fn house() -> House {
    opening(0).await
}

/// The same, which opens so many sessions a second; 0: as many as are asked for.
async fn opening(starts_per_second: u32) -> House {
    House::with(|config| {
        config.broker.starts_per_second = starts_per_second;
        auditors_administer(config);
    })
    .await
}

async fn revoke(person: &Person, what: &str, which: &str) -> Answer {
    let body = json!({"what": what, "which": which, "reason": "lost laptop"});
    person.call(Call::post("/v1/revocations", &body)).await
}

async fn refused(person: &Person, target: &str) -> String {
    person.api("StartSession", &json!({"Target": target})).await.refused("AccessDeniedException")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_is_revoked_is_out_until_it_is_lifted() {
    let house = house().await;
    let (alice, bob, carol) = (house.alice().await, house.sign_in("bob").await, house.sign_in("carol").await);
    let mut cut = Terminal::shell(&alice, DEV).await;
    let mut spared = Terminal::shell(&bob, DEV).await;
    let arn = "arn:aws:iam::111122223333:user/alice";
    let revocation = revoke(&carol, "principal", arn).await.ok();
    let sentence = cut.closed().await;
    assert!(sentence.contains("your access was revoked: lost laptop (decision "), "{sentence}");
    assert_eq!(Recorded::of(&house, &cut.session).await.evidence.end.reason, "policy");
    assert!(refused(&alice, DEV).await.contains("your access was revoked: lost laptop"));
    assert!(alice.resume(&cut.session).await.is_none());
    // Signing in again does not help, and others are not touched.
    assert!(refused(&house.alice().await, DEV).await.contains("revoked"));
    spared.type_line("echo still-$((40 + 2))").await;
    spared.until("still-42").await;
    let listed: Value = carol.call(Call::get("/v1/revocations")).await.ok();
    assert_eq!(listed["revocations"][0]["which"], arn);
    let id = revocation["id"].as_str().unwrap();
    carol.call(Call::post(&format!("/v1/revocations/{id}/lift"), &json!({}))).await.ok();
    Terminal::shell(&alice, DEV).await;
    let again = carol.call(Call::post(&format!("/v1/revocations/{id}/lift"), &json!({}))).await;
    again.refused("DoesNotExistException");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_or_a_machine_is_revoked_alone() {
    let house = house().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let mut first = Terminal::shell(&alice, DEV).await;
    let mut second = Terminal::shell(&alice, DEV).await;
    revoke(&carol, "session", &first.session).await.ok();
    assert!(first.closed().await.contains("this session was revoked"));
    second.type_line("echo still-$((40 + 2))").await;
    second.until("still-42").await;
    revoke(&carol, "target", DEV).await.ok();
    assert!(second.closed().await.contains("all access to this machine was revoked"));
    assert!(refused(&alice, DEV).await.contains("all access to this machine was revoked"));
    Terminal::shell(&alice, QUIET).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_being_opened_while_its_person_is_revoked_ends() {
    let house = opening(1).await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let starts = (0..4).map(|each: u32| {
        let start = Call::ssm("StartSession", &json!({"Target": DEV}));
        alice.call(start.with("amz-sdk-invocation-id", &each.to_string()))
    });
    // Decided at once, opened one after the other.
    let (answers, ()) = tokio::join!(futures_util::future::join_all(starts), async {
        until("the first to be open", || !house.local.live_sessions().is_empty()).await;
        revoke(&carol, "principal", "arn:aws:iam::111122223333:user/alice").await.ok();
    });
    let opened: Vec<Ticket> = answers.iter().map(|answer| Ticket::of(&answer.ok()).unwrap()).collect();
    assert_eq!(opened.len(), 4);
    until("the end of all of them", || house.local.live_sessions().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_revoked_however_its_name_is_written() {
    for written in ["arn:aws:iam::111122223333:role/of/the/house/Auditor", "auditor"] {
        let house = house().await;
        let carol = house.sign_in("carol").await;
        revoke(&carol, "role", written).await.ok();
        let told = carol.call(Call::get("/v1/revocations")).await.refused("AccessDeniedException");
        assert!(told.contains("the access of your role was revoked"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_administers_revokes_and_only_what_can_be() {
    let house = house().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let told = revoke(&alice, "target", DEV).await.refused("AccessDeniedException");
    assert!(told.contains("administer"), "{told}");
    alice.call(Call::get("/v1/revocations")).await.refused("AccessDeniedException");
    for (what, which) in [("target", "i-nothing/../x"), ("session", ""), ("principal", ""), ("role", "a\nb")]
    {
        revoke(&carol, what, which).await.refused("ValidationException");
    }
    revoke(&carol, "everything", "x").await.refused("ValidationException");
    // A role by its name; and those who did it may be shut out as well.
    revoke(&carol, "role", "Auditor").await.ok();
    let told = carol.call(Call::get("/v1/revocations")).await.refused("AccessDeniedException");
    assert!(told.contains("the access of your role was revoked"), "{told}");
}
