//! Keys of encrypted sessions: bound to what, with whose keys, and errors.

use data_channel::handshake::KmsAction;
use serde_json::{Value, json};

use super::super::{Broker, BrokerConfig, UpstreamRef};
use super::fake_aws::FakeAws;
use super::{alice, broker, own_id, shell_on};

const TARGET: &str = "mi-0123456789abcdef0";
const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1";

fn wish(challenge: Option<&str>) -> KmsAction {
    KmsAction { kms_key_id: KEY.into(), challenge: challenge.map(str::to_owned) }
}

async fn started(broker: &Broker) -> UpstreamRef {
    broker.start(&alice(), &shell_on(TARGET), &own_id(), None).await.unwrap().reference()
}

#[tokio::test]
async fn a_key_is_bound_to_the_session_at_aws_and_the_machine() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let upstream = started(&broker).await;
    let key = broker.data_key(&upstream, &wish(None)).await.unwrap();
    assert_eq!(key.sealed, b"sealed");
    let call = &aws.calls("GenerateDataKey")[0];
    assert_eq!(
        call.input,
        json!({"KeyId": KEY, "NumberOfBytes": 64, "EncryptionContext": {
            "aws:ssm:SessionId": "alice@example.com-0abc", "aws:ssm:TargetId": TARGET,
        }})
    );
    // The session's own keys ask, not the gateway's.
    assert_eq!(call.access_key_id, aws.calls("StartSession")[0].access_key_id);
    assert_eq!(aws.calls("AssumeRole").len(), 1);
}

#[tokio::test]
async fn a_challenge_of_the_agent_is_bound_to_the_key_too() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let upstream = started(&broker).await;
    broker.data_key(&upstream, &wish(Some("c29tZXRoaW5n"))).await.unwrap();
    // Older agents have none, and an empty one is none.
    broker.data_key(&upstream, &wish(Some(""))).await.unwrap();
    let context = |call: usize| aws.calls("GenerateDataKey")[call].input["EncryptionContext"].clone();
    assert_eq!(context(0)["aws:ssm:RandomChallenge"], "c29tZXRoaW5n");
    assert_eq!(context(1)["aws:ssm:RandomChallenge"], Value::Null);
}

#[tokio::test]
async fn a_key_is_opened_again_with_what_it_is_bound_to() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    let upstream = started(&broker).await;
    let key = broker.open_data_key(&upstream, &wish(Some("c29tZXRoaW5n")), b"sealed").await.unwrap();
    assert_eq!(key.sealed, b"sealed");
    assert_eq!(
        aws.calls("Decrypt")[0].input,
        json!({"KeyId": KEY, "CiphertextBlob": "c2VhbGVk", "EncryptionContext": {
            "aws:ssm:SessionId": "alice@example.com-0abc", "aws:ssm:TargetId": TARGET,
            "aws:ssm:RandomChallenge": "c29tZXRoaW5n",
        }})
    );
    aws.script("Decrypt", 400, json!({"__type": "AccessDeniedException", "message": "no"}));
    let refusal = broker.open_data_key(&upstream, &wish(None), b"sealed").await.unwrap_err();
    assert!(refusal.sentence().contains("allow the role kms:Decrypt on this key"), "{}", refusal.sentence());
}

#[tokio::test]
async fn a_sessions_keys_get_data_keys_for_this_session_only() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    started(&broker).await;
    let assumed = &aws.calls("AssumeRole")[0];
    let policy: Value = serde_json::from_str(assumed.input["Policy"].as_str().unwrap()).unwrap();
    assert_eq!(
        policy["Statement"][2],
        json!({
            "Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "arn:aws:kms:eu-west-1:*:key/*",
            "Condition": {
                "StringEquals": {"kms:EncryptionContext:aws:ssm:TargetId": TARGET},
                "StringLike": {"kms:EncryptionContext:aws:ssm:SessionId": "alice@example.com-*"},
            },
        })
    );
}

#[tokio::test]
async fn a_refusal_names_the_key_and_what_to_do() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let upstream = started(&broker).await;
    let table = [
        ("AccessDeniedException", "allow the role kms:GenerateDataKey on this key"),
        ("NotFoundException", "KMS answered NotFoundException: check the key in the session preferences"),
        ("DisabledException", "KMS answered DisabledException: check the key"),
        ("ValidationException", "KMS does not take its id"),
        ("ExpiredTokenException", "tell whoever runs it"),
    ];
    for (code, next) in table {
        let said = json!({"__type": code, "message": "arn:aws:sts::1:assumed-role/Hidden \u{1b}[2J"});
        aws.script("GenerateDataKey", 400, said);
        let refusal = broker.data_key(&upstream, &wish(None)).await.unwrap_err();
        let told = refusal.sentence();
        assert!(told.contains(KEY) && told.contains(next), "{code}: {told}");
        assert!(!told.contains("Hidden") && !told.chars().any(char::is_control), "{code}: {told}");
    }
}

#[tokio::test]
async fn an_answer_with_half_a_key_is_none() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let upstream = started(&broker).await;
    for key in
        [json!({"CiphertextBlob": "c2VhbGVk", "Plaintext": "c2hvcnQ="}), json!({"Plaintext": "c2hvcnQ="})]
    {
        aws.script("GenerateDataKey", 200, key);
        assert!(broker.data_key(&upstream, &wish(None)).await.is_err());
    }
}

#[tokio::test]
async fn a_kms_that_is_not_there_is_told_as_such() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let aws = FakeAws::start().await;
    let config = BrokerConfig { kms_endpoint_url: Some(format!("http://{gone}")), ..aws.config() };
    let broker = broker(config).await;
    let refusal = broker.data_key(&started(&broker).await, &wish(None)).await.unwrap_err();
    assert!(refusal.sentence().contains("KMS did not answer: try again in a minute"), "{refusal}");
}
