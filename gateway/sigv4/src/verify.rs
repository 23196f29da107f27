//! Whether a presented signature is the one that the secret makes.

use ring::hmac;
use time::{Duration, OffsetDateTime};

use crate::canonical::{canonical_request, nibble, signing_key, string_to_sign};
use crate::date::amz_date;
use crate::{Place, Presented, Request, SignatureError};

/// How far the two clocks may be apart: AWS's own rule.
pub const WINDOW: Duration = Duration::minutes(5);

/// What a service asks of a signature beyond being right.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The service that the scope must name.
    pub service: &'a str,
    /// Headers that must be there and signed, lower case.
    pub required: &'a [&'a str],
    /// Whether a signature in the query is accepted.
    pub query: bool,
    /// Whether a signed header may be there more than once.
    pub duplicates: bool,
}

impl<'a> Rules<'a> {
    /// A POST of AWS JSON: the target header decides what is done.
    pub fn json_call(service: &'a str) -> Self {
        Self { required: &["content-type", "host", "x-amz-date", "x-amz-target"], ..Self::plain(service) }
    }

    /// Any other request: host and date must be signed.
    pub fn plain(service: &'a str) -> Self {
        Self { service, required: &["host", "x-amz-date"], query: false, duplicates: false }
    }
}

/// Verifies a presented signature in constant time, within five minutes.
///
/// A session token that is there must be signed too. The body's hash is made
/// from the body, never taken from a header. Whatever a caller decides by must
/// be a signed header: ask [`Presented::signs`].
pub fn verify(
    request: &Request<'_>,
    presented: &Presented,
    secret: &str,
    now: OffsetDateTime,
    rules: &Rules<'_>,
) -> Result<(), SignatureError> {
    check_headers(request, presented, rules)?;
    check_scope(presented, rules)?;
    let oldest = match presented.place {
        Place::Header => WINDOW,
        Place::Query { expires } => Duration::seconds(i64::from(expires)),
    };
    check_age(presented.signed_at, now, oldest)?;
    let canonical = canonical_request(request, &presented.signed_headers);
    let text = string_to_sign(&presented.amz_date, &presented.scope(), &canonical);
    let key = signing_key(secret, &presented.date, &presented.region, &presented.service);
    let tag: Vec<u8> = decoded(&presented.signature).ok_or(SignatureError::Mismatch)?;
    hmac::verify(&key, text.as_bytes(), &tag).map_err(|_| SignatureError::Mismatch)
}

/// Checks that a moment is within five minutes of this clock.
pub fn check_clock(signed_at: OffsetDateTime, now: OffsetDateTime) -> Result<(), SignatureError> {
    check_age(signed_at, now, WINDOW)
}

fn check_age(signed_at: OffsetDateTime, now: OffsetDateTime, oldest: Duration) -> Result<(), SignatureError> {
    let age = now - signed_at;
    if age > oldest || age < -WINDOW {
        let (signed, now) = (amz_date(signed_at), amz_date(now));
        return Err(SignatureError::Clock { signed, now, minutes: oldest.whole_minutes() });
    }
    Ok(())
}

fn check_headers(
    request: &Request<'_>,
    presented: &Presented,
    rules: &Rules<'_>,
) -> Result<(), SignatureError> {
    let in_query = matches!(presented.place, Place::Query { .. });
    if in_query && !rules.query {
        return Err(SignatureError::InQuery);
    }
    let dated_elsewhere = |name: &str| in_query && name == "x-amz-date";
    let required = rules.required.iter().filter(|name| !dated_elsewhere(name));
    let token = request.values("x-amz-security-token").next().map(|_| &"x-amz-security-token");
    for name in required.chain(token) {
        if !presented.signs(name) {
            return Err(SignatureError::NotSigned((*name).to_owned()));
        }
    }
    for name in &presented.signed_headers {
        let count = request.values(name).count();
        if count == 0 {
            return Err(SignatureError::Absent(name.clone()));
        }
        if count > 1 && !rules.duplicates {
            return Err(SignatureError::Duplicate(name.clone()));
        }
        let plain = |value: &[u8]| value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if !request.values(name).all(plain) {
            return Err(SignatureError::NotAscii(name.clone()));
        }
    }
    Ok(())
}

fn check_scope(presented: &Presented, rules: &Rules<'_>) -> Result<(), SignatureError> {
    if !presented.amz_date.starts_with(&presented.date) {
        let (scope, amz_date) = (presented.date.clone(), presented.amz_date.clone());
        return Err(SignatureError::OtherDay { scope, amz_date });
    }
    if presented.service != rules.service {
        let (signed, expected) = (presented.service.clone(), rules.service.to_owned());
        return Err(SignatureError::OtherService { signed, expected });
    }
    Ok(())
}

fn decoded(signature: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = signature.bytes().map(nibble).collect();
    let digits = digits?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}
