//! Parameters of a document: what is given, allowed, and put in its place.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{ApiError, Code};

/// Longest value, bytes: as long as a whole document may be.
const VALUE_MAX: usize = 64 << 10;
/// Memory that one pattern of a document may take, bytes.
const PATTERN_MAX: usize = 1 << 20;
/// Most characters of a wrong value that the error repeats.
const SHOWN_MAX: usize = 100;

/// What a document says of one parameter.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameter {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    default: Option<Value>,
    #[serde(default)]
    allowed_values: Vec<String>,
    #[serde(default)]
    allowed_pattern: Option<Pattern>,
    #[serde(default)]
    min_chars: Option<usize>,
    #[serde(default)]
    max_chars: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Kind {
    #[serde(alias = "string")]
    String,
    #[serde(alias = "stringList")]
    StringList,
    #[serde(alias = "boolean")]
    Boolean,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = regex::Error;
    fn try_from(pattern: String) -> Result<Self, regex::Error> {
        RegexBuilder::new(&pattern).size_limit(PATTERN_MAX).build().map(Self)
    }
}

/// The value of each parameter, given or default.
pub(super) fn values(
    parameters: &BTreeMap<String, Parameter>,
    given: &BTreeMap<String, Vec<String>>,
) -> Result<Map<String, Value>, ApiError> {
    if let Some(unknown) = given.keys().find(|name| !parameters.contains_key(*name)) {
        return Err(invalid(&format!("Parameter \"{}\" is not defined in the document.", shown(unknown))));
    }
    let value = |(name, parameter): (&String, &Parameter)| {
        let value = match (given.get(name), &parameter.default) {
            (Some(given), _) => parameter.read(name, given)?,
            (None, Some(default)) => default.clone(),
            (None, None) => return Err(invalid(&format!("Parameter \"{name}\" requires a value."))),
        };
        Ok((name.clone(), value))
    };
    parameters.iter().map(value).collect()
}

/// A document's part with every `{{ name }}` replaced.
///
/// A text that is one placeholder becomes the value itself; inside a text the
/// value is written out. What was put in is not looked through again. Source:
/// the agent's `docparser/parameters`.
pub(super) fn filled(part: &Value, values: &Map<String, Value>) -> Value {
    match part {
        Value::String(text) => filled_text(text, values),
        Value::Array(items) => items.iter().map(|item| filled(item, values)).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, part)| (name.clone(), filled(part, values))).collect())
        }
        other => other.clone(),
    }
}

fn filled_text(text: &str, values: &Map<String, Value>) -> Value {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, from)) = rest.split_once("{{") {
        let placeholder = from.split_once("}}").and_then(|(name, after)| {
            let value = values.get(name.trim())?;
            Some((value, after))
        });
        let Some((value, after)) = placeholder else {
            // Not ours: the second brace may still begin one.
            done.push_str(before);
            done.push('{');
            rest = rest.get(before.len() + 1..).unwrap_or_default();
            continue;
        };
        if before.is_empty() && after.is_empty() && done.is_empty() {
            return value.clone();
        }
        done.push_str(before);
        match value {
            // The agent still serves documents that wrote $$ for $.
            Value::String(value) => done.push_str(&value.replace("$$", "$")),
            other => done.push_str(&other.to_string()),
        }
        rest = after;
    }
    done.push_str(rest);
    Value::String(done)
}

impl Parameter {
    fn read(&self, name: &str, given: &[String]) -> Result<Value, ApiError> {
        given.iter().try_for_each(|value| self.check(name, value))?;
        match (self.kind, given) {
            (Kind::StringList, many) => Ok(many.into()),
            (Kind::String, [one]) => Ok(one.as_str().into()),
            (Kind::Boolean, [one]) => one.parse::<bool>().map(Value::Bool).map_err(|_| {
                invalid(&format!("Parameter \"{name}\" has value \"{}\" that is no boolean.", shown(one)))
            }),
            _ => Err(invalid(&format!("Parameter \"{name}\" must have exactly one value."))),
        }
    }

