//! What a permit obliges the gateway to: annotations, parsed once at load.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::session::Durability;

/// Longest text of a banner or message, in characters: it is one line.
const TEXT_MAX: usize = 300;
/// Longest limit that makes sense: SSM itself ends sessions after a day.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the gateway owes for a permitted session; the strictest wins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligations {
    /// `@record`: when output counts as recorded.
    pub record: Durability,
    /// `@input("record")`: keystrokes are recorded too.
    pub record_input: bool,
    /// `@idle_timeout`: ends a session that is quiet for so long.
    pub idle_timeout: Option<Duration>,
    /// `@max_duration`: ends a session after so long.
    pub max_duration: Option<Duration>,
    /// `@require_reason`: a session starts only with a reason.
    pub require_reason: bool,
    /// `@banner`: lines shown before the session, without duplicates.
    pub banners: Vec<String>,
    /// `@read_only`: input is not passed on.
    pub read_only: bool,
    /// `@run_as`: users of the machine, without duplicates; one at most
    /// can be had.
    #[serde(default)]
    pub run_as: Vec<String>,
    /// `@capture_traffic`: forwarded bytes are recorded too.
    pub capture_traffic: bool,
    /// `@break_glass`: the session may go on without a recording, loudly.
    ///
    /// Only if every permitting policy says so.
    pub break_glass: bool,
}

impl Obligations {
    /// Both together, the stricter of each.
    pub fn and(mut self, other: &Self) -> Self {
        self.record = self.record.max(other.record);
        self.record_input |= other.record_input;
        self.idle_timeout = shorter(self.idle_timeout, other.idle_timeout);
        self.max_duration = shorter(self.max_duration, other.max_duration);
        self.require_reason |= other.require_reason;
        for banner in &other.banners {
            if !self.banners.contains(banner) {
                self.banners.push(banner.clone());
            }
        }
        self.read_only |= other.read_only;
        self.run_as.extend(other.run_as.iter().cloned());
        self.run_as.sort();
        self.run_as.dedup();
        self.capture_traffic |= other.capture_traffic;
        self.break_glass &= other.break_glass;
        self
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What one policy's annotations say.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    pub obligations: Obligations,
    pub message: Option<String>,
    /// Lints that are meant so here.
    pub allow: Vec<String>,
    /// An obligation was named, which only a permit may do.
    pub obliges: bool,
}

/// Why an annotation is refused, and what would be right.
pub(super) struct Refusal {
    pub why: String,
    pub help: String,
}

impl Annotations {
    /// Takes one annotation in, or says what is wrong with it.
    pub fn take(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        match key {
            "id" | "description" => return Ok(()),
            "message" => {
                self.message = Some(text(key, value)?);
                return Ok(());
            }
            "allow" => return self.take_allow(value),
            _ => self.obliges = true,
        }
        let owed = &mut self.obligations;
        match key {
            "record" => owed.record = durability(value)?,
            "input" => owed.record_input = input(value)?,
            "idle_timeout" => owed.idle_timeout = Some(duration(key, value)?),
            "max_duration" => owed.max_duration = Some(duration(key, value)?),
            "require_reason" => owed.require_reason = flag(key, value)?,
            "banner" => owed.banners = vec![text(key, value)?],
            "read_only" => owed.read_only = flag(key, value)?,
            "run_as" => owed.run_as = vec![run_as(value)?],
            "capture_traffic" => owed.capture_traffic = flag(key, value)?,
            "break_glass" => owed.break_glass = flag(key, value)?,
            _ => return Err(unknown(key)),
        }
        Ok(())
    }
}

impl Annotations {
    /// Lints are named, one or several with commas.
    fn take_allow(&mut self, value: &str) -> Result<(), Refusal> {
        for name in value.split(',').map(str::trim) {
            if !LINTS.contains(&name) {
                return refusal(
                    format!("@allow cannot be {name:?}"),
                    &format!("write @allow with one of {}", LINTS.join(", ")),
                );
            }
            self.allow.push(name.to_owned());
        }
        Ok(())
    }
}

/// What `policy check` finds odd and a policy may be meant to be.
pub(super) const LINTS: [&str; 3] = ["shadowed", "never_matching", "over_broad"];

/// Every annotation that a policy may have.
const KNOWN: [&str; 14] = [
    "id",
    "description",
    "message",
    "allow",
    "record",
    "input",
    "idle_timeout",
    "max_duration",
    "require_reason",
    "banner",
    "read_only",
    "run_as",
    "capture_traffic",
    "break_glass",
];

fn unknown(key: &str) -> Refusal {
    let known: Vec<String> = KNOWN.iter().map(|known| format!("@{known}")).collect();
    Refusal {
        why: format!("@{key} is not an annotation of Postern"),
        help: format!("known are {}", known.join(" ")),
    }
}

fn refusal<T>(why: String, help: &str) -> Result<T, Refusal> {
    Err(Refusal { why, help: help.to_owned() })
}

fn durability(value: &str) -> Result<Durability, Refusal> {
    match value {
        "process" => Ok(Durability::Process),
        "disk" => Ok(Durability::Disk),
        "remote" => Ok(Durability::Remote),
        _ => refusal(
            format!("@record cannot be {value:?}"),
            "write @record(\"process\"), @record(\"disk\") or @record(\"remote\")",
        ),
    }
}

fn input(value: &str) -> Result<bool, Refusal> {
    match value {
        "record" => Ok(true),
        "off" => Ok(false),
        _ => refusal(format!("@input cannot be {value:?}"), "write @input(\"record\") or @input(\"off\")"),
    }
}

/// A user of the machine, or the word for the person's own name.
fn run_as(value: &str) -> Result<String, Refusal> {
    if value == OWN_NAME || is_system_user(value) {
        return Ok(value.to_owned());
    }
    refusal(
        format!("@run_as cannot be {value:?}"),
        "write @run_as(\"ec2-user\"), a user that is there and not root, or @run_as(\"$name\")",
    )
}

/// What `@run_as` says for the person's own name.
pub const OWN_NAME: &str = "$name";

/// Whether SSM can run a session as a user of this name.
pub fn is_system_user(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.len() <= 32 && name.bytes().all(fits) && name != "root"
}

fn flag(key: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "" => Ok(true),
        _ => refusal(format!("@{key} takes no value"), &format!("write @{key} alone, or leave it out")),
    }
}

