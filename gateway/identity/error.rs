//! Why somebody is not let in, and the sentence that tells what to do.

use sigv4::SignatureError;

use crate::error::{ApiError, Blame, Code};

/// Why a caller is not recognised or an identity is not proved.
///
/// No text holds a signature, a token or a secret.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The signature is missing, broken, too old or incomplete.
    #[error(transparent)]
    Signature(SignatureError),
    /// The keys are not ours or the signature is wrong; which one is not told.
    #[error(
        "the signature does not match, or these keys were not issued by this gateway: \
         get new ones with `postern credentials`"
    )]
    NotRecognised,
    /// The keys are AWS's own.
    #[error(
        "the access key {0} was not issued by this gateway: use the profile that `postern configure` writes, \
         whose keys begin with PSTN"
    )]
    ForeignKeys(String),
    /// The issued keys are over.
    #[error("these keys expired at {0}: get new ones with `postern credentials`")]
    ExpiredKeys(String),
    /// The request was signed for another host.
    #[error(
        "the request is signed for the host {signed}, but this gateway is {server}: set endpoint_url to that"
    )]
    OtherHost {
        /// The host that was signed.
        signed: String,
        /// The gateway's URL.
        server: String,
    },
    /// The region is unknown or not served.
    #[error("the region {0} is not served by this gateway: choose another with --region")]
    Region(String),
    /// The challenge is not one that may be answered now.
    #[error("the sign-in challenge {0}: ask for a new one and sign in again")]
    Challenge(&'static str),
    /// Somebody is too fast.
    #[error("too many {0}: wait two minutes and try again")]
    TooMany(&'static str),
    /// STS does not accept the keys or the signature.
    #[error("AWS STS refused the sign-in ({0}): renew your AWS credentials and check their secret key")]
    Refused(&'static str),
    /// STS says the keys are over.
    #[error("AWS STS says your AWS credentials have expired: renew them and sign in again")]
    RefusedExpired,
    /// STS does not answer.
    #[error("AWS STS cannot be reached from the gateway ({0}): try again in a minute")]
    StsUnreachable(&'static str),
    /// STS answers something that it never should.
    #[error("the answer of AWS STS was not accepted: {0}")]
    StsAnswer(&'static str),
    /// The identity is of an account that is not admitted.
    #[error("the AWS account {0} is not admitted by this gateway: ask whoever runs it to allow the account")]
    AccountNotAllowed(String),
    /// A signed token is not one that is accepted.
    #[error("the token was not accepted: {0}; sign in again")]
    Token(&'static str),
    /// A token's times and this gateway's clock do not fit.
    #[error(
        "the token {what} {theirs} and this gateway's clock says {ours}: sign in again, or set the clock that \
         is wrong"
    )]
    TokenClock {
        /// What the token says of the moment.
        what: &'static str,
        /// The moment in the token.
        theirs: String,
        /// The moment here.
        ours: String,
    },
    /// A role's token does not say who has taken the role.
    #[error(
        "the token names a role and nobody behind it: sign in as an IAM Identity Center user, with a source \
         identity, or without --web-identity"
    )]
    NobodyBehindRole,
    /// The identity provider does not answer.
    #[error("the identity provider cannot be reached from the gateway: try again in a minute")]
    ProviderUnreachable,
    /// The identity provider answers something that it never should.
    #[error("the answer of the identity provider was not accepted: {0}")]
    ProviderAnswer(&'static str),
    /// The identity provider says no.
    #[error("the identity provider refused the sign-in ({0})")]
    ProviderRefused(&'static str),
    /// A kind of sign-in that is not set up.
    #[error("this gateway has no {0}: ask whoever runs it, or sign in with your AWS identity")]
    NotConfigured(&'static str),
    /// The browser comes back from somewhere else, or too late.
    #[error(
        "this sign-in was not begun here, was finished before, or took longer than ten minutes: begin again"
    )]
    NotBegun,
    /// The person may not use this gateway.
    #[error("{0}, so this gateway does not admit you: ask whoever runs it")]
    PersonNotAllowed(&'static str),
    /// The identity does not fit into a session token.
    #[error("the identity's name, groups and tags are too long for a session token")]
    TooLong,
    /// Something sealed is not ours, was changed, or is for another purpose.
    #[error("the token is not valid")]
    NotSealed,
    /// The key ring cannot be used.
    #[error("key ring {path}: {why}")]
    KeyRing {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The configuration is wrong.
    #[error("identity configuration: {0}")]
    Config(String),
}

impl From<SignatureError> for IdentityError {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::Mismatch => Self::NotRecognised,
            other => Self::Signature(other),
        }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        use IdentityError as E;
        let (code, blame) = match &error {
            E::Signature(signature) => (signature_code(signature), Blame::Client),
            E::NotRecognised | E::OtherHost { .. } => (Code::InvalidSignature, Blame::Client),
            E::ForeignKeys(_) | E::Refused(_) | E::NotSealed => (Code::UnrecognizedClient, Blame::Client),
            E::ExpiredKeys(_) | E::RefusedExpired => (Code::ExpiredToken, Blame::Client),
            E::Region(_) | E::TooLong => (Code::Validation, Blame::Client),
            E::Challenge(_) | E::Token(_) | E::NotBegun | E::NobodyBehindRole | E::ProviderRefused(_) => {
                (Code::AccessDenied, Blame::Client)
            }
            E::TokenClock { .. } => (Code::ExpiredToken, Blame::Client),
            E::NotConfigured(_) => (Code::Validation, Blame::Client),
            E::PersonNotAllowed(_) => (Code::AccessDenied, Blame::Policy),
            E::ProviderUnreachable | E::ProviderAnswer(_) => (Code::ServiceUnavailable, Blame::Gateway),
            E::TooMany(_) => (Code::Throttling, Blame::Client),
            E::AccountNotAllowed(_) => (Code::AccessDenied, Blame::Policy),
            E::StsUnreachable(_) | E::StsAnswer(_) => (Code::ServiceUnavailable, Blame::Aws),
            // The text names files and settings: it is for the log alone.
            E::KeyRing { .. } | E::Config(_) => {
                return Self::gateway("the gateway cannot check identities now: tell whoever runs it");
            }
        };
        Self::new(code, blame, error.to_string())
    }
}

fn signature_code(error: &SignatureError) -> Code {
    match error {
        SignatureError::Clock { .. }
        | SignatureError::Mismatch
        | SignatureError::OtherDay { .. }
        | SignatureError::OtherService { .. } => Code::InvalidSignature,
        _ => Code::IncompleteSignature,
    }
}
