//! `postern targets`: the machines that a person may see.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::output::{moment, print_json, print_table};
use crate::client::{Gateway, Profile};
use crate::session::{Details, Instance, Machine};

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
    let seen = gateway.machines().await?;
    if seen.cut {
        eprintln!("postern: there are more machines than these {}", seen.found.len());
    }
    let mut machines = seen.found;
    machines.sort_by_cached_key(Machine::place);
    if args.json {
        print_json(&machines.iter().map(known).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 6]> = machines.iter().map(row).collect();
    print_table(["TARGET", "NAME", "PLATFORM", "AGENT", "STATE", "LAST PING"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(Machine { instance, details }: &Machine) -> [String; 6] {
    let last_ping = details.last_ping_ms.and_then(|ms| i64::try_from(ms).ok());
    [
        instance.target.as_str().to_owned(),
        instance.name.clone().unwrap_or_default(),
        platform(instance, details),
        instance.agent_version.clone().unwrap_or_default(),
        if instance.online { "online".to_owned() } else { "offline".to_owned() },
        last_ping.map(moment).unwrap_or_default(),
    ]
}

/// `Ubuntu 24.04`; only its kind if no more is known.
fn platform(instance: &Instance, details: &Details) -> String {
    match (&details.platform_name, &details.platform_version) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (Some(name), None) => name.to_string(),
        (None, _) => instance.platform.clone().unwrap_or_default(),
    }
}

/// What the gateway's answer has; it tells neither account nor tags.
fn known(Machine { instance, details }: &Machine) -> Value {
    json!({
        "target": instance.target,
        "name": instance.name,
        "platform": instance.platform,
        "platform_name": details.platform_name,
        "platform_version": details.platform_version,
        "agent_version": instance.agent_version,
        "online": instance.online,
        "last_ping_ms": details.last_ping_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(details: Details) -> Machine {
        let instance = serde_json::from_value(json!({
            "target": "i-0a", "account": "", "region": "us-east-1", "name": "web", "platform": "Linux",
            "agent_version": null, "online": true, "tags": {},
        }));
        Machine { instance: instance.unwrap(), details }
    }

    #[test]
    fn only_what_the_answer_has_is_printed() {
        let printed = known(&machine(Details { last_ping_ms: Some(1), ..Details::default() }));
        assert_eq!((&printed["target"], &printed["online"]), (&json!("i-0a"), &json!(true)));
        assert_eq!((&printed["last_ping_ms"], &printed["platform_name"]), (&json!(1), &Value::Null));
        assert!(["account", "region", "tags"].iter().all(|key| printed.get(key).is_none()), "{printed}");
    }

    #[test]
    fn a_row_says_which_system_it_is_and_when_it_was_heard_of() {
        let (name, version) = (Some("Ubuntu".into()), Some("24.04".into()));
        let last_ping_ms = Some(1_795_342_500_999);
        for (details, platform, last_ping) in [
            (Details::default(), "Linux", ""),
            (Details { platform_version: version.clone(), ..Details::default() }, "Linux", ""),
            (Details { platform_name: name.clone(), ..Details::default() }, "Ubuntu", ""),
            (
                Details {
                    platform_name: name,
                    platform_version: version,
                    last_ping_ms,
                    ..Details::default()
                },
                "Ubuntu 24.04",
                "2026-11-22 10:15:00Z",
            ),
        ] {
            let row = row(&machine(details));
            assert_eq!((row[2].as_str(), row[5].as_str()), (platform, last_ping));
        }
    }
}
