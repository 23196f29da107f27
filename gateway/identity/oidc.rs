//! Signing in at the company's identity provider: in a browser, or with a
//! code that is typed into one.
//!
//! What a sign-in needs until its end travels sealed, in a cookie or in the
//! client's hands: every node can finish it, and beginning costs no memory.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use form_urlencoded::{Serializer, byte_serialize};
use reqwest::{StatusCode, Url};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::config::{Checked, web_address};
use super::issuer::Issuer;
use super::jwt::{Algorithm, Expected, Token, strict};
use super::key_ring::random;
use super::outbound::Outbound;
use super::person::principal_of;
use super::provider::OidcConfig;
use super::spent::Spent;
use super::{IdentityError, KeyRing};
use crate::session::{Principal, printable};

/// What providers sign ID tokens with.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384];
/// How long a browser may take from the beginning to the end.
const BROWSER: Duration = Duration::minutes(10);
/// Longest life of an ID token; providers give five minutes to a day.
const LIFE: Duration = Duration::hours(24);
/// Longest time since an ID token was issued: we have just asked for it.
const AGE: Duration = Duration::minutes(5);
/// Longest code or device code, bytes.
const CODE_MAX: usize = 4096;
/// Longest path that a browser is sent back to, bytes.
const RETURN_MAX: usize = 512;
/// Longest life of a device code; the provider says less.
const DEVICE: Duration = Duration::minutes(30);
/// Seconds between two questions of a device, if the provider says none.
const INTERVAL: u32 = 5;
/// What the cookie is sealed for.
const SIGN_IN: &str = "oidc sign-in";
/// What a device code is sealed for.
const DEVICE_CODE: &str = "oidc device code";
/// The path that the provider sends browsers back to.
pub(super) const CALLBACK: &str = "/v1/login/oidc/callback";

/// The provider as this gateway uses it.
pub(super) struct Oidc {
    issuer: Issuer,
    config: OidcConfig,
    secret: Option<String>,
    redirect: String,
    ring: Arc<KeyRing>,
    spent: Spent,
}

/// Where a browser is sent to sign in, and what it keeps meanwhile.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The provider's page.
    pub location: String,
    /// The sealed value of a cookie; only this gateway reads it.
    pub cookie: String,
}

/// Who has signed in in a browser, for whoever gives it a session.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The person.
    pub principal: Principal,
    /// The path of this gateway that the browser wanted.
    pub return_to: String,
    /// When the sign-in is over, as keys of it would be.
    pub until: OffsetDateTime,
}

/// What somebody types into a browser, anywhere.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceCode {
    /// What the client asks with; sealed.
    pub handle: String,
    /// What the person types.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: String,
    /// The same with the code in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification_uri_complete: Option<String>,
    /// Seconds until it is over.
    pub expires_in: u32,
    /// Seconds between two questions.
    pub interval: u32,
}

/// What came of a device code so far.
pub(super) enum Asked {
    /// Not yet; ask again after so many seconds.
    Pending(u32),
    /// Somebody has signed in.
    Proven(Box<Principal>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    state: String,
    nonce: String,
    verifier: String,
    return_to: String,
    until: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    code: String,
    until: i64,
    interval: u32,
}

impl Oidc {
    pub(super) fn new(config: &Checked, oidc: OidcConfig, ring: Arc<KeyRing>) -> Result<Self, IdentityError> {
        let bundle = oidc.ca_bundle.as_deref().or(config.ca_bundle.as_deref());
        Ok(Self {
            issuer: Issuer::new(&oidc.issuer, false, Outbound::new(bundle)?),
            secret: oidc.secret()?,
            redirect: format!("{}{CALLBACK}", config.server_url),
            spent: Spent::default(),
            config: oidc,
            ring,
        })
    }

    /// How long a sign-in is good for.
    pub(super) fn life(&self) -> Duration {
        Duration::minutes(i64::from(self.config.key_minutes))
    }

    /// Sends a browser to the provider: code flow, with PKCE.
    pub(super) async fn begin(&self, return_to: &str, now: OffsetDateTime) -> Result<Begun, IdentityError> {
        let discovered = self.issuer.discovered(now).await?;
        let page = discovered.authorization.ok_or(IdentityError::ProviderAnswer("it has no sign-in page"))?;
        let sign_in = SignIn {
            state: fresh(),
            nonce: fresh(),
            verifier: fresh(),
            return_to: local_path(return_to).to_owned(),
            until: (now + BROWSER).unix_timestamp(),
        };
        let challenge = sha256(&sign_in.verifier);
        let mut location = page;
        location
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("scope", &self.scope())
            .append_pair("state", &sign_in.state)
            .append_pair("nonce", &sign_in.nonce)
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256");
        let bytes = serde_json::to_vec(&sign_in).map_err(|_| IdentityError::NotBegun)?;
        Ok(Begun { location: location.into(), cookie: self.ring.seal(SIGN_IN, &bytes) })
    }

