//! Browsers that are signed in: from a proved identity, until its keys end.

use std::sync::Arc;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::Lifecycle;
use super::revoking::shuts_out;
use crate::error::{ApiError, Code};
use crate::registry::Visit;
use crate::relay::Control;
use crate::session::{Principal, now_ms};

/// How long a code waits for its browser, milliseconds.
const CODE_GOOD_MS: u64 = 2 * 60 * 1000;
/// Random bytes of a code and of what a browser keeps.
const SECRET_BYTES: usize = 32;
/// Longest secret that is looked up, characters.
const SECRET_MAX: usize = 64;

impl Lifecycle {
    /// A code that signs one browser in, once, within two minutes.
    ///
    /// The browser is signed in as long as the keys that asked for it live.
    pub async fn visit_code(&self, principal: &Principal, until_ms: u64) -> Result<String, ApiError> {
        let code = secret()?;
        self.add_code(&code, principal, until_ms).await?;
        Ok(code)
    }

    /// The same for the browser alone that keeps the second secret.
    pub async fn bound_visit_code(
        &self,
        principal: &Principal,
        until_ms: u64,
    ) -> Result<(String, String), ApiError> {
        let (code, browser) = (secret()?, secret()?);
        self.add_code(&bound(&code, &browser), principal, until_ms).await?;
        Ok((code, browser))
    }

    async fn add_code(&self, code: &str, principal: &Principal, until_ms: u64) -> Result<(), ApiError> {
        if self.is_shut_out(principal) {
            return Err(shut_out());
        }
        let visit = Visit { principal: principal.clone(), until_ms };
        Ok(self.rooms.registry.add_visit_code(&known_as(code), &visit, now_ms() + CODE_GOOD_MS).await?)
    }

    /// Whom a code would sign in; it is not used by this.
    pub async fn whose_code(&self, code: &str) -> Result<Visit, ApiError> {
        let found = match code.len() <= SECRET_MAX {
            true => self.rooms.registry.visit_code(&known_as(code), now_ms()).await?,
            false => None,
        };
        found.ok_or_else(used)
    }

    /// Signs a browser in with a code; gives what the browser keeps.
    pub async fn visit_with(self: &Arc<Self>, code: &str) -> Result<(String, Visit), ApiError> {
        match code.len() <= SECRET_MAX {
            true => self.spend_code(code).await,
            false => Err(used()),
        }
    }

    /// The same with a code that was made for this browser.
    pub async fn visit_bound(
        self: &Arc<Self>,
        code: &str,
        browser: &str,
    ) -> Result<(String, Visit), ApiError> {
        match code.len() <= SECRET_MAX && browser.len() <= SECRET_MAX {
            true => self.spend_code(&bound(code, browser)).await,
            false => Err(used()),
        }
    }

    async fn spend_code(self: &Arc<Self>, code: &str) -> Result<(String, Visit), ApiError> {
        let found = self.rooms.registry.take_visit_code(&known_as(code), now_ms()).await?;
        let visit = found.ok_or_else(used)?;
        Ok((self.visit_as(&visit).await?, visit))
    }

    /// Signs a browser in; gives what the browser keeps.
    pub async fn visit_as(self: &Arc<Self>, visit: &Visit) -> Result<String, ApiError> {
        if self.is_shut_out(&visit.principal) {
            return Err(shut_out());
        }
        let kept = secret()?;
        self.rooms.registry.begin_visit(&known_as(&kept), visit, now_ms()).await?;
        self.proved(&visit.principal, visit.until_ms).await;
        tracing::info!(principal = %visit.principal.arn, "a browser was signed in");
        Ok(kept)
    }

    /// Who is signed in with what a browser kept; nobody who is shut out.
    pub async fn visitor(&self, kept: &str) -> Result<Option<Visit>, ApiError> {
        if kept.len() > SECRET_MAX {
            return Ok(None);
        }
        let visit = self.rooms.registry.visit(&known_as(kept), now_ms()).await?;
        Ok(visit.filter(|visit| !self.is_shut_out(&visit.principal)))
    }

    /// Signs a browser out, or all of that person's, on every node.
    pub async fn end_visit(&self, kept: &str, everywhere: Option<&Principal>) -> Result<(), ApiError> {
        match everywhere {
            Some(principal) => self.rooms.registry.end_visits_of(&principal.id).await?,
            None => self.rooms.registry.end_visit(&known_as(kept)).await?,
        }
        Ok(())
    }

    /// Hangs up on browsers that are signed out, here or on another node.
    ///
    /// The session waits for its person, who may be the one who signed out.
    pub(super) async fn follow_visits(self: &Arc<Self>) {
        let mut sessions = self.live.all();
        sessions.retain(|live| !live.has_ended());
        let held: Vec<_> = sessions.into_iter().filter_map(|live| Some((live.visit()?, live))).collect();
        if held.is_empty() {
            return;
        }
        let visits: Vec<String> = held.iter().map(|(visit, _)| visit.clone()).collect();
        match self.rooms.registry.not_signed_out(&visits).await {
            Ok(there) => {
                for (_, live) in held.into_iter().filter(|(visit, _)| !there.contains(visit)) {
                    tracing::info!(session = %live.id, "its browser is signed out: hung up");
                    live.sign_out();
                    self.order(&live, Control::HangUp);
                }
            }
            Err(error) => tracing::error!(%error, "who is signed out could not be read"),
        }
    }

    /// Whether a browser was signed out; if that cannot be read, it was.
    pub(super) async fn is_signed_out(&self, visit: &str) -> bool {
        let visits = [visit.to_owned()];
        self.rooms.registry.not_signed_out(&visits).await.map_or(true, |there| there.is_empty())
    }

    /// Whether a revocation names the person or their role.
    pub(super) fn is_shut_out(&self, principal: &Principal) -> bool {
        self.revocations.load().iter().any(|revocation| shuts_out(&revocation.revoked, principal))
    }
}

/// What the database knows a secret as; it keeps no secret itself.
pub fn known_as(secret: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, secret.as_bytes()).as_ref())
}

/// A code and the browser's own secret; neither has this character.
fn bound(code: &str, browser: &str) -> String {
    format!("{code}.{browser}")
}

fn used() -> ApiError {
    let sentence = "this link was used or is too old; run `postern console` again";
    ApiError::client(Code::AccessDenied, sentence)
}

fn secret() -> Result<String, ApiError> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| ApiError::gateway("the gateway's system gives no randomness"))?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

fn shut_out() -> ApiError {
    ApiError::client(Code::AccessDenied, "your access was revoked")
}
