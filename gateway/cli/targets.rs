//! `postern targets`: the machines that a person may see.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{print_json, print_table};
use crate::client::{Gateway, Profile};
use crate::session::Instance;

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
    let seen = gateway.instances().await?;
    if seen.cut {
        eprintln!("postern: there are more machines than these {}", seen.instances.len());
    }
    let mut instances = seen.instances;
    instances.sort_by(|a, b| (&a.name, a.target.as_str()).cmp(&(&b.name, b.target.as_str())));
    if args.json {
        print_json(&instances.iter().map(known).collect::<Vec<_>>())?;
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

/// What the gateway's answer has; it tells neither account nor tags.
fn known(instance: &Instance) -> Value {
    json!({
        "target": instance.target,
        "name": instance.name,
        "platform": instance.platform,
        "agent_version": instance.agent_version,
        "online": instance.online,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_answer_has_is_printed() {
        let instance: Instance = serde_json::from_value(json!({
            "target": "i-0a", "account": "", "region": "us-east-1", "name": "web", "platform": null,
            "agent_version": null, "online": true, "tags": {},
        }))
        .unwrap();
        let printed = known(&instance);
        assert_eq!((&printed["target"], &printed["online"]), (&json!("i-0a"), &json!(true)));
        assert!(["account", "region", "tags"].iter().all(|key| printed.get(key).is_none()), "{printed}");
    }
}
