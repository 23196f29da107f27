//! `postern console`: a link that signs a browser in, once.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;

use super::output::{print_json, print_line};
use crate::client::{Gateway, Profile};
use crate::session::printable;

/// What `postern console` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "The link works once, within two minutes, and signs in whoever opens it: \
                        do not pass it on. The browser stays signed in as long as your keys live.")]
pub struct Args {
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Link {
    url: String,
    until_ms: u64,
}

/// Prints the link.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    let link: Link = gateway.post_json("/v1/login/browser", &json!({})).await?;
    match args.json {
        true => print_json(&json!({"url": link.url, "until_ms": link.until_ms}))?,
        false => print_line(&printable(&link.url))?,
    }
    Ok(ExitCode::SUCCESS)
}
