//! The content of a session document, and what parameters make of it.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::session::SessionKind;

/// Longest content of a document that SSM stores, bytes.
const CONTENT_MAX: usize = 64 * 1024;
/// Memory that one pattern of a document may take, bytes.
const PATTERN_MAX: usize = 1 << 20;

type Given = BTreeMap<String, Vec<String>>;

/// Why a document cannot open a session as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The document itself.
    #[error("{0}")]
    Document(String),
    /// A parameter.
    #[error("parameter {name} {why}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A session document of schema version 1.0.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionDocument {
    session_type: SessionType,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    properties: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum SessionType {
    #[serde(rename = "Standard_Stream")]
    StandardStream,
    InteractiveCommands,
    NonInteractiveCommands,
    Port,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameter {
    #[serde(default)]
    default: Option<Value>,
    #[serde(default)]
    allowed_pattern: Option<String>,
    #[serde(default)]
    allowed_values: Option<Vec<Value>>,
}

impl SessionDocument {
    /// Reads a document's JSON.
    pub(super) fn parse(content: &str) -> Result<Self, ContentError> {
        if content.len() > CONTENT_MAX {
            return Err(ContentError::Document("the document's content is too long".to_owned()));
        }
        serde_json::from_str(content)
            .map_err(|error| ContentError::Document(format!("it is no session document: {error}")))
    }

    /// The kind of session and its parameters under AWS's own names.
    pub(super) fn plan(
        &self,
        given: &Given,
        platform: Option<&str>,
    ) -> Result<(SessionKind, Given), ContentError> {
        let values = self.values(given)?;
        let of = |path: &str| Some(substitute(self.properties.pointer(path)?.as_str()?, &values));
        let mut plan = Given::new();
        let mut put = |name: &str, value: Option<String>| {
            plan.extend(value.map(|value| (name.to_owned(), vec![value])));
        };
        let kind = match self.session_type {
            SessionType::StandardStream => SessionKind::Shell,
            SessionType::InteractiveCommands => SessionKind::InteractiveCommand,
            SessionType::NonInteractiveCommands => SessionKind::NonInteractiveCommand,
            SessionType::Port if of("/type").as_deref() != Some("LocalPortForwarding") => SessionKind::Ssh,
            SessionType::Port if of("/host").is_some_and(|host| !host.is_empty()) => SessionKind::PortToHost,
            SessionType::Port => SessionKind::Port,
        };
        match kind {
            SessionKind::Shell => {}
            SessionKind::InteractiveCommand | SessionKind::NonInteractiveCommand => {
                let command = of(&format!("/{}/commands", section(platform)));
                let command = command.filter(|command| !command.trim().is_empty());
                let none = || ContentError::Document(format!("it has no command for {}", section(platform)));
                put("command", Some(command.ok_or_else(none)?));
            }
            SessionKind::Port | SessionKind::PortToHost | SessionKind::Ssh => {
                let number = self.properties.get("portNumber").and_then(Value::as_u64);
                let number = number.map(|number| number.to_string()).or_else(|| of("/portNumber"));
                put("portNumber", Some(port(number)?));
                put("host", of("/host").filter(|host| !host.is_empty()));
            }
        }
        match plan.values().flatten().any(|value| refers_to_store(value)) {
            true => Err(ContentError::Document(
                "it refers to the Parameter Store, which no policy can see".to_owned(),
            )),
            false => Ok((kind, plan)),
        }
    }

    /// Every parameter's one value, given or default.
    fn values(&self, given: &Given) -> Result<BTreeMap<&str, String>, ContentError> {
        if let Some(name) = given.keys().find(|name| !self.parameters.contains_key(*name)) {
            return Err(wrong(name, "is not one of the document"));
        }
        let mut values = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let value = match given.get(name).map(Vec::as_slice) {
                None => match &parameter.default {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => return Err(wrong(name, "is missing")),
                },
                Some([value]) => value.clone(),
                Some(_) => return Err(wrong(name, "must have exactly one value")),
            };
            parameter.check(name, &value)?;
            values.insert(name.as_str(), value);
        }
        Ok(values)
    }
}

