//! Being told to end, by Ctrl-C or by another process.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Ctrl-C: the ordinary end of a command that serves until it is told.
const INTERRUPT: i32 = 2;
/// The signals that end such a command.
const ENDS: [(SignalKind, i32); 3] =
    [(SignalKind::interrupt(), INTERRUPT), (SignalKind::terminate(), 15), (SignalKind::hangup(), 1)];
/// `SIGTSTP`, which Ctrl-Z sends.
const SUSPEND: i32 = if cfg!(target_os = "macos") { 18 } else { 20 };

/// Whether this program was told to end; may be asked by many.
#[derive(Clone)]
pub struct Stop(watch::Receiver<Option<i32>>);

impl Stop {
    /// Listens from now on.
    pub fn listen() -> anyhow::Result<Self> {
        Self::to(&ENDS)
    }

    /// Listens as the stock plugin does, for which every control key ends.
    pub fn listen_as_plugin() -> anyhow::Result<Self> {
        let keys = [(SignalKind::quit(), INTERRUPT), (SignalKind::from_raw(SUSPEND), INTERRUPT)];
        Self::to(&[ENDS.as_slice(), &keys].concat())
    }

    fn to(signals: &[(SignalKind, i32)]) -> anyhow::Result<Self> {
        let (tell, told) = watch::channel(None);
        for &(kind, number) in signals {
            let mut heard = signal(kind).context("cannot listen to signals")?;
            let tell = tell.clone();
            tokio::spawn(async move {
                heard.recv().await;
                // The first one counts.
                tell.send_if_modified(|told| told.is_none() && told.replace(number).is_none());
            });
        }
        Ok(Self(told))
    }

    /// Waits until it is told.
    pub async fn told(&self) {
        if self.0.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What to exit with: `otherwise` unless a signal other than Ctrl-C came.
    pub fn exit_code(&self, otherwise: u8) -> ExitCode {
        let number = (*self.0.borrow()).filter(|number| *number != INTERRUPT);
        ExitCode::from(number.and_then(|number| u8::try_from(128 + number).ok()).unwrap_or(otherwise))
    }
}
