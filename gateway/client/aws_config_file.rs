//! Writing a gateway's profile into the AWS configuration, and nothing else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::client::ClientError;
use crate::client::error::shown;

/// Settings that would beat `credential_process` or contradict it.
const OTHER_SOURCES: [&str; 6] = [
    "aws_access_key_id",
    "role_arn",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
    "login_session",
];

/// What a profile of ours says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayProfile {
    /// Its name.
    pub name: String,
    /// The region of the targets.
    pub region: String,
    /// The gateway's URL.
    pub gateway: String,
    /// The command that fetches keys.
    pub credential_process: String,
    /// Certificates to trust, if not the system's.
    pub ca_bundle: Option<String>,
}

/// Puts the profile into the file; true if the file had to change.
pub fn write(path: &Path, profile: &GatewayProfile) -> Result<bool, ClientError> {
    // A link into a repository of dot files stays a link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(ClientError::io("read", path, error)),
    };
    let after = edited(&before, profile)?;
    if after == before {
        return Ok(false);
    }
    replace(path, &after).map_err(|e| ClientError::io("write", path, e))?;
    Ok(true)
}

/// The file's text with the profile in it, every other line as it was.
pub fn edited(text: &str, profile: &GatewayProfile) -> Result<String, ClientError> {
    check_words(profile)?;
    let mut file = Lines::of(text);
    let title = match profile.name.as_str() {
        "default" => "default".to_owned(),
        name => format!("profile {name}"),
    };
    if let Some(source) = OTHER_SOURCES.iter().find(|key| file.value(&title, key).is_some()) {
        return Err(ClientError::Profile(format!(
            "profile {} already gets its keys another way ({source}); choose another name with --profile",
            profile.name
        )));
    }
    file.set(&title, "region", &profile.region);
    file.set(&title, "credential_process", &profile.credential_process);
    file.set(&title, "services", &profile.name);
    match &profile.ca_bundle {
        Some(bundle) => file.set(&title, "ca_bundle", bundle),
        None => file.remove(&title, "ca_bundle"),
    }
    file.set_nested(&format!("services {}", profile.name), "ssm", "endpoint_url", &profile.gateway);
    Ok(file.text())
}

fn check_words(profile: &GatewayProfile) -> Result<(), ClientError> {
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b);
    let wrong = |what: &str| Err(ClientError::Profile(what.to_owned()));
    if profile.name.is_empty() || !profile.name.bytes().all(named) {
        return wrong("a profile's name has letters, digits and - _ . @ + only");
    }
    let bundle = profile.ca_bundle.as_deref().unwrap_or_default();
    let words = [profile.region.as_str(), &profile.gateway, &profile.credential_process, bundle];
    match words.iter().find(|word| word.chars().any(char::is_control)) {
        Some(word) => wrong(&format!("{} holds control characters", shown(word))),
        None => Ok(()),
    }
}

/// One word of a `credential_process` command, as both shells read it.
///
/// The AWS CLI splits the command itself, the Go SDK hands it to `sh -c`;
/// single quotes mean the same to both.
pub fn command_word(word: &str) -> Result<String, ClientError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@+=,%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return Ok(word.to_owned());
    }
    if word.contains('\'') || word.chars().any(char::is_control) {
        return Err(ClientError::Profile(format!("{} cannot be written into a command", shown(word))));
    }
    Ok(format!("'{word}'"))
}

/// A file of sections as lines, so that comments and order survive.
struct Lines {
    lines: Vec<String>,
}

