//! `postern login`: signs in with the company's identity provider.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output::print_line;
use crate::client::Profile;
use crate::client::device_login::DeviceLogin;
use crate::client::key_cache::KeyCache;
use crate::client::profile::gateway_url;
use crate::session::printable;

/// What `postern login` can be told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Open the address in any browser, on any device, and type the code. The keys are cached in\n\
    ~/.cache/postern, readable by you only. Profiles of `postern configure --login` use them.\n\n\
    Only ever type a code that you have asked for yourself: whoever asked for it is signed in as you."
)]
pub struct Args {
    /// The AWS profile that points at the gateway.
    #[arg(long, value_name = "NAME", conflicts_with = "gateway")]
    profile: Option<String>,
    /// The gateway's URL, instead of a profile's.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// A file with the CA certificates of the gateway.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
}

/// Shows the code, waits, and keeps the keys.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (gateway, ca_bundle) = match &args.gateway {
        Some(text) => (gateway_url(text)?, args.ca_bundle),
        None => {
            let profile = Profile::load(args.profile.as_deref()).await?;
            (profile.endpoint, args.ca_bundle.or(profile.ca_bundle))
        }
    };
    let login = DeviceLogin::begin(&gateway, ca_bundle.as_deref()).await?;
    print_line(&format!("Open  {}", login.page()))?;
    print_line(&format!("type  {}", login.code()))?;
    if let Some(page) = login.page_with_code() {
        print_line(&format!("or open  {page}"))?;
    }
    let keys = login.keys().await?;
    let name = gateway.origin().ascii_serialization();
    if let Some(cache) = cache(&name) {
        let _lock = cache.lock()?;
        cache.store(&keys)?;
    }
    print_line(&format!("Signed in to {name} until {}.", printable(&keys.expiration)))?;
    Ok(ExitCode::SUCCESS)
}

/// Where the keys of a sign-in at this gateway are kept.
pub(super) fn cache(gateway: &str) -> Option<KeyCache> {
    KeyCache::open(&[b"login", gateway.as_bytes()])
}
