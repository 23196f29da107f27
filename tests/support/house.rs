//! One gateway with its AWS beside it, in a folder of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use postern::alerts::AlertsConfig;
use postern::archive::ArchiveConfig;
use postern::broker::{BrokerConfig, Secret, StaticKeys};
use postern::client::Trust;
use postern::config::{
    AdminConfig, Config, IdentitySection, ListenConfig, PolicyConfig, RecorderSection, RegistrySection,
    SessionsConfig,
};
use postern::console::ConsoleConfig;
use postern::front_door::Tls;
use postern::identity::WebIdentityConfig;
use postern::local_ssm::{Habits, LocalConfig, LocalIdentity, LocalSsm, LocalTarget, Running};
use postern::policy::Standing;
use postern::serve::{Gateway, ServeError};
use postern::shipper::ShipperConfig;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::apart::Apart;
use super::person::{Person, cast};
use super::web::{Answer, Door};
use super::within;

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-west-1";
pub const BROKER_KEY: (&str, &str) = ("AKIAPOSTERNBROKER001", "the-brokers-own-secret-key");
const BROKER_ROLE: &str = "arn:aws:iam::111122223333:role/PosternBroker";

/// A machine that developers may use as they like.
pub const DEV: &str = "mi-0000000000000000d";
/// A machine that wants a reason and shows a banner.
pub const PROD: &str = "mi-0000000000000000a";
/// A machine whose sessions last two seconds.
pub const BRIEF: &str = "mi-0000000000000000b";
/// A machine whose sessions end after a quiet second.
pub const QUIET: &str = "mi-0000000000000000c";
/// A machine that a policy forbids to everybody.
pub const CLOSED: &str = "mi-0000000000000000f";

/// A machine whose sessions are recorded on disk, keys too.
pub const DISK: &str = "mi-00000000000000d15";
/// A machine whose recordings have to be stored elsewhere.
pub const REMOTE: &str = "mi-00000000000000e15";

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A gateway, the AWS behind it, and the folder that both live in.
pub struct House {
    pub local: Running,
    pub door: Door,
    pub admin: SocketAddr,
    pub trust: Trust,
    pub spool: PathBuf,
    gateway: Option<Gateway>,
    /// The gateway's process, if it has one of its own.
    pub apart: Option<Apart>,
    config: Config,
    /// Removed with everything in it at the end of the test.
    pub folder: TempDir,
}

/// Auditors, of whom carol is one, administer the gateway.
pub fn auditors_administer(config: &mut Config) {
    let admins = "@id(\"admins\") permit (principal in Postern::Group::\"auditors\",
        action == Postern::Action::\"administer\", resource);";
    std::fs::write(config.policy.directory.join("admins.cedar"), admins).unwrap();
    Standing::load(&config.policy.directory).unwrap();
}

impl House {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A house in which something is set differently.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_aws(|_| {}, change).await
    }

    /// The same, with another AWS too.
    pub async fn with_aws(
        change_aws: impl FnOnce(&mut LocalConfig),
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::attempt(change_aws, change).await.unwrap()
    }

    /// The same, or why its gateway does not start.
    pub async fn attempt(
        change_aws: impl FnOnce(&mut LocalConfig),
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, ServeError> {
        let folder = tempfile::tempdir().unwrap();
        let tls = certificate(folder.path());
        let mut aws = local_config(&tls);
        change_aws(&mut aws);
        let local = LocalSsm::start(aws).await.unwrap();
        let mut config = configuration(folder.path(), &tls, local.url());
        change(&mut config);
        let gateway = Gateway::start(config.clone()).await?;
        let addresses = (gateway.address, gateway.admin_address);
        Ok(Self { gateway: Some(gateway), ..Self::around(folder, local, config, addresses) })
    }

    /// Starts a gateway again on what the one that was taken out has left.
    pub async fn start_again(&mut self) {
        let gateway = Gateway::start(self.config.clone()).await.unwrap();
        (self.door.address, self.admin) = (gateway.address, gateway.admin_address);
        self.gateway = Some(gateway);
    }

    /// A house whose gateway is `postern serve`, a process of its own.
    pub async fn apart() -> Self {
        Self::apart_with_aws(|_| {}).await
    }

    /// The same, with another AWS.
    pub async fn apart_with_aws(change_aws: impl FnOnce(&mut LocalConfig)) -> Self {
        Self::apart_with(change_aws, |_| {}).await
    }

    /// The same, with something set differently that [`toml_of`] knows.
    pub async fn apart_with(
        change_aws: impl FnOnce(&mut LocalConfig),
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = certificate(folder.path());
        let mut aws = local_config(&tls);
        change_aws(&mut aws);
        let local = LocalSsm::start(aws).await.unwrap();
        let mut config = configuration(folder.path(), &tls, local.url());
        change(&mut config);
        let (apart, address, admin) = Apart::start(folder.path(), &config).await;
        Self { apart: Some(apart), ..Self::around(folder, local, config, (address, admin)) }
    }

    /// Starts the process again on what the last one left.
    ///
    /// Clients find it at the old address, as behind a load balancer.
    pub async fn again(&mut self) {
        self.config.listen.address = self.door.address;
        let (apart, address, admin) = Apart::start(self.folder.path(), &self.config).await;
        (self.apart, self.door.address, self.admin) = (Some(apart), address, admin);
    }

    fn around(folder: TempDir, local: Running, config: Config, at: (SocketAddr, SocketAddr)) -> Self {
        let trust = Trust::bundle(&config.listen.certificate).unwrap();
        let door = Door { address: at.0, tls: trust.tls().unwrap().into() };
        let spool = config.spool();
        Self { local, door, admin: at.1, trust, spool, gateway: None, apart: None, config, folder }
    }

    /// What clients call its gateway.
    pub fn url(&self) -> String {
        format!("https://{}", self.door.address)
    }

    /// Has the policy folder read again, and waits until it was.
    pub async fn reload(&self) {
        self.gateway.as_ref().unwrap().reload_policies().await;
    }

    /// Signs one of the cast in, the way `postern credentials` does.
    pub async fn sign_in(&self, name: &str) -> Person {
        Person::sign_in(name, &self.door, &self.trust).await
    }

    pub async fn alice(&self) -> Person {
        self.sign_in("alice").await
    }

    /// Takes the gateway out, to stop it; its AWS stays.
    pub fn take_gateway(&mut self) -> Gateway {
        self.gateway.take().unwrap()
    }

    /// A page of the admin listener.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let answer = plain(self.admin, path).await;
        (answer.status, answer.text())
    }

    /// The value of one series, 0 if it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// A GET over plain HTTP.
