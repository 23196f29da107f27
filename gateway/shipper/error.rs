//! Why CloudWatch Logs did not take something, and whether it may later.

use std::error::Error;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::rebuild::RebuildError;
use crate::broker::{BrokerError, root_cause};
use crate::recorder::{Damage, RecorderError};
use crate::session::printable;

/// Most of a message from AWS that is kept, characters.
const MESSAGE_MAX: usize = 300;

/// Why something was not shipped or read back.
#[derive(Debug, thiserror::Error)]
pub enum ShipperError {
    /// The AWS configuration cannot be used.
    #[error(transparent)]
    Aws(#[from] BrokerError),
    /// The settings cannot be used.
    #[error("shipper: {0}")]
    Config(String),
    /// The log group is not there and is not to be created.
    #[error(
        "the log group {0} is not there: create it, or set create = true in [shipper] \
         (needs logs:CreateLogGroup)"
    )]
    NoGroup(String),
    /// No log stream of that name.
    #[error("the log group {group} has no log stream {stream}")]
    NoStream {
        /// The group.
        group: String,
        /// The stream: the session id.
        stream: String,
    },
    /// CloudWatch Logs did not do it.
    #[error("logs:{operation} failed: {why}")]
    Call {
        /// What was asked.
        operation: &'static str,
        /// What was wrong.
        trouble: Trouble,
        /// What AWS or the connection said.
        why: String,
    },
    /// The recording cannot be put together from what is there.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The recording that was put together is not what was signed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] RecorderError),
    /// A file of the shipper cannot be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What kind of trouble a call met; the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Too many calls.
    Throttled,
    /// No answer in time; the events may have been stored.
    TimedOut,
    /// No connection, or AWS is not well.
    Unavailable,
    /// Keys that have expired or are unknown.
    Credentials,
    /// The keys may not do this.
    Denied,
    /// The stream or the group is not there.
    Missing,
    /// Something that exists already.
    Exists,
    /// Events outside the times that AWS takes.
    Rejected,
    /// AWS does not take what was sent.
    Invalid,
}

impl Trouble {
    /// The word used as metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
            Self::Credentials => "credentials",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Exists => "exists",
            Self::Rejected => "rejected",
            Self::Invalid => "invalid",
        }
    }
}

impl Trouble {
    /// Whether it may be over in a moment.
    pub(super) fn passes_soon(self) -> bool {
        matches!(self, Self::Throttled | Self::TimedOut | Self::Unavailable | Self::Missing)
    }

    /// Whether it may be over later without anybody doing something here.
    pub(super) fn passes(self) -> bool {
        self.passes_soon() || self == Self::Credentials
    }

    /// Whether every session meets it.
    pub(super) fn concerns_all(self) -> bool {
        !matches!(self, Self::Missing | Self::Rejected | Self::Invalid | Self::Exists)
    }
}

impl ShipperError {
    /// Names what an SDK call failed of; only code and message are taken.
    pub(super) fn of<E, R>(operation: &'static str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug,
    {
        let (trouble, why) = match error {
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("no code");
                let message = service.err().message().unwrap_or("");
                (trouble_of(code), format!("{code}: {message}"))
            }
            SdkError::TimeoutError(_) => (Trouble::TimedOut, "no answer in time".to_owned()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                (Trouble::TimedOut, "no answer in time".to_owned())
            }
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                (Trouble::Invalid, "the call could not be sent".to_owned())
            }
            SdkError::DispatchFailure(failure) => {
                let why = failure.as_connector_error().map(|error| root_cause(error));
                let trouble = if why.is_some() { Trouble::Unavailable } else { Trouble::Credentials };
                (trouble, why.unwrap_or_else(|| "no connection".to_owned()))
            }
            SdkError::ConstructionFailure(_) => {
                (Trouble::Credentials, "there are no AWS credentials to sign it with".to_owned())
            }
            _ => (Trouble::Unavailable, "the answer could not be read".to_owned()),
        };
        Self::Call { operation, trouble, why: printable(&why).chars().take(MESSAGE_MAX).collect() }
    }

    /// Names what was being done when the file system said no.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Events stay outside the times that AWS takes.
    pub(super) fn rejected() -> Self {
        let why = "the events are too old or too new for AWS: is the clock right?".to_owned();
        Self::Call { operation: "PutLogEvents", trouble: Trouble::Rejected, why }
    }

    /// Whether what was shipped is not there as it was shipped.
    pub fn is_damage(&self) -> bool {
        let other = |error: &RebuildError| matches!(error, RebuildError::Nothing | RebuildError::Io(_));
        match self {
            Self::Rebuild(error) => !other(error),
            Self::Damaged(_) | Self::Spool(RecorderError::Failed(_)) => true,
            _ => false,
        }
    }

    /// What somebody has to do about it, if it is not over by itself.
    pub fn advice(&self) -> Option<String> {
        let Self::Call { operation, trouble, .. } = self else { return None };
        match trouble {
            Trouble::Denied => Some(format!(
                "allow logs:{operation} to the gateway's role; deploy/iam/shipper.json has all that it needs"
            )),
            Trouble::Credentials => Some("give the gateway AWS credentials that are valid".to_owned()),
            Trouble::Unavailable | Trouble::TimedOut => {
                Some("check the network to CloudWatch Logs, and endpoint_url in [shipper]".to_owned())
            }
            _ => None,
        }
    }

    /// The sentence, and what somebody has to do about it.
    pub fn with_advice(&self) -> String {
        self.advice().map_or_else(|| self.to_string(), |advice| format!("{self}; {advice}"))
    }

    /// What kind of trouble it was, of a call.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Call { trouble, .. } => Some(*trouble),
            _ => None,
        }
    }
}

fn trouble_of(code: &str) -> Trouble {
    match code {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "LimitExceededException" => {
            Trouble::Throttled
        }
        "ResourceNotFoundException" => Trouble::Missing,
        "ResourceAlreadyExistsException" => Trouble::Exists,
        "AccessDeniedException" | "AccessDenied" => Trouble::Denied,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException" => Trouble::Credentials,
        "InvalidParameterException" | "ValidationException" | "SerializationException" => Trouble::Invalid,
        _ => Trouble::Unavailable,
    }
}
