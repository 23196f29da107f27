//! A hand-made STS, SSM and KMS on port 0 that verifies every signature.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sigv4::{Presented, Request, Rules, verify};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::super::{BrokerConfig, Secret, StaticKeys};

pub const OWN_KEY: &str = "AKIAGATEWAY";
pub const OWN_SECRET: &str = "the gateway's secret";
pub const ACCOUNT: &str = "111122223333";
pub const ROLE: &str = "arn:aws:iam::111122223333:role/PosternBroker";
pub const STREAM_URL: &str =
    "wss://stream.example/v1/data-channel/x?role=publish_subscribe&cell-number=A+B/C==";

/// One call as it arrived, its signature verified.
#[derive(Debug, Clone)]
pub struct Call {
    pub operation: String,
    pub access_key_id: String,
    pub input: Value,
}

/// Keys given out by AssumeRole, or the gateway's own.
#[derive(Clone)]
pub struct Issued {
    pub id: String,
    pub secret: String,
    pub token: String,
    pub name: String,
}

#[derive(Default)]
struct Inside {
    calls: Vec<Call>,
    keys: Vec<Issued>,
    scripted: VecDeque<(String, u16, Value)>,
    key_life: Duration,
}

/// The fake; it stops with its last handle.
#[derive(Clone)]
pub struct FakeAws {
    pub url: String,
    inside: Arc<Mutex<Inside>>,
}

impl FakeAws {
    pub async fn start() -> Self {
        let own = Issued {
            id: OWN_KEY.into(),
            secret: OWN_SECRET.into(),
            token: String::new(),
            name: "gateway".into(),
        };
        let inside = Inside { keys: vec![own], key_life: Duration::hours(1), ..Inside::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { url, inside: Arc::new(Mutex::new(inside)) };
        let app = axum::Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    /// A broker's configuration for this AWS, without a role.
    pub fn config(&self) -> BrokerConfig {
        BrokerConfig {
            region: "eu-west-1".into(),
            account: ACCOUNT.into(),
            ssm_endpoint_url: Some(self.url.clone()),
            sts_endpoint_url: Some(self.url.clone()),
            kms_endpoint_url: Some(self.url.clone()),
            tagging_endpoint_url: Some(self.url.clone()),
            starts_per_second: 0,
            static_keys: Some(StaticKeys {
                access_key_id: OWN_KEY.into(),
                secret_access_key: Secret::new(OWN_SECRET),
                session_token: None,
            }),
            ..BrokerConfig::default()
        }
    }

    /// The same with a role to take for every session.
    pub fn config_with_role(&self) -> BrokerConfig {
        BrokerConfig { role_arn: Some(ROLE.into()), external_id: Some("ext-1".into()), ..self.config() }
    }

    /// What the next call of an operation is answered with instead.
    pub fn script(&self, operation: &str, status: u16, body: Value) {
        self.inside.lock().unwrap().scripted.push_back((operation.into(), status, body));
    }

    /// How long keys of AssumeRole live from now on.
    pub fn key_life(&self, life: Duration) {
        self.inside.lock().unwrap().key_life = life;
    }

    /// The calls of an operation so far.
    pub fn calls(&self, operation: &str) -> Vec<Call> {
        let inside = self.inside.lock().unwrap();
        inside.calls.iter().filter(|call| call.operation == operation).cloned().collect()
    }

    pub fn key(&self, id: &str) -> Option<Issued> {
        self.inside.lock().unwrap().keys.iter().find(|key| key.id == id).cloned()
    }

    fn scripted(&self, operation: &str) -> Option<(u16, Value)> {
        let mut inside = self.inside.lock().unwrap();
        let at = inside.scripted.iter().position(|(of, ..)| of == operation)?;
        inside.scripted.remove(at).map(|(_, status, body)| (status, body))
    }

    fn issue(&self, name: &str) -> (Issued, OffsetDateTime) {
        let mut inside = self.inside.lock().unwrap();
        let number = inside.keys.len();
        let issued = Issued {
            id: format!("ASIA{number}"),
            secret: format!("session secret {number}"),
            token: format!("session-token-{number}"),
            name: name.into(),
        };
        inside.keys.push(issued.clone());
        (issued, OffsetDateTime::now_utc() + inside.key_life)
    }
}

/// Verifies a signature as AWS would; gives the key that made it.
///
/// A call has a body, if only an empty one; an upgrade has none.
pub fn verified(
    fake: &FakeAws,
    service: &str,
    uri: &Uri,
    headers: &HeaderMap,
    body: Option<&[u8]>,
) -> Issued {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let pairs: Vec<(&str, &[u8])> = headers.iter().map(|(k, v)| (k.as_str(), v.as_bytes())).collect();
    let request =
        Request { method, path: uri.path(), query: uri.query().unwrap_or(""), headers: &pairs, body };
    let presented = Presented::read(&request).unwrap();
    let key = fake.key(&presented.access_key_id).expect("a key that was given out");
    verify(&request, &presented, &key.secret, OffsetDateTime::now_utc(), &Rules::plain(service)).unwrap();
    assert_eq!(presented.security_token.unwrap_or_default(), key.token);
    assert_eq!(presented.region, "eu-west-1");
    key
}

async fn answer(State(fake): State<FakeAws>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").map(|value| value.to_str().unwrap().to_owned());
    let service = match target.as_deref().and_then(|target| target.split_once('.')) {
        None => "sts",
        Some(("TrentService", _)) => "kms",
        Some(("ResourceGroupsTaggingAPI_20170126", _)) => "tagging",
        Some(_) => "ssm",
    };
    let key = verified(&fake, service, &uri, &headers, Some(&body));
    let (operation, input) = match &target {
        Some(target) => {
            (target.rsplit('.').next().unwrap().to_owned(), serde_json::from_slice(&body).unwrap())
        }
        None => {
            let form = form(&body);
            (form["Action"].clone(), json!(form))
        }
    };
    let call = Call { operation: operation.clone(), access_key_id: key.id.clone(), input: input.clone() };
    fake.inside.lock().unwrap().calls.push(call);
    let (status, body) = fake.scripted(&operation).unwrap_or_else(|| (200, usual(&key, &operation, &input)));
    match (target, status) {
        (Some(_), _) => reply(status, "application/x-amz-json-1.1", body.to_string()),
        (None, 200) => reply(200, "text/xml", sts(&fake, &operation, &input)),
        (None, _) => reply(status, "text/xml", sts_error(&body)),
    }
}

fn reply(status: u16, kind: &str, body: String) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("content-type", kind.to_owned())], body).into_response()
}

