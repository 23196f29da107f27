//! The demo's identities: who they are, their keys, what they may do.

use std::path::Path;

use anyhow::Context;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::ACCOUNT;
use crate::broker::Secret;
use crate::console;
use crate::local_ssm::LocalIdentity;
use crate::session::{AuthMethod, Facts, Principal};

/// Everybody in the demo, in the order in which they are shown.
pub(super) const CAST: &[Role] = &[
    Role {
        name: "alice",
        arn: "arn:aws:iam::000000000000:user/alice",
        user_id: "AIDADEMOALICE00000001",
        temporary: false,
        may: "developer: opens sessions on web-dev, and on db-prod with a reason; sees and replays her own",
    },
    Role {
        name: "bob",
        arn: "arn:aws:iam::000000000000:user/bob",
        user_id: "AIDADEMOBOB0000000001",
        temporary: false,
        may: "contractor: opens sessions on web-dev only; refused on db-prod",
    },
    Role {
        name: "carol",
        arn: "arn:aws:sts::000000000000:assumed-role/Auditor/carol",
        user_id: "AROADEMOAUDITOR000001:carol",
        temporary: true,
        may: "auditor: lists, replays and ends every session; may not open one",
    },
];

/// The gateway's own identity, which may take the broker role.
const BROKER: Role = Role {
    name: "gateway",
    arn: "arn:aws:iam::000000000000:user/postern-gateway",
    user_id: "AIDADEMOGATEWAY000001",
    temporary: false,
    may: "takes the role PosternBroker",
};

/// One identity as the demo describes it.
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) arn: &'static str,
    user_id: &'static str,
    temporary: bool,
    pub(super) may: &'static str,
}

/// One identity's keys, made at the first start and kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Keys {
    name: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    session_token: Option<String>,
}

/// Everybody's keys.
#[derive(Serialize, Deserialize)]
pub(super) struct People {
    keys: Vec<Keys>,
    /// What whoever opens the console has to know to be one of them.
    #[serde(default)]
    console_key: String,
}

impl People {
    /// Reads the keys of an earlier start, or makes them.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut people: Self = serde_json::from_str(&text)
                .with_context(|| format!("{} is damaged; remove it to get new identities", path.display()))?;
            if people.console_key.is_empty() {
                people.console_key = new_console_key()?;
                super::private_file(path, &serde_json::to_string_pretty(&people)?)?;
            }
            return Ok(people);
        }
        let keys = CAST.iter().chain([&BROKER]).map(new_keys).collect::<anyhow::Result<_>>()?;
        let people = Self { keys, console_key: new_console_key()? };
        super::private_file(path, &serde_json::to_string_pretty(&people)?)?;
        Ok(people)
    }

    /// The identities as the embedded STS knows them.
    pub(super) fn identities(&self) -> Vec<LocalIdentity> {
        let roles = CAST.iter().chain([&BROKER]);
        roles
            .filter_map(|role| self.of(role.name).map(|keys| (role, keys)))
            .map(|(role, keys)| local(role, keys))
            .collect()
    }

    /// Whom one may be in the console, knowing the key in its address.
    pub(super) fn console(&self) -> console::People {
        let cast = CAST.iter().map(|role| (principal(role), role.may.to_owned())).collect();
        console::People { key: Secret::new(&self.console_key), cast }
    }

    /// The console's address with that key, which stays in the browser.
    pub(super) fn console_url(&self, gateway: &str) -> String {
        format!("{gateway}/console/enter#demo={}", self.console_key)
    }

    /// The keys that the gateway's broker calls AWS with.
    pub(super) fn broker(&self) -> Keys {
        let missing = || Keys {
            name: BROKER.name.to_owned(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            session_token: None,
        };
        self.of(BROKER.name).cloned().unwrap_or_else(missing)
    }

    /// The AWS credentials file with everybody's keys.
    pub(super) fn credentials_file(&self) -> String {
        let mut text = String::from("# Written by postern demo at every start.\n");
        for role in CAST {
            let Some(keys) = self.of(role.name) else { continue };
            text.push_str(&format!(
                "\n[{}-iam]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
                role.name, keys.access_key_id, keys.secret_access_key
            ));
            if let Some(token) = &keys.session_token {
                text.push_str(&format!("aws_session_token = {token}\n"));
            }
        }
        text
    }

    fn of(&self, name: &str) -> Option<&Keys> {
        self.keys.iter().find(|keys| keys.name == name)
    }
}

fn local(role: &Role, keys: &Keys) -> LocalIdentity {
    LocalIdentity {
        access_key_id: keys.access_key_id.clone(),
        secret_access_key: keys.secret_access_key.clone(),
        session_token: keys.session_token.clone(),
        arn: role.arn.to_owned(),
        user_id: role.user_id.to_owned(),
    }
}

fn principal(role: &Role) -> Principal {
    let iam_role = role.arn.split(":assumed-role/").nth(1).and_then(|rest| rest.split('/').next());
    Principal {
        id: role.user_id.to_owned(),
        arn: role.arn.to_owned(),
        account: ACCOUNT.to_owned(),
        name: role.name.to_owned(),
        role: iam_role.map(str::to_owned),
        method: AuthMethod::StsProof,
        authenticated_at: time::OffsetDateTime::now_utc().unix_timestamp(),
        facts: Facts::default(),
    }
}

fn new_console_key() -> anyhow::Result<String> {
    Ok(BASE64URL_NOPAD.encode(&random::<24>()?))
}

fn new_keys(role: &Role) -> anyhow::Result<Keys> {
    debug_assert!(role.arn.contains(ACCOUNT));
    let prefix = if role.temporary { "ASIA" } else { "AKIA" };
    let id = BASE32_NOPAD.encode(&random::<10>()?);
    Ok(Keys {
        name: role.name.to_owned(),
        access_key_id: format!("{prefix}{id}"),
        secret_access_key: BASE64URL_NOPAD.encode(&random::<30>()?),
        session_token: if role.temporary { Some(BASE64URL_NOPAD.encode(&random::<48>()?)) } else { None },
    })
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no randomness"))?;
    Ok(bytes)
}
