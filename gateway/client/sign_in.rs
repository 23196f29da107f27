//! Signing in: an IAM identity is proved, the gateway's own keys come back.

use std::path::{Path, PathBuf};

use aws_config::profile::ProfileSet;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_types::os_shim_internal::Env;
use reqwest::{Response, Url};
use serde::{Deserialize, Serialize};
use sigv4::sts_proof::{caller_identity_request, endpoint};
use time::OffsetDateTime;

use crate::client::error::{shown, with_causes};
use crate::client::gateway::{read_json, refused_or, unreachable};
use crate::client::profile::{CREDENTIALS_COMMAND, gateway_url, read};
use crate::client::{ClientError, Trust, web_identity};

/// The region of the STS that confirms, when nothing names one.
const FALLBACK_REGION: &str = "us-east-1";
/// What of a profile leads to keys.
const WAYS: [&str; 8] = [
    "aws_access_key_id",
    "credential_process",
    "credential_source",
    "login_session",
    "source_profile",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];
/// Longest chain of `source_profile` that is followed.
const CHAIN_MAX: usize = 10;

/// Who signs in where.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The gateway.
    pub gateway: Url,
    /// The profile with the AWS identity, the default chain if `None`.
    pub source_profile: Option<String>,
    /// The region whose STS confirms the identity.
    pub region: Option<String>,
    /// Certificates to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Whether STS is to issue a token instead of answering for a request.
    pub web_identity: bool,
}

/// Keys of the gateway in the form that `credential_process` prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Keys {
    /// The format's version, always 1.
    pub version: u32,
    /// The public part.
    pub access_key_id: String,
    /// The secret part.
    pub secret_access_key: String,
    /// What the gateway recognises its keys by.
    pub session_token: String,
    /// When they end, RFC 3339.
    pub expiration: String,
    /// The account of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Keys");
        debug.field("access_key_id", &self.access_key_id).field("expiration", &self.expiration);
        debug.finish_non_exhaustive()
    }
}

/// Proves the identity to the gateway and returns the keys it issues.
pub async fn sign_in(who: &SignIn) -> Result<Keys, ClientError> {
    let trust = Trust::load(who.ca_bundle.as_deref())?;
    let (sdk, credentials, region) = source(who, &trust).await?;
    let http = trust.rest_http()?;
    let answer = if who.web_identity {
        let token = web_identity::ask(&sdk, region, &who.gateway).await?;
        post(&http, &join(&who.gateway, "/v1/login/web-identity")?, &token).await?
    } else {
        let challenge = ask_challenge(&http, &who.gateway).await?;
        let proof = prove(&credentials, &region, &challenge, OffsetDateTime::now_utc())?;
        post(&http, &join(&who.gateway, "/v1/login/sts")?, &proof).await?
    };
    read_json(refused_or(answer).await.map_err(refused)?).await
}

/// An answer of the gateway that refuses a sign-in.
pub(super) fn refused(error: ClientError) -> ClientError {
    match error {
        ClientError::Api { message, code } => ClientError::SignIn(format!("{message} ({code})")),
        other => other,
    }
}

pub(super) async fn post(
    http: &reqwest::Client,
    url: &Url,
    body: &impl Serialize,
) -> Result<Response, ClientError> {
    http.post(url.clone()).json(body).send().await.map_err(|e| unreachable(url, &e))
}

/// Asks the gateway for anything at all; returns its `Date`.
pub async fn touch(trust: &Trust, gateway: &Url) -> Result<Option<String>, ClientError> {
    let url = join(gateway, "/v1/login/challenge")?;
    let answer = trust.rest_http()?.get(url.clone()).send().await.map_err(|e| unreachable(&url, &e))?;
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned);
    refused_or(answer).await?;
    Ok(date)
}

#[derive(Deserialize)]
struct Challenge {
    challenge: String,
    server: String,
}

/// What travels: words and a signature, never a request (see `sts_proof`).
#[derive(Serialize)]
struct Proof<'a> {
    region: &'a str,
    access_key_id: &'a str,
    amz_date: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    signature: String,
    challenge: &'a str,
}

