//! Why AWS did not do it, what the caller is told, and who has to act.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::error::{ApiError, Blame, Code};
use crate::session::{Document, Target, printable};

/// Most of a message from AWS that is kept, characters.
const MESSAGE_MAX: usize = 300;

/// What was asked of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The gateway's own keys, from its AWS configuration.
    Credentials,
    /// Which account the gateway's keys are of.
    GetCallerIdentity,
    /// Keys for one session.
    AssumeRole,
    /// A session.
    StartSession,
    /// A new token for a session.
    ResumeSession,
    /// The end of a session.
    TerminateSession,
    /// Whether a machine answers.
    GetConnectionStatus,
    /// What SSM knows of a machine.
    DescribeInstances,
    /// What runs, as SSM tells it.
    DescribeSessions,
    /// The tags of a machine.
    ListTags,
    /// Tags of EC2 instances and ECS tasks.
    GetResources,
    /// The key of an encrypted session.
    GenerateDataKey,
    /// The key of an encrypted session that is taken over.
    OpenDataKey,
    /// What a document does.
    GetDocument,
    /// The data channel.
    Dial,
}

impl Operation {
    /// The word used as metric label.
    pub fn label(self) -> &'static str {
        self.words().0
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Credentials => ("credentials", "the gateway's own credentials"),
            Self::GetCallerIdentity => ("get_caller_identity", "sts:GetCallerIdentity"),
            Self::AssumeRole => ("assume_role", "sts:AssumeRole"),
            Self::StartSession => ("start_session", "ssm:StartSession"),
            Self::ResumeSession => ("resume_session", "ssm:ResumeSession"),
            Self::TerminateSession => ("terminate_session", "ssm:TerminateSession"),
            Self::GetConnectionStatus => ("get_connection_status", "ssm:GetConnectionStatus"),
            Self::DescribeInstances => ("describe_instances", "ssm:DescribeInstanceInformation"),
            Self::DescribeSessions => ("describe_sessions", "ssm:DescribeSessions"),
            Self::ListTags => ("list_tags", "ssm:ListTagsForResource"),
            Self::GetResources => ("get_resources", "tag:GetResources"),
            Self::GenerateDataKey => ("generate_data_key", "kms:GenerateDataKey"),
            Self::OpenDataKey => ("open_data_key", "kms:Decrypt"),
            Self::GetDocument => ("get_document", "ssm:GetDocument"),
            Self::Dial => ("dial", "ssmmessages:OpenDataChannel"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().1)
    }
}

/// Why AWS did not do it; no secret is in any of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The gateway was configured wrongly.
    #[error("the broker's configuration is wrong: {0}")]
    Config(String),
    /// The gateway has no keys, or AWS does not know them.
    #[error("the gateway has no AWS credentials that work: {0}")]
    Credentials(String),
    /// The machine is unknown to SSM, or its agent is away.
    #[error("{0} is not connected")]
    TargetNotConnected(Target),
    /// AWS does not take the document.
    #[error("AWS does not take the document {}: {message}", document.as_str())]
    InvalidDocument {
        /// The document.
        document: Document,
        /// What AWS said.
        message: String,
    },
    /// The document has no such parameter, or it does not fit.
    #[error("the document {} cannot be run so: {message}", document.as_str())]
    InvalidParameters {
        /// The document.
        document: Document,
        /// Which parameter, and why.
        message: String,
    },
    /// AWS does not take a parameter.
    #[error("AWS does not take a parameter of {operation}: {message}")]
    Invalid {
        /// What was asked.
        operation: Operation,
        /// What AWS said.
        message: String,
    },
    /// The gateway's role may not.
    #[error("AWS refused {operation} to the gateway: {message}")]
    AccessDenied {
        /// What was asked.
        operation: Operation,
        /// What AWS said.
        message: String,
    },
    /// AWS had too many calls.
    #[error("AWS throttled {operation}")]
    Throttling {
        /// What was asked.
        operation: Operation,
    },
    /// The gateway's own line before StartSession is full.
    #[error("too many sessions are being started")]
    Busy,
    /// No answer in time.
    #[error("{operation} got no answer in time")]
    TimedOut {
        /// What was asked.
        operation: Operation,
    },
    /// No connection.
    #[error("{operation} could not reach AWS: {why}")]
    Unreachable {
        /// What was asked.
        operation: Operation,
        /// What the connection said.
        why: String,
    },
    /// Any other refusal.
    #[error("AWS answered {operation} with {code}: {message}")]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The code of AWS, or the HTTP status.
        code: String,
        /// What AWS said.
        message: String,
    },
    /// An answer that lacks what it must have.
    #[error("AWS answered {operation} without a usable {what}")]
    Malformed {
        /// What was asked.
        operation: Operation,
        /// What is missing or wrong.
        what: &'static str,
    },
}

