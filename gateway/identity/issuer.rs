//! An issuer of tokens: where its keys are, and the keys as they are now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::{StatusCode, Url};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::IdentityError;
use super::config::web_address;
use super::jwt::{Claims, Key, Token, keys_of, strict};
use super::outbound::Outbound;

/// How long keys are used before they are read again.
const FRESH: Duration = Duration::hours(1);
/// How long they are used if they cannot be read again.
const USABLE: Duration = Duration::hours(6);
/// Least time between two looks for a key that is not known, or after one
/// that failed: a rotation is noticed by the first token with the new key,
/// invented ids cost nothing, and nobody waits again for who does not answer.
const LOOK_AGAIN: Duration = Duration::seconds(30);

/// What an issuer says of itself, as far as it is needed.
#[derive(Debug, Clone)]
pub(super) struct Discovered {
    pub(super) authorization: Option<Url>,
    pub(super) token: Option<Url>,
    pub(super) device: Option<Url>,
    keys: Url,
}

/// One configured issuer with its cache of keys.
///
/// Nobody waits for it who can be answered by what is known.
pub(super) struct Issuer {
    name: String,
    /// Whether its keys must be where it is itself.
    keys_at_home: bool,
    outbound: Outbound,
    /// Never held while anybody is asked.
    known: Mutex<Memory>,
    /// Held while it is asked: once for all who wait.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Memory {
    known: Option<Arc<Known>>,
    failed: Option<Failed>,
}

/// A look that failed: when, and what it answered if it answered.
#[derive(Clone, Copy)]
struct Failed {
    at: OffsetDateTime,
    answer: Option<&'static str>,
}

impl Failed {
    fn error(self) -> IdentityError {
        self.answer.map_or(IdentityError::ProviderUnreachable, IdentityError::ProviderAnswer)
    }
}

#[derive(Clone)]
struct Known {
    discovered: Discovered,
    keys: Vec<Key>,
    read: OffsetDateTime,
    looked: OffsetDateTime,
}

