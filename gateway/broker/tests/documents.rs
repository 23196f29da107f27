//! What the broker learns of documents, and what it does not have to ask.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{BrokerError, Plan};
use super::fake_aws::FakeAws;
use super::{broker, shell_on};
use crate::error::{ApiError, Code};
use crate::session::{Document, SessionKind, SessionRequest};

fn request(document: &str, given: &[(&str, &str)]) -> SessionRequest {
    SessionRequest {
        document: Document::parse(document).unwrap(),
        parameters: parameters(given),
        ..shell_on("i-0123456789abcdef0")
    }
}

fn parameters(given: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    given.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect()
}

fn answer(content: &Value) -> Value {
    json!({"Name": "Restart", "DocumentFormat": "JSON", "DocumentType": "Session", "Content": content.to_string()})
}

#[tokio::test]
async fn a_document_of_ones_own_is_read_once_a_minute_and_known_ones_never() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    aws.script(
        "GetDocument",
        200,
        answer(&json!({
            "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
            "parameters": {"unit": {"type": "String"}},
            "properties": {"linux": {"commands": "systemctl restart {{unit}}"}},
        })),
    );
    let expected = Plan {
        kind: SessionKind::NonInteractiveCommand,
        parameters: parameters(&[("command", "systemctl restart nginx")]),
    };
    for _ in 0..2 {
        let plan = broker.plan(&request("Restart", &[("unit", "nginx")]), Some("Linux")).await.unwrap();
        assert_eq!(plan, expected);
    }
    broker.plan(&request("AWS-StartSSHSession", &[]), None).await.unwrap();
    let asked = aws.calls("GetDocument");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (&asked[0].input["Name"], &asked[0].input["DocumentFormat"]),
        (&json!("Restart"), &json!("JSON"))
    );
}

#[tokio::test]
async fn what_ssm_would_not_take_is_refused_in_its_words() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let code = |error: BrokerError| ApiError::from(error).code;

    aws.script("GetDocument", 400, json!({"__type": "InvalidDocument", "message": "no"}));
    let unknown = broker.plan(&request("Nothing", &[]), None).await.unwrap_err();
    assert_eq!(code(unknown.clone()), Code::InvalidDocument);
    assert!(unknown.to_string().contains("Document with name Nothing does not exist."), "{unknown}");

    aws.script("GetDocument", 200, answer(&json!({"schemaVersion": "2.2", "mainSteps": []})));
    let other = broker.plan(&request("Run-Command", &[]), None).await.unwrap_err();
    assert_eq!(code(other), Code::InvalidDocument);

    for (document, given) in [
        ("AWS-StartPortForwardingSession", &[("portNumber", "0")][..]),
        ("AWS-StartPortForwardingSession", &[("host", "db")]),
        ("AWS-StartPortForwardingSessionToRemoteHost", &[("portNumber", "5432")]),
        ("AWS-StartPortForwardingSessionToRemoteHost", &[("host", "a b c"), ("portNumber", "5432")]),
        ("AWS-StartInteractiveCommand", &[]),
        (Document::SHELL, &[("command", "id")]),
    ] {
        let error = broker.plan(&request(document, given), None).await.unwrap_err();
        assert_eq!(code(error), Code::InvalidParameters, "{document} {given:?}");
    }
}

#[tokio::test]
async fn a_document_that_cannot_be_read_opens_nothing() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let refusal = json!({"__type": "AccessDeniedException", "message": "not you"});
    aws.script("GetDocument", 400, refusal);
    let error = broker.plan(&request("Restart", &[]), None).await.unwrap_err();
    assert!(matches!(error, BrokerError::AccessDenied { .. }), "{error}");
}
