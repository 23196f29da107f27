//! The nouns of the product: what a session is named, of whom, to what.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE32_NOPAD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

mod machine;
mod text;

pub use machine::{Associations, Details, Machine};
pub use text::{clean_reason, is_hidden, printable, reason};

/// Longest session id of the SSM API model, in characters.
const SESSION_ID_MAX: usize = 96;
/// Longest `Target` of the SSM API model, in characters.
const TARGET_MAX: usize = 400;
/// Longest document name or ARN we pass on, in characters.
const DOCUMENT_MAX: usize = 150;
/// Longest person's name kept in a session id, in characters.
const NAME_IN_ID_MAX: usize = 64;

/// Why a word from outside is not one of our nouns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{noun} is not valid: {why}")]
pub struct InvalidNoun {
    noun: &'static str,
    why: &'static str,
}

/// A session's id: 1 to 96 of `A-Z a-z 0-9 + = , . @ _ -`.
///
/// It is a file name and a URL segment everywhere in the gateway, so it
/// never begins with a dot and never holds a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

impl SessionId {
    /// Accepts an id from outside, or says why not.
    pub fn parse(text: &str) -> Result<Self, InvalidNoun> {
        let invalid = |why| InvalidNoun { noun: "session id", why };
        if text.is_empty() || text.len() > SESSION_ID_MAX {
            return Err(invalid("it must have 1 to 96 characters"));
        }
        if text.starts_with('.') || !text.bytes().all(is_name_byte) {
            return Err(invalid("only letters, digits and + = , . @ _ - are allowed"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Mints `<name>-<26 base32>`, shaped like an id of AWS.
    pub fn mint(name: &str) -> Self {
        let mut random = [0u8; 16];
        // Without the operating system's randomness nothing here is safe.
        if SystemRandom::new().fill(&mut random).is_err() {
            std::process::abort();
        }
        let suffix = BASE32_NOPAD.encode(&random).to_ascii_lowercase();
        Self(format!("{}-{suffix}", sanitised_name(name)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidNoun;
    fn try_from(text: String) -> Result<Self, InvalidNoun> {
        Self::parse(&text)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

/// A target as SSM names it: `i-…`, `mi-…` or `ecs:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target(String);

impl Target {
    /// Accepts a target from outside, or says why not.
    pub fn parse(text: &str) -> Result<Self, InvalidNoun> {
        let invalid = |why| InvalidNoun { noun: "target", why };
        if text.is_empty() || text.len() > TARGET_MAX {
            return Err(invalid("it must have 1 to 400 characters"));
        }
        let known = ["i-", "mi-", "ecs:"].iter().any(|prefix| text.starts_with(prefix));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':');
        let target = Self(text.to_owned());
        let is_no_task = text.starts_with("ecs:") && target.ecs_task().is_none();
        if !known || is_no_task || !text.bytes().all(plain) {
            return Err(invalid("it must be i-…, mi-… or ecs:cluster_task_runtime"));
        }
        Ok(target)
    }

    /// Cluster and task of `ecs:<cluster>_<task>_<runtime id>`.
    ///
    /// A cluster's name may hold `_`; tasks and runtimes have none.
    pub fn ecs_task(&self) -> Option<(&str, &str)> {
        let mut parts = self.0.strip_prefix("ecs:")?.rsplitn(3, '_');
        let (runtime, task, cluster) = (parts.next()?, parts.next()?, parts.next()?);
        [runtime, task, cluster].iter().all(|part| !part.is_empty()).then_some((cluster, task))
    }

    /// The target as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Target {
    type Error = InvalidNoun;
    fn try_from(text: String) -> Result<Self, InvalidNoun> {
        Self::parse(&text)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.0
    }
}

/// The SSM document a session runs, by name or ARN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Document(String);

impl Document {
    /// The account's shell document, used when a caller names none.
    pub const SHELL: &'static str = "SSM-SessionManagerRunShell";

    /// Accepts a document name from outside, or says why not.
    pub fn parse(text: &str) -> Result<Self, InvalidNoun> {
        let invalid = |why| InvalidNoun { noun: "document", why };
        if text.is_empty() || text.len() > DOCUMENT_MAX {
            return Err(invalid("its name must have 1 to 150 characters"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/');
        if !text.bytes().all(plain) {
            return Err(invalid("only letters, digits and - _ . : / are allowed"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The default shell document.
    pub fn shell() -> Self {
        Self(Self::SHELL.to_owned())
    }

    /// The document's name as the caller gave it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a document that everybody knows: AWS's or the shell's.
    ///
    /// An ARN of another account's document is none, whatever its name.
    pub fn owned_name(&self) -> Option<&str> {
        let name = match self.0.strip_prefix("arn:") {
            None => self.0.as_str(),
            Some(arn) => arn.split_once(":document/")?.1,
        };
        (name.starts_with("AWS-") || self.0 == Self::SHELL).then_some(name)
    }

    /// What kind of session a document opens that is known by its name.
    pub fn known_kind(&self) -> Option<SessionKind> {
        Some(match self.owned_name()? {
            Self::SHELL => SessionKind::Shell,
            "AWS-StartInteractiveCommand" => SessionKind::InteractiveCommand,
            "AWS-StartNonInteractiveCommand" => SessionKind::NonInteractiveCommand,
            "AWS-StartSSHSession" => SessionKind::Ssh,
            "AWS-StartPortForwardingSession" => SessionKind::Port,
            "AWS-StartPortForwardingSessionToRemoteHost" => SessionKind::PortToHost,
            _ => return None,
        })
    }

    /// The same, with any other document taken for a shell.
    pub fn kind(&self) -> SessionKind {
        self.known_kind().unwrap_or(SessionKind::Shell)
    }
}

/// What a session carries; decides action, record and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// A shell on a terminal.
    Shell,
    /// One command on a terminal.
    InteractiveCommand,
    /// One command without a terminal.
    NonInteractiveCommand,
    /// A port of the target.
    Port,
    /// A port of a host that the target reaches.
    PortToHost,
    /// The standard streams of an SSH client.
    Ssh,
}

impl SessionKind {
    /// Whether its output is what a terminal shows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Shell | Self::InteractiveCommand | Self::NonInteractiveCommand)
    }
}

/// How safe what happened must be before it counts as recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Written to the spool's files; survives the process.
    #[default]
    Process,
    /// On disk; survives the machine.
    Disk,
    /// On disk and accepted by CloudWatch; survives the node.
    ///
    /// On disk too, because a session that goes on after the machine came
    /// back goes on with what the disk has.
    Remote,
}

impl Durability {
    /// Whether it has to be on disk.
    pub fn on_disk(self) -> bool {
        self >= Self::Disk
    }
}

/// How a caller proved to be who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// A challenge-bound STS `GetCallerIdentity`, rebuilt by the gateway.
    StsProof,
    /// A token of STS `GetWebIdentityToken` for this gateway.
    WebIdentity,
    /// A sign-in at the company's identity provider.
    Oidc,
}

impl AuthMethod {
    /// Its word in policies, records and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StsProof => "sts_proof",
            Self::WebIdentity => "web_identity",
            Self::Oidc => "oidc",
        }
    }
}

/// What else is known of a principal; empty after an STS proof.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The address that the identity provider has verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The groups that the identity provider names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether a second factor was used, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa: Option<bool>,
    /// The source identity of the AWS session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// The id of their user in Identity Center, if AWS says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_center_user: Option<String>,
    /// The tags of the AWS identity or session.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Who is calling: a verified identity, of IAM or of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Immutable id: `AROA…:session`, `AIDA…`, the account id for root, or
    /// `issuer|subject` of an identity provider.
    pub id: String,
    /// The ARN as STS gave it; whoever has none goes by the id.
    pub arn: String,
    /// The account, twelve digits; empty for whoever is in none.
    pub account: String,
    /// The person: role session name, user name or name at the provider.
    pub name: String,
    /// The role's name, for assumed roles.
    pub role: Option<String>,
    /// How it was proved.
    pub method: AuthMethod,
    /// When it was proved, seconds since the Unix epoch.
    pub authenticated_at: i64,
    /// What else is known.
    #[serde(default, skip_serializing_if = "is_bare")]
    pub facts: Facts,
}

fn is_bare(facts: &Facts) -> bool {
    *facts == Facts::default()
}

impl Principal {
    /// The name, if it was given to them: whoever assumes a role, asks for a
    /// federated user or edits a profile may take any name.
    pub fn given_name(&self) -> Option<&str> {
        let given = match (self.method, self.role.as_deref()) {
            // The session name of Identity Center is the user's.
            (AuthMethod::StsProof | AuthMethod::WebIdentity, Some(role)) => {
                role.starts_with("AWSReservedSSO_")
            }
            (AuthMethod::StsProof | AuthMethod::WebIdentity, None) => self.arn.contains(":user/"),
            (AuthMethod::Oidc, _) => self.facts.email.as_deref() == Some(self.name.as_str()),
        };
        given.then_some(self.name.as_str())
    }

    /// The role of an assumed-role session as IAM writes it, without its path.
    pub fn role_arn(&self) -> Option<String> {
        let role = self.role.as_deref()?;
        let partition = self.arn.split(':').nth(1).unwrap_or("aws");
        Some(format!("arn:{partition}:iam::{}:role/{role}", self.account))
    }
}

/// A machine as SSM describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub target: Target,
    /// The account it is in, twelve digits.
    pub account: String,
    /// The region it is in.
    pub region: String,
    /// Its `Name` tag or computer name.
    pub name: Option<String>,
    /// `Linux`, `Windows` or `MacOS`.
    pub platform: Option<String>,
    /// The version of its SSM agent.
    pub agent_version: Option<String>,
    /// Whether its agent answers.
    pub online: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// What `StartSession` asks for, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// The machine.
    pub target: Target,
    /// The document, the account's shell if none was named.
    pub document: Document,
    /// The document's parameters.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// Why, in the caller's words; control characters removed.
    pub reason: Option<String>,
}

/// A name that fits RoleSessionName and a session id: `[\w+=,.@-]{2,64}`.
pub fn sanitised_name(name: &str) -> String {
    let kept = name.chars().map(|c| {
        let fits = c.is_ascii() && is_name_byte(c as u8);
        if fits { c } else { '-' }
    });
    let cut: String = kept.take(NAME_IN_ID_MAX).collect();
    let trimmed = cut.trim_start_matches('.');
    match trimmed.len() {
        0 => "unknown".to_owned(),
        1 => format!("{trimmed}-"),
        _ => trimmed.to_owned(),
    }
}

/// This machine's time, milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'=' | b',' | b'.' | b'@' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_id_is_a_valid_id() {
        let id = SessionId::mint("alice@example.com");
        assert_eq!(SessionId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.as_str().len(), "alice@example.com-".len() + 26);
    }

    #[test]
    fn an_id_is_never_a_path() {
        for bad in ["", "../x", "a/b", ".hidden", "a\0b", "é", &"x".repeat(97)] {
            assert!(SessionId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_target_is_an_instance_or_a_task() {
        for good in ["i-0123456789abcdef0", "mi-0123456789abcdef0", "ecs:demo_0a1b_2c3d"] {
            assert!(Target::parse(good).is_ok(), "{good} was refused");
        }
        for bad in ["", "web-1", "i-0 1", "i-\u{1b}[2J", "ecs:../../x", "ecs:demo", "ecs:demo__x"] {
            assert!(Target::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_task_is_found_in_a_cluster_whose_name_has_underscores() {
        let target = Target::parse("ecs:my_cluster_0a1b_0a1b-2c3d").unwrap();
        assert_eq!(target.ecs_task(), Some(("my_cluster", "0a1b")));
        assert_eq!(Target::parse("i-0123456789abcdef0").unwrap().ecs_task(), None);
    }

    #[test]
    fn a_name_is_made_to_fit_sts() {
        assert_eq!(sanitised_name("Zoë Smith"), "Zo--Smith");
        assert_eq!(sanitised_name(""), "unknown");
        assert_eq!(sanitised_name("x"), "x-");
    }
}
