//! What a client is told: an AWS error code, one safe sentence, who is to blame.

/// Who has to act before the call can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong.
    Client,
    /// The policy forbids it.
    Policy,
    /// The target is not there or does not answer.
    Target,
    /// AWS refused or failed.
    Aws,
    /// The gateway failed.
    Gateway,
}

impl Blame {
    /// The word used as metric label and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Policy => "policy",
            Self::Target => "target",
            Self::Aws => "aws",
            Self::Gateway => "gateway",
        }
    }
}

/// An AWS error code as it goes into the body's `__type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The caller may not do this.
    AccessDenied,
    /// A parameter is wrong.
    Validation,
    /// The document is unknown or does not fit.
    InvalidDocument,
    /// The document has no such parameter, or it does not fit.
    InvalidParameters,
    /// The target is unknown or offline.
    TargetNotConnected,
    /// The session does not exist.
    DoesNotExist,
    /// The body is not what the operation reads.
    Serialization,
    /// A filter names an unknown key.
    InvalidFilterKey,
    /// A filter of machines has a value that no machine can have.
    InvalidInstanceInformationFilterValue,
    /// A page token is not one of ours.
    InvalidNextToken,
    /// Too many calls.
    Throttling,
    /// The signature does not match.
    InvalidSignature,
    /// The keys are unknown.
    UnrecognizedClient,
    /// The keys or the request are too old.
    ExpiredToken,
    /// Something the request needs for a signature is missing.
    IncompleteSignature,
    /// No such operation.
    UnknownOperation,
    /// The gateway or AWS failed.
    InternalServerError,
    /// The gateway cannot take sessions now.
    ServiceUnavailable,
}

impl Code {
    /// The name of the exception, as the AWS SDKs know it.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        self.row().1
    }

    fn row(self) -> (&'static str, u16) {
        match self {
            Self::AccessDenied => ("AccessDeniedException", 400),
            Self::Validation => ("ValidationException", 400),
            Self::InvalidDocument => ("InvalidDocument", 400),
            Self::InvalidParameters => ("InvalidParameters", 400),
            Self::TargetNotConnected => ("TargetNotConnected", 400),
            Self::DoesNotExist => ("DoesNotExistException", 400),
            Self::Serialization => ("SerializationException", 400),
            Self::InvalidFilterKey => ("InvalidFilterKey", 400),
            Self::InvalidInstanceInformationFilterValue => ("InvalidInstanceInformationFilterValue", 400),
            Self::InvalidNextToken => ("InvalidNextToken", 400),
            Self::Throttling => ("ThrottlingException", 400),
            Self::InvalidSignature => ("InvalidSignatureException", 403),
            Self::UnrecognizedClient => ("UnrecognizedClientException", 400),
            Self::ExpiredToken => ("ExpiredTokenException", 400),
            Self::IncompleteSignature => ("IncompleteSignatureException", 400),
            Self::UnknownOperation => ("UnknownOperationException", 400),
            Self::InternalServerError => ("InternalServerError", 500),
            Self::ServiceUnavailable => ("ServiceUnavailableException", 503),
        }
    }
}

/// The one error type of the edge; rooms are mapped to it by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ApiError {
    /// The AWS code.
    pub code: Code,
    /// One line that is safe to show: no secret, no control character.
    pub message: String,
    /// Who has to act.
    pub blame: Blame,
}

impl ApiError {
    /// An error; control characters in the message are removed.
    pub fn new(code: Code, blame: Blame, message: impl AsRef<str>) -> Self {
        let message = message.as_ref().chars().filter(|c| !c.is_control()).collect();
        Self { code, message, blame }
    }

    /// The caller sent something wrong.
    pub fn client(code: Code, message: impl AsRef<str>) -> Self {
        Self::new(code, Blame::Client, message)
    }

    /// The gateway failed; the message must not tell internals.
    pub fn gateway(message: impl AsRef<str>) -> Self {
        Self::new(Code::InternalServerError, Blame::Gateway, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_carries_control_characters() {
        let error = ApiError::client(Code::Validation, "target \u{1b}]0;x\u{7} is\nunknown");
        assert_eq!(error.message, "target ]0;x isunknown");
        assert_eq!(error.to_string(), "ValidationException: target ]0;x isunknown");
    }
}
