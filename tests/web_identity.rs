//! A token of STS for this gateway is a proof, and no other token is.

use serde_json::{Value, json};

use crate::support::{
    ACCOUNT, Answer, Call, DEV, House, Person, Provider, Signer, Terminal, unsigned, web_identity,
};

/// The claim under which STS puts what only AWS knows.
const AWS: &str = "https://sts.amazonaws.com/";

/// A house that takes tokens of its own account's STS.
async fn house() -> House {
    House::with(|config| {
        let sts = config.broker.sts_endpoint_url.clone().unwrap();
        config.identity.web_identity.issuers.insert(ACCOUNT.to_owned(), sts);
    })
    .await
}

async fn prove(house: &House, token: &str) -> Answer {
    Call::post("/v1/login/web-identity", &json!({ "token": token })).send(&house.door).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_sts_names_in_a_token_opens_a_session() {
    let house = house().await;
    let token = web_identity("alice", &house, &[&house.url()]).await.unwrap();
    let issued = prove(&house, &token).await.ok();
    assert_eq!(issued["PrincipalArn"], format!("arn:aws:iam::{ACCOUNT}:user/alice"));
    let alice = Person::with(issued, &house.door, &house.trust);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo it-$((40 + 2))").await;
    terminal.until("it-42").await;
    let told = prove(&house, &token).await.refused("AccessDeniedException");
    assert!(told.contains("used before"), "{told}");
    // A role's token names the role; the person is the source identity.
    let token = web_identity("carol", &house, &[&house.url()]).await.unwrap();
    let issued = prove(&house, &token).await.ok();
    assert_eq!(issued["PrincipalArn"], format!("arn:aws:sts::{ACCOUNT}:assumed-role/Auditor/carol"));
    let carol = Person::with(issued, &house.door, &house.trust);
    assert_eq!(carol.session(&terminal.session).await["name"], "alice", "carol audits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_others_or_for_several_is_refused() {
    let house = house().await;
    let ours = house.url();
    for audiences in [vec!["https://other.example"], vec![ours.as_str(), "https://other.example"]] {
        let token = web_identity("alice", &house, &audiences).await.unwrap();
        let told = prove(&house, &token).await.refused("AccessDeniedException");
        assert!(told.contains("not for this gateway alone"), "{told}");
    }
    let elsewhere = House::start().await;
    let token = web_identity("alice", &house, &[&elsewhere.url()]).await.unwrap();
    let told = prove(&elsewhere, &token).await.refused("AccessDeniedException");
    assert!(told.contains("its issuer is not one of the accounts"), "{told}");
}

/// What STS would say of a role that alice has taken.
fn claims(issuer: &str, audience: &str) -> Value {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let role = format!("arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/Developer");
    json!({
        "iss": issuer, "aud": audience, "sub": role, "iat": now, "exp": now + 60,
        "jti": data_channel::Uuid::new_v4().to_string(),
        AWS: {
            "aws_account": ACCOUNT, "principal_id": role, "source_region": "eu-west-1",
            "org_id": "o-abc1234567", "ou_path": ["o-a1/r-ab12/"],
            "identity_store_user_id": "265222f4-f041-7008-6e0c-2d3993b555bf",
            "principal_tags": {"team": "data"},
        },
    })
}

fn with(claims: &Value, pointer: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    let (object, name) = match pointer.strip_prefix("aws.") {
        Some(name) => (claims[AWS].as_object_mut().unwrap(), name),
        None => (claims.as_object_mut().unwrap(), pointer),
    };
    match value {
        Value::Null => drop(object.remove(name)),
        value => drop(object.insert(name.to_owned(), value)),
    }
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_exactly_such_a_token_proves_nothing() {
    let provider = Provider::start().await;
    provider.set(|script| script.signers = vec![Signer::es384("EC384_0"), Signer::rsa("RSA_0")]);
    let house = House::with(|config| {
        config.identity.web_identity.issuers.insert(ACCOUNT.to_owned(), provider.url.clone());
    })
    .await;
    let (ec, rsa) = provider.set(|script| (script.signers[0].clone(), script.signers[1].clone()));
    let good = claims(&provider.url, &house.url());
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let changed: Vec<(&str, Value)> = vec![
        ("iss", json!("https://abc.tokens.sts.global.api.aws")),
        ("iss", json!(format!("{}/", provider.url))),
        ("aud", json!(format!("{}/", house.url()))),
        ("aud", json!([])),
        ("exp", json!(now - 61)),
        ("exp", json!(now + 901)),
        ("iat", json!(now + 120)),
        ("nbf", json!(now + 120)),
        ("jti", Value::Null),
        ("jti", json!("x".repeat(257))),
        ("sub", json!("arn:aws:iam::999999999999:role/Developer")),
        ("sub", json!("alice")),
        ("sub", json!(format!("arn:aws:iam::{ACCOUNT}:root"))),
        ("sub", json!(format!("arn:aws:sts::{ACCOUNT}:assumed-role/Developer/alice"))),
        (AWS, Value::Null),
        ("aws.aws_account", json!("999999999999")),
        ("aws.principal_id", json!(format!("arn:aws:iam::{ACCOUNT}:role/Other"))),
        ("aws.identity_store_user_id", Value::Null),
        ("aws.identity_store_user_id", json!("a/b")),
        ("aws.source_identity", json!("al\u{1b}ice")),
        ("aws.principal_tags", json!(["team"])),
        ("aws.principal_tags", json!({"team": ["data"]})),
        ("aws.principal_tags", json!({"team": "x".repeat(2000)})),
        ("padding", json!("x".repeat(20_000))),
    ];
    for (pointer, value) in changed {
        let bad = with(&good, pointer, value.clone());
        let bad = with(&bad, if pointer == "jti" { "unused" } else { "jti" }, fresh());
        let answer = prove(&house, &ec.sign(&bad)).await;
        assert_ne!(answer.status, 200, "{pointer} {value} was accepted");
        assert!(!answer.text().contains('\u{1b}'));
    }
    let text = good.to_string();
    let es256 = Signer::es256("EC384_0");
    for bad in [
        unsigned(r#"{"alg":"none"}"#, &text),
        format!("{}.", unsigned(r#"{"alg":"none"}"#, &text)),
        ec.sign_text(r#"{"alg":"HS256","kid":"EC384_0"}"#, &text),
        ec.sign_text(r#"{"alg":"RS256","kid":"EC384_0"}"#, &text),
        ec.sign_text(r#"{"alg":"ES384","kid":"RSA_0"}"#, &text),
        ec.sign_text(r#"{"alg":"ES384"}"#, &text),
        ec.sign_text(r#"{"alg":"ES384","kid":"EC384_0","alg":"ES384"}"#, &text),
        ec.sign_text(r#"{"alg":"ES384","kid":"EC384_0"}"#, &text.replacen('{', "{\"sub\":\"x\",", 1)),
        es256.sign(&good),
        Signer::es384("EC384_0").sign(&good),
        String::new(),
    ] {
        assert_ne!(prove(&house, &bad).await.status, 200, "{bad} was accepted");
    }
    let told = prove(&house, &ec.sign(&with(&good, "aws.identity_store_user_id", Value::Null))).await;
    assert!(told.message().contains("names a role and nobody behind it"), "{}", told.message());
    // Without a fault both keys are good, each token once.
    for signer in [&ec, &rsa] {
        let token = signer.sign(&with(&good, "jti", fresh()));
        let arn = &prove(&house, &token).await.ok()["PrincipalArn"];
        let person = "265222f4-f041-7008-6e0c-2d3993b555bf";
        assert_eq!(*arn, format!("arn:aws:sts::{ACCOUNT}:assumed-role/Developer/{person}"));
        assert_ne!(prove(&house, &token).await.status, 200, "a token was good twice");
    }
}

fn fresh() -> Value {
    json!(data_channel::Uuid::new_v4().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_time_is_told_with_both_clocks() {
    let provider = Provider::start().await;
    let house = House::with(|config| {
        config.identity.web_identity.issuers.insert(ACCOUNT.to_owned(), provider.url.clone());
    })
    .await;
    let mut claims = claims(&provider.url, &house.url());
    (claims["iat"], claims["exp"]) = (json!(4_000_000_000_u64), json!(4_000_000_060_u64));
    let told = prove(&house, &provider.signer().sign(&claims)).await.refused("ExpiredTokenException");
    let ours = time::OffsetDateTime::now_utc().date().to_string();
    assert!(told.contains("is valid from 2096-10-02T07:06:40Z") && told.contains(&ours), "{told}");
}
