//! Which gateway an AWS profile points at, and how it is reached.

use std::borrow::Cow;
use std::path::PathBuf;

use aws_config::profile::ProfileSet;
use aws_runtime::env_config::EnvConfigValue;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};
use reqwest::Url;

use crate::client::ClientError;
use crate::client::error::{shown, with_causes};

/// Where the AWS CLI looks for a region before the profile.
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// What beats the endpoint of a profile, first come first served.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL"];
/// How a profile of ours fetches its keys; `configure` writes it.
pub const CREDENTIALS_COMMAND: &str = " credentials --gateway ";

/// An AWS profile as far as the gateway needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The profile's name.
    pub name: String,
    /// The region that signatures are scoped to.
    pub region: String,
    /// The gateway's URL.
    pub endpoint: Url,
    /// Which setting gave the URL.
    pub endpoint_from: String,
    /// Certificates to trust besides the system's.
    pub ca_bundle: Option<PathBuf>,
    /// The command that fetches keys, if any.
    pub credential_process: Option<String>,
}

impl Profile {
    /// Reads a profile the way the AWS CLI does.
    ///
    /// Without a name it is `AWS_PROFILE`, else `default`, else the only
    /// profile that `postern configure` has written.
    pub async fn load(name: Option<&str>) -> Result<Self, ClientError> {
        let env = Env::real();
        let profiles = read(&env, name).await?;
        let named = name.is_some() || env.get("AWS_PROFILE").is_ok();
        match Self::resolve(&env, &profiles, (None, None)) {
            Err(error) if !named => match only_profile_of_ours(&profiles) {
                Some(ours) => Self::resolve(&env, &read(&env, Some(&ours)).await?, (None, None)),
                None => Err(error),
            },
            other => other,
        }
    }

    /// Reads a profile whose region and endpoint the AWS CLI has resolved.
    pub async fn load_for(
        name: Option<&str>,
        region: Option<&str>,
        endpoint: Option<&str>,
    ) -> Result<Self, ClientError> {
        let env = Env::real();
        Self::resolve(&env, &read(&env, name).await?, (region, endpoint))
    }

    /// What environment and files together say about the selected profile.
    ///
    /// What is given as region and endpoint wins over both.
    pub fn resolve(
        env: &Env,
        profiles: &ProfileSet,
        (region, given): (Option<&str>, Option<&str>),
    ) -> Result<Self, ClientError> {
        let name = profiles.selected_profile().to_owned();
        if name != "default" && profiles.get_profile(&name).is_none() {
            return Err(ClientError::Profile(format!(
                "there is no AWS profile {}; write it with `postern configure --gateway URL --profile {0}`",
                shown(&name)
            )));
        }
        let (endpoint, endpoint_from) = match given.filter(|text| !text.is_empty()) {
            Some(text) => (gateway_url(text)?, "the AWS CLI".to_owned()),
            None => endpoint(env, profiles, &name)?,
        };
        let given = region.filter(|text| !text.is_empty()).map(str::to_owned);
        let variables = || REGION_VARIABLES.iter().find_map(|variable| env.get(variable).ok());
        let region = given
            .or_else(variables)
            .or_else(|| profiles.get("region").map(str::to_owned))
            .ok_or_else(|| {
                ClientError::Profile(format!(
                    "profile {} has no region; add `region = …` to it",
                    shown(&name)
                ))
            })?;
        let set = |path: &String| !path.is_empty();
        let of_profile = || profiles.get("ca_bundle").map(str::to_owned).filter(set);
        let bundle = env.get("AWS_CA_BUNDLE").ok().filter(set).or_else(of_profile);
        Ok(Self {
            ca_bundle: bundle.map(|path| expanded(env, &path)),
            credential_process: profiles.get("credential_process").map(str::to_owned),
            name,
            region,
            endpoint,
            endpoint_from,
        })
    }
}

/// Reads the AWS configuration files with one profile selected.
pub async fn read(env: &Env, name: Option<&str>) -> Result<ProfileSet, ClientError> {
    let selected = name.map(|name| Cow::Owned(name.to_owned()));
    aws_config::profile::load(&Fs::real(), env, &EnvConfigFiles::default(), selected).await.map_err(|e| {
        ClientError::Profile(format!("the AWS configuration cannot be read: {}", with_causes(&e)))
    })
}

