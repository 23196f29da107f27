//! Transcript events: Session Manager's own eight fields, and flat scalars.
//!
//! Names and types of the eight are those of AWS's streaming mode, so what
//! reads those reads these. A JSON filter cannot look into `sessionData`;
//! the scalars are there for it: `{ $.eventName = "command" && $.command =
//! "sudo *" }`.

use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::batch::LogEvent;
use super::connections::Connection;
use crate::asciicast::Header;
use crate::session::SessionId;

/// Text of one output event at the most, bytes; AWS cuts at 33,000.
const TEXT_MAX: usize = 30_000;
/// Longest command in an event, bytes.
const COMMAND_MAX: usize = 30_000;

/// What every event of a session says.
#[derive(Debug, Clone)]
pub(super) struct About {
    session: SessionId,
    region: String,
    begun_ms: i64,
    principal: String,
    target: String,
    policies: String,
    about: Map<String, Value>,
}

/// What happened, beside what every event says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Happened {
    /// Milliseconds since the recording began.
    pub(super) time_ms: u64,
    /// What kind of event it is.
    pub(super) what: What,
}

/// The kinds of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum What {
    /// The session began.
    #[default]
    Start,
    /// Lines that were output.
    Output(Vec<String>),
    /// A command was sent off; the second word says how it is known.
    Command(String, &'static str),
    /// The window has another size.
    Resize(String),
    /// The gateway said something to the person: a warning, an end.
    Notice(String),
    /// A connection of a port session began.
    ConnectionStart(Box<Connection>),
    /// It ended; said again if bytes came after that.
    ConnectionEnd(Box<Connection>),
    /// The session ended: why, and the digest of the sealed recording.
    End(String, String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    event_version: &'static str,
    event_time: String,
    aws_region: &'a str,
    target: Named<'a>,
    user_identity: Arn<'a>,
    run_as_user: &'a str,
    session_id: &'a str,
    session_data: &'a [String],
    event_name: &'static str,
    seq: u64,
    event_time_ms: i64,
    gateway_session_id: &'a str,
    principal: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    policy_ids: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    connection: Option<&'a Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording_sha256: Option<&'a str>,
}

/// A machine, as Session Manager names it.
#[derive(Serialize)]
pub(super) struct Named<'a> {
    pub(super) id: &'a str,
}

/// A person, as Session Manager names them.
#[derive(Serialize)]
pub(super) struct Arn<'a> {
    pub(super) arn: &'a str,
}

