//! Which machine a person means: by id, by name, by tags.

use crate::client::{ClientError, Gateway};
use crate::session::{Instance, Machine, Target, printable};

/// How a filter by a tag begins.
const TAG: &str = "tag:";
/// Longest word for a machine, in bytes; five tags at their longest.
const WORD_MAX: usize = 2048;

/// What a person typed for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Its id: `i-…`, `mi-…` or `ecs:…`.
    Id(Target),
    /// Its name, in any case.
    Name(String),
    /// All of these tags: `tag:KEY=VALUE`, more behind commas.
    Tags(Vec<(String, String)>),
}

/// What a word for a machine fits.
#[derive(Debug)]
pub enum Found {
    /// One machine.
    One(Target),
    /// Several: only the person can tell.
    Several(Vec<Instance>),
}

impl Wanted {
    /// Reads a word.
    pub fn parse(word: &str) -> Result<Self, ClientError> {
        if word.is_empty() || word.len() > WORD_MAX {
            return Err(ClientError::Target(format!("a machine's name has 1 to {WORD_MAX} bytes")));
        }
        if let Ok(target) = Target::parse(word) {
            return Ok(Self::Id(target));
        }
        let Some(filters) = word.strip_prefix(TAG) else { return Ok(Self::Name(word.to_owned())) };
        let tags = filters.split(",tag:").map(|filter| match filter.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(ClientError::Target(format!(
                "{} is not a filter; write tag:KEY=VALUE, or tag:KEY=VALUE,tag:KEY=VALUE",
                printable(word)
            ))),
        });
        tags.collect::<Result<_, _>>().map(Self::Tags)
    }

    /// The machines that are meant, among those that the person may see.
    ///
    /// Of several the only one that is online is meant.
    pub async fn find(&self, gateway: &Gateway) -> Result<Found, ClientError> {
        match self {
            Self::Id(target) => Ok(Found::One(target.clone())),
            Self::Name(name) => {
                let seen = gateway.machines().await?;
                let found = named(name, instances(seen.found));
                if found.is_empty() && seen.cut {
                    return Err(ClientError::Target(format!(
                        "there are more machines than were looked at, and of those none {}; name it by its id",
                        self.describe().replacen("are", "is", 1)
                    )));
                }
                self.among(found)
            }
            Self::Tags(tags) => self.among(instances(gateway.machines_tagged(tags).await?.found)),
        }
    }

    /// The sentence's end: "3 machines …".
    pub fn describe(&self) -> String {
        match self {
            Self::Id(target) => format!("are {target}"),
            Self::Name(name) => format!("are called {}", printable(name)),
            Self::Tags(tags) => {
                let pairs: Vec<String> =
                    tags.iter().map(|(key, value)| printable(&format!("{key}={value}"))).collect();
                format!("have the tags {}", pairs.join(" and "))
            }
        }
    }

    fn among(&self, mut found: Vec<Instance>) -> Result<Found, ClientError> {
        let online = found.iter().filter(|instance| instance.online).count();
        if online == 1 {
            found.retain(|instance| instance.online);
        }
        match (self, found.len()) {
            (Self::Tags(_), 0) => Err(ClientError::Target(format!(
                "no machines that you may see {}; `postern targets` lists them",
                self.describe()
            ))),
            (_, 0) => Err(ClientError::Target(format!(
                "no machine that you may see {}; `postern targets` lists them",
                self.describe().replacen("are", "is", 1)
            ))),
            (_, 1) => Ok(Found::One(found.remove(0).target)),
            _ => Ok(Found::Several(found)),
        }
    }
}

fn instances(machines: Vec<Machine>) -> Vec<Instance> {
    machines.into_iter().map(|machine| machine.instance).collect()
}

fn named(name: &str, instances: Vec<Instance>) -> Vec<Instance> {
    let is_named =
        |instance: &Instance| instance.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
    instances.into_iter().filter(is_named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn instance(id: &str, name: &str, online: bool) -> Instance {
        Instance {
            target: Target::parse(id).unwrap(),
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            name: Some(name.to_owned()),
            platform: None,
            agent_version: None,
            online,
            tags: BTreeMap::new(),
        }
    }

    fn by_name(name: &str, all: Vec<Instance>) -> Result<Found, ClientError> {
        Wanted::Name(name.to_owned()).among(named(name, all))
    }

    #[test]
    fn a_word_is_an_id_a_name_or_tags() {
        let tags = |pairs: &[(&str, &str)]| {
            Wanted::Tags(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        for (word, expected) in [
            ("i-0a", Wanted::Id(Target::parse("i-0a").unwrap())),
            ("ecs:demo_a_b", Wanted::Id(Target::parse("ecs:demo_a_b").unwrap())),
            ("web-1", Wanted::Name("web-1".to_owned())),
            ("tag:env=prod", tags(&[("env", "prod")])),
            ("tag:env=a,b,tag:role=", tags(&[("env", "a,b"), ("role", "")])),
        ] {
            assert_eq!(Wanted::parse(word).unwrap(), expected);
        }
        for bad in ["", "tag:", "tag:env", "tag:=x", "tag:a=b,tag:c"] {
            assert!(Wanted::parse(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_name_that_several_machines_have_is_not_guessed() {
        let all = || {
            vec![
                instance("i-0000000000000000a", "web", true),
                instance("i-0000000000000000b", "db", true),
                instance("i-0000000000000000c", "Web", true),
            ]
        };
        assert!(matches!(by_name("DB", all()), Ok(Found::One(target)) if target.as_str().ends_with('b')));
        assert!(matches!(by_name("web", all()), Ok(Found::Several(two)) if two.len() == 2));
        let error = by_name("we\u{1b}", all()).unwrap_err().to_string();
        assert_eq!(error, "no machine that you may see is called we; `postern targets` lists them");
    }

    #[test]
    fn the_only_one_that_is_online_is_meant() {
        let all =
            vec![instance("i-0000000000000000a", "web", false), instance("i-0000000000000000b", "web", true)];
        assert!(matches!(by_name("web", all), Ok(Found::One(target)) if target.as_str().ends_with('b')));
    }
}
