//! The session policy of `AssumeRole`: what temporary keys are narrowed to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Before the name of an encryption context's entry, in a condition.
const CONTEXT: &str = "kms:EncryptionContext:";

/// One IAM policy document; actions, resources and encryption context.
///
/// Other conditions are accepted and count as met: AWS is the one to weigh
/// them, this only finds a policy that forgets an action or a resource.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SessionPolicy {
    #[serde(rename = "Version")]
    _version: String,
    statement: OneOrMany<Statement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid", default)]
    _sid: Option<String>,
    effect: Effect,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl SessionPolicy {
    /// Reads a policy document, or says why it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Whether the action is allowed on the resource, and not denied.
    pub(super) fn allows_in(&self, action: &str, resource: &str, context: &BTreeMap<String, String>) -> bool {
        let fits = |statement: &&Statement| {
            let actions = statement.action.as_slice().iter();
            let mut resources = statement.resource.as_slice().iter();
            let action = action.to_ascii_lowercase();
            actions.map(|a| a.to_ascii_lowercase()).any(|a| matches(a.as_bytes(), action.as_bytes()))
                && resources.any(|r| matches(r.as_bytes(), resource.as_bytes()))
                && statement.fits_context(context)
        };
        let mut fitting = self.statement.as_slice().iter().filter(fits).map(|s| s.effect).peekable();
        fitting.peek().is_some() && fitting.all(|effect| effect == Effect::Allow)
    }
}

impl Statement {
    /// Whether what it says of an encryption context is so.
    fn fits_context(&self, context: &BTreeMap<String, String>) -> bool {
        let conditions = self.condition.iter();
        let mut keys =
            conditions.flat_map(|(how, keys)| keys.iter().map(move |(key, want)| (how, key, want)));
        keys.all(|(how, key, want)| {
            let Some(name) = key.strip_prefix(CONTEXT) else { return true };
            let (Some(have), Some(want)) = (context.get(name), want.as_str()) else { return false };
            match how.as_str() {
                "StringEquals" => have == want,
                "StringLike" => matches(want.as_bytes(), have.as_bytes()),
                _ => false,
            }
        })
    }
}

/// Whether a pattern with `*` and `?` covers the whole text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || text.get(t) == Some(byte) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, at)) => {
                    retry = Some((star, at + 1));
                    p = star + 1;
                    t = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:*:*:instance/i-1","arn:aws:ssm:*:*:document/D"]},
        {"Effect":"Allow","Action":["ssm:TerminateSession","ssm:Resume*"],"Resource":"*"},
        {"Effect":"Deny","Action":"ssm:*","Resource":"*/secret-*"}]}"#;

    #[test]
    fn only_what_is_allowed_and_not_denied_passes() {
        let policy = SessionPolicy::parse(POLICY).unwrap();
        let allows = |action, resource| policy.allows_in(action, resource, &BTreeMap::new());
        assert!(allows("ssm:StartSession", "arn:aws:ec2:eu-west-1:1:instance/i-1"));
        assert!(allows("ssm:resumesession", "arn:aws:ssm:eu-west-1:1:session/a"));
        assert!(!allows("ssm:StartSession", "arn:aws:ec2:eu-west-1:1:instance/i-12"));
        assert!(!allows("ssm:TerminateSession", "arn:aws:ssm:eu-west-1:1:session/secret-1"));
        assert!(!allows("ssm:DescribeSessions", "*"));
    }

    #[test]
    fn a_key_is_allowed_in_its_encryption_context_only() {
        let text = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:GenerateDataKey","Resource":"*",
            "Condition":{"StringLike":{"kms:EncryptionContext:aws:ssm:SessionId":"alice-*"},"Bool":{"aws:x":"true"}}}}"#;
        let policy = SessionPolicy::parse(text).unwrap();
        let allows = |name: &str, id: &str| {
            let context = BTreeMap::from([(name.to_owned(), id.to_owned())]);
            policy.allows_in("kms:GenerateDataKey", "arn:aws:kms:eu-west-1:1:key/k", &context)
        };
        assert!(allows("aws:ssm:SessionId", "alice-0abc"));
        assert!(!allows("aws:ssm:SessionId", "bob-0abc"));
        assert!(!allows("aws:ssm:TargetId", "alice-0abc"));
    }

    #[test]
    fn a_document_that_is_no_policy_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Maybe","Action":"*","Resource":"*"}]}"#,
        ] {
            assert!(SessionPolicy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*-x-*", "a-x-x-b", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}
