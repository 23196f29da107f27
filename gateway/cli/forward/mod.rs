//! `postern forward`: ports of a machine, or of its network, on this one.

mod port;
mod proxy;
mod voice;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::machine::Through;
use super::stop::Stop;
use port::Forward;
use voice::Voice;

/// Where SOCKS proxies listen if nothing else is said.
const SOCKS_PORT: &str = "1080";

/// What `postern forward` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern forward web-1 8080:80                          127.0.0.1:8080 is web-1's port 80\n  \
    postern forward web-1 5432 --remote-host db.internal   the database that web-1 reaches\n  \
    postern forward web-1 0:80 --json                      any free port, told in JSON\n  \
    postern forward web-1 --socks                          everything that web-1 reaches, by SOCKS5\n\n\
    It says where it listens and serves until Ctrl-C, over lost connections too.\n\
    With --socks every host and port that is asked for is a session of its own.\n\n\
    Exit code: 0 after Ctrl-C or when the machine ended the session;\n\
    255 when a session was denied, failed or was ended with a reason.")]
pub struct Args {
    /// A target (i-…, mi-…, ecs:…), a machine's name, or tag:KEY=VALUE.
    target: String,
    /// Ports to carry; LOCAL is the same number unless given, 0 is any.
    #[arg(value_name = "[LOCAL:]PORT", required_unless_present = "socks", conflicts_with = "socks")]
    ports: Vec<Forward>,
    /// A host that the machine reaches, instead of the machine itself.
    #[arg(long, value_name = "HOST", conflicts_with = "socks")]
    remote_host: Option<String>,
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Listen as a SOCKS5 proxy for whatever the machine reaches.
    #[arg(long, value_name = "LOCAL", num_args = 0..=1, default_missing_value = SOCKS_PORT)]
    socks: Option<u16>,
    #[command(flatten)]
    through: Through,
    /// Print what happens as JSON, one object a line, on standard output.
    #[arg(long)]
    json: bool,
}

/// Listens and carries until told to end.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if !args.bind.is_loopback() {
        if args.socks.is_some() {
            bail!("a SOCKS proxy listens on this machine only; it asks nobody who they are");
        }
        eprintln!("postern: everybody who reaches {} can use what is forwarded", args.bind);
    }
    let stop = Stop::listen()?;
    let starter = args.through.to(&args.target).await?;
    let voice = Voice { json: args.json, target: starter.target.clone() };
    let code = match args.socks {
        Some(port) => proxy::serve(starter, (args.bind, port).into(), voice, &stop).await?,
        None => {
            let host = args.remote_host.as_deref();
            port::serve(&starter, &args.ports, (args.bind, host), &voice, &stop).await?
        }
    };
    Ok(stop.exit_code(code))
}

/// A place that cannot be listened on, with what to do about it.
fn cannot_listen<T>(bound: std::io::Result<T>, place: &impl std::fmt::Display) -> anyhow::Result<T> {
    bound.with_context(|| format!("cannot listen on {place}; name another port with LOCAL:PORT"))
}
