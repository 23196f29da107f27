//! The answers of SSM and STS that a session needs; signatures are not looked at.

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::proxies::{ACCOUNT, PERSON, TARGET};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Answers one call of the broker or of the identity room.
pub fn answer(port: u16, headers: &HeaderMap, body: &[u8]) -> Response {
    match headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
        Some(target) => {
            let operation = target.rsplit('.').next().unwrap_or_default();
            reply("application/x-amz-json-1.1", ssm(port, operation).to_string())
        }
        None if body.starts_with(b"Action=AssumeRole&") => reply("text/xml", assume_role()),
        None => reply("text/xml", caller_identity()),
    }
}

fn reply(kind: &'static str, body: String) -> Response {
    ([("content-type", kind)], body).into_response()
}

fn ssm(port: u16, operation: &str) -> Value {
    let id = format!("bench-{}", uuid::Uuid::new_v4());
    match operation {
        "StartSession" => json!({
            "SessionId": id,
            "StreamUrl": format!("wss://127.0.0.1:{port}/v1/data-channel/{id}?role=publish_subscribe"),
            "TokenValue": "a token",
        }),
        "DescribeInstanceInformation" => json!({"InstanceInformationList": [{
            "InstanceId": TARGET, "PingStatus": "Online", "PlatformType": "Linux",
            "AgentVersion": "3.3.987.0", "Name": "bench",
        }]}),
        "ListTagsForResource" => json!({"TagList": [{"Key": "env", "Value": "dev"}]}),
        // ResumeSession without a token: the session is over.
        _ => json!({"SessionId": id}),
    }
}

fn caller_identity() -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\"><GetCallerIdentityResult>\
         <Arn>{PERSON}</Arn><UserId>AIDABENCH</UserId><Account>{ACCOUNT}</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
}

fn assume_role() -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"{NAMESPACE}\"><AssumeRoleResult><Credentials>\
         <AccessKeyId>ASIABENCH</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
         <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}