async fn plain(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    within("an admin page", stream.read_to_end(&mut bytes)).await.unwrap();
    Answer::parse(&bytes)
}

/// A self-signed certificate for loopback, written down.
pub fn certificate(folder: &Path) -> Tls {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let tls = Tls { certificate: folder.join("tls.pem"), key: folder.join("tls.key") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    tls
}

/// An AWS with the cast, the broker and a machine for each policy.
pub fn local_config(tls: &Tls) -> LocalConfig {
    let mut config = LocalConfig::new(LISTEN, ACCOUNT, REGION);
    config.tls = Some(tls.server_config().unwrap());
    config.identities = cast();
    config.identities.push(LocalIdentity {
        access_key_id: BROKER_KEY.0.into(),
        secret_access_key: BROKER_KEY.1.into(),
        session_token: None,
        arn: format!("arn:aws:iam::{ACCOUNT}:user/postern"),
        user_id: "AIDABROKER".into(),
    });
    config.roles = vec![BROKER_ROLE.to_owned()];
    let machines = [
        (DEV, "dev"),
        (PROD, "prod"),
        (BRIEF, "brief"),
        (QUIET, "quiet"),
        (CLOSED, "closed"),
        (DISK, "disk"),
        (REMOTE, "remote"),
    ];
    config.targets = machines.map(|(id, env)| target(id, env)).to_vec();
    config.habits = Habits { keep_sent: true, ..Habits::default() };
    config
}

/// A machine with a plain shell.
pub fn target(id: &str, env: &str) -> LocalTarget {
    let mut target = LocalTarget::new(id, &format!("machine-{env}"));
    target.tags = BTreeMap::from([("env".to_owned(), env.to_owned())]);
    target.shell = ["/bin/bash", "--noprofile", "--norc", "--noediting"].map(String::from).to_vec();
    target.environment.insert("PS1".to_owned(), "$ ".to_owned());
    target
}

/// What an operator would write, with the house's own policies.
pub fn configuration(folder: &Path, tls: &Tls, local_url: &str) -> Config {
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("house.cedar"), POLICIES).unwrap();
    std::fs::write(policies.join("groups.toml"), GROUPS).unwrap();
    let ca = tls.certificate.clone();
    Config {
        state_directory: folder.join("state"),
        listen: ListenConfig {
            address: LISTEN,
            public_url: None,
            certificate: ca.clone(),
            key: tls.key.clone(),
            connections_per_source: 0,
        },
        admin: AdminConfig { address: LISTEN },
        identity: IdentitySection {
            allowed_accounts: vec![ACCOUNT.to_owned()],
            regions: vec![REGION.to_owned()],
            key_minutes: 60,
            sts_endpoint_url: Some(local_url.to_owned()),
            ca_bundle: Some(ca.clone()),
            oidc: None,
            web_identity: WebIdentityConfig::default(),
        },
        policy: PolicyConfig { directory: policies },
        broker: BrokerConfig {
            region: REGION.to_owned(),
            account: ACCOUNT.to_owned(),
            role_arn: Some(BROKER_ROLE.to_owned()),
            ssm_endpoint_url: Some(local_url.to_owned()),
            sts_endpoint_url: Some(local_url.to_owned()),
            kms_endpoint_url: Some(local_url.to_owned()),
            tagging_endpoint_url: Some(local_url.to_owned()),
            ca_bundle: Some(ca),
            starts_per_second: 0,
            static_keys: Some(StaticKeys {
                access_key_id: BROKER_KEY.0.to_owned(),
                secret_access_key: Secret::new(BROKER_KEY.1),
                session_token: None,
            }),
            ..BrokerConfig::default()
        },
        registry: RegistrySection::default(),
        recorder: RecorderSection::default(),
        alerts: AlertsConfig::default(),
        archive: ArchiveConfig::default(),
        shipper: ShipperConfig::default(),
        sessions: SessionsConfig { node: "test".to_owned(), ..SessionsConfig::default() },
        console: ConsoleConfig::default(),
    }
}

