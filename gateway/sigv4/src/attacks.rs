//! Requests that must not verify, and the sentence each gets.

use time::{Duration, OffsetDateTime};

use crate::{Keys, Presented, Request, Rules, Scope, SignatureError, parse_amz_date, sign, verify};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const BODY: &[u8] = br#"{"Target": "i-0abc"}"#;

/// A StartSession as the CLI sends it, which a test then changes.
struct Call {
    method: &'static str,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Call {
    fn signed() -> Self {
        Self::signed_by(&Keys { access_key_id: "PSTNEXAMPLE", secret: SECRET, session_token: Some("dG9r") })
    }

    fn signed_by(keys: &Keys<'_>) -> Self {
        let headers: Vec<(&str, &[u8])> = vec![
            ("Host", b"gw.example.com:8443"),
            ("X-Amz-Target", b"AmazonSSM.StartSession"),
            ("Content-Type", b"application/x-amz-json-1.1"),
        ];
        let request = Request { method: "POST", path: "/", query: "", headers: &headers, body: BODY };
        let added = sign(&request, keys, &Scope { region: "us-east-1", service: "ssm" }, now());
        let all = headers.iter().map(|(name, value)| (*name, *value));
        let all = all.chain(added.iter().map(|(name, value)| (name, value.as_bytes())));
        let headers = all.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        Self { method: "POST", query: String::new(), headers, body: BODY.to_vec() }
    }

    fn edit(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        for (have, value) in &mut self.headers {
            if have.eq_ignore_ascii_case(name) {
                *value = change(std::str::from_utf8(value).unwrap()).into_bytes();
            }
        }
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    fn with(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_vec()));
        self
    }

    fn verify_at(&self, now: OffsetDateTime) -> Result<(), SignatureError> {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let request = Request {
            method: self.method,
            path: "/",
            query: &self.query,
            headers: &headers,
            body: &self.body,
        };
        let presented = Presented::read(&request)?;
        verify(&request, &presented, SECRET, now, &Rules::json_call("ssm"))
    }

    fn error(&self) -> SignatureError {
        self.verify_at(now()).expect_err("the request was accepted")
    }
}

fn now() -> OffsetDateTime {
    parse_amz_date("20261122T101500Z").unwrap()
}

#[test]
fn a_call_as_the_cli_signs_it_is_accepted() {
    assert_eq!(Call::signed().verify_at(now()), Ok(()));
    let extra = Call::signed().with("amz-sdk-invocation-id", b"1").with("User-Agent", b"aws-cli");
    assert_eq!(extra.verify_at(now()), Ok(()));
}

#[test]
fn any_change_of_what_is_signed_is_a_mismatch() {
    let mut call = Call::signed();
    call.body.push(b' ');
    assert_eq!(call.error(), SignatureError::Mismatch);
    let mut call = Call::signed();
    call.method = "PUT";
    assert_eq!(call.error(), SignatureError::Mismatch);
    let mut call = Call::signed();
    call.query = "a=b".to_owned();
    assert_eq!(call.error(), SignatureError::Mismatch);
    for name in ["host", "x-amz-target", "content-type", "x-amz-security-token"] {
        let call = Call::signed().edit(name, |value| format!("{value}x"));
        assert_eq!(call.error(), SignatureError::Mismatch, "{name}");
    }
    let region = Call::signed().edit("authorization", |value| value.replace("us-east-1", "eu-west-1"));
    assert_eq!(region.error(), SignatureError::Mismatch);
}

#[test]
fn another_secret_is_a_mismatch() {
    let keys = Keys { access_key_id: "PSTNEXAMPLE", secret: "other", session_token: Some("dG9r") };
    assert_eq!(Call::signed_by(&keys).error(), SignatureError::Mismatch);
}

#[test]
fn both_clocks_are_named_when_they_differ_by_more_than_five_minutes() {
    let call = Call::signed();
    assert_eq!(call.verify_at(now() + Duration::minutes(5)), Ok(()));
    assert_eq!(call.verify_at(now() - Duration::minutes(5)), Ok(()));
    for skew in [Duration::seconds(301), Duration::seconds(-301)] {
        let sentence = call.verify_at(now() + skew).unwrap_err().to_string();
        assert!(sentence.contains("20261122T101500Z"), "{sentence}");
        assert!(sentence.contains(&crate::amz_date(now() + skew)), "{sentence}");
    }
}