    fn check(&self, name: &str, value: &str) -> Result<(), ApiError> {
        let wrong =
            |why: &str| Err(invalid(&format!("Parameter \"{name}\" has value \"{}\" {why}.", shown(value))));
        if value.len() > VALUE_MAX || value.contains('\0') {
            return wrong("that is too long or holds a NUL");
        }
        if !self.allowed_values.is_empty() && !self.allowed_values.iter().any(|allowed| allowed == value) {
            return wrong(&format!("not in [{}]", self.allowed_values.join(", ")));
        }
        if let Some(Pattern(pattern)) = &self.allowed_pattern
            && !pattern.is_match(value)
        {
            return wrong(&format!("not matching \"{pattern}\""));
        }
        let length = value.chars().count();
        if self.min_chars.is_some_and(|least| length < least) {
            return wrong("that is too short");
        }
        if self.max_chars.is_some_and(|most| length > most) {
            return wrong("that is too long");
        }
        Ok(())
    }
}

fn shown(value: &str) -> String {
    value.chars().take(SHOWN_MAX).collect()
}

fn invalid(why: &str) -> ApiError {
    ApiError::client(Code::InvalidParameters, why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parameters: Value, given: Value) -> Result<Map<String, Value>, String> {
        let parameters = serde_json::from_value(parameters).unwrap();
        values(&parameters, &serde_json::from_value(given).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn a_value_is_given_or_default_and_has_its_type() {
        let parameters = json!({
            "port": {"type": "String", "default": "22"},
            "hosts": {"type": "StringList"},
            "fast": {"type": "boolean", "default": false},
        });
        let values = read(parameters, json!({"hosts": ["a", "b"], "fast": ["true"]})).unwrap();
        assert_eq!(Value::from(values), json!({"port": "22", "hosts": ["a", "b"], "fast": true}));
    }

    #[test]
    fn what_does_not_fit_is_refused_in_the_words_of_ssm() {
        let parameters = json!({"port": {"type": "String", "allowedPattern": "^[0-9]+$", "maxChars": 3}});
        for (given, told) in [
            (json!({}), "Parameter \"port\" requires a value."),
            (json!({"port": ["x"]}), "Parameter \"port\" has value \"x\" not matching \"^[0-9]+$\"."),
            (json!({"port": ["1", "2"]}), "Parameter \"port\" must have exactly one value."),
            (json!({"port": []}), "Parameter \"port\" must have exactly one value."),
            (json!({"port": ["1234"]}), "Parameter \"port\" has value \"1234\" that is too long."),
            (json!({"port": ["1"], "x": ["1"]}), "Parameter \"x\" is not defined in the document."),
        ] {
            assert_eq!(read(parameters.clone(), given), Err(told.to_owned()));
        }
        let word = json!({"word": {"type": "String", "allowedValues": ["a", "b"]}});
        assert!(read(word, json!({"word": ["c"]})).unwrap_err().ends_with("not in [a, b]."));
    }

    #[test]
    fn placeholders_are_replaced_once() {
        let Value::Object(values) = json!({"a": "1", "list": ["x"], "deep": "{{ a }}", "cash": "$$"}) else {
            unreachable!()
        };
        for (text, value) in [
            ("{{ a }}", json!("1")),
            ("{{a}}", json!("1")),
            ("{{ list }}", json!(["x"])),
            ("<{{ list }}>", json!("<[\"x\"]>")),
            ("{{ a }}{{a}}", json!("11")),
            ("{{ deep }} {{ unknown }}", json!("{{ a }} {{ unknown }}")),
            ("{{{ a }}}", json!("{1}")),
            ("{{ cash }}", json!("$$")),
            ("{{ cash }}5", json!("$5")),
            ("{{ a", json!("{{ a")),
        ] {
            assert_eq!(filled(&json!({"p": [text]}), &values), json!({"p": [value]}), "{text}");
        }
    }
}