impl About {
    /// What the recording's header says of the session.
    pub(super) fn of(session: &SessionId, region: &str, header: &Header) -> Self {
        let about = header.postern.clone().unwrap_or_default();
        let text = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let policies = about.get("policies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let policies: Vec<&str> = policies.iter().filter_map(Value::as_str).collect();
        Self {
            session: session.clone(),
            region: region.to_owned(),
            begun_ms: header.timestamp.saturating_mul(1000),
            principal: text("principal"),
            target: text("target"),
            policies: policies.join(","),
            about,
        }
    }

    /// A time of the recording as the world counts, milliseconds.
    pub(super) fn at(&self, time_ms: u64) -> i64 {
        self.begun_ms.saturating_add_unsigned(time_ms)
    }

    /// The events, numbered from `sequence` on.
    pub(super) fn events(&self, happened: &[Happened], sequence: u64) -> serde_json::Result<Vec<LogEvent>> {
        let numbered = happened.iter().zip(sequence..);
        numbered.map(|(happened, seq)| self.event(happened, seq)).collect()
    }

    fn event(&self, happened: &Happened, seq: u64) -> serde_json::Result<LogEvent> {
        let at_ms = self.at(happened.time_ms);
        let mut event = self.bare(at_ms, seq);
        match &happened.what {
            What::Start => {
                event.event_name = "sessionStart";
                event.document = self.about("document");
                event.reason = self.about("reason");
            }
            What::Output(lines) => event.session_data = lines,
            What::Command(command, source) => {
                event.event_name = "command";
                event.command = command.get(..command.floor_char_boundary(COMMAND_MAX));
                event.command_source = Some(source);
            }
            What::Resize(size) => (event.event_name, event.size) = ("resize", Some(size.as_str())),
            What::Notice(notice) => (event.event_name, event.notice) = ("notice", Some(notice.as_str())),
            What::ConnectionStart(about) => {
                (event.event_name, event.connection) = ("connectionStart", Some(&**about));
            }
            What::ConnectionEnd(about) => {
                (event.event_name, event.connection) = ("connectionEnd", Some(&**about));
            }
            What::End(why, digest) => {
                event.event_name = "sessionEnd";
                event.end_reason = Some(why);
                event.recording_sha256 = Some(digest);
            }
        }
        Ok(LogEvent { at_ms, message: serde_json::to_string(&event)? })
    }

    fn bare(&self, at_ms: i64, seq: u64) -> Event<'_> {
        let seconds = OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000));
        let time = seconds.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default();
        Event {
            event_version: "1.0",
            event_time: time,
            aws_region: &self.region,
            target: Named { id: &self.target },
            user_identity: Arn { arn: &self.principal },
            run_as_user: self.about("run_as").unwrap_or_default(),
            session_id: self.session.as_str(),
            session_data: &[],
            event_name: "output",
            seq,
            event_time_ms: at_ms,
            gateway_session_id: self.session.as_str(),
            principal: &self.principal,
            policy_ids: &self.policies,
            command: None,
            command_source: None,
            size: None,
            notice: None,
            connection: None,
            document: None,
            reason: None,
            end_reason: None,
            recording_sha256: None,
        }
    }

    fn about(&self, key: &str) -> Option<&str> {
        self.about.get(key).and_then(Value::as_str)
    }
}