    /// Takes a browser back: whoever it is has signed in, just now.
    pub(super) async fn finish(
        &self,
        query: &str,
        cookie: &str,
        now: OffsetDateTime,
    ) -> Result<Proven, IdentityError> {
        let not_begun = |_| IdentityError::NotBegun;
        let opened = self.ring.unseal(SIGN_IN, cookie).map_err(not_begun)?;
        let sign_in: SignIn = serde_json::from_slice(&opened).map_err(|_| IdentityError::NotBegun)?;
        let given = Returned::read(query).ok_or(IdentityError::NotBegun)?;
        let state = given.state.as_deref().unwrap_or_default();
        // Digests are compared, so the time it takes tells nothing.
        let same = sha256(state).as_ref() == sha256(&sign_in.state).as_ref();
        if !same || now.unix_timestamp() >= sign_in.until {
            return Err(IdentityError::NotBegun);
        }
        // RFC 9207: a provider that names itself must be ours.
        if given.issuer.is_some_and(|issuer| issuer != self.issuer.name()) {
            return Err(IdentityError::NotBegun);
        }
        let until = super::keys::moment(sign_in.until);
        self.spent.spend(&["state", state], until, now).map_err(|error| match error {
            IdentityError::Token(_) => IdentityError::NotBegun,
            other => other,
        })?;
        if let Some(word) = given.error {
            return Err(refused(&word));
        }
        let code = given.code.filter(|code| !code.is_empty() && code.len() <= CODE_MAX);
        let code = code.ok_or(IdentityError::NotBegun)?;
        let form = form(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &self.redirect),
            ("code_verifier", &sign_in.verifier),
        ]);
        let answer = self.ask_token(form, now).await?.map_err(|word| refused(&word))?;
        let principal = self.person(&answer, Some(&sign_in.nonce), now).await?;
        Ok(Proven { principal, return_to: sign_in.return_to, until: now + self.life() })
    }

    /// Asks the provider for a code that somebody types into a browser.
    pub(super) async fn begin_device(&self, now: OffsetDateTime) -> Result<DeviceCode, IdentityError> {
        let wrong = |why| IdentityError::ProviderAnswer(why);
        let discovered = self.issuer.discovered(now).await?;
        let url = discovered.device.ok_or_else(|| wrong("it has no device codes"))?;
        let (status, body) = self.post(&url, form(&[("scope", &self.scope())])).await?;
        let said = strict(&body).ok_or_else(|| wrong("it is not JSON"))?;
        if status != StatusCode::OK {
            return Err(refused(said.get("error").and_then(Value::as_str).unwrap_or_default()));
        }
        let text = |name: &str, longest: usize| {
            let text = said.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty() && text.len() <= longest && printable(text) == *text)
        };
        let page = |name: &str| text(name, 1024).filter(|page| web_address(page).is_ok()).map(str::to_owned);
        let seconds = |name: &str| said.get(name).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let code = text("device_code", CODE_MAX).ok_or_else(|| wrong("it gives no device code"))?;
        let user_code = text("user_code", 64).ok_or_else(|| wrong("it gives no code to type"))?;
        let uri = page("verification_uri").or_else(|| page("verification_url"));
        let longest = u32::try_from(DEVICE.whole_seconds()).unwrap_or_default();
        let expires_in = seconds("expires_in").unwrap_or(longest).min(longest);
        let interval = seconds("interval").unwrap_or(INTERVAL).clamp(1, 60);
        let until = (now + Duration::seconds(i64::from(expires_in))).unix_timestamp();
        let device = Device { code: code.to_owned(), until, interval };
        let bytes = serde_json::to_vec(&device).map_err(|_| wrong("its device code is not a text"))?;
        Ok(DeviceCode {
            handle: self.ring.seal(DEVICE_CODE, &bytes),
            user_code: user_code.to_owned(),
            verification_uri: uri.ok_or_else(|| wrong("it names no page for the code"))?,
            verification_uri_complete: page("verification_uri_complete"),
            expires_in,
            interval,
        })
    }

    /// Asks whether somebody has typed the code.
    pub(super) async fn ask_device(&self, handle: &str, now: OffsetDateTime) -> Result<Asked, IdentityError> {
        let opened = self.ring.unseal(DEVICE_CODE, handle).map_err(|_| IdentityError::NotBegun)?;
        let device: Device = serde_json::from_slice(&opened).map_err(|_| IdentityError::NotBegun)?;
        if now.unix_timestamp() >= device.until {
            return Err(refused("expired_token"));
        }
        let grant = "urn:ietf:params:oauth:grant-type:device_code";
        let form = form(&[("grant_type", grant), ("device_code", &device.code)]);
        let answer = match self.ask_token(form, now).await? {
            Ok(answer) => answer,
            Err(word) if word == "authorization_pending" => return Ok(Asked::Pending(device.interval)),
            Err(word) if word == "slow_down" => return Ok(Asked::Pending(device.interval + INTERVAL)),
            Err(word) => return Err(refused(&word)),
        };
        let principal = self.person(&answer, None, now).await?;
        // Keys are given once, whatever the provider would answer again.
        self.spent.spend(&["device", &device.code], super::keys::moment(device.until), now)?;
        Ok(Asked::Proven(Box::new(principal)))
    }

    /// The token endpoint's answer; the inner error is the provider's word.
    async fn ask_token(
        &self,
        form: String,
        now: OffsetDateTime,
    ) -> Result<Result<Value, String>, IdentityError> {
        let wrong = |why| IdentityError::ProviderAnswer(why);
        let url = self.issuer.discovered(now).await?.token.ok_or_else(|| wrong("it gives no tokens"))?;
        let (status, body) = self.post(&url, form).await?;
        let said = strict(&body).ok_or_else(|| wrong("it is not JSON"))?;
        if status == StatusCode::OK {
            return Ok(Ok(said));
        }
        let word = said.get("error").and_then(Value::as_str);
        word.map(|word| Err(word.to_owned())).ok_or_else(|| wrong("its status is not 200"))
    }

    async fn post(&self, url: &Url, mut form: String) -> Result<(StatusCode, Vec<u8>), IdentityError> {
        let id = &self.config.client_id;
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let basic = match &self.secret {
            Some(secret) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)))))
            }
            None => {
                form.push_str("&client_id=");
                form.push_str(&encoded(id));
                None
            }
        };
        self.issuer.outbound().post(url, form, basic.as_deref()).await
    }

    /// Whom the ID token in an answer names.
    async fn person(
        &self,
        answer: &Value,
        nonce: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<Principal, IdentityError> {
        let token = answer.get("id_token").and_then(Value::as_str);
        let token = token.ok_or(IdentityError::ProviderAnswer("it names nobody: it has no ID token"))?;
        let claims = self.issuer.claims(Token::parse(token, &ALGORITHMS)?, now).await?;
        let (issuer, audience) = (self.issuer.name(), self.config.client_id.as_str());
        claims.check(&Expected { issuer, audience, life: LIFE, age: AGE }, now)?;
        if claims.has("azp") && claims.text("azp") != Some(audience) {
            return Err(IdentityError::Token("it was issued to another client"));
        }
        if nonce.is_some() && claims.text("nonce") != nonce {
            return Err(IdentityError::Token("it answers another sign-in"));
        }
        principal_of(&claims, &self.config)
    }

    fn scope(&self) -> String {
        let others = self.config.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid");
        std::iter::once("openid").chain(others).collect::<Vec<_>>().join(" ")
    }
}

