//! The SSM and STS calls through the SDKs, signatures included.

use aws_credential_types::Credentials;
use aws_sdk_ssm::types::{
    InstanceInformationStringFilter, ResourceTypeForTagging, SessionFilterKey, SessionState,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::support::*;
use crate::local_ssm::{LocalSsm, LocalSsmError, LocalTarget, Running};

/// The code of a call that must fail.
fn code<T: std::fmt::Debug, E: ProvideErrorMetadata>(result: Result<T, E>) -> String {
    result.expect_err("the call must fail").code().unwrap_or("none").to_owned()
}

async fn start_with(running: &Running, keys: Credentials) -> Result<String, String> {
    let result = ssm(running, keys).start_session().target(WEB).send().await;
    result.map(|s| s.session_id().unwrap().to_owned()).map_err(|e| e.code().unwrap_or("none").to_owned())
}

#[tokio::test]
async fn a_session_is_named_after_its_caller_and_listed() {
    let running = start().await;
    let api = ssm(&running, alice());
    let opened = api.start_session().target(WEB).reason("look\u{1b}[2J").send().await.unwrap();
    let id = opened.session_id().unwrap();
    assert_eq!(id.strip_prefix("alice-").unwrap().len(), 26);
    let url = opened.stream_url().unwrap();
    assert!(url.starts_with(&format!("ws://{}/v1/data-channel/{id}?role=publish_subscribe&", running.addr)));
    let listed = api
        .describe_sessions()
        .state(SessionState::Active)
        .filters(
            aws_sdk_ssm::types::SessionFilter::builder()
                .key(SessionFilterKey::Owner)
                .value(ALICE)
                .build()
                .unwrap(),
        )
        .send()
        .await
        .unwrap();
    let session = &listed.sessions()[0];
    assert_eq!((session.session_id(), session.reason()), (Some(id), Some("look[2J")));
    assert_eq!(session.status().unwrap().as_str(), "Connecting");
    api.terminate_session().session_id(id).send().await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn an_ended_session_moves_to_the_history() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("exit").await;
    client.closed().await;
    let api = ssm(&running, alice());
    loop {
        let history = api.describe_sessions().state(SessionState::History).send().await.unwrap();
        if let [session] = history.sessions() {
            assert_eq!(session.status().unwrap().as_str(), "Terminated");
            assert!(session.end_date().is_some());
            break;
        }
        tokio::task::yield_now().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn signatures_and_keys_are_really_verified() {
    let running = start().await;
    let wrong = Credentials::new("AKIDALICE", "wrong", None, None, "test");
    let unknown = Credentials::new("AKIDMALLORY", SECRET, None, None, "test");
    let tokened = Credentials::new("AKIDALICE", SECRET, Some("token".into()), None, "test");
    assert_eq!(start_with(&running, wrong.clone()).await.unwrap_err(), "InvalidSignatureException");
    assert_eq!(start_with(&running, unknown.clone()).await.unwrap_err(), "UnrecognizedClientException");
    assert_eq!(start_with(&running, tokened).await.unwrap_err(), "UnrecognizedClientException");
    assert_eq!(code(sts(&running, wrong).get_caller_identity().send().await), "SignatureDoesNotMatch");
    assert_eq!(code(sts(&running, unknown).get_caller_identity().send().await), "InvalidClientTokenId");
    running.stop().await;
}

#[tokio::test]
async fn unknown_targets_documents_and_sessions_are_refused() {
    let running = start().await;
    let api = ssm(&running, alice());
    let other = api.start_session().target("i-0123456789abcdef9").send().await;
    assert_eq!(code(other), "TargetNotConnected");
    let document = api.start_session().target(WEB).document_name("No-Such").send().await;
    assert_eq!(code(document), "InvalidDocument");
    assert_eq!(code(api.resume_session().session_id("alice-x").send().await), "DoesNotExistException");
    assert_eq!(code(api.terminate_session().session_id("../x").send().await), "DoesNotExistException");
    assert_eq!(code(api.describe_parameters().send().await), "UnknownOperationException");
    running.stop().await;
}

#[tokio::test]
async fn a_target_off_the_network_is_not_connected() {
    let running = start().await;
    let api = ssm(&running, alice());
    let status = api.get_connection_status().target(WEB).send().await.unwrap();
    assert_eq!(status.status().unwrap().as_str(), "connected");
    running.set_online(WEB, false);
    let status = api.get_connection_status().target(WEB).send().await.unwrap();
    assert_eq!(status.status().unwrap().as_str(), "notconnected");
    assert_eq!(start_with(&running, alice()).await.unwrap_err(), "TargetNotConnected");
    running.stop().await;
}

#[tokio::test]
async fn instances_are_listed_in_pages_and_filtered() {
    let mut config = config();
    config.targets.extend((10..22).map(|n| LocalTarget::new(&format!("i-{n:017}"), &format!("db-{n}"))));
    let running = LocalSsm::start(config).await.unwrap();
    let api = ssm(&running, alice());
    let (mut ids, mut token) = (Vec::new(), None);
    loop {
        let page =
            api.describe_instance_information().max_results(5).set_next_token(token).send().await.unwrap();
        ids.extend(page.instance_information_list().iter().map(|i| i.instance_id().unwrap().to_owned()));
        token = page.next_token().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 13);
    let filtered = async |key: &str, value: &str| {
        let filter = InstanceInformationStringFilter::builder().key(key).values(value).build().unwrap();
        let list = api.describe_instance_information().filters(filter).send().await;
        list.map(|list| list.instance_information_list().len())
    };
    running.set_online(WEB, false);
    for (key, value, count) in [
        ("InstanceIds", "i-00000000000000011", 1),
        ("PingStatus", "Online", 12),
        ("tag:env", "prod", 1),
        ("tag-key", "env", 1),
        ("ResourceType", "ManagedInstance", 1),
        ("PlatformTypes", "Linux", 13),
        ("SourceTypes", "AWS::EC2::Instance", 12),
        ("SourceIds", "i-00000000000000011", 1),
        ("IamRole", "nobody", 0),
    ] {
        assert_eq!(filtered(key, value).await.unwrap(), count, "{key}");
    }
    assert_eq!(code(filtered("Colour", "red").await), "InvalidFilterKey");
    running.stop().await;
}

#[tokio::test]
async fn a_target_says_what_it_is_and_when_it_was_heard_of() {
    let mut config = config();
    let old = LocalTarget { agent_version: Some("3.0.196.0".to_owned()), ..LocalTarget::new("i-0a", "old") };
    config.targets.push(old);
    let running = LocalSsm::start(config).await.unwrap();
    let api = ssm(&running, alice());
    let described = async |id: &str| {
        let filter = InstanceInformationStringFilter::builder().key("InstanceIds").values(id).build();
        let list = api.describe_instance_information().filters(filter.unwrap()).send().await.unwrap();
        list.instance_information_list()[0].clone()
    };
    running.set_online(WEB, false);
    let (first, second) = (described(WEB).await, described(WEB).await);
    let last_ping = first.last_ping_date_time().unwrap();
    assert_eq!(Some(last_ping), second.last_ping_date_time(), "it was not heard of meanwhile");
    running.set_online(WEB, true);
    assert!(described(WEB).await.last_ping_date_time().unwrap() >= last_ping);
    assert_eq!((first.source_id(), first.ip_address()), (Some(WEB), Some("127.0.0.1")));
    assert_eq!((first.iam_role(), first.registration_date()), (None, None), "it has neither");
    let old = described("i-0a").await;
    assert_eq!((first.is_latest_version(), old.is_latest_version()), (Some(true), Some(false)));
    assert_eq!((first.name().is_some(), old.name()), (true, None), "EC2's names are tags");
    running.stop().await;
}

#[tokio::test]
async fn managed_instances_have_tags() {
    let running = start().await;
    let managed = ResourceTypeForTagging::ManagedInstance;
    let tags = ssm(&running, alice())
        .list_tags_for_resource()
        .resource_type(managed)
        .resource_id(WEB)
        .send()
        .await
        .unwrap();
    let tags: Vec<_> = tags.tag_list().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("env", "prod")]);
    running.stop().await;
}

fn keys_of(assumed: &aws_sdk_sts::operation::assume_role::AssumeRoleOutput) -> Credentials {
    let keys = assumed.credentials().unwrap();
    let token = Some(keys.session_token().to_owned());
    Credentials::new(keys.access_key_id(), keys.secret_access_key(), token, None, "test")
}

#[tokio::test]
async fn an_assumed_role_starts_sessions_under_its_session_name() {
    let running = start().await;
    let api = sts(&running, alice());
    let me = api.get_caller_identity().send().await.unwrap();
    assert_eq!(
        (me.arn(), me.user_id(), me.account()),
        (Some(ALICE), Some("AIDAALICE"), Some("111122223333"))
    );
    let assume = api.assume_role().role_arn(ROLE).role_session_name("alice@example.com");
    let assumed = assume.source_identity("alice").send().await.unwrap();
    assert_eq!(assumed.source_identity(), Some("alice"));
    let keys = keys_of(&assumed);
    let me = sts(&running, keys.clone()).get_caller_identity().send().await.unwrap();
    assert_eq!(me.arn(), Some("arn:aws:sts::111122223333:assumed-role/Sessions/alice@example.com"));
    let (role_id, name) = me.user_id().unwrap().split_once(':').unwrap();
    assert!(role_id.starts_with("AROA") && name == "alice@example.com");
    let id = start_with(&running, keys.clone()).await.unwrap();
    assert!(id.starts_with("alice@example.com-"), "{id}");
    running.expire_temporary_keys();
    assert_eq!(start_with(&running, keys).await.unwrap_err(), "ExpiredTokenException");
    running.stop().await;
}

#[tokio::test]
async fn only_listed_roles_can_be_assumed_and_only_properly() {
    let running = start().await;
    let api = sts(&running, alice());
    let assume = |role: &str, name: &str| api.assume_role().role_arn(role).role_session_name(name);
    let other = "arn:aws:iam::111122223333:role/Admin";
    assert_eq!(code(assume(other, "alice").send().await), "AccessDenied");
    assert_eq!(code(assume(ROLE, "a b").send().await), "ValidationError");
    assert_eq!(code(assume(ROLE, "alice").duration_seconds(60).send().await), "ValidationError");
    assert_eq!(code(assume(ROLE, "alice").policy("{}").send().await), "MalformedPolicyDocument");
    running.stop().await;
}

#[tokio::test]
async fn a_session_policy_narrows_what_the_keys_may_do() {
    let running = start().await;
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:StartSession"],
        "Resource":["arn:aws:ssm:eu-west-1:111122223333:managed-instance/mi-0123456789abcdef0"]}]}"#;
    let assume = sts(&running, alice()).assume_role().role_arn(ROLE).role_session_name("alice");
    let keys = keys_of(&assume.policy(policy).send().await.unwrap());
    let id = start_with(&running, keys.clone()).await.unwrap();
    let api = ssm(&running, keys);
    assert_eq!(code(api.terminate_session().session_id(id).send().await), "AccessDeniedException");
    let other = api.start_session().target("mi-0123456789abcdef1").send().await;
    assert_eq!(code(other), "AccessDeniedException");
    let command = api.start_session().target(WEB).document_name("AWS-StartInteractiveCommand");
    let command = command.parameters("command", vec!["id".into()]).send().await;
    assert_eq!(code(command), "AccessDeniedException");
    running.stop().await;
}