impl Parameter {
    fn check(&self, name: &str, value: &str) -> Result<(), ContentError> {
        if value.contains('\0') {
            return Err(wrong(name, "holds a NUL"));
        }
        if let Some(allowed) = &self.allowed_values
            && !allowed.iter().any(|allowed| *allowed == *value)
        {
            return Err(wrong(name, "is not one of the allowed values"));
        }
        let Some(pattern) = &self.allowed_pattern else { return Ok(()) };
        // SSM's patterns are Java's; one that we cannot read is left to SSM, which checks them all.
        let pattern = regex::RegexBuilder::new(pattern).size_limit(PATTERN_MAX).build().ok();
        match pattern.as_ref().map(|pattern: &Regex| pattern.is_match(value)) {
            Some(false) => Err(wrong(name, "does not match the document's pattern")),
            _ => Ok(()),
        }
    }
}

fn wrong(name: &str, why: &str) -> ContentError {
    ContentError::Parameter { name: name.to_owned(), why: why.to_owned() }
}

/// The properties that the agent of a platform looks at.
fn section(platform: Option<&str>) -> &'static str {
    match platform {
        Some("Windows") => "windows",
        Some("MacOS") => "macos",
        _ => "linux",
    }
}

fn port(number: Option<String>) -> Result<String, ContentError> {
    let number = number.ok_or_else(|| ContentError::Document("it names no port".to_owned()))?;
    match number.parse::<u16>() {
        Ok(1..) if number.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(wrong("portNumber", "must be a number from 1 to 65535")),
    }
}

