//! Who is calling? An IAM identity is proved once, then keys of ours sign.

mod arn;
mod caller;
mod challenges;
mod config;
mod error;
mod issuer;
mod jwt;
mod key_ring;
mod keys;
mod oidc;
mod outbound;
mod person;
mod provider;
mod quota;
mod seen;
mod sources;
mod spent;
mod sts;
mod sts_answer;
mod web_identity;

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use sigv4::sts_proof::caller_identity_request;
use time::OffsetDateTime;

pub use caller::Caller;
pub use challenges::Challenge;
pub use config::IdentityConfig;
pub use error::IdentityError;
pub use key_ring::KeyRing;
pub use keys::Issued;
pub use oidc::{Begun, DeviceCode, Proven};
pub use provider::{OidcConfig, WebIdentityConfig};
pub use seen::{SeenSignatures, Use};
pub use sources::source;

use challenges::Challenges;
use config::Checked;
use keys::Keys;
use oidc::{Asked, Oidc};
use quota::Quota;
use sources::Sources;
use sts::Sts;
use web_identity::WebIdentity;

/// Proofs one access key id may try per two minutes; a person needs one.
const PROOFS_PER_KEY: u32 = 30;

/// Sign-ins with tokens from one source in two minutes: an office shares an
/// address, and a device code is asked about every five seconds.
const SIGN_INS_PER_SOURCE: u32 = 600;

/// Proves identities, issues keys and recognises callers by them.
pub struct Identity {
    config: Checked,
    keys: Keys,
    challenges: Challenges,
    proofs: Quota<String>,
    /// Sign-ins of one source that make us ask or verify something.
    sources: Sources,
    sts: Sts,
    web: WebIdentity,
    oidc: Option<Oidc>,
}

/// What came of a device code.
#[derive(Debug)]
pub enum Polled {
    /// Nobody has typed it yet; ask again after so many seconds.
    Pending(u32),
    /// Somebody has; these are their keys.
    Issued(Box<Issued>),
}

/// What a client sends to prove its IAM identity; nothing else is taken.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StsProof {
    /// The region whose STS the request was signed for.
    pub region: String,
    /// The AWS access key id that signed.
    pub access_key_id: String,
    /// When it was signed, `20261122T101500Z`.
    pub amz_date: String,
    /// The AWS session token, for temporary keys.
    #[serde(default)]
    pub session_token: Option<String>,
    /// The signature, 64 lower-case hex digits.
    pub signature: String,
    /// The challenge it answers.
    pub challenge: String,
}

