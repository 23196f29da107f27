//! AWS Signature Version 4: reading, verifying and making signatures, without I/O.
//!
//! Time is an argument everywhere. Paths are normalised and encoded once more,
//! as every service but S3 does; bodies are hashed as they were read, so
//! `UNSIGNED-PAYLOAD` and streaming signatures never verify.

mod canonical;
mod date;
mod error;
mod presented;
mod sign;
/// The one `GetCallerIdentity` request that proves an IAM identity.
pub mod sts_proof;
mod verify;

pub use date::{amz_date, parse_amz_date};
pub use error::SignatureError;
pub use presented::{Place, Presented};
pub use sign::{Keys, Scope, SignedHeaders, sign};
pub use verify::{Rules, WINDOW, check_clock, verify};

/// The only algorithm there is here.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// An HTTP request as it was received or will be sent.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path as it is on the wire, undecoded.
    pub path: &'a str,
    /// The query as it is on the wire, without `?`.
    pub query: &'a str,
    /// Every header in order; names in any case.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The whole body.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The values of a header, in order; `name` in any case.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod cross_check;
#[cfg(test)]
mod vectors;
