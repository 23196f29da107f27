//! `postern demo`: everything on this machine, walked the same way as AWS.
//!
//! The gateway is configured as an operator would: it reaches the embedded
//! SSM and STS through the same clients and checks as the real ones.

mod guide;
mod people;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use self::people::People;
use self::trust::Trust;
use crate::alerts::AlertsConfig;
use crate::archive::ArchiveConfig;
use crate::broker::{BrokerConfig, Secret, StaticKeys};
use crate::config::{
    AdminConfig, Config, IdentitySection, ListenConfig, OnStop, PolicyConfig, RecorderSection,
    RegistrySection, SessionsConfig,
};
use crate::console::ConsoleConfig;
use crate::front_door::Tls;
use crate::identity::WebIdentityConfig;
use crate::local_ssm::{LocalConfig, LocalSsm, LocalTarget};
use crate::serve::Gateway;
use crate::shipper::ShipperConfig;

/// The account and region of the embedded AWS.
pub(super) const ACCOUNT: &str = "000000000000";
pub(super) const REGION: &str = "us-east-1";
/// The role that the demo's broker takes for every session.
const BROKER_ROLE: &str = "arn:aws:iam::000000000000:role/PosternBroker";
/// The machines: this one under two names.
pub(super) const DEV: (&str, &str) = ("mi-0d0e0000000000001", "web-dev");
pub(super) const PROD: (&str, &str) = ("mi-0d0e0000000000002", "db-prod");
/// Sessions on the production machine are encrypted, as many accounts have it.
const PROD_KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/d0e00000-0000-0000-0000-000000000002";

/// The demo's policies, compiled in so that the binary is enough.
const POLICIES: &[(&str, &str)] = &[
    ("demo.cedar", include_str!("../../../policies/demo/demo.cedar")),
    ("groups.toml", include_str!("../../../policies/demo/groups.toml")),
];

/// Run everything on this machine: gateway, SSM, STS, targets, identities.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The state directory keeps identities, certificates and recordings; start again with the \
                        same one to find them. demo.json in it tells scripts where everything is."
)]
pub struct Args {
    /// Where everything is kept [default: ~/.local/state/postern-demo].
    #[arg(long, value_name = "DIR", env = "POSTERN_DEMO_STATE")]
    state: Option<PathBuf>,
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where metrics and health are served; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// Where recordings are archived: a directory, or s3://bucket/prefix
    /// [default: `archive` in the state directory].
    ///
    /// S3 is reached at AWS_ENDPOINT_URL_S3, with made-up keys.
    #[arg(long, value_name = "LOCATION")]
    archive: Option<String>,
    /// Ship sessions to this log group of CloudWatch Logs too, at
    /// AWS_ENDPOINT_URL_CLOUDWATCH_LOGS; it is created if it is missing.
    #[arg(long, value_name = "NAME", requires = "logs_endpoint")]
    log_group: Option<String>,
    /// The demo's keys are none of AWS's, so it ships to no AWS.
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", hide = true)]
    logs_endpoint: Option<String>,
    /// Folder with the `aws` command, if it is not on PATH.
    #[arg(long, value_name = "DIR")]
    aws_bin: Option<PathBuf>,
}

/// Starts the demo, prints what to paste, and serves until Ctrl-C.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    super::serve::on_all_cores(demo(args))
}

async fn demo(args: Args) -> anyhow::Result<ExitCode> {
    let state = state_directory(args.state.clone())?;
    let trust = Trust::open(&state.join("tls"), args.listen.ip())?;
    let people = People::open(&state.join("identities.json"))?;
    write_policies(&state.join("policies"))?;

    let tls = Tls { certificate: trust.certificate.clone(), key: trust.key.clone() };
    let local = start_local_ssm(&people, tls.server_config()?).await?;
    let local_url = format!("https://{}", local.addr);
    let gateway = Gateway::start(configuration(&args, &state, &trust, (&people, &local_url))?).await?;
    let place =
        guide::Place { state: &state, trust: &trust, people: &people, gateway: &gateway, aws: &local_url };
    place.write(args.aws_bin.as_deref())?;
    place.print()?;

    super::serve::told_to_stop().await?;
    eprintln!("\nStopping: ending sessions and sealing their recordings.");
    gateway.stop().await;
    local.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn state_directory(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let state = match given {
        Some(given) => given,
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set; say where with --state DIR")?;
            Path::new(&home).join(".local/state/postern-demo")
        }
    };
    private_folder(&state)?;
    state.canonicalize().with_context(|| format!("cannot use {}", state.display()))
}