impl std::fmt::Debug for StsProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StsProof")
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("amz_date", &self.amz_date)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Checks the configuration and reads the roots that STS is trusted by.
    pub fn new(config: IdentityConfig, ring: Arc<KeyRing>) -> Result<Self, IdentityError> {
        let config = Checked::of(config)?;
        Ok(Self {
            oidc: config.oidc.clone().map(|oidc| Oidc::new(&config, oidc, Arc::clone(&ring))).transpose()?,
            web: WebIdentity::new(&config)?,
            sources: Sources::new(SIGN_INS_PER_SOURCE),
            challenges: Challenges::new(config.server_url.clone(), Arc::clone(&ring)),
            keys: Keys::new(ring, config.key_ttl),
            proofs: Quota::new(PROOFS_PER_KEY),
            sts: Sts::new(&config)?,
            config,
        })
    }

    /// Issues a challenge: 32 bytes that nobody can guess, good once, for two minutes.
    ///
    /// It is bound to the peer's address. A client must sign the URL that it
    /// was configured with, and refuse a challenge that names another server.
    pub fn issue_challenge(&self, peer: IpAddr, now: OffsetDateTime) -> Result<Challenge, IdentityError> {
        self.challenges.issue(peer, now)
    }

    /// Asks STS whose signature this is and issues keys to that identity.
    ///
    /// The request to STS is rebuilt here from the proof's checked words; a
    /// challenge is spent by the first proof that gets as far as asking.
    pub async fn prove(
        &self,
        proof: &StsProof,
        peer: IpAddr,
        now: OffsetDateTime,
    ) -> Result<Issued, IdentityError> {
        self.config.check_region(&proof.region)?;
        let request = caller_identity_request(
            &proof.region,
            &self.config.server_url,
            &proof.challenge,
            &proof.amz_date,
            proof.session_token.as_deref(),
        )?;
        let authorization = request.authorization(&proof.access_key_id, &proof.signature)?;
        let signed_at = sigv4::parse_amz_date(&proof.amz_date);
        let signed_at = signed_at.ok_or(sigv4::SignatureError::InvalidWord("the date"))?;
        sigv4::check_clock(signed_at, now)?;
        // Spent first: an invented challenge must not use up somebody's sign-ins.
        self.challenges.spend(&proof.challenge, peer, now)?;
        // Invented keys may fill this table; their sources are counted anyway.
        if !self.proofs.count(proof.access_key_id.clone(), now).unwrap_or(true) {
            return Err(IdentityError::TooMany("sign-ins with this access key"));
        }
        let answer = self.sts.ask(&request, &authorization).await?;
        let principal = arn::principal(&answer, request.endpoint().partition, now)?;
        tracing::info!(
            access_key_id = %proof.access_key_id,
            arn = %principal.arn,
            request_id = %answer.request_id,
            "an IAM identity was proved"
        );
        if !self.config.allows_account(&principal.account) {
            return Err(IdentityError::AccountNotAllowed(principal.account));
        }
        self.keys.issue(principal, now)
    }

    /// Issues keys to whom a token of STS names that is for this gateway.
    pub async fn prove_web_identity(
        &self,
        token: &str,
        peer: IpAddr,
        now: OffsetDateTime,
    ) -> Result<Issued, IdentityError> {
        self.count(peer, now)?;
        let principal = self.web.prove(token, now).await?;
        if !self.config.allows_account(&principal.account) {
            return Err(IdentityError::AccountNotAllowed(principal.account));
        }
        self.keys.issue(principal, now)
    }

    /// Sends a browser to the identity provider.
    ///
    /// `return_to` is a path of this gateway; anything else counts as `/`.
    pub async fn begin_oidc(
        &self,
        return_to: &str,
        peer: IpAddr,
        now: OffsetDateTime,
    ) -> Result<Begun, IdentityError> {
        self.count(peer, now)?;
        self.oidc()?.begin(return_to, now).await
    }

    /// Whom the identity provider sends back, with the query that it sends.
    ///
    /// `cookie` is what [`Begun`] gave this browser; it is good once.
    pub async fn finish_oidc(
        &self,
        query: &str,
        cookie: &str,
        now: OffsetDateTime,
    ) -> Result<Proven, IdentityError> {
        self.oidc()?.finish(query, cookie, now).await
    }

    /// A code for somebody without a browser at hand.
    pub async fn begin_device(&self, peer: IpAddr, now: OffsetDateTime) -> Result<DeviceCode, IdentityError> {
        self.count(peer, now)?;
        self.oidc()?.begin_device(now).await
    }

    /// Issues keys once somebody has typed the code.
    pub async fn ask_device(
        &self,
        handle: &str,
        peer: IpAddr,
        now: OffsetDateTime,
    ) -> Result<Polled, IdentityError> {
        self.count(peer, now)?;
        let oidc = self.oidc()?;
        Ok(match oidc.ask_device(handle, now).await? {
            Asked::Pending(seconds) => Polled::Pending(seconds),
            Asked::Proven(principal) => {
                let life = oidc.life().unsigned_abs();
                Polled::Issued(Box::new(self.keys.issue_for(*principal, life, now)?))
            }
        })
    }

    /// Whether people sign in with an identity provider here.
    pub fn has_oidc(&self) -> bool {
        self.oidc.is_some()
    }

    fn oidc(&self) -> Result<&Oidc, IdentityError> {
        self.oidc.as_ref().ok_or(IdentityError::NotConfigured("identity provider"))
    }

    fn count(&self, peer: IpAddr, now: OffsetDateTime) -> Result<(), IdentityError> {
        let taken = self.sources.take(peer, now);
        taken.then_some(()).ok_or(IdentityError::TooMany("sign-ins from your address"))
    }

    /// Recognises the caller of a signed request by keys issued here.
    ///
    /// `service` is `ssm` for the API and `ssmmessages` for the WebSocket
    /// upgrade. Only what [`Caller::signs`] may be used for decisions.
    pub fn caller(
        &self,
        request: &sigv4::Request<'_>,
        service: &str,
        now: OffsetDateTime,
    ) -> Result<Caller, IdentityError> {
        caller::recognise(&self.config, &self.keys, request, service, now)
    }
}

#[cfg(test)]
mod caller_tests;
#[cfg(test)]
mod proof_tests;
#[cfg(test)]
mod stub;