impl Lines {
    fn of(text: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// First and one past the last line of a section's body.
    fn section(&self, title: &str) -> Option<(usize, usize)> {
        let start = self.lines.iter().position(|line| title_of(line).as_deref() == Some(title))? + 1;
        let body = self.lines.iter().skip(start).take_while(|line| title_of(line).is_none());
        Some((start, start + body.count()))
    }

    /// The line of a key on the section's first level.
    fn key(&self, title: &str, key: &str) -> Option<usize> {
        let (start, end) = self.section(title)?;
        let mut lines = self.lines.iter().enumerate().take(end).skip(start);
        lines.find(|(_, line)| !is_indented(line) && key_of(line) == Some(key)).map(|(at, _)| at)
    }

    fn value(&self, title: &str, key: &str) -> Option<&str> {
        let line = self.lines.get(self.key(title, key)?)?;
        line.split_once('=').map(|(_, value)| value.trim())
    }

    fn set(&mut self, title: &str, key: &str, value: &str) {
        let line = format!("{key} = {value}");
        if self.value(title, key) == Some(value) {
            return;
        }
        match self.key(title, key) {
            Some(at) => self.put(at, line),
            None => {
                let end = self.end_of(title);
                self.lines.insert(end, line);
            }
        }
    }

    fn remove(&mut self, title: &str, key: &str) {
        if let Some(at) = self.key(title, key) {
            self.lines.remove(at);
        }
    }

    /// Sets `key` in the indented block under `outer`.
    fn set_nested(&mut self, title: &str, outer: &str, key: &str, value: &str) {
        let Some(block) = self.key(title, outer) else {
            let end = self.end_of(title);
            self.lines.insert(end, format!("{outer} ="));
            self.lines.insert(end + 1, format!("  {key} = {value}"));
            return;
        };
        let nested = self.lines.iter().enumerate().skip(block + 1);
        let mut inside = nested.take_while(|(_, line)| is_indented(line) && title_of(line).is_none());
        let line = format!("  {key} = {value}");
        match inside.find(|(_, line)| key_of(line) == Some(key)).map(|(at, line)| (at, line.clone())) {
            Some((_, old)) if old.split_once('=').is_some_and(|(_, v)| v.trim() == value) => {}
            Some((at, _)) => self.put(at, line),
            None => self.lines.insert(block + 1, line),
        }
    }

    /// Where a new key goes: after the section's last line with text.
    fn end_of(&mut self, title: &str) -> usize {
        if let Some((start, end)) = self.section(title) {
            let mut body = self.lines.iter().enumerate().take(end).skip(start);
            let last = body.rfind(|(_, line)| !line.trim().is_empty());
            return last.map_or(start, |(at, _)| at + 1);
        }
        if self.lines.last().is_some_and(|line| !line.trim().is_empty()) {
            self.lines.push(String::new());
        }
        self.lines.push(format!("[{title}]"));
        self.lines.len()
    }

    fn put(&mut self, at: usize, line: String) {
        if let Some(old) = self.lines.get_mut(at) {
            *old = line;
        }
    }
}

/// The words between brackets, runs of blanks as one.
fn title_of(line: &str) -> Option<String> {
    let inner = line.trim().strip_prefix('[')?.split_once(']')?.0;
    Some(inner.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn key_of(line: &str) -> Option<&str> {
    let is_comment = line.trim_start().starts_with(['#', ';']);
    line.split_once('=').filter(|_| !is_comment).map(|(key, _)| key.trim())
}

fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let mode = fs::metadata(path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
    let draft = path.with_extension(format!("postern-{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# mine\n[default]\nregion=eu-west-1 ; here\n\n[profile prod]\nsso_session = corp\n\
        s3 =\n  endpoint_url = https://s3.example\n\n[sso-session corp]\nsso_region = eu-west-1\n";

    fn profile() -> GatewayProfile {
        GatewayProfile {
            name: "gw".to_owned(),
            region: "us-east-1".to_owned(),
            gateway: "https://gw.example.com".to_owned(),
            credential_process: "postern credentials --gateway https://gw.example.com".to_owned(),
            ca_bundle: Some("/etc/ca.pem".to_owned()),
        }
    }

    #[test]
    fn everything_else_stays_as_it_was() {
        let after = edited(BEFORE, &profile()).unwrap();
        let added = after.strip_prefix(BEFORE).unwrap();
        assert_eq!(
            added,
            "\n[profile gw]\nregion = us-east-1\n\
             credential_process = postern credentials --gateway https://gw.example.com\nservices = gw\n\
             ca_bundle = /etc/ca.pem\n\n[services gw]\nssm =\n  endpoint_url = https://gw.example.com\n"
        );
    }

    #[test]
    fn writing_twice_changes_nothing() {
        let once = edited(BEFORE, &profile()).unwrap();
        assert_eq!(edited(&once, &profile()).unwrap(), once);
    }

    #[test]
    fn a_moved_gateway_replaces_the_old_one_in_place() {
        let once =
            edited(BEFORE, &profile()).unwrap().replace("[profile gw]\n", "[profile gw]\noutput = json\n");
        let moved =
            GatewayProfile { gateway: "https://new.example.com".to_owned(), ca_bundle: None, ..profile() };
        let twice = edited(&once, &moved).unwrap();
        assert_eq!(twice.matches("[services gw]").count(), 1);
        assert!(twice.contains("  endpoint_url = https://new.example.com\n"));
        assert!(twice.contains("output = json\n") && twice.contains("endpoint_url = https://s3.example\n"));
        assert!(!twice.contains("ca_bundle"));
    }

    #[test]
    fn a_services_section_of_the_user_keeps_its_other_services() {
        let before = "[services gw]\ns3 =\n  endpoint_url = https://s3.example\n";
        let after = edited(before, &profile()).unwrap();
        assert!(after.starts_with(
            "[services gw]\ns3 =\n  endpoint_url = https://s3.example\nssm =\n  endpoint_url = https://gw.example.com\n"
        ));
    }

    #[test]
    fn a_profile_with_other_keys_is_not_taken_over() {
        let error = edited(BEFORE, &GatewayProfile { name: "prod".to_owned(), ..profile() }).unwrap_err();
        assert!(error.to_string().contains("sso_session"), "{error}");
    }

    #[test]
    fn a_word_cannot_become_a_line_or_a_command() {
        let bad = GatewayProfile { region: "x\ncredential_process = evil".to_owned(), ..profile() };
        assert!(edited("", &bad).is_err());
        assert!(edited("", &GatewayProfile { name: "a]\n[b".to_owned(), ..profile() }).is_err());
        assert_eq!(command_word("/opt/my tools/postern").unwrap(), "'/opt/my tools/postern'");
        assert_eq!(command_word("$(rm -rf /)").unwrap(), "'$(rm -rf /)'");
        assert!(command_word("it's").is_err());
    }

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aws/config");
        assert!(write(&path, &profile()).unwrap());
        assert!(!write(&path, &profile()).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(write(&link, &GatewayProfile { region: "eu-west-1".to_owned(), ..profile() }).unwrap());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft was left");
    }
}
