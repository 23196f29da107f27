//! Calls signed with issued keys: recognised, or refused with a reason.

use sigv4::{Keys, Request, Scope, sign};
use time::{Duration, OffsetDateTime};

use super::stub::{Door, now};
use super::{Caller, IdentityError, Issued, SeenSignatures, Use};
use crate::error::{ApiError, Code};

/// A request of a client, which a test then changes.
struct Call {
    method: &'static str,
    path: &'static str,
    service: &'static str,
    headers: Vec<(String, Vec<u8>)>,
}

impl Call {
    /// A StartSession as the CLI signs it.
    fn start_session(issued: &Issued, at: OffsetDateTime) -> Self {
        let headers = [
            ("Host", "gw.example.com:8443"),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", "AmazonSSM.StartSession"),
        ];
        Self::signed(("POST", "/"), "ssm", &headers, issued, at)
    }

    /// The WebSocket upgrade as newer plugins sign it.
    fn upgrade(issued: &Issued) -> Self {
        let headers = [("Host", "gw.example.com:8443")];
        Self::signed(("GET", "/v1/data-channel/alice-1"), "ssmmessages", &headers, issued, now())
    }

    fn signed(
        line: (&'static str, &'static str),
        service: &'static str,
        headers: &[(&str, &str)],
        issued: &Issued,
        at: OffsetDateTime,
    ) -> Self {
        let (method, path) = line;
        let pairs: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request { method, path, query: "", headers: &pairs, body: b"{}" };
        let keys = Keys {
            access_key_id: &issued.access_key_id,
            secret: &issued.secret_access_key,
            session_token: Some(&issued.session_token),
        };
        let added = sign(&request, &keys, &Scope { region: "eu-west-1", service }, at);
        let added = added.iter().map(|(name, value)| -> (&str, &str) { (name, value) });
        let all = headers.iter().copied().chain(added);
        let headers = all.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
        Self { method, path, service, headers }
    }

    fn edit(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        for (have, value) in &mut self.headers {
            if have.eq_ignore_ascii_case(name) {
                *value = change(std::str::from_utf8(value).unwrap()).into_bytes();
            }
        }
        self
    }

    fn send(&self, door: &Door, service: &str, at: OffsetDateTime) -> Result<Caller, IdentityError> {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let request =
            Request { method: self.method, path: self.path, query: "", headers: &headers, body: b"{}" };
        door.identity.caller(&request, service, at)
    }

    fn refusal(&self, door: &Door) -> ApiError {
        ApiError::from(self.send(door, self.service, now()).expect_err("the call was accepted"))
    }
}

#[tokio::test]
async fn a_call_signed_with_issued_keys_has_its_caller() {
    let door = Door::open().await;
    let issued = door.alice().await;
    let caller = Call::start_session(&issued, now()).send(&door, "ssm", now()).unwrap();
    assert_eq!(caller.principal, issued.principal);
    assert_eq!(caller.access_key_id, issued.access_key_id);
    assert_eq!((caller.region.as_str(), caller.expires_at), ("eu-west-1", issued.expiration));
    assert!(caller.signs("x-amz-target") && !caller.signs("user-agent"));
    assert!(!format!("{caller:?}").contains(&caller.signature));
}

#[tokio::test]
async fn an_upgrade_is_recognised_for_its_own_service_only() {
    let door = Door::open().await;
    let upgrade = Call::upgrade(&door.alice().await);
    let caller = upgrade.send(&door, "ssmmessages", now()).unwrap();
    assert!(!caller.signs("x-amz-target"));
    assert!(upgrade.send(&door, "ssm", now()).is_err());
}

#[tokio::test]
async fn forged_keys_and_a_wrong_signature_end_in_the_same_words() {
    let door = Door::open().await;
    let issued = door.alice().await;
    let other = Door::open().await.alice().await;
    let secret = Issued { secret_access_key: "x".repeat(40), ..issued.clone() };
    let token = Issued { session_token: other.session_token.clone(), ..issued.clone() };
    let id = Issued { access_key_id: "PSTNAAAAAAAAAAAAAAAA".to_owned(), ..issued.clone() };
    let empty =
        Issued { secret_access_key: String::new(), session_token: "AAAA".to_owned(), ..issued.clone() };
    let whole = Issued { session_token: "x".repeat(4000), ..issued };
    for forged in [&secret, &token, &id, &empty, &whole, &other] {
        let error = Call::start_session(forged, now()).refusal(&door);
        assert_eq!(error.code, Code::InvalidSignature);
        assert_eq!(error.message, IdentityError::NotRecognised.to_string());
    }
}

#[tokio::test]
async fn keys_of_aws_are_told_apart() {
    let door = Door::open().await;
    let aws = Issued { access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(), ..door.alice().await };
    let error = Call::start_session(&aws, now()).refusal(&door);
    assert_eq!(error.code, Code::UnrecognizedClient);
    assert!(error.message.contains("postern configure"), "{error}");
}

