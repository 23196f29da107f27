//! An identity provider for tests: real signatures, and every kind of lie.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How the gateway is registered.
pub const CLIENT: (&str, &str) = ("postern", "a secret / with: signs");
/// A key for tests alone; ring makes none of this kind.
const RSA: &[u8] = include_bytes!("../fixtures/provider-rsa.pk8");

/// A key that signs tokens.
#[derive(Clone)]
pub struct Signer {
    pub id: String,
    pub algorithm: &'static str,
    key: Arc<Pair>,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    pub fn rsa(id: &str) -> Self {
        let key = Pair::Rsa(RsaKeyPair::from_pkcs8(RSA).unwrap());
        Self { id: id.to_owned(), algorithm: "RS256", key: Arc::new(key) }
    }

    pub fn es256(id: &str) -> Self {
        Self::ec(id, "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384(id: &str) -> Self {
        Self::ec(id, "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn ec(id: &str, algorithm: &'static str, kind: &'static EcdsaSigningAlgorithm) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let key = Pair::Ec(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap());
        Self { id: id.to_owned(), algorithm, key: Arc::new(key) }
    }

    /// As it stands in a key set.
    fn public(&self) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &*self.key {
            Pair::Rsa(key) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": encoded(&public.n), "e": encoded(&public.e)})
            }
            Pair::Ec(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if self.algorithm == "ES256" { "P-256" } else { "P-384" };
                json!({
                    "kty": "EC", "crv": curve, "alg": self.algorithm, "kid": self.id,
                    "x": encoded(x), "y": encoded(y),
                })
            }
        }
    }

    /// A token with the usual header.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": self.id, "typ": "JWT"});
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A token of exactly these texts.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match &*self.key {
            Pair::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::Ec(key) => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Header and claims, joined.
pub fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// What the provider does and knows.
pub struct Script {
    /// Who signs; published are these and no others.
    pub signers: Vec<Signer>,
    /// What it says its name is; its URL if none.
    pub issuer: Option<String>,
    /// ID tokens that are given out instead of honest ones.
    pub tokens: Vec<String>,
    /// Answers of the token endpoint before an honest one.
    pub answers: Vec<(u16, Value)>,
    /// Whether clients have to prove who they are.
    pub secret: bool,
    /// Forms that came to the token endpoint.
    pub asked: Vec<HashMap<String, String>>,
    /// How often the keys were read.
    pub keys_read: usize,
    /// Codes given to browsers: challenge, redirect URL and claims.
    codes: HashMap<String, (String, String, Value)>,
    /// Whom the device code is typed by.
    typed: Option<Value>,
}

/// A running provider.
pub struct Provider {
    pub url: String,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = State<(String, Arc<Mutex<Script>>)>;

impl Provider {
    pub async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script {
            signers: vec![Signer::rsa("first")],
            issuer: None,
            tokens: Vec::new(),
            answers: Vec::new(),
            secret: false,
            asked: Vec::new(),
            keys_read: 0,
            codes: HashMap::new(),
            typed: None,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(describe))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/device", post(device))
            .with_state((url.clone(), Arc::clone(&script)));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, script, task }
    }

    /// Changes what it does.
    pub fn set<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    /// What it says of alice now, to this client.
    pub fn claims(&self) -> Value {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        json!({
            "iss": self.url, "aud": CLIENT.0, "sub": "00u1alice", "iat": now, "exp": now + 300,
            "auth_time": now - 60, "amr": ["pwd", "mfa"], "preferred_username": "alice",
            "email": "alice@example.com", "email_verified": true, "groups": ["platform", "everyone"],
        })
    }

    /// The signer of the moment.
    pub fn signer(&self) -> Signer {
        self.set(|script| script.signers[0].clone())
    }

    /// What alice's browser brings back that was sent to this location.
    pub fn authorize(&self, location: &str) -> String {
        let (page, query) = location.split_once('?').unwrap();
        assert_eq!(page, format!("{}/authorize", self.url));
        let asked: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], CLIENT.0);
        assert_eq!(asked["code_challenge_method"], "S256");
        let mut claims = self.claims();
        claims["nonce"] = json!(asked["nonce"]);
        let code = format!("code-{}", data_channel::Uuid::new_v4());
        let kept = (asked["code_challenge"].clone(), asked["redirect_uri"].clone(), claims);
        self.set(|script| script.codes.insert(code.clone(), kept));
        format!("code={code}&state={}&session_state=x", asked["state"])
    }

    /// Alice types the code into her browser.
    pub fn type_code(&self) {
        let claims = self.claims();
        self.set(|script| script.typed = Some(claims));
    }
}

async fn describe(State((url, script)): Shared) -> String {
    let issuer = script.lock().unwrap().issuer.clone().unwrap_or_else(|| url.clone());
    json!({
        "issuer": issuer, "jwks_uri": format!("{url}/keys"),
        "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "device_authorization_endpoint": format!("{url}/device"),
    })
    .to_string()
}

async fn keys(State((_, script)): Shared) -> String {
    let mut script = script.lock().unwrap();
    script.keys_read += 1;
    let keys: Vec<Value> = script.signers.iter().map(Signer::public).collect();
    json!({ "keys": keys }).to_string()
}

async fn device(State((url, _)): Shared) -> String {
    json!({
        "device_code": format!("device-code-{}", data_channel::Uuid::new_v4()), "user_code": "WDJB-MJHT", "verification_uri": format!("{url}/type"),
        "verification_uri_complete": format!("{url}/type?code=WDJB-MJHT"), "expires_in": 600, "interval": 1,
    })
    .to_string()
}

async fn token(
    State((_, script)): Shared,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let mut script = script.lock().unwrap();
    script.asked.push(form.clone());
    if !script.answers.is_empty() {
        let (status, answer) = script.answers.remove(0);
        return (StatusCode::from_u16(status).unwrap(), answer.to_string());
    }
    let error = |word: &str| (StatusCode::BAD_REQUEST, json!({ "error": word }).to_string());
    let known = if script.secret {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let basic = STANDARD.encode(format!("{}:{}", encoded(CLIENT.0), encoded(CLIENT.1)));
        headers.get("authorization").is_some_and(|value| *value == format!("Basic {basic}"))
    } else {
        form.get("client_id").map(String::as_str) == Some(CLIENT.0)
    };
    if !known {
        return error("invalid_client");
    }
    let claims = if form["grant_type"] == "authorization_code" {
        let verifier = ring::digest::digest(&ring::digest::SHA256, form["code_verifier"].as_bytes());
        match script.codes.remove(&form["code"]) {
            Some((challenge, redirect, claims))
                if challenge == URL_SAFE_NO_PAD.encode(verifier) && redirect == form["redirect_uri"] =>
            {
                claims
            }
            _ => return error("invalid_grant"),
        }
    } else if !form["device_code"].starts_with("device-code-") {
        return error("invalid_grant");
    } else if let Some(claims) = script.typed.take() {
        claims
    } else {
        return error("authorization_pending");
    };
    let honest = script.signers[0].sign(&claims);
    let id_token = if script.tokens.is_empty() { honest } else { script.tokens.remove(0) };
    (StatusCode::OK, json!({"access_token": "x", "token_type": "Bearer", "id_token": id_token}).to_string())
}