/// Puts lines that belong together into events, within what one may hold.
pub(super) fn output(time_ms: u64, lines: Vec<String>, into: &mut Vec<Happened>) {
    for line in lines {
        match into.last_mut() {
            Some(Happened { what: What::Output(last), .. })
                if last.iter().map(String::len).sum::<usize>() + line.len() <= TEXT_MAX =>
            {
                last.push(line);
            }
            _ => into.push(Happened { time_ms, what: What::Output(vec![line]) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about() -> About {
        let mut header = Header::new(1_785_000_000);
        header.postern = json!({
            "principal": "arn:aws:iam::111122223333:user/alice", "target": "i-0abc", "document": "SSM-X",
            "policies": ["dev", "night"], "reason": "a \"ticket\"",
        })
        .as_object()
        .cloned();
        About::of(&SessionId::parse("alice-0123").unwrap(), "eu-west-1", &header)
    }

    #[test]
    fn the_eight_fields_of_session_manager_are_there_by_name_and_type() {
        let happened = Happened { time_ms: 1500, what: What::Output(vec!["one".into(), "two".into()]) };
        let made = about().events(&[happened], 7).unwrap();
        assert_eq!(made[0].at_ms, 1_785_000_001_500);
        let event: Value = serde_json::from_str(&made[0].message).unwrap();
        let expected = json!({
            "eventVersion": "1.0", "eventTime": "2026-07-25T17:20:01Z", "awsRegion": "eu-west-1",
            "target": {"id": "i-0abc"}, "userIdentity": {"arn": "arn:aws:iam::111122223333:user/alice"},
            "runAsUser": "", "sessionId": "alice-0123", "sessionData": ["one", "two"],
            "eventName": "output", "seq": 7, "eventTimeMs": 1_785_000_001_500_i64,
            "gatewaySessionId": "alice-0123", "principal": "arn:aws:iam::111122223333:user/alice",
            "policyIds": "dev,night",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_command_is_a_scalar_that_a_filter_can_reach() {
        let command = Happened { time_ms: 0, what: What::Command("sudo -i".into(), "input") };
        let event: Value = serde_json::from_str(&about().events(&[command], 0).unwrap()[0].message).unwrap();
        assert_eq!((&event["eventName"], &event["command"]), (&json!("command"), &json!("sudo -i")));
    }

    /// Whether a filter pattern such as `{ $.a = "x*" && $.b = %^y% }` matches.
    ///
    /// Panics at what CloudWatch would refuse.
    fn matches(pattern: &str, event: &Value) -> bool {
        assert!(pattern.matches('%').count() <= 4, "two regexes at the most");
        let terms = pattern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
        terms.split("&&").all(|term| {
            let (path, wanted) = term.trim().split_once(" = ").unwrap();
            let value = event[path.strip_prefix("$.").unwrap()].as_str();
            value.is_some_and(|value| match wanted.strip_prefix('%') {
                Some(regex) => regex_of(regex.strip_suffix('%').unwrap()).is_match(value),
                None => glob(wanted).is_match(value),
            })
        })
    }

    /// A regex of CloudWatch: no groups, no `\b`, few symbols.
    fn regex_of(text: &str) -> regex::Regex {
        let is_taken = |c: char| c.is_ascii_alphanumeric() || "_#=@/;,-:^$?[]{}|\\*+.".contains(c);
        assert!(text.chars().all(is_taken), "{text}");
        let escaped = text.split('\\').skip(1).filter_map(|rest| rest.chars().next());
        assert!(escaped.into_iter().all(|c| "dDsSwW".contains(c) || c.is_ascii_punctuation()), "{text}");
        regex::Regex::new(text).unwrap()
    }

    /// A quoted string, in which `*` is anything.
    fn glob(quoted: &str) -> regex::Regex {
        let text = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
        let parts: Vec<String> = text.split('*').map(regex::escape).collect();
        regex::Regex::new(&format!("(?s)^{}$", parts.join(".*"))).unwrap()
    }

    #[test]
    fn the_alarm_that_ships_is_raised_by_sudo_and_nothing_else() {
        let template = include_str!("../../deploy/alarms/sudo.yaml");
        let pattern = template.lines().find_map(|line| line.trim().strip_prefix("FilterPattern: '"));
        let pattern = pattern.and_then(|rest| rest.strip_suffix('\'')).unwrap();
        let rules: toml::Value = toml::from_str(include_str!("../../policies/alerts.toml")).unwrap();
        let rules = rules["alert"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["name"].as_str() == Some("sudo")).unwrap();
        let rule = regex::Regex::new(rule["matches"].as_str().unwrap()).unwrap();
        for (what, raised) in [
            (What::Command("sudo -i".into(), "input"), true),
            (What::Command("sudo systemctl stop x".into(), "guess"), true),
            (What::Command("sudo".into(), "input"), true),
            (What::Command("  sudo -i".into(), "input"), true),
            (What::Command("/usr/bin/sudo".into(), "input"), true),
            (What::Command("/usr/local/bin/sudo\t-u root id".into(), "input"), true),
            (What::Command("../bin/sudo id".into(), "input"), true),
            (What::Command("sudoku".into(), "input"), false),
            (What::Command("sudoku --level 3".into(), "input"), false),
            (What::Command("/usr/games/sudoku".into(), "input"), false),
            (What::Command("sudo-ldap".into(), "input"), false),
            (What::Command("pseudo x".into(), "input"), false),
            (What::Command("ls /etc/sudo x".into(), "input"), false),
            (What::Command("echo sudo".into(), "input"), false),
            (What::Output(vec!["sudo: 3 incorrect password attempts".into()]), false),
            (What::Start, false),
        ] {
            let typed = if let What::Command(text, _) = &what { Some(text.to_string()) } else { None };
            let made = about().events(&[Happened { time_ms: 0, what }], 0).unwrap();
            let event: Value = serde_json::from_str(&made[0].message).unwrap();
            assert_eq!(matches(pattern, &event), raised, "{event}");
            // The rule of alerts.toml that ships says the same.
            if let Some(typed) = typed {
                assert_eq!(rule.is_match(&typed), raised, "{typed}");
            }
        }
    }

    #[test]
    fn much_output_is_several_events_in_order() {
        let mut made = Vec::new();
        output(5, vec!["x".repeat(20_000); 5], &mut made);
        assert_eq!(made.len(), 5);
        output(6, vec!["y".into(); 3], &mut made);
        assert_eq!(made.len(), 5, "they fit into the last one");
    }
}