async fn ask_challenge(http: &reqwest::Client, gateway: &Url) -> Result<Challenge, ClientError> {
    let url = join(gateway, "/v1/login/challenge")?;
    let answer = http.get(url.clone()).send().await.map_err(|e| unreachable(&url, &e))?;
    let challenge: Challenge = read_json(refused_or(answer).await?).await?;
    // A proof names the gateway it is for. One that asks for a proof for
    // another gateway wants to use it there.
    let named = gateway_url(&challenge.server).map(|url| url.origin());
    if named.ok().as_ref() != Some(&gateway.origin()) {
        return Err(ClientError::SignIn(format!(
            "it calls itself {}, not {}; use its own URL with `postern configure --gateway`",
            shown(&challenge.server),
            gateway.origin().ascii_serialization()
        )));
    }
    Ok(challenge)
}

fn prove<'a>(
    credentials: &'a Credentials,
    region: &'a str,
    challenge: &'a Challenge,
    now: OffsetDateTime,
) -> Result<Proof<'a>, ClientError> {
    let amz_date = sigv4::amz_date(now);
    let session_token = credentials.session_token();
    let request =
        caller_identity_request(region, &challenge.server, &challenge.challenge, &amz_date, session_token)
            .map_err(|e| ClientError::SignIn(shown(&e.to_string())))?;
    Ok(Proof {
        region,
        access_key_id: credentials.access_key_id(),
        signature: request.signature(credentials.secret_access_key()),
        challenge: &challenge.challenge,
        amz_date,
        session_token,
    })
}

/// The AWS identity to prove, and the region of the STS that confirms it.
async fn source(who: &SignIn, trust: &Trust) -> Result<(SdkConfig, Credentials, String), ClientError> {
    let name = source_profile(who).await?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(trust.sdk_http()?);
    if let Some(name) = &name {
        loader = loader.profile_name(name);
    }
    if let Some(region) = &who.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let sdk = loader.load().await;
    let region = sdk.region().map_or(FALLBACK_REGION, |region| region.as_ref()).to_owned();
    if endpoint(&region).is_none() {
        return Err(ClientError::Credentials(format!(
            "{} is not a region with an STS; give one with --region",
            shown(&region)
        )));
    }
    let Some(provider) = sdk.credentials_provider() else { return Err(no_keys_of(name.as_deref()).await) };
    match provider.provide_credentials().await {
        Ok(credentials) => Ok((sdk, credentials, region)),
        Err(error) => {
            tracing::debug!(error = %with_causes(&error), "no AWS credentials");
            Err(no_keys_of(name.as_deref()).await)
        }
    }
}

/// Why nobody has keys, and what to do: a profile without any cannot be signed in with.
async fn no_keys_of(name: Option<&str>) -> ClientError {
    let advice = match name {
        Some(name) => {
            let profiles = read(&Env::real(), Some(name)).await.ok();
            let is_bare = profiles.is_some_and(|all| WAYS.iter().all(|way| all.get(way).is_none()));
            match is_bare {
                true => format!("profile {} has none and no way to get any: {}", shown(name), looked_at()),
                false => format!(
                    "sign in to AWS with profile {0} first (for example `aws sso login --profile {0}`)",
                    shown(name)
                ),
            }
        }
        None => format!("sign in to AWS first, or name a profile with --source-profile; {}", looked_at()),
    };
    ClientError::Credentials(advice)
}

/// Which files were read, and which of them are not there.
fn looked_at() -> String {
    let files = [config_file(), credentials_file()].into_iter().flatten().map(|path| {
        let there = if path.exists() { "" } else { " (which does not exist)" };
        format!("{}{there}", shown(&path.display().to_string()))
    });
    format!("looked in {}", files.collect::<Vec<_>>().join(" and "))
}

