//! `postern credentials`: keys for the AWS CLI, from the cache if it can be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use anyhow::Context;
use time::OffsetDateTime;

use super::output::print_line;
use crate::client::key_cache::KeyCache;
use crate::client::profile::gateway_url;
use crate::client::sign_in::{Keys, SignIn, config_file, credentials_file, sign_in};

/// Environment that selects another AWS identity when none is named.
const IDENTITY_VARIABLES: [&str; 9] = [
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];
/// Those of them that name a file in which another person may stand.
const IDENTITY_FILES: [&str; 2] = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
/// Most files of SSO sign-ins that are looked at; people have a handful.
const SSO_FILES_MAX: usize = 256;

/// What `postern credentials` can be told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The AWS CLI runs this by itself, from the `credential_process` that `postern configure` writes.\n\
    It never asks anything; keys are cached in ~/.cache/postern, readable by you only."
)]
pub struct Args {
    /// The gateway's URL.
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// The profile with your AWS identity (default: the usual AWS chain).
    #[arg(long, value_name = "NAME")]
    source_profile: Option<String>,
    /// The region whose STS confirms your identity.
    #[arg(long)]
    region: Option<String>,
    /// A file with the CA certificates of the gateway.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Prove your identity with a token of STS (GetWebIdentityToken).
    ///
    /// Your account must have outbound identity federation, and you
    /// sts:GetWebIdentityToken for the gateway's URL.
    #[arg(long)]
    web_identity: bool,
    /// Print the keys of `postern login`, which needs no AWS identity.
    #[arg(long, conflicts_with_all = ["source_profile", "region", "fresh", "web_identity"])]
    login: bool,
    /// Sign in anew, whatever is cached.
    #[arg(long)]
    fresh: bool,
}

/// Prints the keys as `credential_process` wants them.
///
/// A warm answer comes from one small file: no TLS, no runtime, no
/// configuration is set up before it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.login {
        return print(&keys_of_login(&args.gateway)?);
    }
    let cache = cache(args);
    let cached = cache.as_ref().filter(|_| !args.fresh);
    if let Some(keys) = cached.and_then(|cache| cache.fresh(OffsetDateTime::now_utc())) {
        return print(&keys);
    }
    let lock = cache.as_ref().map(KeyCache::lock).transpose()?;
    // Whoever held the lock may have signed in meanwhile.
    if let Some(keys) = cached.and_then(|cache| cache.fresh(OffsetDateTime::now_utc())) {
        return print(&keys);
    }
    match mint(args) {
        Ok(keys) => {
            if let Some(cache) = &cache {
                cache.store(&keys)?;
            }
            drop(lock);
            print(&keys)
        }
        // A gateway that restarts is no reason to fail while keys still work.
        Err(error) => match cached.and_then(|cache| cache.usable(OffsetDateTime::now_utc())) {
            Some(keys) => print(&keys),
            None => Err(error),
        },
    }
}

fn mint(args: &Args) -> anyhow::Result<Keys> {
    let who = SignIn {
        gateway: gateway_url(&args.gateway)?,
        source_profile: args.source_profile.clone(),
        region: args.region.clone(),
        ca_bundle: args.ca_bundle.clone(),
        web_identity: args.web_identity,
    };
    super::block_on(async move { Ok(sign_in(&who).await?) })
}

/// The keys of an earlier sign-in; nobody is asked anything here.
fn keys_of_login(gateway: &str) -> anyhow::Result<Keys> {
    let name = gateway_url(gateway)?.origin().ascii_serialization();
    let kept = super::login::cache(&name).and_then(|cache| cache.usable(OffsetDateTime::now_utc()));
    kept.with_context(|| format!("you are not signed in: run `postern login --gateway {name}`"))
}

fn print(keys: &Keys) -> anyhow::Result<ExitCode> {
    print_line(&serde_json::to_string(keys)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The cache of exactly this identity at exactly this gateway.
///
/// Whatever can change who a person is, is part of its name: edited
/// configuration files and a new CA of the gateway only cost a sign-in.
fn cache(args: &Args) -> Option<KeyCache> {
    let mut words: Vec<Vec<u8>> = vec![args.gateway.trim_end_matches('/').into()];
    words.push(args.source_profile.clone().unwrap_or_default().into());
    words.push(args.region.clone().unwrap_or_default().into());
    words.push(args.ca_bundle.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default());
    words.push(vec![u8::from(args.web_identity)]);
    words.push(stamp(config_file().as_deref()));
    words.push(stamp(credentials_file().as_deref()));
    if args.source_profile.is_none() {
        let variables = IDENTITY_VARIABLES.iter().map(|name| std::env::var(name).unwrap_or_default());
        words.extend(variables.map(String::into_bytes));
        let files = IDENTITY_FILES.iter().map(|name| std::env::var_os(name).map(PathBuf::from));
        words.extend(files.map(|file| stamp(file.as_deref())));
    }
    // The AWS CLI keeps who has signed in beside its credentials.
    let sso = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws/sso/cache"));
    words.extend(sso.map(|dir| stamps(&dir)));
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    KeyCache::open(&words)
}

/// Those of a folder's files, in order.
fn stamps(dir: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().take(SSO_FILES_MAX);
    let mut all: Vec<Vec<u8>> = entries.map(|entry| stamp(Some(&entry.path()))).collect();
    all.sort_unstable();
    all.join(&b'\n')
}

/// A file's path, length and time of change.
fn stamp(path: Option<&Path>) -> Vec<u8> {
    let Some(path) = path else { return Vec::new() };
    let meta = std::fs::metadata(path).ok();
    let changed = meta.as_ref().and_then(|meta| meta.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    format!(
        "{} {} {}",
        path.display(),
        meta.map_or(0, |meta| meta.len()),
        changed.unwrap_or_default().as_nanos()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_sign_in_at_sso_is_another_name_of_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let none = stamps(dir.path());
        std::fs::write(dir.path().join("a.json"), "alice").unwrap();
        let alice = stamps(dir.path());
        assert_eq!(alice, stamps(dir.path()));
        std::fs::write(dir.path().join("a.json"), "somebody else").unwrap();
        let other = stamps(dir.path());
        assert!(none != alice && alice != other);
        std::fs::write(dir.path().join("b.json"), "one more").unwrap();
        assert_ne!(other, stamps(dir.path()));
    }
}
