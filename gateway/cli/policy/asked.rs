//! What is asked about, from flags or from a file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::policy::{Action, Circumstances, Company, Policy, Requested, Situation};
use crate::session::Document;

/// Largest file of entities, bytes.
const FILE_MAX: u64 = 64 << 20;

/// Under which circumstances it is asked.
#[derive(Debug, Default, clap::Args)]
pub struct How {
    /// When, RFC 3339; now if not given.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<OffsetDateTime>,
    /// With this reason.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// From this address.
    #[arg(long, value_name = "IP")]
    source_ip: Option<IpAddr>,
    /// Signed in with a second factor.
    #[arg(long)]
    mfa: bool,
    /// With this session document.
    #[arg(long, value_name = "NAME", value_parser = document)]
    document: Option<String>,
    /// With this command.
    #[arg(long, value_name = "TEXT")]
    command: Option<String>,
    /// For this port.
    #[arg(long)]
    port: Option<u16>,
    /// For this host behind the machine.
    #[arg(long)]
    host: Option<String>,
}

impl How {
    /// The same for the policy room.
    pub fn circumstances(&self) -> Circumstances {
        Circumstances {
            now: self.at,
            reason: self.reason.clone(),
            source_ip: self.source_ip,
            mfa: self.mfa,
            document: self.document.clone(),
            command: self.command.clone(),
            port: self.port,
            host: self.host.clone(),
        }
    }
}

fn moment(text: &str) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).context("write a time such as 2026-11-30T08:00:00Z")
}

fn document(text: &str) -> anyhow::Result<String> {
    Ok(Document::parse(text)?.as_str().to_owned())
}

/// `env=prod`.
pub fn tag(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text.split_once('=').context("write a tag as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads people and machines; none if there is no file.
pub fn company(policy: &Policy, file: Option<&Path>) -> anyhow::Result<Company> {
    let entities = match file {
        None => Vec::new(),
        Some(path) => entities(&text(path)?).with_context(|| path.display().to_string())?,
    };
    Ok(Company::new(entities, policy))
}

/// The person of that name; somebody new if it is an ARN or an address.
pub fn person(company: &mut Company, policy: &Policy, name: &str) -> anyhow::Result<String> {
    if let Some(found) = company.find("User", name)?.or_else(|| company.add_person(policy, name)) {
        return Ok(found);
    }
    bail!(
        "there is no person {name} in the entities; name one of them (--entities FILE), or give an ARN or an e-mail address"
    )
}

/// A machine that is named by id, name or nothing but its tags.
#[derive(Debug, Clone, clap::Args)]
pub struct Machine {
    /// A tag that it has, KEY=VALUE; may be given several times.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// The account of a machine that is in no file; the person's if not given.
    #[arg(long, value_name = "DIGITS")]
    account: Option<String>,
    /// The region of a machine that is in no file.
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    region: String,
}

impl Machine {
    /// Finds it, or adds it if its id is one of a machine.
    pub fn find(&self, company: &mut Company, name: &str, account: &str) -> anyhow::Result<String> {
        let tags: BTreeMap<_, _> = self.tags.iter().cloned().collect();
        if let Some(found) = company.find("Instance", name)? {
            company.tag(&found, &tags);
            return Ok(found);
        }
        if crate::session::Target::parse(name).is_err() {
            bail!(
                "there is no machine {name} in the entities; name one of them, or give an id such as i-0abc"
            )
        }
        Ok(self.add_anew(company, name, account))
    }

    /// Adds one that is in no file, in place of what it was.
    pub fn add_anew(&self, company: &mut Company, name: &str, account: &str) -> String {
        let account = self.account.as_deref().unwrap_or(account);
        company.add_machine(name, account, &self.region, &self.tags.iter().cloned().collect())
    }
}

/// The action of that name.
pub fn action(name: &str) -> anyhow::Result<Action> {
    let found = Action::ALL.into_iter().find(|action| action.as_str().eq_ignore_ascii_case(name));
    let known = || Action::ALL.map(Action::as_str).join(", ");
    found.with_context(|| format!("there is no action {name}; there are {}", known()))
}

/// A request in a file: alone, or a case with its entities.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Case {
        request: Requested,
        #[serde(default)]
        entities: Value,
    },
    Alone(Requested),
}

/// Reads a request; `-` is standard input.
///
/// Entities that it brings or names are taken, else those of the company.
pub fn written(file: &Path, company: Company, policy: &Policy) -> anyhow::Result<Situation> {
    let text = text(file)?;
    let written: Written = serde_json::from_str(&text).with_context(|| {
        format!("{}: a request has principal, action, resource and context", file.display())
    })?;
    let (request, own) = match written {
        Written::Case { request, entities } => (request, entities),
        Written::Alone(request) => (request, Value::Null),
    };
    let entities = match own {
        Value::Null => company.around(&request),
        Value::String(name) => {
            let path = file.parent().unwrap_or(file).join(name);
            let all = entities(&self::text(&path)?).with_context(|| path.display().to_string())?;
            Company::new(all, policy).around(&request)
        }
        Value::Array(all) => Company::new(all, policy).around(&request),
        _ => bail!("entities are a list, or the name of a file"),
    };
    Ok(Situation { request, entities })
}

fn entities(text: &str) -> anyhow::Result<Vec<Value>> {
    serde_json::from_str(text).context("entities are a JSON list, as the cases have them")
}

fn text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().take(FILE_MAX).read_to_string(&mut text)?;
        return Ok(text);
    }
    let about = fs::metadata(path).with_context(|| path.display().to_string())?;
    anyhow::ensure!(about.len() <= FILE_MAX, "{} is larger than {FILE_MAX} bytes", path.display());
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The folder of policies and the file of entities.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// The folder with `*.cedar` files.
    #[arg(default_value = "policies")]
    pub dir: PathBuf,
    /// People and machines, a JSON file as the cases use it.
    #[arg(long, value_name = "FILE")]
    pub entities: Option<PathBuf>,
}
