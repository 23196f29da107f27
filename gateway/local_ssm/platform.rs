//! Which operating system the targets have: this machine's.

use std::fs;

/// Where systems say what they are, the first that is there.
const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Name and version as the real agent reads them; none if not told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Platform {
    /// `Ubuntu`.
    pub(super) name: Option<String>,
    /// `24.04`.
    pub(super) version: Option<String>,
}

impl Platform {
    /// This machine's.
    pub(super) fn here() -> Self {
        let text = FILES.iter().find_map(|file| fs::read_to_string(file).ok());
        text.map_or_else(Self::default, |text| Self::read(&text))
    }

    /// Reads lines of `KEY=value`, a value in quotes or not.
    fn read(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
            let value = line.trim().trim_matches(['"', '\'']);
            (!value.is_empty()).then(|| value.to_owned())
        };
        Self { name: value("NAME"), version: value("VERSION_ID") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_says_its_name_and_version_or_neither() {
        let ubuntu = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\n";
        let told = |name: &str, version: Option<&str>| Platform {
            name: Some(name.to_owned()),
            version: version.map(str::to_owned),
        };
        assert_eq!(Platform::read(ubuntu), told("Ubuntu", Some("24.04")));
        assert_eq!(
            Platform::read("NAME='Alpine Linux'\nVERSION_ID=3.20.3"),
            told("Alpine Linux", Some("3.20.3"))
        );
        assert_eq!(Platform::read("NAME=Arch\nVERSION_ID=\"\"\n#NAME=x"), told("Arch", None));
        assert_eq!(Platform::read(""), Platform::default());
    }
}
