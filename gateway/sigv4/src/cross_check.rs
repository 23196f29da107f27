//! Two other people's programs agree: one verifies ours, ours verifies the other.

use std::str::FromStr;
use std::time::UNIX_EPOCH;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use chrono::DateTime;
use scratchstack_aws_signature::principal::{Principal, User};
use scratchstack_aws_signature::{
    GetSigningKeyRequest, GetSigningKeyResponse, KSecretKey, NO_ADDITIONAL_SIGNED_HEADERS, SignatureOptions,
    service_for_signing_key_fn, sigv4_validate_request,
};
use time::OffsetDateTime;

use crate::sts_proof::{BODY, caller_identity_request};
use crate::{Keys, Presented, Request, Rules, Scope, parse_amz_date, sign, verify};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The other verifier takes secrets of exactly 40 characters.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEU=";

fn now() -> OffsetDateTime {
    parse_amz_date("20261122T101500Z").unwrap()
}

async fn signing_key(asked: GetSigningKeyRequest) -> Result<GetSigningKeyResponse, BoxError> {
    let key = KSecretKey::from_str(SECRET)?;
    let signing = key.to_ksigning(asked.request_date(), asked.region(), asked.service());
    let person = Principal::from(User::new("aws", "123456789012", "/", "test")?);
    Ok(GetSigningKeyResponse::builder().principal(person).signing_key(signing).build()?)
}

async fn accepted_by_scratchstack(request: &Request<'_>, scope: Scope<'_>) -> Result<(), String> {
    let uri = if request.query.is_empty() {
        request.path.to_owned()
    } else {
        format!("{}?{}", request.path, request.query)
    };
    let mut built = http::Request::builder().method(request.method).uri(uri);
    for (name, value) in request.headers {
        built = built.header(*name, *value);
    }
    let built = built.body(request.body.to_vec()).unwrap();
    let mut keys = service_for_signing_key_fn(signing_key);
    let at = DateTime::from_timestamp(now().unix_timestamp(), 0).unwrap();
    sigv4_validate_request(
        built,
        scope.region,
        scope.service,
        &mut keys,
        at,
        &NO_ADDITIONAL_SIGNED_HEADERS,
        SignatureOptions::default(),
    )
    .await
    .map(|_| ())
    .map_err(|error| error.to_string())
}

/// Signs, asks the other verifier and ours; then once more with a changed body.
async fn both_agree(request: Request<'_>, scope: Scope<'_>) {
    let keys = Keys { access_key_id: "ASIAEXAMPLE", secret: SECRET, session_token: Some(TOKEN) };
    let added = sign(&request, &keys, &scope, now());
    let mut headers = request.headers.to_vec();
    headers.extend(added.iter().map(|(name, value)| (name, value.as_bytes())));
    let signed = Request { headers: &headers, ..request };
    let ours = |request: &Request<'_>| {
        let presented = Presented::read(request).unwrap();
        verify(request, &presented, SECRET, now(), &Rules::plain(scope.service))
    };
    assert_eq!(accepted_by_scratchstack(&signed, scope).await, Ok(()));
    assert_eq!(ours(&signed), Ok(()));
    let changed = Request { body: b"{}", ..signed };
    assert!(accepted_by_scratchstack(&changed, scope).await.is_err());
    assert!(ours(&changed).is_err());
}

#[tokio::test]
async fn scratchstack_accepts_what_we_sign_and_refuses_what_we_refuse() {
    let headers: [(&str, &[u8]); 3] = [
        ("host", b"gw.example.com:8443"),
        ("content-type", b"application/x-amz-json-1.1"),
        ("x-amz-target", b"AmazonSSM.StartSession"),
    ];
    let body = r#"{"Target":"i-0abc","Reason":"größe"}"#.as_bytes();
    let call = Request { method: "POST", path: "/", query: "", headers: &headers, body };
    both_agree(call, Scope { region: "us-east-1", service: "ssm" }).await;

    let upgrade = Request {
        method: "GET",
        path: "/v1/data-channel/alice-abc",
        query: "role=publish_subscribe&cell-number=AAEA%2B%2F%3D",
        headers: headers.get(..1).unwrap(),
        body: b"",
    };
    both_agree(upgrade, Scope { region: "eu-west-1", service: "ssmmessages" }).await;
}

#[tokio::test]
async fn scratchstack_accepts_the_sts_proof() {
    let challenge = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let proof = caller_identity_request(
        "us-east-1",
        "https://gw.example.com",
        challenge,
        "20261122T101500Z",
        Some(TOKEN),
    )
    .unwrap();
    let authorization = proof.authorization("ASIAEXAMPLE", &proof.signature(SECRET)).unwrap();
    let mut headers: Vec<(&str, &[u8])> =
        proof.headers().iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    headers.push(("authorization", authorization.as_bytes()));
    let request = Request { method: "POST", path: "/", query: "", headers: &headers, body: BODY.as_bytes() };
    let scope = Scope { region: "us-east-1", service: "sts" };
    assert_eq!(accepted_by_scratchstack(&request, scope).await, Ok(()));
}

#[test]
fn we_accept_what_the_aws_sdk_signs() {
    let body = br#"{"Target":"i-0abc"}"#;
    let headers = [
        ("host", "gw.example.com:8443"),
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "AmazonSSM.StartSession"),
    ];
    let identity = Credentials::new("PSTNEXAMPLE", SECRET, Some(TOKEN.to_owned()), None, "test").into();
    let at = UNIX_EPOCH + std::time::Duration::from_secs(now().unix_timestamp().unsigned_abs());
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("ssm")
        .time(at)
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let uri = "https://gw.example.com:8443/";
    let signable = SignableRequest::new("POST", uri, headers.into_iter(), SignableBody::Bytes(body)).unwrap();
    let (made, _) = aws_sigv4::http_request::sign(signable, &params.into()).unwrap().into_parts();
    let mut all: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    all.extend(made.headers().map(|(name, value)| (name, value.as_bytes())));
    let request = Request { method: "POST", path: "/", query: "", headers: &all, body };
    let presented = Presented::read(&request).unwrap();
    assert_eq!(presented.access_key_id, "PSTNEXAMPLE");
    assert_eq!(presented.security_token.as_deref(), Some(TOKEN));
    assert_eq!(verify(&request, &presented, SECRET, now(), &Rules::json_call("ssm")), Ok(()));
}