fn text(key: &str, value: &str) -> Result<String, Refusal> {
    let length = value.chars().count();
    if value.trim().is_empty() || length > TEXT_MAX || value.chars().any(char::is_control) {
        return refusal(
            format!("@{key} must be one line of 1 to {TEXT_MAX} characters"),
            &format!("write @{key}(\"a sentence for the person at the terminal\")"),
        );
    }
    Ok(value.trim().to_owned())
}

/// A duration such as `90s`, `15m`, `8h` or `1h30m`.
fn duration(key: &str, value: &str) -> Result<Duration, Refusal> {
    match seconds(value) {
        Some(seconds) if seconds > 0 && seconds <= DURATION_MAX.as_secs() => Ok(Duration::from_secs(seconds)),
        _ => refusal(
            format!("@{key} cannot be {value:?}"),
            &format!("write @{key}(\"15m\"): s, m and h, from 1s to 24h, such as 90s, 15m, 8h, 1h30m"),
        ),
    }
}

fn seconds(value: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut number = None::<u64>;
    let mut smallest_unit = u64::MAX;
    for c in value.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return None,
        };
        // 1h30m, never 30m1h or 1h1h: such a limit is a typing error.
        if unit >= smallest_unit {
            return None;
        }
        smallest_unit = unit;
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if number.is_some() { None } else { Some(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_people_write_it() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("8h", 28800), ("1h30m", 5400), ("24h", 86400)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in ["15", "m", "1h1h", "30m1h", "-5m", "1.5h", "5 m", "99999999999999999999h"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        for bad in ["", "0m", "25h"] {
            assert!(duration("max_duration", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_strictest_of_two_obligations_wins() {
        let one = Obligations {
            record: Durability::Disk,
            idle_timeout: Some(Duration::from_secs(900)),
            banners: vec!["recorded".into()],
            break_glass: true,
            ..Obligations::default()
        };
        let other = Obligations {
            record_input: true,
            idle_timeout: Some(Duration::from_secs(60)),
            max_duration: Some(Duration::from_secs(3600)),
            require_reason: true,
            banners: vec!["recorded".into(), "be careful".into()],
            ..Obligations::default()
        };
        for both in [one.clone().and(&other), other.clone().and(&one)] {
            assert_eq!(both.record, Durability::Disk);
            assert!(both.record_input && both.require_reason && !both.break_glass);
            assert_eq!(both.idle_timeout, Some(Duration::from_secs(60)));
            assert_eq!(both.max_duration, Some(Duration::from_secs(3600)));
            assert_eq!(both.banners.len(), 2);
        }
    }

    #[test]
    fn a_session_runs_as_a_user_that_can_be() {
        for good in ["ec2-user", "_apt", "alice.b", "$name"] {
            assert!(run_as(good).is_ok(), "{good} was refused");
        }
        for bad in ["", "root", "-x", "a b", "a;b", "$HOME", "é", &"x".repeat(33)] {
            assert!(run_as(bad).is_err(), "{bad} was accepted");
        }
    }
}
