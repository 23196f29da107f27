//! Why a signature was not accepted, in sentences that say what to do.

/// Why a request's signature is not accepted.
///
/// The text is safe to show: it holds no signature, token or secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature at all.
    #[error("the request is not signed: send an Authorization header with an AWS4-HMAC-SHA256 signature")]
    Unsigned,
    /// Both header and query carry a signature.
    #[error("the request is signed in its header and in its query: sign it once")]
    SignedTwice,
    /// The signature is in the query where only the header is accepted.
    #[error("the signature is in the query: sign the Authorization header instead")]
    InQuery,
    /// A part of the signature cannot be read.
    #[error("the signature cannot be read: {0}")]
    Malformed(&'static str),
    /// A header that must be signed is not.
    #[error("the header {0} must be present and signed")]
    NotSigned(String),
    /// A signed header is not there.
    #[error("the signed header {0} is not in the request")]
    Absent(String),
    /// A signed header is there twice.
    #[error("the signed header {0} is there more than once")]
    Duplicate(String),
    /// A signed header holds something else than printable ASCII.
    #[error("the signed header {0} holds characters that are not printable ASCII")]
    NotAscii(String),
    /// The credential scope is for another day than the request.
    #[error("the credential scope is for {scope}, the request is dated {amz_date}")]
    OtherDay {
        /// The day of the scope.
        scope: String,
        /// The request's date.
        amz_date: String,
    },
    /// The credential scope is for another service.
    #[error("the request is signed for the service {signed}, this is {expected}")]
    OtherService {
        /// The service of the scope.
        signed: String,
        /// The service asked for.
        expected: String,
    },
    /// The two clocks differ too much.
    #[error(
        "Signature expired or not yet valid: signed at {signed} by your clock, but this clock says {now}; \
         they may differ by {minutes} minutes, so set your clock and try again"
    )]
    Clock {
        /// When the request says it was signed.
        signed: String,
        /// The verifier's clock.
        now: String,
        /// How far they may be apart, minutes.
        minutes: i64,
    },
    /// The signature is not the one these keys make.
    #[error(
        "the signature does not match: check the secret access key and that nothing rewrites the request"
    )]
    Mismatch,
    /// A word does not fit where the request needs it.
    #[error("{0} is not valid")]
    InvalidWord(&'static str),
}