#[tokio::test]
async fn keys_end_when_they_were_said_to() {
    let door = Door::open().await;
    let issued = door.alice().await;
    let last = issued.expiration - Duration::seconds(1);
    assert!(Call::start_session(&issued, last).send(&door, "ssm", last).is_ok());
    let over = issued.expiration;
    let error = Call::start_session(&issued, over).send(&door, "ssm", over).unwrap_err();
    let error = ApiError::from(error);
    assert_eq!(error.code, Code::ExpiredToken);
    assert!(error.message.contains("2026-11-22T11:15:00Z"), "{error}");
}

#[tokio::test]
async fn a_skewed_clock_is_told_with_both_clocks() {
    let door = Door::open().await;
    let issued = door.alice().await;
    let error = Call::start_session(&issued, now() + Duration::minutes(6)).refusal(&door);
    assert_eq!(error.code, Code::InvalidSignature);
    assert!(
        error.message.contains("20261122T102100Z") && error.message.contains("20261122T101500Z"),
        "{error}"
    );
}

#[tokio::test]
async fn a_call_must_sign_target_and_token_and_nothing_twice() {
    let door = Door::open().await;
    let issued = door.alice().await;
    for name in ["x-amz-target", "x-amz-security-token", "content-type", "host"] {
        let call = Call::start_session(&issued, now()).edit("authorization", |value| {
            value.replace(&format!("{name};"), "").replace(&format!(";{name},"), ",")
        });
        let error = call.refusal(&door);
        assert_eq!(error.code, Code::IncompleteSignature);
        assert!(error.message.contains(name), "{error}");
    }
    let mut twice = Call::start_session(&issued, now());
    twice.headers.push(("x-amz-target".to_owned(), b"AmazonSSM.TerminateSession".to_vec()));
    assert_eq!(twice.refusal(&door).code, Code::IncompleteSignature);
}

#[tokio::test]
async fn a_call_signed_for_another_host_or_region_is_refused() {
    let door = Door::with(|config| config.regions = vec!["eu-west-1".to_owned()]).await;
    let issued = door.alice().await;
    let headers = [("host", "evil.example.com")];
    let call = Call::signed(("GET", "/v1/sessions"), "ssm", &headers, &issued, now());
    let error = call.refusal(&door);
    assert!(error.message.contains("https://gw.example.com:8443"), "{error}");

    let door_elsewhere = Door::with(|config| config.regions = vec!["us-east-1".to_owned()]).await;
    std::fs::copy(door.folder.path().join("keys"), door_elsewhere.folder.path().join("keys")).unwrap();
    let ring = super::KeyRing::open(&door_elsewhere.folder.path().join("keys")).unwrap();
    let mut config = super::IdentityConfig::new(super::stub::SERVER, vec!["111122223333".to_owned()]);
    config.regions = vec!["us-east-1".to_owned()];
    let identity = super::Identity::new(config, std::sync::Arc::new(ring)).unwrap();
    let elsewhere = Door { identity, ..door_elsewhere };
    assert_eq!(Call::start_session(&issued, now()).refusal(&elsewhere).code, Code::Validation);
}

#[tokio::test]
async fn a_signature_is_used_once_in_ten_minutes() {
    let door = Door::open().await;
    let issued = door.alice().await;
    let call = Call::start_session(&issued, now());
    let caller = call.send(&door, "ssm", now()).unwrap();
    let later = now() + Duration::seconds(1);
    let next = Call::start_session(&issued, later).send(&door, "ssm", later).unwrap();
    let seen = SeenSignatures::new();
    assert_eq!(seen.take(&caller, now()), Use::First);
    assert_eq!(seen.take(&caller, now() + Duration::seconds(5)), Use::Again);
    assert_eq!(seen.take(&caller, now() + Duration::seconds(6)), Use::Repeat);
    assert_eq!(seen.take(&caller, now() + Duration::minutes(10)), Use::Repeat);
    assert_eq!(seen.take(&next, now()), Use::First);
    // By then the signature itself has long been too old.
    assert_eq!(seen.take(&caller, now() + Duration::seconds(601)), Use::First);
}

#[tokio::test]
async fn one_principal_cannot_fill_the_memory_of_signatures() {
    let door = Door::open().await;
    let issued = door.alice().await;
    let mut alice = Call::start_session(&issued, now()).send(&door, "ssm", now()).unwrap();
    let mut bob = alice.clone();
    bob.principal.id = "AIDABOB".to_owned();
    let seen = SeenSignatures::new();
    let mut taken = 0;
    loop {
        alice.signature = format!("{taken:064x}");
        if seen.take(&alice, now()) != Use::First {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, 4096);
    assert_eq!(seen.take(&alice, now()), Use::TooMany);
    bob.signature = "b".repeat(64);
    assert_eq!(seen.take(&bob, now()), Use::First);
    assert_eq!(seen.take(&alice, now() + Duration::seconds(601)), Use::First);
}
