//! Recognising a caller by a signature made with keys of ours.

use sigv4::{Presented, Request, Rules};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::IdentityError;
use super::config::Checked;
use super::keys::{Keys, PREFIX, moment};
use crate::session::Principal;

/// Who signed a request, and what the signature covers.
#[derive(Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The id of the key that signed.
    pub access_key_id: String,
    /// The signature, for remembering that it was used.
    pub signature: String,
    /// The region the request is signed for; it picks the upstream region.
    pub region: String,
    /// When the caller's keys end.
    pub expires_at: OffsetDateTime,
    signed_headers: Vec<String>,
}

impl Caller {
    /// Whether the signature covers this header, named in lower case.
    pub fn signs(&self, header: &str) -> bool {
        self.signed_headers.iter().any(|signed| signed == header)
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("principal", &self.principal)
            .field("access_key_id", &self.access_key_id)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

pub(super) fn recognise(
    config: &Checked,
    keys: &Keys,
    request: &Request<'_>,
    service: &str,
    now: OffsetDateTime,
) -> Result<Caller, IdentityError> {
    let presented = Presented::read(request)?;
    if !presented.access_key_id.starts_with(PREFIX) {
        return Err(IdentityError::ForeignKeys(presented.access_key_id.chars().take(20).collect()));
    }
    let token = presented.security_token.as_deref();
    let token = token.ok_or_else(|| sigv4::SignatureError::NotSigned("x-amz-security-token".to_owned()))?;
    let known = keys.read(token).ok().filter(|known| known.claims.access_key_id == presented.access_key_id);
    // A token that does not open takes the same way and ends in the same words.
    let secret = known.as_ref().map_or("", |known| known.secret.as_str());
    sigv4::verify(request, &presented, secret, now, &rules(request, service))?;
    let known = known.ok_or(IdentityError::NotRecognised)?;
    let expires_at = moment(known.claims.expires_at);
    if now >= expires_at {
        return Err(IdentityError::ExpiredKeys(expires_at.format(&Rfc3339).unwrap_or_default()));
    }
    check_host(config, request)?;
    config.check_region(&presented.region)?;
    Ok(Caller {
        principal: known.claims.principal,
        access_key_id: presented.access_key_id,
        signature: presented.signature,
        region: presented.region,
        expires_at,
        signed_headers: presented.signed_headers,
    })
}

/// An AWS JSON call is decided by its target header, so that must be signed.
fn rules<'a>(request: &Request<'_>, service: &'a str) -> Rules<'a> {
    match (request.method, request.path) {
        ("POST", "/") => Rules::json_call(service),
        _ => Rules::plain(service),
    }
}

/// The host must be ours as the client signed it, whatever sits in between.
fn check_host(config: &Checked, request: &Request<'_>) -> Result<(), IdentityError> {
    let host = request.values("host").next().and_then(|host| std::str::from_utf8(host).ok());
    let host = host.unwrap_or_default().trim();
    if config.is_our_host(host) {
        return Ok(());
    }
    let signed = host.chars().take(64).collect();
    Err(IdentityError::OtherHost { signed, server: config.server_url.clone() })
}
