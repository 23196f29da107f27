//! Signed tokens (JWS, compact), read strictly and verified with ring.
//!
//! Sign-ins need the few algorithms that providers and STS sign with, and
//! all cryptography of this program is ring's; no library for tokens is.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::IdentityError;

/// Longest token read, bytes: real ones have 1 to 4 KB.
pub(super) const TOKEN_MAX: usize = 16 * 1024;
/// Most keys of a set; providers publish two to ten.
const KEYS_MAX: usize = 64;
/// How far the issuer's clock may be from ours.
pub(super) const LEEWAY: Duration = Duration::seconds(60);

/// What a token may be signed with; `none` and shared secrets are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }
}

/// A public key of an issuer, and what it may verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Vec<u8>),
}

/// Reads a key set (RFC 7517); keys of other kinds are passed over.
pub(super) fn keys_of(set: &[u8]) -> Result<Vec<Key>, IdentityError> {
    let wrong = || IdentityError::ProviderAnswer("its key set is not one");
    let Value::Object(set) = strict(set).ok_or_else(wrong)? else { return Err(wrong()) };
    let Some(Value::Array(keys)) = set.get("keys") else { return Err(wrong()) };
    if keys.len() > KEYS_MAX {
        return Err(IdentityError::ProviderAnswer("its key set has more than 64 keys"));
    }
    Ok(keys.iter().filter_map(key_of).collect())
}

fn key_of(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let (algorithm, material) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let stripped = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            (Algorithm::Rs256, Material::Rsa { n: stripped(bytes("n")?), e: stripped(bytes("e")?) })
        }
        ("EC", Some("P-256")) => (Algorithm::Es256, point(bytes("x")?, bytes("y")?, 32)?),
        ("EC", Some("P-384")) => (Algorithm::Es384, point(bytes("x")?, bytes("y")?, 48)?),
        _ => return None,
    };
    if text("alg").is_some_and(|named| named != algorithm.as_str()) {
        return None;
    }
    Some(Key { id: text("kid").map(str::to_owned), algorithm, material })
}

/// An uncompressed point of a curve.
fn point(x: Vec<u8>, y: Vec<u8>, size: usize) -> Option<Material> {
    (x.len() == size && y.len() == size).then(|| Material::Point([vec![4], x, y].concat()))
}

impl Key {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match (&self.material, self.algorithm) {
            (Material::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature)
                .is_ok(),
            (Material::Point(point), Algorithm::Es256) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(signed, signature).is_ok()
            }
            (Material::Point(point), Algorithm::Es384) => {
                let key = UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point);
                key.verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A token taken apart; nothing in it is to be believed yet.
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    signed: &'a [u8],
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Takes a token apart, if it is signed in one of these ways.
    pub(super) fn parse(text: &'a str, allowed: &[Algorithm]) -> Result<Self, IdentityError> {
        let wrong = |why| Err(IdentityError::Token(why));
        if text.len() > TOKEN_MAX {
            return wrong("it is longer than 16 KB");
        }
        let Some((signed, signature)) = text.rsplit_once('.') else { return wrong("it is no signed token") };
        let parts = signed.split_once('.').filter(|(_, claims)| !claims.contains('.'));
        let Some((header, claims)) = parts else { return wrong("it is no signed token") };
        let (header, claims) = (object(header), object(claims));
        let (Some(header), Some(claims)) = (header, claims) else {
            return wrong("its parts are not JSON with every name once");
        };
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        let algorithm = text("alg").and_then(Algorithm::parse).filter(|named| allowed.contains(named));
        let Some(algorithm) = algorithm else { return wrong("it is not signed in a way that is accepted") };
        // What must be understood, and is not understood here.
        if header.contains_key("crit") || header.contains_key("b64") {
            return wrong("its header asks for an extension");
        }
        if text("typ").is_some_and(|kind| !kind.eq_ignore_ascii_case("jwt")) {
            return wrong("it is another kind of token");
        }
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return wrong("it has no signature") };
        let key_id = text("kid").map(str::to_owned);
        Ok(Self { algorithm, key_id, signed: signed.as_bytes(), signature, claims })
    }

    /// The issuer that it says it has, to find the keys by.
    pub(super) fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Whether one of the keys may have signed it.
    pub(super) fn names_one_of(&self, keys: &[Key]) -> bool {
        self.candidates(keys).next().is_some()
    }

    /// The claims, once a key has verified the signature over them.
    pub(super) fn verified(self, keys: &[Key]) -> Result<Claims, IdentityError> {
        let verified = self.candidates(keys).any(|key| key.verifies(self.signed, &self.signature));
        if !verified {
            return Err(IdentityError::Token("its signature is not by a key of its issuer"));
        }
        Ok(Claims(self.claims))
    }

    /// The keys of its algorithm and id; without an id there must be one.
    fn candidates<'k>(&'k self, keys: &'k [Key]) -> impl Iterator<Item = &'k Key> {
        let fits = |key: &&Key| {
            key.algorithm == self.algorithm
                && match &self.key_id {
                    Some(id) => key.id.as_ref() == Some(id),
                    None => keys.len() == 1,
                }
        };
        keys.iter().filter(fits)
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    match strict(&URL_SAFE_NO_PAD.decode(part).ok()?)? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// What a verified token says.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

/// What every token must say, whoever issued it.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    /// Longest time from its issue to its end.
    pub(super) life: Duration,
    /// Longest time since its issue.
    pub(super) age: Duration,
}