/// The profile to take the identity from; never one that asks us again.
///
/// The AWS CLI runs this program with the environment of the user: with
/// `AWS_PROFILE` set to the gateway's own profile it would call itself for ever.
async fn source_profile(who: &SignIn) -> Result<Option<String>, ClientError> {
    let env = Env::real();
    let profiles = read(&env, who.source_profile.as_deref()).await?;
    let selected = profiles.selected_profile().to_owned();
    if let Some(name) = &who.source_profile
        && profiles.get_profile(name).is_none()
    {
        let why = format!("there is no AWS profile {}: {}", shown(name), looked_at());
        return Err(ClientError::Credentials(why));
    }
    if !asks_us(&profiles, &selected) {
        return Ok(who.source_profile.clone());
    }
    let usable = who.source_profile.is_none() && selected != "default" && !asks_us(&profiles, "default");
    match usable {
        true => Ok(Some("default".to_owned())),
        false => Err(ClientError::Credentials(format!(
            "profile {} gets its keys from a gateway itself; name the profile of your AWS identity with --source-profile",
            shown(&selected)
        ))),
    }
}

fn asks_us(profiles: &ProfileSet, name: &str) -> bool {
    let mut name = name;
    for _ in 0..CHAIN_MAX {
        let Some(profile) = profiles.get_profile(name) else { return false };
        if profile.get("credential_process").is_some_and(|command| command.contains(CREDENTIALS_COMMAND)) {
            return true;
        }
        match profile.get("source_profile") {
            Some(next) if next != name => name = next,
            _ => return false,
        }
    }
    true
}

pub(super) fn join(gateway: &Url, path: &str) -> Result<Url, ClientError> {
    gateway.join(path).map_err(|_| ClientError::Profile(format!("the gateway URL {gateway} is not usable")))
}

/// Where the CLI and we read profiles from, in the AWS tools' order.
pub fn config_file() -> Option<PathBuf> {
    file_of("AWS_CONFIG_FILE", "config")
}

/// Where static keys are read from, in the AWS tools' order.
pub fn credentials_file() -> Option<PathBuf> {
    file_of("AWS_SHARED_CREDENTIALS_FILE", "credentials")
}

fn file_of(variable: &str, name: &str) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(path) => match (Path::new(&path).strip_prefix("~"), home()) {
            (Ok(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(PathBuf::from(path)),
        },
        None => Some(home()?.join(".aws").join(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
    use aws_types::os_shim_internal::Fs;
    use time::macros::datetime;

    async fn profiles(text: &str) -> ProfileSet {
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, text).build();
        aws_config::profile::load(&Fs::real(), &Env::from_slice(&[]), &files, None).await.unwrap()
    }

    #[tokio::test]
    async fn a_profile_that_asks_us_is_found_through_its_source() {
        let set = profiles(
            "[profile gw]\ncredential_process = /usr/bin/postern credentials --gateway https://x\n\
             [profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = gw\n\
             [profile a]\nsource_profile = b\n[profile b]\nsource_profile = a\n\
             [profile own]\naws_access_key_id = AKIA\n",
        )
        .await;
        assert!(asks_us(&set, "gw") && asks_us(&set, "role") && asks_us(&set, "a"));
        assert!(!asks_us(&set, "own") && !asks_us(&set, "nobody"));
    }

    #[test]
    fn the_proof_is_the_request_that_the_gateway_rebuilds() {
        let credentials =
            Credentials::new("ASIAEXAMPLE", "secret", Some("dG9rZW4=".to_owned()), None, "test");
        let challenge = Challenge { challenge: "A".repeat(43), server: "https://gw.example.com".to_owned() };
        let proof = prove(&credentials, "eu-west-1", &challenge, datetime!(2026-11-22 10:15 UTC)).unwrap();
        let rebuilt = caller_identity_request(
            "eu-west-1",
            "https://gw.example.com",
            &challenge.challenge,
            "20261122T101500Z",
            Some("dG9rZW4="),
        )
        .unwrap();
        assert_eq!(proof.signature, rebuilt.signature("secret"));
        let sent = serde_json::to_string(&proof).unwrap();
        assert!(!sent.contains("secret"), "{sent}");
    }

    #[test]
    fn keys_never_show_their_secret() {
        let keys = Keys {
            version: 1,
            access_key_id: "GWSA1".to_owned(),
            secret_access_key: "hidden".to_owned(),
            session_token: "hidden".to_owned(),
            expiration: String::new(),
            account_id: None,
        };
        assert!(!format!("{keys:?}").contains("hidden"));
    }
}
