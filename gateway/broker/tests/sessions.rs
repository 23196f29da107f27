//! Starting, resuming and ending: with whose keys, and what of errors.

use serde_json::{Value, json};
use time::Duration;

use super::super::{Broker, BrokerConfig, BrokerError, Scope, UpstreamRef};
use super::fake_aws::{ACCOUNT, FakeAws, OWN_KEY, ROLE, STREAM_URL};
use super::{alice, broker, own_id, shell_on};
use crate::error::{ApiError, Blame, Code};
use crate::metrics::Metrics;
use crate::session::{Document, Target};

const TARGET: &str = "i-0123456789abcdef0";

fn policy(call: &super::fake_aws::Call) -> Value {
    serde_json::from_str(call.input["Policy"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_session_is_started_in_the_persons_name() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let upstream = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap();
    assert_eq!(upstream.session_id, "alice@example.com-0abc");
    assert_eq!(upstream.stream_url, STREAM_URL);
    assert_eq!(upstream.token.expose(), "first token");

    let assumed = &aws.calls("AssumeRole")[0];
    assert_eq!(assumed.access_key_id, OWN_KEY);
    let expected = [
        ("RoleArn", ROLE),
        ("ExternalId", "ext-1"),
        ("RoleSessionName", "alice@example.com"),
        ("SourceIdentity", "alice@example.com"),
        ("DurationSeconds", "3600"),
        ("Tags.member.1.Key", "postern-session"),
        ("Tags.member.1.Value", "alice@example.com-aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("Tags.member.2.Key", "postern-principal"),
        ("Tags.member.2.Value", "arn:aws:sts::111122223333:assumed-role/Ops/alice@example.com"),
    ];
    for (name, value) in expected {
        assert_eq!(assumed.input[name], value, "{name}");
    }
    let started = &aws.calls("StartSession")[0];
    assert_eq!(started.access_key_id, upstream.keys.access_key_id());
    assert_eq!(started.input, json!({"Target": TARGET, "Reason": "disk is full"}));
}

#[tokio::test]
async fn a_sessions_keys_open_one_machine_with_one_document() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let mut request = shell_on("mi-0123456789abcdef0");
    request.document = Document::parse("AWS-StartSSHSession").unwrap();
    broker.start(&alice(), &request, &own_id(), None).await.unwrap();
    let assumed = &aws.calls("AssumeRole")[0];
    assert!(assumed.input["Policy"].as_str().unwrap().len() < 2048, "STS takes 2,048 characters");
    let statements = policy(assumed)["Statement"].clone();
    assert_eq!(statements[0]["Resource"], "arn:aws:ssm:eu-west-1:111122223333:session/alice@example.com-*");
    assert_eq!(
        statements[1]["Resource"],
        json!([
            "arn:aws:ssm:eu-west-1:111122223333:managed-instance/mi-0123456789abcdef0",
            "arn:aws:ssm:eu-west-1:*:document/AWS-StartSSHSession",
        ])
    );
    assert_eq!(statements.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn without_a_role_the_gateways_own_keys_are_used() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let upstream = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap();
    broker.terminate(&upstream.reference()).await.unwrap();
    assert!(aws.calls("AssumeRole").is_empty());
    assert_eq!(aws.calls("StartSession")[0].access_key_id, OWN_KEY);
    assert_eq!(aws.calls("TerminateSession")[0].input, json!({"SessionId": "gateway-0abc"}));
}

#[tokio::test]
async fn document_and_parameters_are_passed_on() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let mut request = shell_on(TARGET);
    request.document = Document::parse("AWS-StartPortForwardingSession").unwrap();
    request.parameters.insert("portNumber".into(), vec!["80".into()]);
    request.reason = None;
    broker.start(&alice(), &request, &own_id(), None).await.unwrap();
    let expected = json!({
        "Target": TARGET, "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": {"portNumber": ["80"]},
    });
    assert_eq!(aws.calls("StartSession")[0].input, expected);
}

#[tokio::test]
async fn a_resume_uses_the_keys_it_has() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let started = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap();
    let reference = started.reference();
    let resumed = broker.resume(&reference).await.unwrap().unwrap();
    assert_eq!(resumed.token.expose(), "second token");
    assert_eq!(resumed.stream_url, "wss://new.example/x");
    assert_eq!(resumed.session_id, started.session_id);
    assert_eq!(aws.calls("ResumeSession")[0].access_key_id, started.keys.access_key_id());
    assert_eq!(aws.calls("AssumeRole").len(), 1);
}

#[tokio::test]
async fn keys_about_to_expire_are_taken_anew_for_this_session_only() {
    let aws = FakeAws::start().await;
    aws.key_life(Duration::minutes(4));
    let broker = broker(aws.config_with_role()).await;
    let started = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap();
    let reference = started.reference();
    aws.key_life(Duration::hours(1));
    let resumed = broker.resume(&reference).await.unwrap().unwrap();
    broker.terminate(&reference).await.unwrap();
    assert_ne!(resumed.keys.access_key_id(), started.keys.access_key_id());
    assert_eq!(aws.calls("TerminateSession")[0].access_key_id, resumed.keys.access_key_id());
    let assumed = aws.calls("AssumeRole");
    assert_eq!(assumed.len(), 2);
    let statements = policy(&assumed[1])["Statement"].clone();
    assert_eq!(statements.as_array().unwrap().len(), 2, "a resumed session starts no other");
    let session = "arn:aws:ssm:eu-west-1:111122223333:session/alice@example.com-0abc";
    assert_eq!(statements[0]["Resource"], session);
}

#[tokio::test]
async fn any_node_can_resume_a_session_of_another() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let scope = Scope {
        session: own_id(),
        principal: alice(),
        target: Target::parse(TARGET).unwrap(),
        document: Document::shell(),
        account: "111122223333".to_owned(),
        region: "eu-west-1".to_owned(),
        run_as: None,
    };
    let reference = UpstreamRef::new("alice@example.com-0abc".into(), scope);
    assert!(broker.resume(&reference).await.unwrap().is_some());
    assert_eq!(aws.calls("AssumeRole")[0].input["RoleSessionName"], "alice@example.com");
}