#[tokio::test]
async fn a_signed_upgrade_is_verified_and_a_plain_request_is_none() {
    let running = start().await;
    let opened = ssm(&running, alice()).start_session().target(WEB).send().await.unwrap();
    let url = opened.stream_url().unwrap();
    for (secret, status) in [(SECRET, 101), ("wrong", 403)] {
        let mut request = url.into_client_request().unwrap();
        let host = running.addr.to_string();
        let headers = [("host", host.as_bytes())];
        let uri = request.uri().clone();
        let to_sign = sigv4::Request {
            method: "GET",
            path: uri.path(),
            query: uri.query().unwrap(),
            headers: &headers,
            body: &[],
        };
        let keys = sigv4::Keys { access_key_id: "AKIDALICE", secret, session_token: None };
        let scope = sigv4::Scope { region: REGION, service: "ssmmessages" };
        let signed = sigv4::sign(&to_sign, &keys, &scope, time::OffsetDateTime::now_utc());
        for (name, value) in signed.iter() {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream = tokio::net::TcpStream::connect(running.addr).await.unwrap();
        let got = match tokio_tungstenite::client_async(request, stream).await {
            Ok((_, response)) => response.status(),
            Err(tungstenite::Error::Http(response)) => response.status(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(got.as_u16(), status);
    }
    let mut plain = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    plain.write_all(b"GET /v1/data-channel/x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    plain.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
    running.stop().await;
}

#[tokio::test]
async fn plain_text_is_served_on_loopback_only() {
    let mut config = config();
    config.listen = ([0, 0, 0, 0], 0).into();
    assert!(matches!(LocalSsm::start(config).await.err(), Some(LocalSsmError::PlainText(_))));
}

#[tokio::test]
async fn calls_and_channels_work_over_tls() {
    let (tls, pem) = tls_server();
    let running =
        LocalSsm::start(crate::local_ssm::LocalConfig { tls: Some(tls), ..config() }).await.unwrap();
    let opened = ssm_trusting(&running, &pem).start_session().target(WEB).send().await.unwrap();
    let url = opened.stream_url().unwrap();
    assert!(url.starts_with("wss://127.0.0.1:"));
    let mut socket = open_tls(url, opened.token_value().unwrap(), &pem).await;
    let first = futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap();
    assert!(matches!(first, tungstenite::Message::Binary(_)), "the prompt");
    running.stop().await;
}