fn sts(fake: &FakeAws, operation: &str, input: &Value) -> String {
    let result = if operation == "AssumeRole" {
        let (key, end) = fake.issue(input["RoleSessionName"].as_str().unwrap());
        format!(
            "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
             <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>",
            key.id,
            key.secret,
            key.token,
            end.format(&Rfc3339).unwrap()
        )
    } else {
        format!("<Account>{ACCOUNT}</Account><Arn>arn:aws:iam::{ACCOUNT}:user/gateway</Arn>")
    };
    format!(
        "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <{operation}Result>{result}</{operation}Result></{operation}Response>"
    )
}

fn sts_error(body: &Value) -> String {
    let (code, message) = (body["__type"].as_str().unwrap(), body["Message"].as_str().unwrap_or(""));
    format!("<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>")
}

fn usual(key: &Issued, operation: &str, input: &Value) -> Value {
    match operation {
        "StartSession" => json!({
            "SessionId": format!("{}-0abc", key.name), "StreamUrl": STREAM_URL, "TokenValue": "first token",
        }),
        "ResumeSession" => json!({
            "SessionId": input["SessionId"], "StreamUrl": "wss://new.example/x", "TokenValue": "second token",
        }),
        "GenerateDataKey" => json!({
            "KeyId": input["KeyId"], "Plaintext": STANDARD.encode([7; 64]), "CiphertextBlob": "c2VhbGVk",
        }),
        "Decrypt" => json!({"KeyId": input["KeyId"], "Plaintext": STANDARD.encode([7; 64])}),
        "GetConnectionStatus" => json!({"Target": input["Target"], "Status": "connected"}),
        "DescribeInstanceInformation" => instances(input),
        "ListTagsForResource" => json!({"TagList": [
            {"Key": "Name", "Value": "edge-1\u{1b}[2J"}, {"Key": "env", "Value": "prod"},
        ]}),
        "GetResources" => json!({"ResourceTagMappingList": [{
            "ResourceARN": format!("arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-0123456789abcdef0"),
            "Tags": [{"Key": "env", "Value": "dev"}],
        }]}),
        _ => json!({}),
    }
}

/// Three machines in pages of two, or the one that is asked for.
fn instances(input: &Value) -> Value {
    let all = [
        json!({"InstanceId": "i-0123456789abcdef0", "PingStatus": "Online", "PlatformType": "Linux",
               "AgentVersion": "3.3.987.0", "ComputerName": "web-1.internal"}),
        json!({"InstanceId": "i-0123456789abcdef1", "PingStatus": "ConnectionLost"}),
        json!({"InstanceId": "mi-0123456789abcdef0", "PingStatus": "Online", "Name": "edge"}),
    ];
    if let Some(id) = input["Filters"][0]["Values"][0].as_str() {
        let one: Vec<_> = all.into_iter().filter(|one| one["InstanceId"] == id).collect();
        return json!({"InstanceInformationList": one});
    }
    match input["NextToken"].as_str() {
        None => json!({"InstanceInformationList": &all[..2], "NextToken": "2"}),
        Some(_) => json!({"InstanceInformationList": &all[2..]}),
    }
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(body).unwrap();
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decoded(k), decoded(v))).collect()
}

fn decoded(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).unwrap()
}
