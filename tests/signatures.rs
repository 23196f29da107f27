//! Only requests that a signed-in caller signed, now, for us, are answered.

use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::support::{Answer, Call, DEV, House, proof};

fn describe() -> Call {
    Call::ssm("DescribeSessions", &json!({"State": "Active"}))
}

/// Refused before anything else happened, without telling internals.
#[track_caller]
fn assert_refused(answer: &Answer, what: &str) {
    let known = [
        "InvalidSignatureException",
        "IncompleteSignatureException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "AccessDeniedException",
    ];
    assert!(known.contains(&answer.code().as_str()), "{what}: {} {}", answer.status, answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsigned_request_is_refused() {
    let house = House::start().await;
    assert_refused(&describe().send(&house.door).await, "no signature");
    for path in ["/v1/sessions", "/v1/sessions/alice-x", "/v1/access?target=i-1"] {
        assert_refused(&Call::get(path).send(&house.door).await, path);
    }
    assert_refused(&Call::post("/v1/sessions/alice-x/end", &json!({})).send(&house.door).await, "end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_or_early_request_is_refused_and_names_both_clocks() {
    let house = House::start().await;
    let alice = house.alice().await;
    let now = OffsetDateTime::now_utc();
    for away in [Duration::minutes(-6), Duration::minutes(6)] {
        let answer = describe().signed(&house.door, &alice.keys(), "ssm", now + away).send(&house.door).await;
        let told = answer.refused("InvalidSignatureException");
        assert!(told.contains(&sigv4::amz_date(now + away)), "{told}");
    }
    let near = describe().signed(&house.door, &alice.keys(), "ssm", now - Duration::minutes(4));
    near.send(&house.door).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_request_is_refused() {
    let house = House::start().await;
    let alice = house.alice().await;
    let signed = alice.sign(describe());
    let spoilt = |spoil: &dyn Fn(&mut Call)| {
        let mut call = signed.clone();
        spoil(&mut call);
        call
    };
    let flip = |text: String| {
        let (rest, last) = text.split_at(text.len() - 1);
        format!("{rest}{}", if last == "0" { "1" } else { "0" })
    };
    let calls = [
        ("body", spoilt(&|call| call.body = json!({"State": "History"}).to_string().into_bytes())),
        ("operation", spoilt(&|call| call.set("x-amz-target", Some("AmazonSSM.StartSession")))),
        ("path", spoilt(&|call| call.path = "/?x=1".to_owned())),
        ("host", spoilt(&|call| call.set("host", Some("127.0.0.1:1")))),
        ("date", spoilt(&|call| call.set("x-amz-date", Some("20261122T101500Z")))),
        ("token", spoilt(&|call| call.set("x-amz-security-token", Some("AAAA")))),
        ("no token", spoilt(&|call| call.set("x-amz-security-token", None))),
        ("signature", spoilt(&|call| call.set("authorization", Some(&flip(call.value("authorization")))))),
        ("words", spoilt(&|call| call.set("authorization", Some("AWS4-HMAC-SHA256 nonsense")))),
        ("other scheme", spoilt(&|call| call.set("authorization", Some("Basic YTpi")))),
    ];
    for (what, call) in calls {
        assert_refused(&call.send(&house.door).await, what);
    }
    signed.send(&house.door).await.ok();
    let elsewhere = describe().signed(&house.door, &alice.keys(), "s3", OffsetDateTime::now_utc());
    assert_refused(&elsewhere.send(&house.door).await, "another service");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_another_gateway_are_refused() {
    let (house, other) = (House::start().await, House::start().await);
    let stranger = other.alice().await;
    let call = describe().signed(&house.door, &stranger.keys(), "ssm", OffsetDateTime::now_utc());
    assert_refused(&call.send(&house.door).await, "foreign keys");
    let aws = sigv4::Keys { access_key_id: "AKIAALICE", secret: "the-secret-of-alice", session_token: None };
    let call = describe().signed(&house.door, &aws, "ssm", OffsetDateTime::now_utc());
    assert_refused(&call.send(&house.door).await, "AWS keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_of_identity_counts_once() {
    let house = House::start().await;
    let once = proof("alice", &house.door).await;
    Call::post("/v1/login/sts", &once).send(&house.door).await.ok();
    let again = Call::post("/v1/login/sts", &once).send(&house.door).await;
    assert_ne!(again.status, 200, "{}", again.text());
    let mut forged = proof("alice", &house.door).await;
    forged["signature"] = json!("0".repeat(64));
    let forged = Call::post("/v1/login/sts", &forged).send(&house.door).await;
    assert_ne!(forged.status, 200, "{}", forged.text());
    let captured = house.alice().await.sign(Call::ssm("StartSession", &json!({"Target": DEV})));
    captured.send(&house.door).await.ok();
}