/// The same as a file; the broker's keys come from the environment.
pub fn toml_of(config: &Config) -> String {
    let (ca, local) =
        (config.listen.certificate.display(), config.broker.ssm_endpoint_url.as_deref().unwrap());
    let address = config.listen.address;
    let alerts = config.alerts.topic_arn.as_ref().zip(config.alerts.sns_endpoint_url.as_ref());
    let alerts = alerts
        .map(|(topic, sns)| format!("[alerts]\ntopic_arn = \"{topic}\"\nsns_endpoint_url = \"{sns}\"\n"));
    let logs = config.shipper.endpoint_url.as_ref().filter(|_| config.shipper.is_on());
    let shipper = logs.map(|logs| {
        format!("[shipper]\nlog_group = \"{}\"\nendpoint_url = \"{logs}\"\n", config.shipper.log_group)
    });
    format!(
        "state_directory = \"{}\"\n\
         [listen]\naddress = \"{address}\"\ncertificate = \"{ca}\"\nkey = \"{}\"\n\
         [admin]\naddress = \"{LISTEN}\"\n\
         [identity]\nallowed_accounts = [\"{ACCOUNT}\"]\nregions = [\"{REGION}\"]\n\
         sts_endpoint_url = \"{local}\"\nca_bundle = \"{ca}\"\n\
         [policy]\ndirectory = \"{}\"\n\
         [broker]\nregion = \"{REGION}\"\naccount = \"{ACCOUNT}\"\nrole_arn = \"{BROKER_ROLE}\"\n\
         ssm_endpoint_url = \"{local}\"\nsts_endpoint_url = \"{local}\"\nkms_endpoint_url = \"{local}\"\n\
         tagging_endpoint_url = \"{local}\"\nca_bundle = \"{ca}\"\n\
         starts_per_second = 0\n{}{}",
        config.state_directory.display(),
        config.listen.key.display(),
        config.policy.directory.display(),
        alerts.unwrap_or_default(),
        shipper.unwrap_or_default(),
    )
}

const GROUPS: &str = r#"
[groups]
developers = ["arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:user/bob"]
auditors = ["arn:aws:sts::111122223333:assumed-role/Auditor/carol"]
"#;

const POLICIES: &str = r#"
@id("own-sessions")
permit (
  principal,
  action in [Postern::Action::"resumeSession", Postern::Action::"watchSession", Postern::Action::"terminateSession"],
  resource is Postern::Session
) when { resource.owner == principal };

@id("own-recordings")
permit (principal, action == Postern::Action::"replayRecording", resource is Postern::Recording)
when { resource.owner == principal };

@id("developers-see")
permit (
  principal in Postern::Group::"developers",
  action == Postern::Action::"listTargets",
  resource is Postern::Instance
);

@id("developers-dev")
permit (
  principal in Postern::Group::"developers",
  action in Postern::Action::"startSession",
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "dev" };

@id("developers-prod")
@require_reason
@message("production wants to know why")
@input("record")
@banner("Production. This session is recorded.")
permit (
  principal in Postern::Group::"developers",
  action in Postern::Action::"startSession",
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "prod" };

@id("brief-visits")
@max_duration("2s")
permit (
  principal in Postern::Group::"developers",
  action in Postern::Action::"startSession",
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "brief" };

@id("no-dozing")
@idle_timeout("1s")
permit (
  principal in Postern::Group::"developers",
  action in Postern::Action::"startSession",
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "quiet" };

@id("kept-on-disk")
@record("disk")
@input("record")
permit (
  principal in Postern::Group::"developers",
  action in Postern::Action::"startSession",
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "disk" };

@id("kept-elsewhere")
@record("remote")
permit (
  principal in Postern::Group::"developers",
  action in Postern::Action::"startSession",
  resource is Postern::Instance
) when { resource.hasTag("env") && resource.getTag("env") == "remote" };

@id("closed-to-all")
@message("this machine is being taken down")
forbid (principal, action in Postern::Action::"startSession", resource is Postern::Instance)
when { resource.hasTag("env") && resource.getTag("env") == "closed" };

@id("auditors-review")
permit (
  principal in Postern::Group::"auditors",
  action in
    [Postern::Action::"listTargets", Postern::Action::"watchSession",
     Postern::Action::"replayRecording", Postern::Action::"holdRecording", Postern::Action::"terminateSession"],
  resource
);
"#;