#[tokio::test]
async fn a_session_that_is_over_is_not_resumed() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let reference = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap().reference();
    aws.script("ResumeSession", 400, json!({"__type": "DoesNotExistException", "Message": "gone"}));
    assert!(broker.resume(&reference).await.unwrap().is_none());
    aws.script("ResumeSession", 200, json!({"SessionId": "x"}));
    assert!(broker.resume(&reference).await.unwrap().is_none());
    aws.script("TerminateSession", 400, json!({"__type": "DoesNotExistException", "Message": "gone"}));
    broker.terminate(&reference).await.unwrap();
}

#[tokio::test]
async fn every_error_of_aws_becomes_one_of_ours() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let table = [
        (400, "TargetNotConnected", Code::TargetNotConnected, Blame::Target),
        (400, "InvalidDocument", Code::InvalidDocument, Blame::Client),
        (400, "com.amazonaws.ssm#InvalidDocumentVersion", Code::InvalidDocument, Blame::Client),
        (400, "ValidationException", Code::Validation, Blame::Client),
        (400, "AccessDeniedException", Code::AccessDenied, Blame::Aws),
        (400, "ExpiredTokenException", Code::ServiceUnavailable, Blame::Gateway),
        (500, "InternalServerError", Code::InternalServerError, Blame::Aws),
        (400, "SomethingNew", Code::InternalServerError, Blame::Aws),
    ];
    for (status, aws_code, code, blame) in table {
        let said = "arn:aws:sts::1:assumed-role/Hidden \u{1b}[2J";
        aws.script("StartSession", status, json!({"__type": aws_code, "Message": said}));
        let error = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap_err();
        let told = ApiError::from(error);
        assert_eq!((told.code, told.blame), (code, blame), "{aws_code}: {told}");
        assert!(!told.message.chars().any(char::is_control), "{aws_code}: {told:?}");
    }
}