/// Fills in `{{ name }}`; what is no parameter stays as it is, as in SSM.
///
/// Among other text the agent makes one `$` of `$$`, alone it does not.
fn substitute(text: &str, values: &BTreeMap<&str, String>) -> String {
    let alone = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    if let Some(value) = alone.and_then(|name| values.get(name.trim())) {
        return value.clone();
    }
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((name, behind)) = after.split_once("}}") else {
            filled.push_str("{{");
            rest = after;
            continue;
        };
        match values.get(name.trim()) {
            Some(value) => filled.push_str(&value.replace("$$", "$")),
            None => filled.extend(["{{", name, "}}"]),
        }
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

/// Whether a text names something of the Parameter Store.
///
/// The agent fills that in, and no policy has seen what it will be.
fn refers_to_store(text: &str) -> bool {
    text.split("{{").skip(1).any(|rest| {
        let rest = rest.trim_start();
        rest.starts_with("ssm:") || rest.starts_with("ssm-secure:")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Given {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect()
    }

    fn document(content: &Value) -> SessionDocument {
        SessionDocument::parse(&content.to_string()).unwrap()
    }

    fn restart() -> SessionDocument {
        document(&json!({
            "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
            "parameters": {
                "unit": {"type": "String", "allowedPattern": "^[a-z-]{1,40}$"},
                "how": {"type": "String", "default": "restart", "allowedValues": ["restart", "reload"]},
            },
            "properties": {
                "linux": {"commands": "systemctl {{ how }} {{unit}}", "runAsElevated": true},
                "windows": {"commands": "Restart-Service {{unit}}"},
            },
        }))
    }

    #[test]
    fn a_command_is_what_the_agent_of_the_platform_will_run() {
        let plan = restart().plan(&given(&[("unit", "nginx")]), None).unwrap();
        assert_eq!(plan, (SessionKind::InteractiveCommand, given(&[("command", "systemctl restart nginx")])));
        let plan = restart().plan(&given(&[("unit", "nginx")]), Some("Windows")).unwrap();
        assert_eq!(plan.1, given(&[("command", "Restart-Service nginx")]));
        assert!(restart().plan(&given(&[("unit", "nginx")]), Some("MacOS")).is_err());
    }

    #[test]
    fn a_value_is_not_read_for_parameters_again() {
        let document = document(&json!({
            "sessionType": "InteractiveCommands",
            "parameters": {"a": {"type": "String"}, "b": {"type": "String"}},
            "properties": {"linux": {"commands": "echo {{a}} {{b}} {{c}} {{"}},
        }));
        let plan = document.plan(&given(&[("a", "{{b}}"), ("b", "2")]), None).unwrap();
        assert_eq!(plan.1, given(&[("command", "echo {{b}} 2 {{c}} {{")]));
    }

    #[test]
    fn dollars_are_what_the_agent_makes_of_them() {
        let parameters = json!({"a": {"type": "String"}});
        let command = |text: &str| {
            let document = document(&json!({
                "sessionType": "InteractiveCommands", "parameters": parameters,
                "properties": {"linux": {"commands": text}},
            }));
            document.plan(&given(&[("a", "echo $$HOME")]), None).unwrap().1
        };
        assert_eq!(command("{{ a }}"), given(&[("command", "echo $$HOME")]));
        assert_eq!(command("sudo {{a}}"), given(&[("command", "sudo echo $HOME")]));
    }

    #[test]
    fn what_only_the_agent_can_look_up_is_not_decided_on() {
        for text in ["{{ssm:/prod/command}}", "echo {{ ssm-secure:key }}"] {
            let document = document(&json!({
                "sessionType": "InteractiveCommands", "parameters": {"a": {"type": "String"}},
                "properties": {"linux": {"commands": "{{a}}"}},
            }));
            let refused = document.plan(&given(&[("a", text)]), None);
            assert!(matches!(refused, Err(ContentError::Document(_))), "{text}: {refused:?}");
        }
    }

    #[test]
    fn parameters_that_do_not_fit_are_named() {
        for (parameters, name) in [
            (given(&[]), "unit"),
            (given(&[("unit", "a; rm -rf /")]), "unit"),
            (given(&[("unit", "nginx"), ("how", "stop")]), "how"),
            (given(&[("unit", "nginx"), ("user", "root")]), "user"),
            (BTreeMap::from([("unit".to_owned(), vec!["a".to_owned(), "b".to_owned()])]), "unit"),
            (given(&[("unit", "a\0b")]), "unit"),
        ] {
            match restart().plan(&parameters, None) {
                Err(ContentError::Parameter { name: named, .. }) => assert_eq!(named, name),
                other => panic!("{parameters:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_port_document_says_where_to() {
        let tunnel = document(&json!({
            "sessionType": "Port",
            "parameters": {"db": {"type": "String", "default": "db.internal"}},
            "properties": {"type": "LocalPortForwarding", "host": "{{ db }}", "portNumber": "5432", "localPortNumber": "0"},
        }));
        let plan = tunnel.plan(&given(&[]), None).unwrap();
        assert_eq!(
            plan,
            (SessionKind::PortToHost, given(&[("host", "db.internal"), ("portNumber", "5432")]))
        );
        let plan = tunnel.plan(&given(&[("db", "")]), None).unwrap();
        assert_eq!(plan, (SessionKind::Port, given(&[("portNumber", "5432")])));
        let ssh = document(&json!({"sessionType": "Port", "properties": {"portNumber": 2222}}));
        assert_eq!(
            ssh.plan(&given(&[]), None).unwrap(),
            (SessionKind::Ssh, given(&[("portNumber", "2222")]))
        );
        for bad in [json!("0"), json!("70000"), json!("+22"), json!("x"), Value::Null] {
            let bad = document(&json!({"sessionType": "Port", "properties": {"portNumber": bad}}));
            assert!(bad.plan(&given(&[]), None).is_err());
        }
    }

    #[test]
    fn what_is_no_session_document_is_refused() {
        for bad in
            ["", "[]", "{}", r#"{"sessionType": "Other"}"#, r#"{"schemaVersion": "2.2", "mainSteps": []}"#]
        {
            assert!(matches!(SessionDocument::parse(bad), Err(ContentError::Document(_))), "{bad}");
        }
    }
}
