//! Session documents: AWS's own and the account's, read and run.

use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use data_channel::{HandshakeComplete, PayloadType};
use serde_json::{Value, json};

use super::support::*;
use super::tunnel::{Tunnel, echo};
use crate::local_ssm::{LocalConfig, LocalSsm, LocalSsmError, LocalTarget, Running};

const NON_INTERACTIVE: &str = "AWS-StartNonInteractiveCommand";

fn with_document(name: &str, content: Value) -> LocalConfig {
    let mut config = config();
    config.documents.insert(name.to_owned(), content.to_string());
    config
}

fn logs() -> Value {
    json!({
        "schemaVersion": "1.0",
        "description": "View a log",
        "sessionType": "InteractiveCommands",
        "parameters": {
            "path": {"type": "String", "default": "/none", "allowedPattern": "^[a-z0-9/.]+$"},
            "lines": {"type": "string", "default": "7", "allowedValues": ["7", "9"]},
        },
        "properties": {"linux": {"commands": "echo {{ path }}:{{lines}}", "runAsElevated": true}},
    })
}

async fn refusal(running: &Running, document: &str, name: &str, values: &[&str]) -> (String, String) {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    let call = ssm(running, alice()).start_session().target(WEB).document_name(document);
    let error = call.parameters(name, values).send().await.expect_err("must be refused");
    (error.code().unwrap().to_owned(), error.message().unwrap().to_owned())
}