#[test]
fn every_required_header_must_be_signed() {
    for name in ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"] {
        let unsigned = Call::signed().edit("authorization", |value| {
            value.replace(&format!("{name};"), "").replace(&format!(";{name},"), ",")
        });
        assert_eq!(unsigned.error(), SignatureError::NotSigned(name.to_owned()));
    }
}

#[test]
fn a_signed_header_may_not_be_absent_or_there_twice() {
    assert_eq!(Call::signed().without("host").error(), SignatureError::Absent("host".into()));
    let twice = Call::signed().with("X-AMZ-TARGET", b"AmazonSSM.TerminateSession");
    assert_eq!(twice.error(), SignatureError::Duplicate("x-amz-target".into()));
    let twice = Call::signed().with("x-amz-date", b"20261122T101500Z");
    assert_eq!(twice.error(), SignatureError::Duplicate("x-amz-date".into()));
}

#[test]
fn a_signed_header_must_be_printable_ascii() {
    let call = Call::signed().edit("x-amz-target", |_| "Amazon\u{e9}".to_owned());
    assert_eq!(call.error(), SignatureError::NotAscii("x-amz-target".into()));
}

#[test]
fn a_request_is_signed_once_and_in_its_header() {
    let bare = Call::signed().without("authorization");
    assert_eq!(bare.error(), SignatureError::Unsigned);
    let twice = Call::signed().with("Authorization", b"AWS4-HMAC-SHA256 x");
    assert_eq!(twice.error(), SignatureError::SignedTwice);
    for query in ["X-Amz-Signature=00", "x=y&x-amz-signature=00", "X-Amz-Credential=a", "X%2DAmz-Algorithm=b"]
    {
        let mut both = Call::signed();
        both.query = query.to_owned();
        assert_eq!(both.error(), SignatureError::SignedTwice, "{query}");
    }
    let mut query = bare;
    query.query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=PSTNEXAMPLE%2F20261122%2Fus-east-1%2Fssm%2Faws4_request\
         &X-Amz-Date=20261122T101500Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={}",
        "0".repeat(64)
    );
    assert_eq!(query.error(), SignatureError::InQuery);
}

#[test]
fn the_scope_must_be_of_the_day_and_the_service() {
    let day = Call::signed().edit("authorization", |value| value.replace("20261122", "20261121"));
    assert!(matches!(day.error(), SignatureError::OtherDay { .. }));
    let service = Call::signed().edit("authorization", |value| value.replace("/ssm/", "/sts/"));
    let sentence = service.error().to_string();
    assert_eq!(sentence, "the request is signed for the service sts, this is ssm");
}

#[test]
fn a_signature_that_cannot_be_read_is_refused() {
    let broken: [fn(&str) -> String; 9] = [
        |value| value.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        |value| value.replace("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256X "),
        |value| format!("{value}, Credential=again"),
        |value| format!("{value}, Extra=1"),
        |value| value.replace("Signature=", "Signature=A"),
        |value| value.replace("/aws4_request", "/aws4_request/more"),
        |value| value.replace("content-type;host", "host;content-type"),
        |value| value.replace("host;", "host;host;"),
        |value| value.replace("host;", "Host;"),
    ];
    for change in broken {
        let call = Call::signed().edit("authorization", change);
        assert!(matches!(call.error(), SignatureError::Malformed(_)), "{:?}", call.error());
    }
    let long = Call::signed().edit("authorization", |value| format!("{value}{}", " ".repeat(5000)));
    assert!(matches!(long.error(), SignatureError::Malformed(_)));
}

#[test]
fn an_unsigned_payload_marker_does_not_unsign_the_body() {
    let mut call = Call::signed().with("x-amz-content-sha256", b"UNSIGNED-PAYLOAD");
    call.body = b"{}".to_vec();
    assert_eq!(call.error(), SignatureError::Mismatch);
}
