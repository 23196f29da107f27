//! Sign-ins through a real STS stub: the good way, and every known attack.

use std::sync::Arc;

use sigv4::sts_proof::{BODY, PATH};
use time::Duration;

use super::stub::{
    ALICE, Answer, Door, KEY, REGION, SECRET, SERVER, Stub, TOKEN, error_answer, identity_of, now, peer,
    proof,
};
use super::{Identity, IdentityConfig, IdentityError, Issued, KeyRing, StsProof};
use crate::error::{ApiError, Blame, Code};

fn refusal(result: Result<Issued, IdentityError>) -> ApiError {
    ApiError::from(result.expect_err("the proof was accepted"))
}

/// What comes of alice's honest proof when STS answers like this.
async fn answered(answer: Answer) -> ApiError {
    let door = Door::open().await;
    door.stub.will_answer([answer]);
    let challenge = door.challenge();
    refusal(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await)
}

#[tokio::test]
async fn a_proof_is_answered_with_keys_of_the_identity() {
    let door = Door::open().await;
    let issued = door.alice().await;
    assert_eq!(issued.principal.arn, ALICE);
    assert_eq!(issued.principal.id, "AROAEXAMPLEALICE:alice");
    assert_eq!(issued.principal.role.as_deref(), Some("Admin"));
    assert_eq!(issued.expiration, now() + Duration::hours(1));
}

#[tokio::test]
async fn sts_gets_the_rebuilt_request_and_nothing_else() {
    let door = Door::open().await;
    door.alice().await;
    let asked = door.stub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body, BODY);
    assert_eq!(asked[0].headers["host"], "sts.eu-west-1.amazonaws.com");
    let mut names: Vec<&str> = asked[0].headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "x-amz-date",
        "x-amz-security-token",
        "x-postern-challenge",
        "x-postern-server",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn sts_is_trusted_over_tls_by_the_bundle_and_by_nothing_less() {
    let folder = tempfile::tempdir().unwrap();
    let stub = Stub::tls(folder.path()).await;
    let ring = Arc::new(KeyRing::open(&folder.path().join("keys")).unwrap());
    for (bundle, trusted) in [(Some(stub.ca_bundle.clone()), true), (None, false)] {
        let mut config = IdentityConfig::new(SERVER, vec!["111122223333".to_owned()]);
        (config.sts_endpoint_url, config.ca_bundle) = (Some(stub.url.clone()), bundle);
        let identity = Identity::new(config, ring.clone()).unwrap();
        let challenge = identity.issue_challenge(peer(), now()).unwrap();
        let outcome = identity.prove(&proof(SERVER, &challenge.challenge, SECRET), peer(), now()).await;
        assert_eq!(outcome.is_ok(), trusted);
    }
}

#[tokio::test]
async fn a_bundle_that_cannot_be_read_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let ring = Arc::new(KeyRing::open(&folder.path().join("keys")).unwrap());
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for path in [empty, folder.path().join("missing.pem")] {
        let mut config = IdentityConfig::new(SERVER, vec!["111122223333".to_owned()]);
        config.ca_bundle = Some(path);
        assert!(matches!(Identity::new(config, ring.clone()), Err(IdentityError::Config(_))));
    }
}

#[tokio::test]
async fn the_wrong_secret_is_refused_by_sts() {
    let door = Door::open().await;
    let challenge = door.challenge();
    let error = refusal(door.prove(&proof(SERVER, &challenge.challenge, "wrong")).await);
    assert_eq!(error.code, Code::UnrecognizedClient);
    assert!(error.message.contains("SignatureDoesNotMatch"), "{error}");
}

#[tokio::test]
async fn a_proof_for_another_server_is_refused() {
    let door = Door::open().await;
    let challenge = door.challenge();
    let elsewhere = proof("https://evil.example.com", &challenge.challenge, SECRET);
    assert_eq!(refusal(door.prove(&elsewhere).await).code, Code::UnrecognizedClient);
}

