//! Making a signature in the `Authorization` header.

use ring::hmac;
use time::OffsetDateTime;

use crate::canonical::{canonical_request, hex, signing_key, string_to_sign};
use crate::date::amz_date;
use crate::{ALGORITHM, Request};

/// The keys that sign.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// The secret access key.
    pub secret: &'a str,
    /// The session token, for temporary keys.
    pub session_token: Option<&'a str>,
}

impl std::fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// What a signature is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The region.
    pub region: &'a str,
    /// The service.
    pub service: &'a str,
}

/// The headers that signing adds to a request.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// The value of `x-amz-date`.
    pub amz_date: String,
    /// The value of `x-amz-security-token`, if there is one.
    pub security_token: Option<String>,
    /// The value of `authorization`.
    pub authorization: String,
}

impl SignedHeaders {
    /// Each header to add: its lower-case name and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let token = self.security_token.as_deref().map(|token| ("x-amz-security-token", token));
        [("x-amz-date", self.amz_date.as_str()), ("authorization", self.authorization.as_str())]
            .into_iter()
            .chain(token)
    }
}

/// Signs every header given, which must hold `host`, plus those added.
///
/// Headers that signing itself adds are taken from here, not from `request`.
pub fn sign(request: &Request<'_>, keys: &Keys<'_>, scope: &Scope<'_>, now: OffsetDateTime) -> SignedHeaders {
    let amz_date = amz_date(now);
    let added = ["authorization", "x-amz-date", "x-amz-security-token"];
    let ours = |name: &str| added.iter().any(|known| known.eq_ignore_ascii_case(name));
    let mut headers: Vec<(&str, &[u8])> =
        request.headers.iter().copied().filter(|(name, _)| !ours(name)).collect();
    headers.push(("x-amz-date", amz_date.as_bytes()));
    if let Some(token) = keys.session_token {
        headers.push(("x-amz-security-token", token.as_bytes()));
    }
    let mut signed: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    signed.sort_unstable();
    signed.dedup();
    let request = Request { headers: &headers, ..*request };
    let signature = signature(&request, &signed, keys.secret, scope, &amz_date);
    let authorization = authorization(keys.access_key_id, &amz_date, scope, &signed.join(";"), &signature);
    SignedHeaders { amz_date, security_token: keys.session_token.map(str::to_owned), authorization }
}

/// The signature alone, for headers that are already there.
pub(crate) fn signature(
    request: &Request<'_>,
    signed: &[String],
    secret: &str,
    scope: &Scope<'_>,
    amz_date: &str,
) -> String {
    let day = day(amz_date);
    let canonical = canonical_request(request, signed);
    let full = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let key = signing_key(secret, day, scope.region, scope.service);
    hex(hmac::sign(&key, string_to_sign(amz_date, &full, &canonical).as_bytes()).as_ref())
}

/// The `Authorization` header of a signature.
pub(crate) fn authorization(
    access_key_id: &str,
    amz_date: &str,
    scope: &Scope<'_>,
    signed: &str,
    signature: &str,
) -> String {
    let (day, Scope { region, service }) = (day(amz_date), scope);
    format!(
        "{ALGORITHM} Credential={access_key_id}/{day}/{region}/{service}/aws4_request, \
         SignedHeaders={signed}, Signature={signature}"
    )
}

fn day(amz_date: &str) -> &str {
    amz_date.get(..8).unwrap_or(amz_date)
}