impl Issuer {
    /// An issuer by its exact name, which is its URL.
    pub(super) fn new(name: &str, keys_at_home: bool, outbound: Outbound) -> Self {
        Self {
            name: name.to_owned(),
            keys_at_home,
            outbound,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Its name, as tokens must have it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Calls of its other endpoints.
    pub(super) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Where its endpoints are.
    pub(super) async fn discovered(&self, now: OffsetDateTime) -> Result<Discovered, IdentityError> {
        Ok(self.current(now).await?.discovered.clone())
    }

    /// The claims of a token that one of its keys has signed.
    pub(super) async fn claims(
        &self,
        token: Token<'_>,
        now: OffsetDateTime,
    ) -> Result<Claims, IdentityError> {
        let known = self.current(now).await?;
        if token.names_one_of(&known.keys) {
            return token.verified(&known.keys);
        }
        // It may have another key since; forged ids must not make us ask on and on.
        let _asking = self.asking.lock().await;
        let mut known = self.remembered().unwrap_or(known);
        if !token.names_one_of(&known.keys) && now - known.looked >= LOOK_AGAIN {
            let looked = Known { looked: now, ..(*known).clone() };
            self.remember(looked.clone());
            let keys = self.keys(&looked.discovered).await?;
            known = self.remember(Known { keys, read: now, ..looked });
        }
        token.verified(&known.keys)
    }

    /// What is known of it, read again when it is old.
    async fn current(&self, now: OffsetDateTime) -> Result<Arc<Known>, IdentityError> {
        if let Some(known) = self.without_asking(now) {
            return known;
        }
        let _asking = match self.remembered().filter(|known| now - known.read < USABLE) {
            // Somebody asks already: what is old does meanwhile.
            Some(known) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(known),
            },
            None => self.asking.lock().await,
        };
        // Whoever asked before us has the answer for us, too.
        if let Some(known) = self.without_asking(now) {
            return known;
        }
        match self.read(now).await {
            Ok(known) => Ok(self.remember(known)),
            Err(error) => {
                tracing::warn!(issuer = %self.name, %error, "an issuer's description or keys cannot be read");
                let answer = match error {
                    IdentityError::ProviderAnswer(why) => Some(why),
                    _ => None,
                };
                self.memory().failed = Some(Failed { at: now, answer });
                self.remembered().filter(|known| now - known.read < USABLE).ok_or(error)
            }
        }
    }

    /// What can be said at once: fresh, or old while it does not answer.
    fn without_asking(&self, now: OffsetDateTime) -> Option<Result<Arc<Known>, IdentityError>> {
        let memory = self.memory();
        let age = memory.known.as_ref().map(|known| now - known.read);
        let failed = memory.failed.filter(|failed| now - failed.at < LOOK_AGAIN);
        match (&memory.known, age, failed) {
            (Some(known), Some(age), _) if age < FRESH => Some(Ok(Arc::clone(known))),
            (Some(known), Some(age), Some(_)) if age < USABLE => Some(Ok(Arc::clone(known))),
            (_, _, Some(failed)) => Some(Err(failed.error())),
            _ => None,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> Option<Arc<Known>> {
        self.memory().known.clone()
    }

    fn remember(&self, known: Known) -> Arc<Known> {
        let known = Arc::new(known);
        *self.memory() = Memory { known: Some(Arc::clone(&known)), failed: None };
        known
    }

    async fn read(&self, now: OffsetDateTime) -> Result<Known, IdentityError> {
        let discovered = self.discover().await?;
        let keys = self.keys(&discovered).await?;
        Ok(Known { discovered, keys, read: now, looked: now - LOOK_AGAIN })
    }

    async fn discover(&self) -> Result<Discovered, IdentityError> {
        let wrong = |why| IdentityError::ProviderAnswer(why);
        let url = format!("{}/.well-known/openid-configuration", self.name.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|_| wrong("its name is not a URL"))?;
        let (status, body) = self.outbound.get(&url).await?;
        if status != StatusCode::OK {
            return Err(wrong("it does not describe itself"));
        }
        let said = strict(&body).ok_or_else(|| wrong("its description is not JSON"))?;
        let text = |name: &str| said.get(name).and_then(Value::as_str);
        // Else one provider could speak for another.
        if text("issuer") != Some(self.name.as_str()) {
            return Err(wrong("it describes another issuer"));
        }
        let address = |name: &str| text(name).map(web_address).transpose();
        let unusable = |_| wrong("an address that it names is not https");
        let keys = address("jwks_uri").map_err(unusable)?.ok_or_else(|| wrong("it names no keys"))?;
        if self.keys_at_home && keys.origin() != url.origin() {
            return Err(wrong("its keys are at another host"));
        }
        Ok(Discovered {
            authorization: address("authorization_endpoint").map_err(unusable)?,
            token: address("token_endpoint").map_err(unusable)?,
            device: address("device_authorization_endpoint").map_err(unusable)?,
            keys,
        })
    }

    async fn keys(&self, discovered: &Discovered) -> Result<Vec<Key>, IdentityError> {
        let (status, body) = self.outbound.get(&discovered.keys).await?;
        match status {
            StatusCode::OK => keys_of(&body),
            _ => Err(IdentityError::ProviderAnswer("it does not give its keys")),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::identity::stub::{Answer, Stub, now};

    fn issuer(url: &str) -> Issuer {
        Issuer::new(url, true, Outbound::new(None).unwrap())
    }

    #[tokio::test]
    async fn an_issuer_that_fails_is_asked_again_only_after_a_while_and_once_for_all() {
        let stub = Stub::plain().await;
        let broken = Answer::Fixed { status: 500, content_type: "text/plain", body: String::new() };
        stub.will_answer([broken.clone(), broken]);
        let issuer = issuer(&stub.url);
        let (one, two) = tokio::join!(issuer.current(now()), issuer.current(now()));
        assert!(one.is_err() && two.is_err());
        assert!(issuer.current(now() + LOOK_AGAIN - Duration::SECOND).await.is_err());
        assert_eq!(stub.asked().len(), 1);
        assert!(issuer.current(now() + LOOK_AGAIN).await.is_err());
        assert_eq!(stub.asked().len(), 2);
    }

    #[tokio::test]
    async fn while_an_issuer_hangs_old_keys_do_and_nobody_else_waits() {
        // It takes connections and never says a word.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let issuer = issuer(&url);
        let keys = Url::parse(&url).unwrap();
        let discovered = Discovered { authorization: None, token: None, device: None, keys };
        issuer.remember(Known { discovered, keys: Vec::new(), read: now(), looked: now() });
        let old = now() + FRESH;
        let mut waits = Box::pin(issuer.current(old));
        assert!(waits.as_mut().now_or_never().is_none(), "somebody looks");
        let other = issuer.current(old).now_or_never().expect("another waits for it");
        assert_eq!(other.unwrap().read, now());
        // What is too old to be used is waited for by all.
        assert!(issuer.current(now() + USABLE).now_or_never().is_none());
    }
}
