//! People with IAM identities, signed in to a gateway.

use aws_credential_types::Credentials;
use aws_sdk_ssm::config::{BehaviorVersion, Region};
use postern::client::Trust;
use postern::client::sign_in::Keys as Issued;
use postern::local_ssm::LocalIdentity;
use serde_json::{Value, json};
use sigv4::Keys;
use sigv4::sts_proof::caller_identity_request;
use time::OffsetDateTime;

use super::house::{ACCOUNT, House, REGION};
use super::web::{Answer, Call, Door};

/// Everybody with an IAM identity: name, ARN, unique id, session token.
///
/// Alice and bob develop, carol audits, dave is in no group.
const CAST: [(&str, &str, &str, Option<&str>); 4] = [
    ("alice", "arn:aws:iam::111122223333:user/alice", "AIDAALICE", None),
    ("bob", "arn:aws:iam::111122223333:user/bob", "AIDABOB", None),
    (
        "carol",
        "arn:aws:sts::111122223333:assumed-role/Auditor/carol",
        "AROAAUDITOR:carol",
        Some("carols-token"),
    ),
    ("dave", "arn:aws:iam::111122223333:user/dave", "AIDADAVE", None),
];

/// The cast as STS knows it.
pub fn cast() -> Vec<LocalIdentity> {
    assert!(CAST.iter().all(|(_, arn, ..)| arn.contains(ACCOUNT)));
    CAST.iter().map(|(name, arn, id, token)| identity(name, arn, id, *token)).collect()
}

fn identity(name: &str, arn: &str, user_id: &str, token: Option<&str>) -> LocalIdentity {
    LocalIdentity {
        access_key_id: format!("AKIA{}", name.to_ascii_uppercase()),
        secret_access_key: secret(name),
        session_token: token.map(str::to_owned),
        arn: arn.to_owned(),
        user_id: user_id.to_owned(),
    }
}

fn secret(name: &str) -> String {
    format!("the-secret-of-{name}")
}

/// What StartSession and ResumeSession hand out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub session: String,
    pub url: String,
    pub token: String,
}

impl Ticket {
    /// Of an answer; `None` when it holds no token.
    pub fn of(answer: &Value) -> Option<Self> {
        let text = |key: &str| Some(answer[key].as_str()?.to_owned());
        Some(Self { session: text("SessionId")?, url: text("StreamUrl")?, token: text("TokenValue")? })
    }
}

/// Somebody who holds keys of the gateway.
pub struct Person {
    pub door: Door,
    pub issued: Issued,
    /// The AWS SDK with these keys, pointed at the gateway.
    pub sdk: aws_sdk_ssm::Client,
}

impl Person {
    pub(super) async fn sign_in(name: &str, door: &Door, trust: &Trust) -> Self {
        let answer = Call::post("/v1/login/sts", &proof(name, door).await).send(door).await;
        Self::with(answer.ok(), door, trust)
    }

    /// Whoever these keys were issued to.
    pub fn with(issued: Value, door: &Door, trust: &Trust) -> Self {
        let issued: Issued = serde_json::from_value(issued).unwrap();
        let sdk = sdk(&issued, door, trust);
        Self { door: door.clone(), issued, sdk }
    }

