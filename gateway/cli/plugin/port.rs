//! A port session in the words of the stock plugin.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::net::lookup_host;
use tokio::sync::mpsc;

use crate::cli::output::print_text;
use crate::cli::stop::Stop;
use crate::client::Ending;
use crate::client::ports::{Listener, Mode, Notice, Place, PortSession};
use crate::session::printable;

/// Names the address to listen on instead of `localhost`.
const LOCAL_HOST: &str = "SSM_PLUGIN_LOCAL_HOST";

/// Carries the session to its end; everything is said on standard output.
pub(super) async fn carry(session: PortSession) -> anyhow::Result<Ending> {
    let stop = Stop::listen_as_plugin()?;
    let id = printable(&session.id);
    let mode = session.mode();
    let told = async {
        stop.told().await;
        if mode != Mode::Standard {
            say("Terminate signal received, exiting.\n");
        }
    };
    let is_first = AtomicBool::new(true);
    let tell = |notice| hear(&notice, mode, &id, &is_first);
    if mode == Mode::Standard {
        return Ok(session.carry_standard(told, &tell).await?);
    }
    let listener = match listen(&session).await {
        Ok(listener) => listener,
        Err(error) => {
            session.end().await;
            return Err(error);
        }
    };
    let (connections, take_connections) = mpsc::channel(1);
    say(&opened(&listener, mode, &id));
    tokio::select! {
        ended = session.carry(take_connections, told, &tell) => Ok(ended?),
        () = async { listener.feed(connections).await; std::future::pending().await } => Ok(Ending::Left),
    }
}

async fn listen(session: &PortSession) -> anyhow::Result<Listener> {
    let properties = &session.properties;
    let place = match &properties.local_unix_socket {
        Some(path) => Place::Unix(path.into()),
        None => Place::Tcp(address(&properties.local_port).await?),
    };
    Listener::bind(&place).await.with_context(|| format!("cannot listen on {place}"))
}

/// The address of this machine; IPv4 first, as Go has it.
async fn address(port: &str) -> anyhow::Result<SocketAddr> {
    let host = std::env::var(LOCAL_HOST).ok().filter(|host| !host.is_empty());
    let host = host.as_deref().unwrap_or("localhost");
    let port: u16 = match port {
        "" => 0,
        port => port.parse().context("the local port is not a number")?,
    };
    let found: Vec<SocketAddr> =
        lookup_host((host, port)).await.context("no address to listen on")?.collect();
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().context("no address to listen on")
}

fn opened(listener: &Listener, mode: Mode, id: &str) -> String {
    let opened = match listener.place() {
        Place::Tcp(address) => format!("Port {} opened for sessionId {id}.", address.port()),
        Place::Unix(path) => {
            format!("Unix socket {} opened for sessionId {id}.", printable(&path.to_string_lossy()))
        }
    };
    match mode {
        Mode::Basic => format!("{opened}\n"),
        _ => format!("{opened}\nWaiting for connections...\n"),
    }
}

fn hear(notice: &Notice, mode: Mode, id: &str, is_first: &AtomicBool) {
    match (notice, mode) {
        (Notice::Message(text), _) => say(&format!("{text}\n")),
        (Notice::Refused, Mode::Multiplexed { .. }) => {
            say("\nConnection to destination port failed, check SSM Agent logs.\n");
        }
        (Notice::Accepted, Mode::Multiplexed { .. }) if is_first.swap(false, Ordering::Relaxed) => {
            say(&format!("\nConnection accepted for session [{id}]\n"));
        }
        (Notice::Accepted, Mode::Basic) if is_first.swap(false, Ordering::Relaxed) => {
            say(&format!("Connection accepted for session {id}.\n"));
        }
        _ => {}
    }
}

fn say(text: &str) {
    // What is carried goes on when nobody reads the words.
    let _ = print_text(text);
}