#[tokio::test]
async fn a_proof_is_good_once() {
    let door = Door::open().await;
    let challenge = door.challenge();
    let proof = proof(SERVER, &challenge.challenge, SECRET);
    assert!(door.prove(&proof).await.is_ok());
    let error = refusal(door.prove(&proof).await);
    assert_eq!(error.code, Code::AccessDenied);
    assert!(error.message.contains("used before"), "{error}");
    assert_eq!(door.stub.asked().len(), 1, "STS was asked about a replay");
}

#[tokio::test]
async fn a_proof_signed_over_another_challenge_is_refused() {
    let door = Door::open().await;
    let (first, second) = (door.challenge(), door.challenge());
    let mut proof = proof(SERVER, &first.challenge, SECRET);
    proof.challenge = second.challenge;
    assert_eq!(refusal(door.prove(&proof).await).code, Code::UnrecognizedClient);
}

#[tokio::test]
async fn a_challenge_must_be_ours_fresh_and_of_this_peer() {
    let door = Door::open().await;
    let foreign = "A".repeat(43);
    assert!(refusal(door.prove(&proof(SERVER, &foreign, SECRET)).await).message.contains("unknown"));

    let old = door.identity.issue_challenge(peer(), now() - Duration::minutes(2)).unwrap();
    assert!(refusal(door.prove(&proof(SERVER, &old.challenge, SECRET)).await).message.contains("expired"));

    let other = door.identity.issue_challenge("192.0.2.9".parse().unwrap(), now()).unwrap();
    let error = refusal(door.prove(&proof(SERVER, &other.challenge, SECRET)).await);
    assert!(error.message.contains("another address"), "{error}");
    assert!(door.stub.asked().is_empty());
}

#[tokio::test]
async fn a_skewed_clock_is_told_with_both_clocks() {
    let door = Door::open().await;
    let challenge = door.challenge();
    let later = now() + Duration::minutes(6);
    let proof = proof(SERVER, &challenge.challenge, SECRET);
    let error = refusal(door.identity.prove(&proof, peer(), later).await);
    assert_eq!(error.code, Code::InvalidSignature);
    assert!(
        error.message.contains("20261122T101500Z") && error.message.contains("20261122T102100Z"),
        "{error}"
    );
}

#[tokio::test]
async fn every_word_is_checked_before_anything_is_sent() {
    let door = Door::open().await;
    let spoils: [fn(&mut StsProof); 9] = [
        |proof| proof.region = "us-east-1.evil.example".to_owned(),
        |proof| proof.region = "aws-global".to_owned(),
        |proof| proof.access_key_id = "AKIA/../x".to_owned(),
        |proof| proof.access_key_id = "AKIA, SignedHeaders=host".to_owned(),
        |proof| proof.amz_date = "20261122T101500Z\r\nx: y".to_owned(),
        |proof| proof.session_token = Some("a\r\nhost: evil".to_owned()),
        |proof| proof.session_token = Some("x".repeat(9000)),
        |proof| proof.signature = "0".repeat(63),
        |proof| proof.challenge = "../x".to_owned(),
    ];
    for spoil in spoils {
        let mut proof = proof(SERVER, &door.challenge().challenge, SECRET);
        spoil(&mut proof);
        let error = refusal(door.prove(&proof).await);
        assert_eq!(error.blame, Blame::Client, "{error}");
    }
    assert!(door.stub.asked().is_empty());
}

#[tokio::test]
async fn only_served_regions_and_admitted_accounts_get_in() {
    let door = Door::with(|config| config.regions = vec!["us-east-1".to_owned()]).await;
    let challenge = door.challenge();
    let error = refusal(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await);
    assert_eq!(error.code, Code::Validation);
    assert!(error.message.contains(REGION), "{error}");

    let door = Door::with(|config| config.allowed_accounts = vec!["999999999999".to_owned()]).await;
    let challenge = door.challenge();
    let error = refusal(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await);
    assert_eq!((error.code, error.blame), (Code::AccessDenied, Blame::Policy));
}

