//! The calls that open, resume and end a session at AWS.

use std::time::Duration;

use aws_sdk_ssm::config::Builder;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::start_session::StartSessionError;

use super::error::clean;
use super::{Broker, BrokerError, Keys, Operation, Token, UpstreamRef};
use crate::session::{Document, SessionRequest};

/// The one attempt of StartSession; AWS takes about a second.
const START_TIME: Duration = Duration::from_secs(15);
/// Pauses before StartSession is tried again after a throttle.
const THROTTLE_PAUSES: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1200)];

/// What opens a data channel.
pub(super) struct Opened {
    pub(super) session_id: String,
    pub(super) stream_url: String,
    pub(super) token: Token,
}

impl Broker {
    /// Calls StartSession; only a throttle is tried again.
    ///
    /// After any other failure AWS may have opened the session, and another
    /// try would open a second one that nobody watches.
    pub(super) async fn start_session(
        &self,
        keys: &Keys,
        request: &SessionRequest,
    ) -> Result<Opened, BrokerError> {
        let mut pauses = THROTTLE_PAUSES.into_iter();
        loop {
            let tried = self.calls.run(Operation::StartSession, self.start_once(keys, request)).await;
            match (tried, pauses.next()) {
                (Err(BrokerError::Throttling { .. }), Some(pause)) => tokio::time::sleep(pause).await,
                (tried, _) => return tried,
            }
        }
    }

    async fn start_once(&self, keys: &Keys, request: &SessionRequest) -> Result<Opened, BrokerError> {
        let operation = Operation::StartSession;
        let parameters: std::collections::HashMap<_, _> = request.parameters.clone().into_iter().collect();
        let once = with(keys)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(START_TIME).build());
        let answer = self
            .ssm
            .start_session()
            .target(request.target.as_str())
            .set_document_name(document_name(request))
            .set_reason(request.reason.clone().filter(|reason| !reason.is_empty()))
            .set_parameters(Some(parameters).filter(|parameters| !parameters.is_empty()))
            .customize()
            .config_override(once)
            .send()
            .await
            .map_err(|error| start_error(&error, request))?;
        Ok(Opened {
            session_id: present(operation, "SessionId", answer.session_id)?,
            stream_url: present(operation, "StreamUrl", answer.stream_url)?,
            token: Token::new(present(operation, "TokenValue", answer.token_value)?),
        })
    }

    /// Calls ResumeSession; none if AWS says that the session is over.
    pub(super) async fn resume_session(
        &self,
        keys: &Keys,
        upstream: &UpstreamRef,
    ) -> Result<Option<Opened>, BrokerError> {
        let operation = Operation::ResumeSession;
        let call = self.ssm.resume_session().session_id(&upstream.session_id);
        let asked = async {
            match call.customize().config_override(with(keys)).send().await {
                Ok(answer) => Ok(Some(answer)),
                Err(error) if error.code() == Some("DoesNotExistException") => Ok(None),
                Err(error) => Err(BrokerError::of(operation, &error)),
            }
        };
        let Some(answer) = self.calls.run(operation, asked).await? else { return Ok(None) };
        // An answer without a token is how AWS says "timed out".
        let Some(token) = answer.token_value.filter(|token| !token.is_empty()) else { return Ok(None) };
        let url = answer.stream_url.filter(|url| !url.is_empty()).or_else(|| upstream.stream_url.clone());
        Ok(Some(Opened {
            session_id: upstream.session_id.clone(),
            stream_url: present(operation, "StreamUrl", url)?,
            token: Token::new(token),
        }))
    }

    /// Calls TerminateSession.
    pub(super) async fn terminate_session(&self, keys: &Keys, session_id: &str) -> Result<(), BrokerError> {
        let operation = Operation::TerminateSession;
        let call = self.ssm.terminate_session().session_id(session_id);
        let asked = async {
            match call.customize().config_override(with(keys)).send().await {
                Ok(_) => Ok(()),
                Err(error) if error.code() == Some("DoesNotExistException") => Ok(()),
                Err(error) => Err(BrokerError::of(operation, &error)),
            }
        };
        self.calls.run(operation, asked).await
    }
}

/// What makes a call go out with these keys.
pub(super) fn with(keys: &Keys) -> Builder {
    Builder::new().credentials_provider(keys.0.clone())
}

/// The document as AWS is to be asked for it.
///
/// The account's own shell document is asked for by naming none: in an
/// account whose preferences were never saved it does not exist by name.
fn document_name(request: &SessionRequest) -> Option<String> {
    let plain_shell = request.document.as_str() == Document::SHELL && request.parameters.is_empty();
    (!plain_shell).then(|| request.document.as_str().to_owned())
}

fn start_error<R: std::fmt::Debug>(
    error: &SdkError<StartSessionError, R>,
    request: &SessionRequest,
) -> BrokerError {
    let code = error.code().unwrap_or("");
    match code {
        "TargetNotConnected" | "InvalidTarget" => BrokerError::TargetNotConnected(request.target.clone()),
        _ if code.starts_with("InvalidDocument") => BrokerError::InvalidDocument {
            document: request.document.clone(),
            message: clean(error.message().unwrap_or("it is unknown or not a session document")),
        },
        _ => BrokerError::of(Operation::StartSession, error),
    }
}

fn present(operation: Operation, what: &'static str, value: Option<String>) -> Result<String, BrokerError> {
    value.filter(|value| !value.is_empty()).ok_or(BrokerError::Malformed { operation, what })
}