    pub fn keys(&self) -> Keys<'_> {
        Keys {
            access_key_id: &self.issued.access_key_id,
            secret: &self.issued.secret_access_key,
            session_token: Some(&self.issued.session_token),
        }
    }

    pub fn sign(&self, call: Call) -> Call {
        call.signed(&self.door, &self.keys(), "ssm", OffsetDateTime::now_utc())
    }

    pub async fn call(&self, call: Call) -> Answer {
        self.sign(call).send(&self.door).await
    }

    /// One operation of the SSM API.
    pub async fn api(&self, operation: &str, body: &Value) -> Answer {
        self.call(Call::ssm(operation, body)).await
    }

    pub async fn start(&self, target: &str) -> Ticket {
        self.start_as(&json!({"Target": target})).await
    }

    /// A session that runs one command on a terminal.
    pub async fn start_command(&self, target: &str, command: &str) -> Ticket {
        let body = json!({
            "Target": target, "DocumentName": "AWS-StartInteractiveCommand",
            "Parameters": {"command": [command]},
        });
        self.start_as(&body).await
    }

    /// A session as the body of the call says.
    pub async fn start_as(&self, body: &Value) -> Ticket {
        // Two calls of one second differ in this id, as those of an SDK do.
        let call = Call::ssm("StartSession", body)
            .with("amz-sdk-invocation-id", &data_channel::Uuid::new_v4().to_string());
        Ticket::of(&self.call(call).await.ok()).unwrap()
    }

    pub async fn resume(&self, session: &str) -> Option<Ticket> {
        Ticket::of(&self.api("ResumeSession", &json!({"SessionId": session})).await.ok())
    }

    /// What the gateway tells of a session.
    pub async fn session(&self, session: &str) -> Value {
        self.call(Call::get(&format!("/v1/sessions/{session}"))).await.ok()
    }

    /// The id that AWS gave the session.
    pub async fn upstream(&self, session: &str) -> String {
        self.session(session).await["upstream_id"].as_str().unwrap().to_owned()
    }
}

/// A fresh proof of identity, as `postern credentials` sends it.
pub async fn proof(name: &str, door: &Door) -> Value {
    let (_, _, _, token) = CAST.iter().find(|(known, ..)| *known == name).unwrap();
    let challenge = Call::get("/v1/login/challenge").send(door).await.ok();
    let (server, challenge) =
        (challenge["server"].as_str().unwrap(), challenge["challenge"].as_str().unwrap());
    let date = sigv4::amz_date(OffsetDateTime::now_utc());
    let request = caller_identity_request(REGION, server, challenge, &date, *token).unwrap();
    let mut proof = json!({
        "region": REGION,
        "access_key_id": format!("AKIA{}", name.to_ascii_uppercase()),
        "amz_date": date,
        "signature": request.signature(&secret(name)),
        "challenge": challenge,
    });
    if let Some(token) = token {
        proof["session_token"] = json!(token);
    }
    proof
}

impl House {
    /// Somebody with AWS keys of their own asks SSM, and not the gateway.
    pub async fn past_the_gateway(&self, name: &str, target: &str) -> String {
        let (_, _, _, token) = CAST.iter().find(|(known, ..)| *known == name).unwrap();
        let key = format!("AKIA{}", name.to_ascii_uppercase());
        let keys = Credentials::new(key, secret(name), token.map(str::to_owned), None, "test");
        let config = aws_sdk_ssm::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(self.local.url())
            .credentials_provider(keys)
            .http_client(self.trust.sdk_http().unwrap())
            .build();
        let started = aws_sdk_ssm::Client::from_conf(config).start_session().target(target).send().await;
        started.unwrap().session_id.unwrap()
    }
}

/// A token that STS issues to one of the cast for these audiences.
pub async fn web_identity(
    name: &str,
    house: &House,
    audiences: &[&str],
) -> Result<String, aws_sdk_sts::Error> {
    let (_, _, _, token) = CAST.iter().find(|(known, ..)| *known == name).unwrap();
    let key = format!("AKIA{}", name.to_ascii_uppercase());
    let keys = Credentials::new(key, secret(name), token.map(str::to_owned), None, "test");
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
        .region(aws_sdk_sts::config::Region::new(REGION))
        .endpoint_url(house.local.url())
        .credentials_provider(keys)
        .http_client(house.trust.sdk_http().unwrap())
        .build();
    let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
    let asked = aws_sdk_sts::Client::from_conf(config)
        .get_web_identity_token()
        .set_audience(Some(audiences))
        .signing_algorithm("ES384")
        .duration_seconds(60)
        .send()
        .await;
    Ok(asked?.web_identity_token.unwrap())
}

fn sdk(issued: &Issued, door: &Door, trust: &Trust) -> aws_sdk_ssm::Client {
    let token = Some(issued.session_token.clone());
    let keys = Credentials::new(&issued.access_key_id, &issued.secret_access_key, token, None, "test");
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(format!("https://{}", door.address))
        .credentials_provider(keys)
        .http_client(trust.sdk_http().unwrap())
        .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
        .build();
    aws_sdk_ssm::Client::from_conf(config)
}