#[tokio::test]
async fn only_a_throttle_is_tried_again() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    aws.script("StartSession", 400, json!({"__type": "ThrottlingException"}));
    broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap();
    assert_eq!(aws.calls("StartSession").len(), 2);
    aws.script("StartSession", 500, json!({"__type": "InternalServerError"}));
    broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap_err();
    assert_eq!(aws.calls("StartSession").len(), 3);
}

#[tokio::test]
async fn a_role_that_cannot_be_taken_starts_nothing() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    aws.script("AssumeRole", 403, json!({"__type": "AccessDenied", "Message": "no"}));
    let error = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap_err();
    assert!(matches!(error, BrokerError::AccessDenied { .. }), "{error}");
    assert!(aws.calls("StartSession").is_empty());
}

#[tokio::test]
async fn an_answer_without_a_token_is_an_error() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    aws.script("StartSession", 200, json!({"SessionId": "x", "StreamUrl": STREAM_URL}));
    let error = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap_err();
    assert!(matches!(error, BrokerError::Malformed { what: "TokenValue", .. }), "{error}");
}

#[tokio::test]
async fn no_debug_text_tells_a_secret() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let upstream = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap();
    let reference = upstream.reference();
    let text = format!("{upstream:?} {reference:?} {:?}", aws.config());
    let key = aws.key(upstream.keys.access_key_id()).unwrap();
    for secret in [&key.secret, &key.token, "first token", super::fake_aws::OWN_SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn failures_are_counted_by_operation_and_blame() {
    let (aws, metrics) = (FakeAws::start().await, std::sync::Arc::new(Metrics::new().unwrap()));
    let broker = Broker::new(aws.config(), metrics.clone()).await.unwrap();
    aws.script("StartSession", 400, json!({"__type": "TargetNotConnected", "Message": "off"}));
    broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap_err();
    assert_eq!(metrics.upstream_errors.with_label_values(&["start_session", "target"]).get(), 1);
    assert_eq!(metrics.upstream_seconds.with_label_values(&["start_session"]).get_sample_count(), 1);
}

#[tokio::test]
async fn the_account_is_the_roles_or_asked_of_sts() {
    let aws = FakeAws::start().await;
    let unsaid = BrokerConfig { account: String::new(), ..aws.config() };
    assert_eq!(broker(unsaid).await.account(), ACCOUNT);
    assert_eq!(aws.calls("GetCallerIdentity").len(), 1);
    let of_role = BrokerConfig { account: String::new(), ..aws.config_with_role() };
    assert_eq!(broker(of_role).await.account(), ACCOUNT);
    assert_eq!(aws.calls("GetCallerIdentity").len(), 1);
}

#[tokio::test]
async fn a_wrong_configuration_is_told_at_the_start() {
    let aws = FakeAws::start().await;
    let good = || aws.config_with_role();
    let wrong = [
        BrokerConfig { account: "12".into(), role_arn: None, ..good() },
        BrokerConfig { account: "999999999999".into(), ..good() },
        BrokerConfig { role_arn: Some("PosternBroker".into()), ..good() },
        BrokerConfig { ssm_endpoint_url: Some("http://ssm.example".into()), ..good() },
        BrokerConfig { sts_endpoint_url: Some("not a url".into()), ..good() },
        BrokerConfig { kms_endpoint_url: Some("http://kms.example".into()), ..good() },
        BrokerConfig { ca_bundle: Some("/nonexistent.pem".into()), ..good() },
        BrokerConfig { ca_bundle: Some("/dev/null".into()), ..good() },
    ];
    for config in wrong {
        let told = format!("{config:?}");
        let metrics = std::sync::Arc::new(Metrics::new().unwrap());
        let answer = Broker::new(config, metrics).await;
        assert!(matches!(answer, Err(BrokerError::Config(_))), "{told}");
    }
}

#[tokio::test]
async fn an_aws_that_is_not_there_is_unreachable() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let aws = FakeAws::start().await;
    let config = BrokerConfig { ssm_endpoint_url: Some(format!("http://{gone}")), ..aws.config() };
    let broker = broker(config).await;
    let error = broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(ApiError::from(error).code, Code::ServiceUnavailable);
}
