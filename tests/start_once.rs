//! StartSession happens once, however often the call comes.

use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::support::{Call, DEV, House, Ticket, until_some};

fn start(invocation: &str) -> Call {
    Call::ssm("StartSession", &json!({"Target": DEV})).with("amz-sdk-invocation-id", invocation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_call_gets_the_session_of_the_first() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let (first, again) = tokio::join!(alice.call(start("one")), alice.call(start("one")));
    let late = alice.call(start("one")).await;
    let sessions = [first, again, late].map(|answer| Ticket::of(&answer.ok()).unwrap().session);
    assert_eq!(sessions[0], sessions[1]);
    assert_eq!(sessions[0], sessions[2]);
    assert_eq!(house.local.live_sessions().len(), 1);

    let other = Ticket::of(&alice.call(start("two")).await.ok()).unwrap();
    assert_ne!(other.session, sessions[0]);
    let bobs = Ticket::of(&bob.call(start("one")).await.ok()).unwrap();
    assert_ne!(bobs.session, sessions[0]);
    assert_eq!(house.local.live_sessions().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_call_opens_no_second_session() {
    let house = House::start().await;
    let alice = house.alice().await;
    let captured = alice.sign(Call::ssm("StartSession", &json!({"Target": DEV})));
    captured.send(&house.door).await.ok();
    captured.send(&house.door).await.refused("InvalidSignatureException");
    assert_eq!(house.local.live_sessions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_call_gets_nothing_that_the_first_has_not() {
    let house = House::start().await;
    let alice = house.alice().await;
    let captured = alice.sign(start("one"));
    let first = Ticket::of(&captured.send(&house.door).await.ok()).unwrap();
    let copy = Ticket::of(&captured.send(&house.door).await.ok()).unwrap();
    assert!(copy == first, "a fresh token would move the session");
    let again = Ticket::of(&alice.call(start("one").with("x-again", "1")).await.ok()).unwrap();
    assert_eq!(again.session, first.session);
    assert_ne!(again.token, first.token, "who signs anew gets a token of their own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_resume_moves_no_session() {
    let house = House::start().await;
    let alice = house.alice().await;
    let session = alice.start(DEV).await.session;
    let resume = Call::ssm("ResumeSession", &json!({"SessionId": session}));
    let captured = alice.sign(resume);
    assert!(Ticket::of(&captured.send(&house.door).await.ok()).is_some());
    // For a moment it may be another call of the same second. Then there is
    // no token, and never an error, on which a stock client hangs.
    until_some("the end of the moment", async || {
        let answer = captured.send(&house.door).await.ok();
        assert_eq!(answer["SessionId"], json!(session));
        Ticket::of(&answer).is_none().then_some(())
    })
    .await;
    assert!(alice.resume(&session).await.is_some(), "whoever signs anew goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_second_are_two_whatever_the_clock_of_their_caller() {
    let house = House::start().await;
    let alice = house.alice().await;
    for off in [Duration::minutes(-4), Duration::seconds(-30), Duration::ZERO, Duration::minutes(4)] {
        let then = OffsetDateTime::now_utc() + off;
        let sign = |call: Call| call.signed(&house.door, &alice.keys(), "ssm", then);
        // Invocation ids are not signed: both have one signature.
        let ids = [format!("one {off}"), format!("two {off}")];
        let [one, two] = ids.map(|id| sign(start(&id)));
        let (one, two) = tokio::join!(one.send(&house.door), two.send(&house.door));
        let [one, two] = [one, two].map(|answer| Ticket::of(&answer.ok()).unwrap().session);
        assert_ne!(one, two, "{off}");

        let resume = sign(Call::ssm("ResumeSession", &json!({"SessionId": one})));
        let (first, second) = tokio::join!(resume.send(&house.door), resume.send(&house.door));
        for answer in [first, second] {
            assert!(Ticket::of(&answer.ok()).is_some(), "{off}");
        }
    }
}