/// CVE-2020-16250: the caller chose headers and action, and the answer was
/// found inside something else.
#[tokio::test]
async fn another_action_signed_in_disguise_is_not_what_is_sent() {
    let door = Door::open().await;
    let challenge = door.challenge().challenge;
    let amz_date = sigv4::amz_date(now());
    let keys = sigv4::Keys { access_key_id: KEY, secret: SECRET, session_token: Some(TOKEN) };
    let scope = sigv4::Scope { region: REGION, service: "sts" };
    let bodies = [
        "Action=AssumeRole&Version=2011-06-15",
        "Action=GetCallerIdentity&Version=2011-06-15&Action=AssumeRole",
        "action=GetFederationToken&Action=GetCallerIdentity&Version=2011-06-15",
    ];
    for body in bodies {
        let headers: [(&str, &[u8]); 5] = [
            ("accept", b"application/json"),
            ("content-type", b"application/x-www-form-urlencoded; charset=utf-8"),
            ("host", b"sts.eu-west-1.amazonaws.com"),
            ("x-postern-challenge", challenge.as_bytes()),
            ("x-postern-server", SERVER.as_bytes()),
        ];
        let request = sigv4::Request {
            method: "POST",
            path: PATH,
            query: "",
            headers: &headers,
            body: body.as_bytes(),
        };
        let signed = sigv4::sign(&request, &keys, &scope, now());
        let signature = signed.authorization.rsplit('=').next().unwrap().to_owned();
        let mut disguised = proof(SERVER, &door.challenge().challenge, SECRET);
        (disguised.signature, disguised.amz_date) = (signature, amz_date.clone());
        assert_eq!(refusal(door.prove(&disguised).await).code, Code::UnrecognizedClient);
    }
    assert!(
        door.stub.asked().iter().all(|asked| asked.body == BODY && asked.headers["accept"] == "text/xml")
    );
}

