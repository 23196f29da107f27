//! Where connections of this machine come in.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Pause after a failed accept: descriptors may be free again by then.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// One connection of this machine: what it says and what it is told.
pub struct Connection {
    /// What it says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Connection {
    /// The two halves of anything.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }

    /// This program's standard input and output.
    pub fn standard() -> Self {
        Self::new(tokio::io::stdin(), tokio::io::stdout())
    }
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        // Without it small messages are only slower.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Self::new(reader, writer)
    }
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self::new(reader, writer)
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address; port 0 is any port.
    Tcp(SocketAddr),
    /// A socket in the file system; must not be there yet.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A place that is listened on.
pub struct Listener {
    place: Place,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens.
    pub async fn bind(place: &Place) -> io::Result<Self> {
        Ok(match place {
            Place::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                Self { place: Place::Tcp(listener.local_addr()?), socket: Socket::Tcp(listener) }
            }
            Place::Unix(path) => {
                Self { place: place.clone(), socket: Socket::Unix(UnixListener::bind(path)?) }
            }
        })
    }

    /// Where; with the port that the system chose.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The next connection.
    pub async fn accept(&self) -> Connection {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| stream.into()),
                Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| stream.into()),
            };
            match accepted {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!(%error, "a connection could not be taken"),
            }
            sleep(ACCEPT_AGAIN).await;
        }
    }

    /// Hands every connection over until nobody takes them.
    pub async fn feed(&self, connections: mpsc::Sender<Connection>) {
        while let Ok(place) = connections.reserve().await {
            place.send(self.accept().await);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Unix(path) = &self.place {
            // A socket that stays only keeps its name from being used again.
            let _ = std::fs::remove_file(path);
        }
    }
}
