//! `postern serve`: the gateway, from a configuration file.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::serve::{Gateway, alert_rules};

/// Run the gateway.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file; deploy/postern.toml shows every key.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/postern/postern.toml")]
    config: PathBuf,
    /// Only check configuration, certificate, policies and alert rules; open nothing.
    #[arg(long)]
    check: bool,
}

/// Serves until SIGINT or SIGTERM, then drains.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    on_all_cores(serve(args))
}

/// Runs a server's work with one worker thread for each core.
pub(super) fn on_all_cores<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::read(&args.config)?;
    if args.check {
        config.tls().server_config()?;
        crate::policy::Standing::load(&config.policy.directory)?;
        alert_rules(&config)?;
        eprintln!("{} is valid", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    let gateway = Gateway::start(config).await?;
    tokio::select! {
        stop = told_to_stop() => stop?,
        hang_up = reload_when_told(&gateway) => hang_up?,
    }
    tracing::info!(on_stop = ?gateway.on_stop(), "stopping");
    gateway.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Reads the policies again whenever SIGHUP says so.
async fn reload_when_told(gateway: &Gateway) -> anyhow::Result<()> {
    let mut told = signal(SignalKind::hangup())?;
    while told.recv().await.is_some() {
        gateway.reload_policies().await;
    }
    Ok(())
}

/// Waits for Ctrl-C or the service manager.
pub(super) async fn told_to_stop() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