/// A folder for keys: nobody else looks in.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file that only its owner reads, whole or not at all.
fn private_file(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Puts the demo's policies there once; what the user changed stays.
fn write_policies(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    private_folder(folder)?;
    for (name, text) in POLICIES {
        private_file(&folder.join(name), text)?;
    }
    Ok(())
}

async fn start_local_ssm(
    people: &People,
    tls: Arc<rustls::ServerConfig>,
) -> anyhow::Result<crate::local_ssm::Running> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = LocalConfig::new(listen, ACCOUNT, REGION);
    config.tls = Some(tls);
    config.identities = people.identities();
    config.roles = vec![BROKER_ROLE.to_owned()];
    config.kms_keys = vec![PROD_KEY.to_owned()];
    let prod = LocalTarget { kms_key: Some(PROD_KEY.to_owned()), ..target(PROD, "prod") };
    config.targets = vec![target(DEV, "dev"), prod];
    LocalSsm::start(config).await.context("the embedded SSM does not start")
}

fn target((id, name): (&str, &str), env: &str) -> LocalTarget {
    let mut target = LocalTarget::new(id, name);
    target.tags = BTreeMap::from([
        ("Name".to_owned(), name.to_owned()),
        ("env".to_owned(), env.to_owned()),
        ("team".to_owned(), "demo".to_owned()),
    ]);
    target.environment.insert("PS1".to_owned(), format!("{name}$ "));
    target.shell = vec!["/bin/bash".to_owned(), "--norc".to_owned()];
    target
}

fn configuration(
    args: &Args,
    state: &Path,
    trust: &Trust,
    (people, local_url): (&People, &str),
) -> anyhow::Result<Config> {
    let keys = people.broker();
    let broker = BrokerConfig {
        region: REGION.to_owned(),
        account: ACCOUNT.to_owned(),
        role_arn: Some(BROKER_ROLE.to_owned()),
        ssm_endpoint_url: Some(local_url.to_owned()),
        kms_endpoint_url: Some(local_url.to_owned()),
        tagging_endpoint_url: Some(local_url.to_owned()),
        sts_endpoint_url: Some(local_url.to_owned()),
        ca_bundle: Some(trust.authority.clone()),
        starts_per_second: 0,
        static_keys: Some(StaticKeys {
            access_key_id: keys.access_key_id.clone(),
            secret_access_key: Secret::new(&keys.secret_access_key),
            session_token: None,
        }),
        ..BrokerConfig::default()
    };
    let in_state = |name: &str| state.join(name).display().to_string();
    Ok(Config {
        state_directory: state.join("gateway"),
        listen: ListenConfig {
            address: args.listen,
            public_url: None,
            certificate: trust.certificate.clone(),
            key: trust.key.clone(),
            connections_per_source: 0,
        },
        admin: AdminConfig { address: args.admin },
        identity: IdentitySection {
            allowed_accounts: vec![ACCOUNT.to_owned()],
            regions: vec![REGION.to_owned()],
            key_minutes: 60,
            sts_endpoint_url: Some(local_url.to_owned()),
            ca_bundle: Some(trust.authority.clone()),
            oidc: None,
            web_identity: WebIdentityConfig {
                issuers: BTreeMap::from([(ACCOUNT.to_owned(), local_url.to_owned())]),
            },
        },
        policy: PolicyConfig { directory: state.join("policies") },
        broker,
        registry: RegistrySection::default(),
        // It takes what room there is.
        recorder: RecorderSection { spool: Some(state.join("recordings")), reserve_mb: 0 },
        archive: ArchiveConfig {
            location: Some(args.archive.clone().unwrap_or_else(|| in_state("archive"))),
            region: Some(REGION.to_owned()),
            ..ArchiveConfig::default()
        },
        shipper: ShipperConfig {
            log_group: args.log_group.clone().unwrap_or_default(),
            create: true,
            endpoint_url: args.logs_endpoint.clone(),
            ..ShipperConfig::default()
        },
        // Its machines end with it, so its sessions do.
        alerts: AlertsConfig::default(),
        sessions: SessionsConfig {
            node: "demo".to_owned(),
            on_stop: OnStop::End,
            ..SessionsConfig::default()
        },
        console: ConsoleConfig { people: Some(people.console()), ..ConsoleConfig::default() },
    })
}