#[tokio::test]
async fn a_custom_document_runs_with_its_parameters_and_defaults() {
    let running = LocalSsm::start(with_document("Logs", logs())).await.unwrap();
    for (parameters, output) in [(&[][..], "/none:7"), (&[("path", "/var/log/x.log")], "/var/log/x.log:7")] {
        let mut client = connect_with(&running, Some("Logs"), parameters).await;
        assert_eq!(client.closed().await, "");
        assert_eq!(client.text(), format!("{output}\r\n"));
    }
    running.stop().await;
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_refused_at_the_start() {
    let running = LocalSsm::start(with_document("Logs", logs())).await.unwrap();
    let (code, told) = refusal(&running, "Logs", "path", &["/x; rm -rf /"]).await;
    assert_eq!(code, "InvalidParameters");
    assert_eq!(told, "Parameter \"path\" has value \"/x; rm -rf /\" not matching \"^[a-z0-9/.]+$\".");
    for (document, name, values, code) in [
        ("Logs", "lines", &["8"][..], "InvalidParameters"),
        ("Logs", "colour", &["red"], "InvalidParameters"),
        ("Logs", "path", &["/a", "/b"], "InvalidParameters"),
        ("AWS-StartSSHSession", "portNumber", &["70000"], "InvalidParameters"),
        ("AWS-StartSSHSession", "host", &["db"], "InvalidParameters"),
        ("AWS-StartPortForwardingSessionToRemoteHost", "host", &["a;b"], "InvalidParameters"),
        ("AWS-StartNonInteractiveCommand", "command", &["echo 'open"], "InvalidDocument"),
        ("SSM-SessionManagerRunShell", "command", &["id"], "InvalidParameters"),
        ("AWS-RunShellScript", "commands", &["id"], "InvalidDocument"),
    ] {
        assert_eq!(refusal(&running, document, name, values).await.0, code, "{document} {name}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_command_document_says_whether_its_streams_are_separate() {
    for (separate, errors) in [(json!(true), "err\n"), (json!("true"), "err\n"), (json!(false), "")] {
        let content = json!({
            "schemaVersion": "1.0",
            "sessionType": "NonInteractiveCommands",
            "properties": {"linux": {
                "commands": "sh -c 'echo err >&2; exit 4'",
                "separateOutputStream": separate,
            }},
        });
        let running = LocalSsm::start(with_document("Check", content)).await.unwrap();
        let mut client = connect_with(&running, Some("Check"), &[]).await;
        assert_eq!(client.closed().await, "");
        HandshakeComplete::parse(&client.of_type(PayloadType::HandshakeComplete)).unwrap();
        assert_eq!(client.of_type(PayloadType::StdErr), errors.as_bytes());
        assert_eq!(client.of_type(PayloadType::ExitCode).is_empty(), errors.is_empty());
        running.stop().await;
    }
}

#[tokio::test]
async fn lines_of_separate_streams_have_the_prefixes_that_were_asked_for() {
    let running = start().await;
    let parameters = [
        ("command", "sh -c 'echo out; echo err >&2'"),
        ("stdOutSeparatorPrefix", "OUT:"),
        ("stdErrSeparatorPrefix", "ERR:"),
    ];
    let mut client = connect_with(&running, Some(NON_INTERACTIVE), &parameters).await;
    client.client_version = "1.2.279.0".to_owned();
    assert_eq!(client.closed().await, "");
    assert_eq!(client.output(), b"OUT:out\n");
    assert_eq!(client.of_type(PayloadType::StdErr), b"ERR:err\n");
    let complete = HandshakeComplete::parse(&client.of_type(PayloadType::HandshakeComplete)).unwrap();
    assert!(complete.customer_message.contains("1.2.312.0"), "{complete:?}");
    let given = vec!["x".to_owned()];
    let call = ssm(&running, alice()).start_session().target(WEB).document_name(NON_INTERACTIVE);
    let call = call.parameters("command", given).parameters("stdOutSeparatorPrefix", vec!["$ ".to_owned()]);
    assert_eq!(call.send().await.unwrap_err().code(), Some("InvalidDocument"));
    running.stop().await;
}

#[tokio::test]
async fn the_accounts_shell_document_types_its_profile() {
    let content = json!({
        "schemaVersion": "1.0",
        "sessionType": "Standard_Stream",
        "inputs": {"shellProfile": {"linux": "cd /tmp; echo pro''file"}, "idleSessionTimeout": "20"},
    });
    let running = LocalSsm::start(with_document("SSM-SessionManagerRunShell", content)).await.unwrap();
    let mut client = connect(&running, None).await;
    client.until("profile").await;
    client.type_line("pwd; exit").await;
    assert_eq!(client.closed().await, "");
    assert!(client.text().contains("\r/tmp\r\n"), "{:?}", client.text());
    running.stop().await;
}

#[tokio::test]
async fn a_port_document_can_fix_where_it_goes() {
    let content = json!({
        "schemaVersion": "1.0",
        "sessionType": "Port",
        "parameters": {"localPortNumber": {"type": "String", "default": "0"}},
        "properties": {
            "host": "db.internal",
            "portNumber": "5432",
            "type": "LocalPortForwarding",
            "localPortNumber": "{{ localPortNumber }}",
        },
    });
    let mut config = with_document("Database", content);
    config.targets[0].hosts.insert(("db.internal".to_owned(), 5432), echo().await);
    let running = LocalSsm::start(config).await.unwrap();
    let client = connect_with(&running, Some("Database"), &[("localPortNumber", "9999")]).await;
    let mut tunnel = Tunnel::over(client).await;
    tunnel.say(data_channel::smux::Command::Open, 3).await;
    tunnel.write(3, b"select").await;
    tunnel.until(3, b"select").await;
    assert_eq!(refusal(&running, "Database", "host", &["other"]).await.0, "InvalidParameters");
    running.stop().await;
}

#[tokio::test]
async fn documents_can_be_read_by_name_and_arn() {
    let running = LocalSsm::start(with_document("Logs", logs())).await.unwrap();
    let api = ssm(&running, alice());
    let arn = format!("arn:aws:ssm:{REGION}:111122223333:document/Logs");
    for name in ["Logs", &arn] {
        let got = api.get_document().name(name).document_version("$LATEST").send().await.unwrap();
        assert_eq!((got.name(), got.status().unwrap().as_str()), (Some("Logs"), "Active"));
        assert_eq!(got.document_type().unwrap().as_str(), "Session");
        assert_eq!(serde_json::from_str::<Value>(got.content().unwrap()).unwrap(), logs());
    }
    for (name, session_type) in [
        ("SSM-SessionManagerRunShell", "Standard_Stream"),
        ("AWS-StartInteractiveCommand", "InteractiveCommands"),
        ("AWS-StartNonInteractiveCommand", "NonInteractiveCommands"),
        ("AWS-StartPortForwardingSession", "Port"),
        ("AWS-StartPortForwardingSessionToRemoteHost", "Port"),
        ("arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession", "Port"),
    ] {
        let got = api.get_document().name(name).send().await.unwrap();
        let content: Value = serde_json::from_str(got.content().unwrap()).unwrap();
        assert_eq!(content["sessionType"], session_type, "{name}");
    }
    for name in ["No-Such", "arn:aws:ssm:eu-west-1:999999999999:document/Logs"] {
        let error = api.get_document().name(name).send().await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidDocument"), "{name}");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_session_document_does_not_start() {
    let named = |name: &str, content: &str| {
        let mut config = config();
        config.documents.insert(name.to_owned(), content.to_owned());
        config
    };
    let (good, bad_pattern) = (
        logs().to_string(),
        r#"{"schemaVersion":"1.0","sessionType":"Port","parameters":{"a":{"type":"String","allowedPattern":"("}}}"#,
    );
    for (name, content) in [
        ("Logs", "not json"),
        ("Logs", r#"{"schemaVersion":"2.2","sessionType":"Port"}"#),
        ("Logs", r#"{"schemaVersion":"1.0","sessionType":"Shell"}"#),
        ("Logs", bad_pattern),
        ("AWS-Logs", &good),
        ("a/b", &good),
    ] {
        let started = LocalSsm::start(named(name, content)).await;
        assert!(matches!(started.err(), Some(LocalSsmError::Document(..))), "{name} {content}");
    }
}

#[tokio::test]
async fn a_session_policy_says_which_documents_may_be_read() {
    let running = LocalSsm::start(with_document("Logs", logs())).await.unwrap();
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"ssm:GetDocument",
        "Resource":"arn:aws:ssm:{REGION}:111122223333:document/Logs"}}]}}"#
    );
    let assume = sts(&running, alice()).assume_role().role_arn(ROLE).role_session_name("alice");
    let assumed = assume.policy(policy).send().await.unwrap();
    let keys = assumed.credentials().unwrap();
    let token = Some(keys.session_token().to_owned());
    let keys = aws_credential_types::Credentials::new(
        keys.access_key_id(),
        keys.secret_access_key(),
        token,
        None,
        "test",
    );
    let api = ssm(&running, keys);
    assert!(api.get_document().name("Logs").send().await.is_ok());
    let other = api.get_document().name("AWS-StartSSHSession").send().await.unwrap_err();
    assert_eq!(other.code(), Some("AccessDeniedException"));
    running.stop().await;
}

#[tokio::test]
async fn a_task_is_a_target_that_is_not_listed() {
    const TASK: &str = "ecs:demo_cluster_0a1b2c_0a1b2c-265927825";
    let mut config = config();
    config.targets.push(LocalTarget { id: TASK.to_owned(), ..config.targets[0].clone() });
    let running = LocalSsm::start(config).await.unwrap();
    let api = ssm(&running, alice());
    let opened = api.start_session().target(TASK).send().await.unwrap();
    let (id, url, token) = (opened.session_id(), opened.stream_url(), opened.token_value());
    let mut client = Client::dial(id.unwrap(), url.unwrap(), token.unwrap()).await;
    client.type_line("echo ta''sk; exit").await;
    assert_eq!(client.closed().await, "");
    assert!(client.text().contains("task"));
    let status = api.get_connection_status().target(TASK).send().await.unwrap();
    assert_eq!(status.status().unwrap().as_str(), "connected");
    let listed = api.describe_instance_information().send().await.unwrap();
    assert_eq!(listed.instance_information_list().len(), 1);
    running.stop().await;
}
