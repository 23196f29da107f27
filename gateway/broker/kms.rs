//! The key of an encrypted session, made by KMS for this session alone.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::primitives::Blob;
use data_channel::encryption::{Cipher, DATA_KEY, DataKey};
use data_channel::handshake::KmsAction;
use tokio::time::timeout;

use super::error::clean;
use super::{Broker, BrokerError, Keys, Operation, UpstreamRef};

/// All of it, keys for the call included; the agent gives up after 15 s.
const KEY_TIME: Duration = Duration::from_secs(10);
/// One attempt: a second one still fits.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Names of the encryption context; the agent decrypts with the same.
const SESSION: &str = "aws:ssm:SessionId";
const TARGET: &str = "aws:ssm:TargetId";
const CHALLENGE: &str = "aws:ssm:RandomChallenge";

/// Why there is no key for a session, and of which key it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRefusal {
    /// The key as the target named it, printable.
    pub key: String,
    /// What KMS said.
    pub error: BrokerError,
}

impl Broker {
    /// Has KMS make a session's key; the target can have it opened there.
    pub async fn data_key(&self, upstream: &UpstreamRef, wish: &KmsAction) -> Result<DataKey, KeyRefusal> {
        within_time(Operation::GenerateDataKey, wish, self.make_data_key(upstream, wish)).await
    }

    /// Has KMS open a session's key that another process had it make.
    pub async fn open_data_key(
        &self,
        upstream: &UpstreamRef,
        wish: &KmsAction,
        sealed: &[u8],
    ) -> Result<DataKey, KeyRefusal> {
        within_time(Operation::OpenDataKey, wish, self.opened_data_key(upstream, wish, sealed)).await
    }

    async fn make_data_key(&self, upstream: &UpstreamRef, wish: &KmsAction) -> Result<DataKey, BrokerError> {
        let operation = Operation::GenerateDataKey;
        let with_keys = config(self.current_keys(upstream).await?);
        let call = self
            .kms
            .generate_data_key()
            .key_id(&wish.kms_key_id)
            .number_of_bytes(i32::try_from(DATA_KEY).unwrap_or_default())
            .set_encryption_context(Some(context(upstream, wish)));
        let asked = async {
            let answer = call.customize().config_override(with_keys).send().await;
            answer.map_err(|error| BrokerError::of(operation, &error))
        };
        let answer = self.calls.run(operation, asked).await?;
        let sealed = answer.ciphertext_blob.map(Blob::into_inner);
        let sealed = sealed.ok_or(BrokerError::Malformed { operation, what: "CiphertextBlob" })?;
        data_key(operation, answer.plaintext, sealed)
    }

    async fn opened_data_key(
        &self,
        upstream: &UpstreamRef,
        wish: &KmsAction,
        sealed: &[u8],
    ) -> Result<DataKey, BrokerError> {
        let operation = Operation::OpenDataKey;
        let with_keys = config(self.current_keys(upstream).await?);
        let call = self
            .kms
            .decrypt()
            .key_id(&wish.kms_key_id)
            .ciphertext_blob(Blob::new(sealed))
            .set_encryption_context(Some(context(upstream, wish)));
        let asked = async {
            let answer = call.customize().config_override(with_keys).send().await;
            answer.map_err(|error| BrokerError::of(operation, &error))
        };
        let answer = self.calls.run(operation, asked).await?;
        data_key(operation, answer.plaintext, sealed.to_vec())
    }
}

async fn within_time(
    operation: Operation,
    wish: &KmsAction,
    asked: impl Future<Output = Result<DataKey, BrokerError>>,
) -> Result<DataKey, KeyRefusal> {
    let late = BrokerError::TimedOut { operation };
    let answer = timeout(KEY_TIME, asked).await.unwrap_or(Err(late));
    answer.map_err(|error| KeyRefusal { key: clean(&wish.kms_key_id), error })
}

/// What the key is bound to; the agent names the same to have it opened.
fn context(upstream: &UpstreamRef, wish: &KmsAction) -> HashMap<String, String> {
    let mut context = HashMap::from([
        (SESSION.to_owned(), upstream.session_id.clone()),
        (TARGET.to_owned(), upstream.scope.target.as_str().to_owned()),
    ]);
    if let Some(challenge) = wish.challenge.as_ref().filter(|_| wish.has_challenge()) {
        context.insert(CHALLENGE.to_owned(), challenge.clone());
    }
    context
}

fn config(keys: Keys) -> Builder {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build();
    Builder::new().credentials_provider(keys.0).timeout_config(timeouts)
}

fn data_key(operation: Operation, clear: Option<Blob>, sealed: Vec<u8>) -> Result<DataKey, BrokerError> {
    let malformed = || BrokerError::Malformed { operation, what: "Plaintext" };
    let clear = clear.map(Blob::into_inner).ok_or_else(malformed)?;
    let cipher = Cipher::client(&clear).map_err(|_| malformed())?;
    Ok(DataKey { cipher, sealed })
}

impl KeyRefusal {
    /// What the user is told: what happened, and what to do next.
    pub fn sentence(&self) -> String {
        let next = match &self.error {
            BrokerError::AccessDenied { operation, .. } => format!(
                "KMS refused it to the gateway's role: whoever runs the gateway has to allow the role \
                 {operation} on this key"
            ),
            BrokerError::TimedOut { .. } | BrokerError::Unreachable { .. } => {
                "KMS did not answer: try again in a minute".to_owned()
            }
            BrokerError::Throttling { .. } | BrokerError::Busy => {
                "KMS has too many calls: try again in half a minute".to_owned()
            }
            BrokerError::Refused { code, .. } if code.starts_with("KMSInternal") => {
                "KMS failed: try again in a minute".to_owned()
            }
            BrokerError::Refused { code, .. } => {
                format!("KMS answered {code}: check the key in the session preferences of the account")
            }
            BrokerError::Invalid { .. } => {
                "KMS does not take its id: check the key in the session preferences of the account".to_owned()
            }
            _ => "the gateway could not ask KMS: tell whoever runs it".to_owned(),
        };
        format!(
            "the target encrypts its sessions with the KMS key {}, and the gateway got no data key: {next}",
            self.key
        )
    }
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.error)
    }
}