impl Claims {
    /// Checks issuer, audience and times.
    pub(super) fn check(&self, expected: &Expected<'_>, now: OffsetDateTime) -> Result<(), IdentityError> {
        if self.text("iss") != Some(expected.issuer) {
            return Err(IdentityError::Token("it is by another issuer"));
        }
        // A token for several may be played by one of them against another.
        if self.audiences() != Some(vec![expected.audience]) {
            return Err(IdentityError::Token("it is not for this gateway alone"));
        }
        let (Some(issued), Some(end)) = (self.moment("iat"), self.moment("exp")) else {
            return Err(IdentityError::Token("it does not say when it was issued and when it ends"));
        };
        if end - issued > expected.life {
            return Err(IdentityError::Token("it is valid for longer than is accepted"));
        }
        let begins = self.moment("nbf").unwrap_or(issued).max(issued);
        if begins - now > LEEWAY {
            return Err(clock("is valid from", begins, now));
        }
        if now - end >= LEEWAY {
            return Err(clock("ended at", end, now));
        }
        if now - issued > expected.age + LEEWAY {
            return Err(clock("was issued at", issued, now));
        }
        Ok(())
    }

    /// A claim that is a text, and not an empty one.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A claim that is true or false.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    /// A claim that is a moment.
    pub(super) fn moment(&self, name: &str) -> Option<OffsetDateTime> {
        // Some issuers write fractions of a second.
        let seconds = self.0.get(name).and_then(|at| at.as_i64().or_else(|| whole(at.as_f64()?)))?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    }

    /// A claim that is a list of texts, or one text; none if it is neither.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Value::String(one) => Some(vec![one]),
            Value::Array(many) => many.iter().map(Value::as_str).collect(),
            _ => None,
        }
    }

    /// A claim that is an object.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        self.0.get(name).and_then(Value::as_object).cloned().map(Self)
    }

    /// Every claim that is a text, by name; none if there is another.
    pub(super) fn all_texts(&self) -> Option<Vec<(&str, &str)>> {
        self.0.iter().map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
    }

    /// Whether the claim is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn audiences(&self) -> Option<Vec<&str>> {
        self.texts("aud")
    }
}

fn whole(seconds: f64) -> Option<i64> {
    // Between the years 1970 and 3000; the cast is exact there.
    (0.0..32_503_680_000.0).contains(&seconds).then_some(seconds as i64)
}

fn clock(what: &'static str, theirs: OffsetDateTime, ours: OffsetDateTime) -> IdentityError {
    let shown =
        |at: OffsetDateTime| at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    IdentityError::TokenClock { what, theirs: shown(theirs), ours: shown(ours) }
}

/// JSON in which no name is there twice: readers differ in which one counts.
pub(super) fn strict(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Strict>(bytes).ok().map(|Strict(value)| value)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON in which no name is there twice")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            found.push(item);
        }
        Ok(Value::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut found = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if found.insert(name, value).is_some() {
                return Err(A::Error::custom("a name is there twice"));
            }
        }
        Ok(Value::Object(found))
    }
}