/// A gateway's URL: https, or http to this machine only.
pub fn gateway_url(text: &str) -> Result<Url, ClientError> {
    let wrong = |why: &str| ClientError::Profile(format!("the gateway URL {} {why}", shown(text)));
    let url =
        Url::parse(text).map_err(|_| wrong("is not a URL; it looks like https://gateway.example.com"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(wrong("must begin with https:// unless it is on this machine")),
        _ => return Err(wrong("must begin with https://")),
    }
    if url.host_str().is_none() || url.query().is_some() || !url.username().is_empty() {
        return Err(wrong("must be scheme, host and port only"));
    }
    Ok(url)
}

/// Whether a URL stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

fn endpoint(env: &Env, profiles: &ProfileSet, name: &str) -> Result<(Url, String), ClientError> {
    let ignored =
        env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_ok_and(|v| v.eq_ignore_ascii_case("true"));
    if ignored {
        return Err(ClientError::Profile(
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true, so every call goes past the gateway; unset it"
                .to_owned(),
        ));
    }
    let value = EnvConfigValue::new().env("AWS_ENDPOINT_URL").profile("endpoint_url").service_id("ssm");
    let (url, _) = value.load(env, Some(profiles)).ok_or_else(|| {
        ClientError::Profile(format!(
            "profile {} does not point at a gateway; name another with --profile, or write one with \
             `postern configure --gateway URL --profile NAME`",
            shown(name)
        ))
    })?;
    let variable = ENDPOINT_VARIABLES.iter().find(|variable| env.get(variable).is_ok());
    Ok((gateway_url(&url)?, (*variable.unwrap_or(&"the AWS configuration file")).to_owned()))
}

fn only_profile_of_ours(profiles: &ProfileSet) -> Option<String> {
    let is_ours = |name: &&str| {
        let process = profiles.get_profile(name).and_then(|profile| profile.get("credential_process"));
        process.is_some_and(|command| command.contains(CREDENTIALS_COMMAND))
    };
    let mut ours = profiles.profiles().filter(is_ours);
    match (ours.next(), ours.next()) {
        (Some(name), None) => Some(name.to_owned()),
        _ => None,
    }
}

fn expanded(env: &Env, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), env.get("HOME")) {
        (Some(rest), Ok(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_runtime::env_config::file::EnvConfigFileKind;

    const FILE: &str = "[profile gw]\nregion = eu-west-1\nservices = gw\nca_bundle = /tmp/ca.pem\n\
        credential_process = postern credentials --gateway https://gw.example.com\n\
        [services gw]\nssm =\n  endpoint_url = https://gw.example.com\n[profile bare]\nregion = us-east-1\n";

    async fn resolve(variables: &[(&str, &str)], name: &'static str) -> Result<Profile, ClientError> {
        let env = Env::from_slice(variables);
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, FILE).build();
        let set = aws_config::profile::load(&Fs::real(), &env, &files, Some(name.into())).await.unwrap();
        Profile::resolve(&env, &set, (None, None))
    }

    #[tokio::test]
    async fn the_services_section_names_the_gateway() {
        let profile = resolve(&[], "gw").await.unwrap();
        assert_eq!(profile.endpoint.as_str(), "https://gw.example.com/");
        assert_eq!(profile.region, "eu-west-1");
        assert_eq!(profile.ca_bundle, Some(PathBuf::from("/tmp/ca.pem")));
    }

    #[tokio::test]
    async fn the_environment_wins_over_the_file() {
        let variables = [
            ("AWS_ENDPOINT_URL", "https://b.example.com"),
            ("AWS_ENDPOINT_URL_SSM", "https://a.example.com"),
            ("AWS_DEFAULT_REGION", "eu-north-1"),
            ("AWS_CA_BUNDLE", "/tmp/other.pem"),
        ];
        let profile = resolve(&variables, "gw").await.unwrap();
        assert_eq!(profile.endpoint.host_str(), Some("a.example.com"));
        assert_eq!(profile.region, "eu-north-1");
        assert_eq!(profile.ca_bundle, Some(PathBuf::from("/tmp/other.pem")));
    }

    #[tokio::test]
    async fn an_empty_variable_is_as_good_as_none() {
        let profile = resolve(&[("AWS_CA_BUNDLE", "")], "gw").await.unwrap();
        assert_eq!(profile.ca_bundle, Some(PathBuf::from("/tmp/ca.pem")));
        assert_eq!(profile.endpoint_from, "the AWS configuration file");
    }

    #[tokio::test]
    async fn a_profile_without_a_gateway_says_what_to_do() {
        for (name, word) in [("bare", "does not point at a gateway"), ("nobody", "no AWS profile nobody")] {
            let error = resolve(&[], name).await.unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("postern configure"), "{error}");
        }
    }

    #[tokio::test]
    async fn ignoring_endpoints_is_an_error_and_not_a_call_to_aws() {
        let error = resolve(&[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")], "gw").await.unwrap_err();
        assert!(error.to_string().contains("unset it"), "{error}");
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in ["https://gw.example.com", "http://127.0.0.1:8080", "http://[::1]:80", "http://localhost"]
        {
            assert!(gateway_url(good).is_ok(), "{good} was refused");
        }
        for bad in
            ["http://gw.example.com", "ftp://x", "gw.example.com", "https://u@x", "http://127.0.0.1.evil.com"]
        {
            assert!(gateway_url(bad).is_err(), "{bad} was accepted");
        }
    }
}
