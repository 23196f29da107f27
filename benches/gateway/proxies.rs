//! The processes under load: origin, gateway, HAProxy; none outlives the rig.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::corpus::Corpus;
use crate::trust::Trust;

/// The account, the machine and the person of the demo's policies.
pub const ACCOUNT: &str = "000000000000";
pub const TARGET: &str = "mi-0d0e0000000000001";
pub const PERSON: &str = "arn:aws:iam::000000000000:user/alice";
/// Where all calls are signed for.
pub const REGION: &str = "us-east-1";

/// Time for a process to listen, and to stop.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(90);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No proxy: clients dial the origin.
    Direct,
    /// HAProxy with one thread, TLS in and out, no recording.
    Haproxy,
    /// The gateway with so many worker threads, everything on.
    Postern(usize),
}

impl Kind {
    /// Its name in the tables.
    pub fn name(self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::Haproxy => "haproxy, 1 thread".to_owned(),
            Self::Postern(1) => "postern, 1 worker".to_owned(),
            Self::Postern(workers) => format!("postern, {workers} workers"),
        }
    }
}

/// Programs and folders that the processes are started with.
pub struct Site {
    /// Certificates, configurations, logs.
    pub folder: PathBuf,
    /// Recordings, journal and database of the gateway.
    pub state: PathBuf,
    /// The `postern` binary.
    pub postern: PathBuf,
    /// The `haproxy` binary.
    pub haproxy: PathBuf,
    /// The certificates.
    pub trust: Trust,
    /// What terminals show.
    pub corpus: Corpus,
}

/// A process that listens; it is stopped when dropped.
pub struct Running {
    child: Child,
    /// Where it listens, on loopback.
    pub port: u16,
    /// What it is.
    pub kind: Kind,
}

impl Site {
    /// The origin: this program in its other role.
    pub fn origin(&self) -> anyhow::Result<Running> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("origin").arg(&self.folder).args([&port.to_string(), self.corpus.name()]);
        command.stdin(Stdio::piped());
        self.start(command, Kind::Direct, port, "origin")
    }

    /// A proxy before the origin.
    pub fn proxy(&self, kind: Kind, origin: u16) -> anyhow::Result<Running> {
        let port = free_port()?;
        match kind {
            Kind::Direct => bail!("there is nothing to start"),
            Kind::Haproxy => {
                let file = self.folder.join(format!("haproxy-{port}.cfg"));
                std::fs::write(&file, self.haproxy_config(port, origin))?;
                let mut command = until_we_end(&self.haproxy);
                command.args(["-db", "-f"]).arg(file);
                self.start(command, kind, port, "haproxy")
            }
            Kind::Postern(workers) => {
                let file = self.folder.join(format!("postern-{port}.toml"));
                std::fs::write(&file, self.postern_config(port, origin)?)?;
                let mut command = until_we_end(&self.postern);
                command
                    .args(["serve", "--config"])
                    .arg(file)
                    .env("TOKIO_WORKER_THREADS", workers.to_string())
                    .env("AWS_ACCESS_KEY_ID", "AKIABENCH")
                    .env("AWS_SECRET_ACCESS_KEY", "secret")
                    .env("AWS_EC2_METADATA_DISABLED", "true")
                    .env("AWS_CONFIG_FILE", "/dev/null")
                    .env("POSTERN_LOG", "warn");
                self.start(command, kind, port, "postern")
            }
        }
    }

    fn start(&self, mut command: Command, kind: Kind, port: u16, name: &str) -> anyhow::Result<Running> {
        let log = self.folder.join(format!("{name}-{port}.log"));
        let file = std::fs::File::create(&log)?;
        command.stdout(Stdio::from(file.try_clone()?)).stderr(Stdio::from(file));
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut running = Running { child, port, kind };
        let end = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = running.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                bail!("{name} does not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    fn haproxy_config(&self, port: u16, origin: u16) -> String {
        let (both, authority) = (self.trust.both.display(), self.trust.authority.display());
        format!(
            "global\n  nbthread 1\n  maxconn 4000\n\
             defaults\n  mode http\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n\
             frontend in\n  bind 127.0.0.1:{port} ssl crt {both} alpn http/1.1\n  default_backend out\n\
             backend out\n  server origin 127.0.0.1:{origin} ssl verify required ca-file {authority} \
             verifyhost localhost\n"
        )
    }

    fn postern_config(&self, port: u16, origin: u16) -> anyhow::Result<String> {
        let policies = self.folder.join("policies");
        if !policies.exists() {
            copy_policies(&policies)?;
        }
        let state = self.state.join(format!("state-{port}"));
        let trust = &self.trust;
        Ok(format!(
            r#"
state_directory = "{state}"
[listen]
address = "127.0.0.1:{port}"
certificate = "{certificate}"
key = "{key}"
connections_per_source = 0
[admin]
address = "127.0.0.1:0"
[identity]
allowed_accounts = ["{ACCOUNT}"]
regions = ["{REGION}"]
sts_endpoint_url = "https://127.0.0.1:{origin}"
ca_bundle = "{authority}"
[policy]
directory = "{policies}"
[broker]
region = "{REGION}"
role_arn = "arn:aws:iam::{ACCOUNT}:role/PosternBroker"
ssm_endpoint_url = "https://127.0.0.1:{origin}"
sts_endpoint_url = "https://127.0.0.1:{origin}"
ca_bundle = "{authority}"
starts_per_second = 0
[sessions]
per_principal = 5000
node = "bench"
"#,
            state = state.display(),
            certificate = trust.certificate.display(),
            key = trust.key.display(),
            authority = trust.authority.display(),
            policies = policies.display(),
        ))
    }
}

/// The demo's policies and the base that every set should keep.
fn copy_policies(into: &Path) -> anyhow::Result<()> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/demo");
    std::fs::create_dir_all(into)?;
    for name in ["demo.cedar", "groups.toml"] {
        std::fs::copy(from.join(name), into.join(name)).with_context(|| format!("policies/demo/{name}"))?;
    }
    Ok(())
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).context("pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let end = Instant::now() + STOPS_WITHIN;
        while self.child.try_wait()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that dies with this process, however that ends.
fn until_we_end(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