/// CVE-2022-2385: names that differ by case only, and a key id from elsewhere.
#[test]
fn a_proof_has_each_field_once_and_no_other() {
    let good = r#"{"region":"a","access_key_id":"b","amz_date":"c","signature":"d","challenge":"e"}"#;
    assert!(serde_json::from_str::<StsProof>(good).is_ok());
    for bad in [
        good.replace("{", r#"{"Region":"x","#),
        good.replace("{", r#"{"region":"x","#),
        good.replace("{", r#"{"host":"evil.example","#),
        good.replace("{", r#"{"url":"https://evil.example","#),
        good.replace("{", r#"{"body":"Action=AssumeRole","#),
        good.replace("{", r#"{"headers":{"accept":"application/json"},"#),
        good.replace(r#""b""#, "null"),
    ] {
        assert!(serde_json::from_str::<StsProof>(&bad).is_err(), "{bad} was accepted");
    }
}

/// CVE-2025-11621: the same role name in another account is another identity.
#[tokio::test]
async fn the_same_role_in_another_account_is_not_admitted() {
    let twin =
        identity_of("arn:aws:sts::999999999999:assumed-role/Admin/alice", "AROATWIN:alice", "999999999999");
    assert_eq!(answered(Answer::xml(twin)).await.code, Code::AccessDenied);
    let mixed =
        identity_of("arn:aws:sts::999999999999:assumed-role/Admin/alice", "AROATWIN:alice", "111122223333");
    assert_eq!(answered(Answer::xml(mixed)).await.blame, Blame::Aws);
    let partition = identity_of(&ALICE.replace("arn:aws:", "arn:aws-cn:"), "AROAX:alice", "111122223333");
    assert_eq!(answered(Answer::xml(partition)).await.blame, Blame::Aws);
}

#[tokio::test]
async fn an_answer_that_is_not_exactly_the_one_is_refused() {
    let alice = identity_of(ALICE, "AROAEXAMPLEALICE:alice", "111122223333");
    let result =
        &alice[alice.find("<GetCallerIdentityResult>").unwrap()..alice.find("<ResponseMetadata>").unwrap()];
    let reflected = format!("<AssumeRoleResponse><Subject>{alice}</Subject></AssumeRoleResponse>");
    let json = Answer::Fixed { status: 200, content_type: "application/json", body: "{}".to_owned() };
    let html = Answer::Fixed { status: 200, content_type: "text/html", body: alice.clone() };
    for answer in [
        json,
        html,
        Answer::xml(r#"{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Arn":"x"}}}"#),
        Answer::xml(reflected),
        Answer::xml(alice.replace(result, &result.repeat(2))),
        Answer::xml(format!("{alice}<more/>")),
        Answer::xml(format!("{alice}trailing")),
        Answer::xml(format!("{alice}{}", " ".repeat(65 * 1024))),
        Answer::Fixed { status: 201, content_type: "text/xml", body: alice.clone() },
    ] {
        let error = answered(answer).await;
        assert_eq!((error.code, error.blame), (Code::ServiceUnavailable, Blame::Aws), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let alice = identity_of(ALICE, "AROAEXAMPLEALICE:alice", "111122223333");
    for status in [301, 302, 307, 308] {
        let door = Door::open().await;
        door.stub.will_answer([Answer::Fixed { status, content_type: "text/xml", body: alice.clone() }]);
        let challenge = door.challenge();
        let error = refusal(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await);
        assert!(error.message.contains("status"), "{error}");
        assert_eq!(door.stub.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_failure_of_sts_is_tried_once_more_and_then_told() {
    let failing = || Answer::Fixed { status: 503, content_type: "text/html", body: "busy".to_owned() };
    let door = Door::open().await;
    door.stub.will_answer([failing()]);
    door.alice().await;
    assert_eq!(door.stub.asked().len(), 2);

    door.stub.will_answer([failing(), failing()]);
    let challenge = door.challenge();
    let error = refusal(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await);
    assert_eq!((error.code, error.blame), (Code::ServiceUnavailable, Blame::Aws));
    assert_eq!(door.stub.asked().len(), 4);
}

#[tokio::test]
async fn nobody_listening_is_told_as_such() {
    let door = Door::with(|config| config.sts_endpoint_url = Some("http://127.0.0.1:1".to_owned())).await;
    let challenge = door.challenge();
    let error = refusal(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await);
    assert!(error.message.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn what_sts_says_is_told_in_our_own_words() {
    let expired = Answer::Fixed { status: 400, content_type: "text/xml", body: error_answer("ExpiredToken") };
    assert_eq!(answered(expired).await.code, Code::ExpiredToken);
    let strange = Answer::Fixed { status: 403, content_type: "text/xml", body: error_answer("<b>x</b>") };
    let error = answered(strange).await;
    assert!(error.message.contains("no reason that is known"), "{error}");
}

#[tokio::test]
async fn invented_challenges_use_up_nobodys_sign_ins() {
    let door = Door::open().await;
    let invented = proof(SERVER, &"A".repeat(43), SECRET);
    for _ in 0..=super::PROOFS_PER_KEY {
        refusal(door.prove(&invented).await);
    }
    let challenge = door.challenge();
    assert!(door.prove(&proof(SERVER, &challenge.challenge, SECRET)).await.is_ok());
}

#[tokio::test]
async fn one_access_key_cannot_try_for_ever() {
    let door = Door::open().await;
    let mut last = None;
    for _ in 0..=super::PROOFS_PER_KEY {
        let challenge = door.challenge();
        last = Some(refusal(door.prove(&proof(SERVER, &challenge.challenge, "wrong")).await).code);
    }
    assert_eq!(last, Some(Code::Throttling));
    assert!(door.folder.path().exists());
}
