//! What the tests share: a house with everybody in it, and a raw client.

mod apart;
mod browser;
mod channel;
mod house;
mod logs;
mod person;
mod provider;
mod recording;
mod spool;
mod tunnel;
mod web;

use std::time::Duration;

pub use browser::{Browser, code_of, enter, origin};
pub use channel::{Heard, Terminal, draft, refusal, signed_upgrade};
pub use house::{
    ACCOUNT, BRIEF, BROKER_KEY, CLOSED, DEV, DISK, House, PROD, QUIET, REGION, REMOTE, auditors_administer,
    certificate, configuration, local_config, target,
};
pub use logs::{FakeLogs, Fault};
pub use person::{Person, Ticket, proof, web_identity};
pub use provider::{CLIENT, Provider, Signer, unsigned};
pub use recording::{Recorded, spool_holds};
pub use spool::{GROUP, Spool};
pub use tunnel::{Tunnel, echo, silent_port};
pub use web::{Answer, Call};

/// Longest any test waits for one thing; reached only when it never comes.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a state that tells nobody of its changes is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for a future that must come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// Waits until a state that tells nobody of its changes is as wanted.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looked = async {
        while !holds() {
            tokio::time::sleep(LOOK).await;
        }
    };
    within(what, looked).await
}

/// The same, when looking is itself a call.
pub async fn until_some<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looked = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    within(what, looked).await
}