impl BrokerError {
    /// Who has to act before it can succeed.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Config(_) | Self::Credentials(_) | Self::Busy => Blame::Gateway,
            Self::TargetNotConnected(_) => Blame::Target,
            Self::InvalidDocument { .. } | Self::InvalidParameters { .. } | Self::Invalid { .. } => {
                Blame::Client
            }
            _ => Blame::Aws,
        }
    }

    /// Whether the same thing may work a little later.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Throttling { .. }
                | Self::Busy
                | Self::TimedOut { .. }
                | Self::Unreachable { .. }
                | Self::Refused { .. }
        )
    }

    /// Names what an SDK call failed of.
    ///
    /// Only code and message are taken from the SDK's error: its debug text
    /// holds whole answers, and an answer may hold a token.
    pub(super) fn of<E, R>(operation: Operation, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: fmt::Debug,
    {
        match error {
            SdkError::ServiceError(service) => Self::of_code(operation, service.err()),
            SdkError::TimeoutError(_) => Self::TimedOut { operation },
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimedOut { operation },
            SdkError::DispatchFailure(failure) => {
                let why = failure.as_connector_error().map(|error| root_cause(error)).unwrap_or_default();
                Self::Unreachable { operation, why }
            }
            SdkError::ResponseError(_) => Self::Malformed { operation, what: "answer" },
            _ => Self::Unreachable { operation, why: "the call could not be built".to_owned() },
        }
    }

    /// Why the gateway's own AWS configuration gives no keys.
    pub(super) fn no_credentials(error: &CredentialsError) -> Self {
        Self::Credentials(root_cause(error))
    }

    fn of_code(operation: Operation, error: &impl ProvideErrorMetadata) -> Self {
        let code = error.code().unwrap_or("no code");
        let message = clean(error.message().unwrap_or(""));
        match code {
            "AccessDeniedException" | "AccessDenied" => Self::AccessDenied { operation, message },
            "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
                Self::Throttling { operation }
            }
            "ValidationException" | "ValidationError" | "InvalidParameters" => {
                Self::Invalid { operation, message }
            }
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => Self::Credentials(format!("{operation} answered {code}: {message}")),
            _ => Self::Refused { operation, code: clean(code), message },
        }
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        let (code, sentence) = told(&error);
        Self::new(code, error.blame(), sentence)
    }
}

/// The code and the sentence: what happened, and what to do next.
fn told(error: &BrokerError) -> (Code, String) {
    match error {
        BrokerError::Config(_) | BrokerError::Credentials(_) => {
            (Code::ServiceUnavailable, "The gateway cannot sign in to AWS: tell whoever runs it.".to_owned())
        }
        BrokerError::TargetNotConnected(target) => (
            Code::TargetNotConnected,
            format!("{target} is not connected: check that it runs and that its SSM agent is online."),
        ),
        BrokerError::InvalidDocument { document, message } => (
            Code::InvalidDocument,
            format!("AWS does not take the document {}: {message}", document.as_str()),
        ),
        BrokerError::InvalidParameters { document, message } => {
            (Code::InvalidParameters, format!("document {}: {message}", document.as_str()))
        }
        BrokerError::Invalid { message, .. } => {
            (Code::Validation, format!("AWS does not take a parameter: {message}"))
        }
        BrokerError::AccessDenied { operation, .. } => (
            Code::AccessDenied,
            format!(
                "AWS refused {operation} to the gateway's role; no policy of the gateway denied you: \
                 tell whoever runs it."
            ),
        ),
        BrokerError::Throttling { .. } | BrokerError::Busy => (
            Code::Throttling,
            "Too many sessions are being started in this account: try again in half a minute.".to_owned(),
        ),
        BrokerError::TimedOut { operation } | BrokerError::Unreachable { operation, .. } => (
            Code::ServiceUnavailable,
            format!("The gateway got no answer from AWS to {operation}: try again in a minute."),
        ),
        BrokerError::Refused { operation, code, .. } => (
            Code::InternalServerError,
            format!("AWS answered {operation} with {code}: try again, then tell whoever runs the gateway."),
        ),
        BrokerError::Malformed { operation, what } => (
            Code::InternalServerError,
            format!("AWS answered {operation} without a usable {what}: tell whoever runs the gateway."),
        ),
    }
}

/// A text from outside as it may stand in a log: printable and short.
pub(super) fn clean(text: &str) -> String {
    printable(text).chars().take(MESSAGE_MAX).collect()
}

/// The innermost cause: "connection refused" rather than "io error".
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    clean(&cause.to_string())
}
