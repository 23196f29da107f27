//! Encrypted sessions and the key service, with a client that does KMS.

use std::collections::HashMap;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use data_channel::handshake::{EncChallenge, HandshakeRequest, HandshakeResponse, KmsResult};
use data_channel::{Cipher, HandshakeComplete, Message, PayloadType};

use serde_json::{Value, json};

use super::support::*;
use crate::local_ssm::{LocalConfig, LocalSsm, Running};

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/sessions";

/// A stand-in whose one machine encrypts its sessions.
fn sealed() -> LocalConfig {
    let mut config = config();
    config.kms_keys.push("sessions".to_owned());
    config.targets[0].kms_key = Some("sessions".to_owned());
    config
}

fn kms(running: &Running, keys: aws_credential_types::Credentials) -> aws_sdk_kms::Client {
    let http = ssm(running, keys.clone()).config().http_client();
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(aws_sdk_kms::config::BehaviorVersion::latest())
        .region(aws_sdk_kms::config::Region::new(REGION))
        .endpoint_url(running.url())
        .credentials_provider(keys)
        .http_client(http.unwrap())
        .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
        .build();
    aws_sdk_kms::Client::from_conf(config)
}

fn code<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> String {
    error.code().unwrap_or_default().to_owned()
}

/// What a client of this session binds its key to.
fn context(session: &str) -> HashMap<String, String> {
    [("aws:ssm:SessionId", session), ("aws:ssm:TargetId", WEB)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

impl Client {
    /// What goes up, if it goes encrypted.
    pub(super) fn sealed(&self, kind: PayloadType, clear: &[u8]) -> Option<Vec<u8>> {
        let cipher = self.cipher.as_ref().filter(|_| kind == PayloadType::Output)?;
        Some(cipher.encrypt(clear).unwrap())
    }

    /// What came down, in clear; none if it was about the key.
    pub(super) async fn opened(&mut self, message: Message) -> Option<Message> {
        let kind = message.payload_type();
        match (&self.cipher, kind) {
            (None, PayloadType::HandshakeRequest) if self.keys.is_some() => {
                self.give_key(&HandshakeRequest::parse(message.payload()).unwrap()).await;
                None
            }
            (Some(cipher), PayloadType::EncChallengeRequest) => {
                let answer = cipher.answer(&EncChallenge::parse(message.payload()).unwrap()).unwrap();
                self.send(PayloadType::EncChallengeResponse, &answer.encode()).await;
                None
            }
            (Some(cipher), kind) if kind.is_encrypted_by_kms() => {
                let clear = cipher.decrypt(message.payload()).unwrap();
                Some(Message::parse(message.with_payload(kind, &clear)).unwrap())
            }
            _ => Some(message),
        }
    }

    async fn give_key(&mut self, request: &HandshakeRequest) {
        let wish = request.kms_encryption().expect("encryption is asked for");
        let mut context = context(&self.session);
        context.extend(wish.challenge.clone().map(|value| ("aws:ssm:RandomChallenge".to_owned(), value)));
        let call = self.keys.as_ref().unwrap().generate_data_key().key_id(&wish.kms_key_id);
        let key = call.number_of_bytes(64).set_encryption_context(Some(context)).send().await.unwrap();
        self.cipher = Some(Cipher::client(key.plaintext.unwrap().as_ref()).unwrap());
        let result = KmsResult::new(key.ciphertext_blob.unwrap().as_ref(), wish.has_challenge());
        let answer = HandshakeResponse::answering(request, "1.2.764.0").with_key(&result);
        let answer = HandshakeResponse { errors: None, ..answer };
        self.send(PayloadType::HandshakeResponse, &answer.encode()).await;
    }
}

/// A session of alice with a client that does KMS.
async fn encrypted(running: &Running, document: Option<(&str, &str)>) -> Client {
    let mut client = connect(running, document).await;
    client.keys = Some(kms(running, alice()));
    client
}

#[tokio::test]
async fn an_encrypted_shell_works_like_any_other() {
    for challenge in [true, false] {
        let mut config = sealed();
        config.habits.kms_challenge = challenge;
        let running = LocalSsm::start(config).await.unwrap();
        let mut client = encrypted(&running, None).await;
        client.until("$ ").await;
        client.resize(101, 33).await;
        client.type_line("stty size; echo a$((40+2))b").await;
        client.until("33 101").await;
        client.until("a42b").await;
        let complete = HandshakeComplete::parse(&client.of_type(PayloadType::HandshakeComplete)).unwrap();
        assert_eq!(complete.customer_message, "This session is encrypted using AWS KMS.");
        client.type_line("exit").await;
        assert_eq!(client.closed().await, "");
        assert_eq!(client.output(), running.sent(&client.session));
        running.stop().await;
    }
}

#[tokio::test]
async fn an_encrypted_command_keeps_streams_and_exit_code() {
    let running = LocalSsm::start(sealed()).await.unwrap();
    let command = ("AWS-StartNonInteractiveCommand", "sh -c 'echo out; echo err >&2; exit 7'");
    let mut client = encrypted(&running, Some(command)).await;
    client.closed().await;
    assert_eq!(client.text(), "out\n");
    assert_eq!(client.of_type(PayloadType::StdErr), b"err\n");
    assert_eq!(client.of_type(PayloadType::ExitCode), b"EXIT_CODE: 7");
    running.stop().await;
}

#[tokio::test]
async fn a_documents_own_key_encrypts_its_sessions_but_no_ports() {
    let mut config = config();
    config.kms_keys.push("sessions".to_owned());
    let document = |session_type: &str, properties: Value| {
        json!({
            "schemaVersion": "1.0", "description": "Secret", "sessionType": session_type,
            "inputs": {"kmsKeyId": KEY}, "properties": properties,
        })
        .to_string()
    };
    let command = json!({"linux": {"commands": "echo se''cret"}});
    config.documents.insert("Secret".to_owned(), document("InteractiveCommands", command));
    config.documents.insert("Port".to_owned(), document("Port", json!({"portNumber": "1"})));
    let running = LocalSsm::start(config).await.unwrap();
    let mut client = connect_with(&running, Some("Secret"), &[]).await;
    client.keys = Some(kms(&running, alice()));
    client.closed().await;
    assert_eq!(client.text(), "secret\r\n");
    assert!(client.cipher.is_some());

    let mut client = connect_with(&running, Some("Port"), &[]).await;
    while client.received.is_empty() {
        client.next().await;
    }
    let request = HandshakeRequest::parse(&client.received[0].1).unwrap();
    assert!(!request.asks_for_encryption());
    running.stop().await;
}

#[tokio::test]
async fn a_client_without_the_key_has_no_session() {
    let running = LocalSsm::start(sealed()).await.unwrap();
    let mut client = connect(&running, None).await;
    assert_eq!(client.closed().await, "Handshake with the client failed.");
    assert!(client.output().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn typed_words_that_do_not_decrypt_are_not_taken() {
    let running = LocalSsm::start(sealed()).await.unwrap();
    let mut client = encrypted(&running, None).await;
    client.until("$ ").await;
    let cipher = client.cipher.replace(Cipher::client(&[1; 64]).unwrap());
    client.type_line("echo ne''ver").await;
    client.cipher = cipher;
    while running.counts(&client.session).unwrap().rejects == 0 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    assert!(!client.text().contains("never"));
}

#[tokio::test]
async fn a_data_key_opens_in_its_own_context_only() {
    let running = LocalSsm::start(sealed()).await.unwrap();
    let kms = kms(&running, alice());
    let made = kms.generate_data_key().key_id(KEY).number_of_bytes(64);
    let made = made.set_encryption_context(Some(context("alice-1"))).send().await.unwrap();
    assert_eq!((made.key_id(), made.plaintext().unwrap().as_ref().len()), (Some(KEY), 64));
    let blob = made.ciphertext_blob.unwrap();
    let open = |blob: &Blob, session| {
        kms.decrypt().ciphertext_blob(blob.clone()).set_encryption_context(Some(context(session))).send()
    };
    assert_eq!(open(&blob, "alice-1").await.unwrap().plaintext, made.plaintext);
    let mut altered = blob.clone().into_inner();
    *altered.last_mut().unwrap() ^= 1;
    for (blob, session) in [(blob.clone(), "alice-2"), (Blob::new(altered), "alice-1")] {
        let error = open(&blob, session).await.unwrap_err();
        assert_eq!(code(error), "InvalidCiphertextException");
    }
    running.set_keys_failing(true);
    assert_eq!(code(open(&blob, "alice-1").await.unwrap_err()), "KMSInternalException");
    running.stop().await;
}

#[tokio::test]
async fn keys_are_had_by_who_signs_and_whom_the_session_policy_allows() {
    let running = LocalSsm::start(sealed()).await.unwrap();
    let ask = |kms: &aws_sdk_kms::Client, key: &str| {
        kms.generate_data_key()
            .key_id(key)
            .number_of_bytes(64)
            .encryption_context("aws:ssm:SessionId", "alice-1")
    };
    let wrong = aws_credential_types::Credentials::new("AKIDALICE", "wrong", None, None, "test");
    let refused = ask(&kms(&running, wrong), KEY).send().await.unwrap_err();
    assert_eq!(code(refused), "InvalidSignatureException");
    let unknown = ask(&kms(&running, alice()), "other").send().await.unwrap_err();
    assert_eq!(code(unknown), "NotFoundException");

    for (session, allowed) in [("alice-*", true), ("bob-*", false)] {
        let policy = json!({"Version": "2012-10-17", "Statement": {
            "Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": "*",
            "Condition": {"StringLike": {"kms:EncryptionContext:aws:ssm:SessionId": session}},
        }});
        let call = sts(&running, alice()).assume_role().role_arn(ROLE).role_session_name("alice");
        let keys = call.policy(policy.to_string()).send().await.unwrap().credentials.unwrap();
        let (secret, token) = (keys.secret_access_key, Some(keys.session_token));
        let keys = aws_credential_types::Credentials::new(keys.access_key_id, secret, token, None, "test");
        let answer = ask(&kms(&running, keys), KEY).send().await;
        assert_eq!(answer.is_ok(), allowed, "{session}");
        if let Err(error) = answer {
            assert_eq!(code(error), "AccessDeniedException");
        }
    }
    running.stop().await;
}
