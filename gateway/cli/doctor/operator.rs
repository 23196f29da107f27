//! What an operator wants to know before a gateway starts, or while it runs.

use std::path::Path;

use super::Check;
use crate::config::Config;
use crate::shipper::{self, Group, ShipperError};

/// What to do about any error of the log group that says nothing itself.
const LOOK: &str = "look at [shipper] in the configuration; deploy/postern.toml explains every key";

/// Looks at what a configuration leads to; changes nothing.
pub(super) async fn look(path: &Path, checks: &mut Vec<Check>) {
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(error) => {
            let advice = "correct it; deploy/postern.toml shows every key";
            return checks.push(Check::fail("config", error.to_string(), advice));
        }
    };
    checks.push(Check::ok("config", path.display().to_string()));
    checks.extend(log_group(&config).await);
}

async fn log_group(config: &Config) -> Vec<Check> {
    let (name, shipper) = ("log group", &config.shipper);
    if !shipper.is_on() {
        return vec![Check::ok(name, "nothing is shipped to CloudWatch Logs")];
    }
    let group = &shipper.log_group;
    match shipper::examine(shipper, &config.broker).await {
        Ok(Group::Found(wrong)) if wrong.is_empty() => {
            vec![Check::ok(name, format!("{group} is as configured"))]
        }
        Ok(Group::Found(wrong)) => {
            let told =
                wrong.into_iter().map(|it| Check::warn(name, format!("{group}: {}", it.found), it.advice));
            told.collect()
        }
        Ok(Group::ToBeCreated) => {
            vec![Check::ok(name, format!("{group} is not there; the gateway creates it when it starts"))]
        }
        Err(ShipperError::NoGroup(_)) => {
            let advice = format!(
                "aws logs create-log-group --log-group-name {group}, or set create = true in [shipper] \
                 (needs logs:CreateLogGroup)"
            );
            vec![Check::fail(name, format!("{group} is not there"), advice)]
        }
        Err(error) => {
            let advice = error.advice().unwrap_or_else(|| LOOK.to_owned());
            vec![Check::fail(name, error.to_string(), advice)]
        }
    }
}
