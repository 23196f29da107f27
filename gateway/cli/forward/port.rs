//! One forwarded port: its listener, its session.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::cannot_listen;
use super::voice::{Far, Voice};
use crate::cli::stop::Stop;
use crate::client::ports::{Listener, Place, PortSession};
use crate::client::start::Starter;
use crate::client::{ClientError, exit_code};
use crate::session::Document;

/// The document for a port of the machine.
const TO_PORT: &str = "AWS-StartPortForwardingSession";
/// The document for a port of a host that the machine reaches.
pub(super) const TO_REMOTE_HOST: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// How long a session that is being started may keep a person who leaves.
const NEARLY: Duration = Duration::from_secs(2);
/// What a port that could not be carried exits with.
const FAILED: u8 = 255;

/// `[LOCAL:]PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The port here; 0 is any.
    pub local: u16,
    /// The port there.
    pub remote: u16,
}

impl FromStr for Forward {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |text: &str| text.parse::<u16>().map_err(|_| "ports are numbers from 1 to 65535");
        let (local, remote) = match text.split_once(':') {
            Some((local, remote)) => (port(local)?, port(remote)?),
            None => (port(text)?, port(text)?),
        };
        if remote == 0 {
            return Err("the port to forward cannot be 0");
        }
        Ok(Self { local, remote })
    }
}

/// Carries every port, each in a session of its own, until all have ended.
pub(super) async fn serve(
    starter: &Starter,
    ports: &[Forward],
    (bind, host): (IpAddr, Option<&str>),
    voice: &Voice,
    stop: &Stop,
) -> anyhow::Result<u8> {
    let mut listeners = Vec::new();
    for forward in ports {
        let place = Place::Tcp(SocketAddr::new(bind, forward.local));
        listeners.push((cannot_listen(Listener::bind(&place).await, &place)?, forward.remote));
    }
    let carried =
        listeners.iter().map(|(listener, remote)| carry(starter, listener, (host, *remote), voice, stop));
    let codes = join_all(carried).await;
    Ok(codes.into_iter().max().unwrap_or_default())
}

/// Carries one port; what to exit with for it.
async fn carry(
    starter: &Starter,
    listener: &Listener,
    (host, port): (Option<&str>, u16),
    voice: &Voice,
    stop: &Stop,
) -> u8 {
    let far = Far { host: host.map(str::to_owned), port };
    let ended = match start(starter, listener, &far, stop).await {
        None => return 0,
        Some(Err(error)) => Err(error),
        Some(Ok(session)) => {
            voice.listening(&far, listener.place(), &session.id);
            let (connections, take_connections) = mpsc::channel(1);
            let tell = |notice| voice.notice(&far, &notice);
            tokio::select! {
                ended = session.carry(take_connections, stop.told(), &tell) => ended,
                // It takes connections for as long as the session does.
                () = async { listener.feed(connections).await; std::future::pending().await } => return 0,
            }
        }
    };
    match ended {
        Ok(ending) => {
            voice.ended(&far, &ending);
            exit_code(&ending)
        }
        Err(error) => {
            voice.failed(&far, &error);
            FAILED
        }
    }
}

/// Starts the session; `None` if it was too slow for who wants to leave.
async fn start(
    starter: &Starter,
    listener: &Listener,
    far: &Far,
    stop: &Stop,
) -> Option<Result<PortSession, ClientError>> {
    let one = |text: String| vec![text];
    let mut parameters = BTreeMap::from([("portNumber".to_owned(), one(far.port.to_string()))]);
    if let Place::Tcp(address) = listener.place() {
        parameters.insert("localPortNumber".to_owned(), one(address.port().to_string()));
    }
    let document = match &far.host {
        Some(host) => {
            parameters.insert("host".to_owned(), one(host.clone()));
            Document::parse(TO_REMOTE_HOST)
        }
        None => Document::parse(TO_PORT),
    };
    let Ok(document) = document else { return None };
    tokio::select! {
        started = starter.port(document, parameters) => Some(started),
        // A session that is nearly there is ended in order.
        () = async { stop.told().await; sleep(NEARLY).await } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_the_same_here_unless_it_is_said() {
        let forward = |local, remote| Ok(Forward { local, remote });
        assert_eq!("80".parse(), forward(80, 80));
        assert_eq!("8080:80".parse(), forward(8080, 80));
        assert_eq!("0:5432".parse(), forward(0, 5432));
        for bad in ["", "0", "80:0", "x", "1:2:3", "70000", "-1", ":80"] {
            assert!(bad.parse::<Forward>().is_err(), "{bad} was accepted");
        }
    }
}