/// What a browser brings back; each at most once.
#[derive(Default)]
struct Returned {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
}

impl Returned {
    fn read(query: &str) -> Option<Self> {
        let mut given = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match name.as_ref() {
                "state" => &mut given.state,
                "code" => &mut given.code,
                "error" => &mut given.error,
                "iss" => &mut given.issuer,
                _ => continue,
            };
            if slot.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(given)
    }
}

/// The provider's error, as one of the words known here.
fn refused(word: &str) -> IdentityError {
    const WORDS: [&str; 10] = [
        "access_denied",
        "consent_required",
        "expired_token",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_scope",
        "login_required",
        "temporarily_unavailable",
        "unauthorized_client",
    ];
    let known = WORDS.into_iter().find(|known| *known == word);
    IdentityError::ProviderRefused(known.unwrap_or("no reason that is known"))
}

/// A path of this gateway and of nothing else; the root for all others.
fn local_path(path: &str) -> &str {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let local = path.starts_with('/') && !path.starts_with("//");
    if plain && local && path.len() <= RETURN_MAX { path } else { "/" }
}

fn sha256(text: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, text.as_bytes())
}

fn form(pairs: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn fresh() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_back_to_this_gateway_alone() {
        assert_eq!(local_path("/console/targets?x=1"), "/console/targets?x=1");
        for bad in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a b", "/\u{e9}", "x"] {
            assert_eq!(local_path(bad), "/", "{bad}");
        }
        assert_eq!(local_path(&format!("/{}", "x".repeat(600))), "/");
    }

    #[test]
    fn what_a_browser_brings_twice_is_not_taken() {
        assert!(Returned::read("state=a&code=b&session_state=c").is_some());
        assert!(Returned::read("state=a&code=b&state=c").is_none());
        assert!(Returned::read("state=a&code=b&%63ode=c").is_none());
    }
}
