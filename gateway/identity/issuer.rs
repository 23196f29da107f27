//! An issuer of tokens: where its keys are, and the keys as they are now.

use reqwest::{StatusCode, Url};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use super::IdentityError;
use super::config::web_address;
use super::jwt::{Claims, Key, Token, keys_of, strict};
use super::outbound::Outbound;

/// How long keys are used before they are read again.
const FRESH: Duration = Duration::hours(1);
/// How long they are used if they cannot be read again.
const USABLE: Duration = Duration::hours(6);
/// Least time between two looks for a key that is not known: a rotation is
/// noticed by the first token with the new key, and invented ids cost nothing.
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
pub(super) struct Issuer {
    name: String,
    /// Whether its keys must be where it is itself.
    keys_at_home: bool,
    outbound: Outbound,
    known: Mutex<Option<Known>>,
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
        Self { name: name.to_owned(), keys_at_home, outbound, known: Mutex::default() }
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
        let mut known = self.known.lock().await;
        Ok(self.current(&mut known, now).await?.discovered.clone())
    }

    /// The claims of a token that one of its keys has signed.
    pub(super) async fn claims(
        &self,
        token: Token<'_>,
        now: OffsetDateTime,
    ) -> Result<Claims, IdentityError> {
        let keys = {
            let mut slot = self.known.lock().await;
            let known = self.current(&mut slot, now).await?;
            // It may have another key since; forged ids must not make us ask on and on.
            if !token.names_one_of(&known.keys) && now - known.looked >= LOOK_AGAIN {
                known.looked = now;
                let found = self.keys(&known.discovered).await?;
                (known.keys, known.read) = (found, now);
            }
            known.keys.clone()
        };
        token.verified(&keys)
    }

    /// What is known of it, read again when it is old.
    async fn current<'a>(
        &self,
        slot: &'a mut Option<Known>,
        now: OffsetDateTime,
    ) -> Result<&'a mut Known, IdentityError> {
        let age = slot.as_ref().map(|known| now - known.read);
        if age.is_none_or(|age| age >= FRESH) {
            match self.read(now).await {
                Ok(known) => *slot = Some(known),
                Err(error) if age.is_none_or(|age| age >= USABLE) => return Err(error),
                Err(error) => {
                    tracing::warn!(issuer = %self.name, %error, "keys of an issuer are old and cannot be read again");
                }
            }
        }
        slot.as_mut().ok_or(IdentityError::ProviderUnreachable)
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
