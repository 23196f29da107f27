//! `postern targets`: the machines that a person may see.

use std::process::ExitCode;

use super::output::{print_json, print_table};
use crate::client::{Gateway, Profile};

/// What `postern targets` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists the machines.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::open(Profile::load(args.profile.as_deref()).await?).await?;
    let mut instances = gateway.instances().await?;
    instances.sort_by(|a, b| (&a.name, a.target.as_str()).cmp(&(&b.name, b.target.as_str())));
    if args.json {
        print_json(&instances)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = instances
        .iter()
        .map(|instance| {
            [
                instance.target.as_str().to_owned(),
                instance.name.clone().unwrap_or_default(),
                instance.platform.clone().unwrap_or_default(),
                instance.agent_version.clone().unwrap_or_default(),
                if instance.online { "online".to_owned() } else { "offline".to_owned() },
            ]
        })
        .collect();
    print_table(["TARGET", "NAME", "PLATFORM", "AGENT", "STATE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
