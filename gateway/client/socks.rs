//! A SOCKS5 proxy into a machine's network, one session a destination.
//!
//! The document fixes host and port, so every distinct destination is a
//! session of its own: started when it is first asked for, kept while it has
//! connections and some minutes more.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fast_socks5::server::{Socks5ServerProtocol, states};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::ports::{Notice, PortSession};
use crate::client::{ClientError, Ending};

/// Sessions at once; each is asked of the policy and recorded.
const SESSIONS: usize = 32;
/// A session without connections is kept so long.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// Requests for one destination that wait for its session.
const WAITING: usize = 64;
/// Programs that have not said yet where they want to go.
const ASKED: usize = 256;
/// Longest wait for a program to say it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long sessions may take to end when the proxy does.
const PARTING: Duration = Duration::from_secs(8);
/// What replies name as our address; programs do not look at it.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Where a program wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The host, as the target resolves it.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<TargetAddr> for Destination {
    fn from(address: TargetAddr) -> Self {
        match address {
            TargetAddr::Ip(address) => Self { host: address.ip().to_string(), port: address.port() },
            TargetAddr::Domain(host, port) => Self { host, port },
        }
    }
}

/// What happened to a destination.
#[derive(Debug)]
pub enum News {
    /// Its session has begun; this is its id.
    Begun(String),
    /// Its session could not be started.
    Failed(ClientError),
    /// Something about its session.
    Notice(Notice),
    /// Its session has ended.
    Ended(Ending),
}

/// Starts sessions and hears what becomes of them.
pub struct Proxy<O, H> {
    /// Starts the session of a destination.
    pub open: O,
    /// Hears the news.
    pub hear: H,
}

/// A program that waits for its connection.
struct Asking {
    destination: Destination,
    program: Socks5ServerProtocol<TcpStream, states::CommandRead>,
}

/// A destination that has a session, or is getting one.
struct Open {
    asking: mpsc::Sender<Asking>,
    /// How many connections it has.
    busy: watch::Receiver<usize>,
    used: Instant,
}

impl<O, F, H> Proxy<O, H>
where
    O: Fn(Destination) -> F + Send + Sync + 'static,
    F: Future<Output = Result<PortSession, ClientError>> + Send + 'static,
    H: Fn(&Destination, News) + Send + Sync + 'static,
{
    /// Serves until `stop` is ready; then every session is ended.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let proxy = Arc::new(self);
        let (ask, mut asked) = mpsc::channel(WAITING);
        let mut programs = JoinSet::new();
        let mut sessions = JoinSet::new();
        let mut open: HashMap<Destination, Open> = HashMap::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                accepted = listener.accept(), if programs.len() < ASKED => match accepted {
                    Ok((stream, _)) => {
                        programs.spawn(question(stream, ask.clone()));
                    }
                    // Descriptors may be free again in a moment.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                },
                Some(asking) = asked.recv() => {
                    let destination = asking.destination.clone();
                    if !make_room(&mut open, &destination) {
                        programs.spawn(refuse(asking, ReplyError::GeneralFailure));
                        continue;
                    }
                    let entry = open.entry(destination.clone()).or_insert_with(|| {
                        let (entry, inbox, busy) = Open::new();
                        sessions.spawn(carry(Arc::clone(&proxy), destination, inbox, busy));
                        entry
                    });
                    entry.used = Instant::now();
                    if let Err(asking) = entry.asking.try_send(asking) {
                        programs.spawn(refuse(asking.into_inner(), ReplyError::GeneralFailure));
                    }
                }
                Some(_) = programs.join_next(), if !programs.is_empty() => {}
                Some(_) = sessions.join_next(), if !sessions.is_empty() => {
                    open.retain(|_, entry| !entry.asking.is_closed());
                }
                () = &mut stop => break,
            }
        }
        drop((listener, open));
        let ends = async { while sessions.join_next().await.is_some() {} };
        let _ = timeout(PARTING, ends).await;
    }
}

impl Open {
    fn new() -> (Self, mpsc::Receiver<Asking>, watch::Sender<usize>) {
        let (asking, inbox) = mpsc::channel(WAITING);
        let (count, busy) = watch::channel(0);
        (Self { asking, busy, used: Instant::now() }, inbox, count)
    }

    fn is_idle(&self) -> bool {
        *self.busy.borrow() == 0 && self.asking.capacity() == WAITING
    }
}

/// Lets go of the destination that was idle longest, if all places are taken.
fn make_room(open: &mut HashMap<Destination, Open>, wanted: &Destination) -> bool {
    open.retain(|_, entry| !entry.asking.is_closed());
    if open.len() < SESSIONS || open.contains_key(wanted) {
        return true;
    }
    let idle = open.iter().filter(|(_, entry)| entry.is_idle());
    let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(destination, _)| destination.clone())
    else {
        return false;
    };
    open.remove(&oldest);
    true
}

/// Asks a program where it wants to go.
async fn question(stream: TcpStream, ask: mpsc::Sender<Asking>) {
    let answered =
        timeout(PATIENCE, async { Socks5ServerProtocol::accept_no_auth(stream).await?.read_command().await });
    // Whoever speaks something else, or nothing, is hung up on.
    let Ok(Ok((program, command, address))) = answered.await else { return };
    let asking = Asking { destination: address.into(), program };
    if command != Socks5Command::TCPConnect {
        return refuse(asking, ReplyError::CommandNotSupported).await;
    }
    // The proxy is ending: so does the connection.
    let _ = ask.send(asking).await;
}

async fn refuse(asking: Asking, why: ReplyError) {
    // A program that has gone needs no answer.
    let _ = timeout(PATIENCE, asking.program.reply_error(&why)).await;
}

/// One destination: its session and everybody who asks for it.
async fn carry<O, F, H>(
    proxy: Arc<Proxy<O, H>>,
    destination: Destination,
    mut inbox: mpsc::Receiver<Asking>,
    busy: watch::Sender<usize>,
) where
    O: Fn(Destination) -> F + Send + Sync,
    F: Future<Output = Result<PortSession, ClientError>> + Send,
    H: Fn(&Destination, News) + Send + Sync,
{
    let session = match (proxy.open)(destination.clone()).await {
        Ok(session) => session,
        Err(error) => {
            (proxy.hear)(&destination, News::Failed(error));
            return turn_away(inbox, ReplyError::ConnectionNotAllowed).await;
        }
    };
    (proxy.hear)(&destination, News::Begun(session.id.clone()));
    let (connections, take_connections) = mpsc::channel(1);
    let tell = |notice| {
        match &notice {
            Notice::Accepted => busy.send_modify(|count| *count += 1),
            Notice::Finished => busy.send_modify(|count| *count = count.saturating_sub(1)),
            _ => {}
        }
        (proxy.hear)(&destination, News::Notice(notice));
    };
    let mut carried = std::pin::pin!(session.carry(take_connections, std::future::pending(), &tell));
    let feeding = async {
        let mut count = busy.subscribe();
        loop {
            let idle = async {
                // The sender lives as long as this future.
                let _ = count.wait_for(|count| *count == 0).await;
                sleep(IDLE).await;
            };
            let asking = tokio::select! {
                asking = inbox.recv() => asking,
                () = idle => None,
            };
            let Some(asking) = asking else { break };
            if let Ok(stream) = asking.program.reply_success(NOWHERE).await
                && connections.send(stream.into()).await.is_err()
            {
                break;
            }
        }
        drop(connections);
    };
    let ended = tokio::select! {
        ended = &mut carried => ended,
        () = feeding => carried.await,
    };
    (proxy.hear)(&destination, ended.map_or_else(News::Failed, News::Ended));
    turn_away(inbox, ReplyError::GeneralFailure).await;
}

/// Tells everybody who still asks that it will not be.
async fn turn_away(mut inbox: mpsc::Receiver<Asking>, why: ReplyError) {
    inbox.close();
    while let Some(asking) = inbox.recv().await {
        let why = match why {
            ReplyError::ConnectionNotAllowed => ReplyError::ConnectionNotAllowed,
            _ => ReplyError::GeneralFailure,
        };
        refuse(asking, why).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    type Heard = Arc<Mutex<Vec<(Destination, String)>>>;

    /// A proxy whose every session is refused.
    async fn start() -> (SocketAddr, Heard, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Heard::default();
        let hear = {
            let heard = Arc::clone(&heard);
            move |to: &Destination, news: News| heard.lock().unwrap().push((to.clone(), format!("{news:?}")))
        };
        let open = |_| std::future::ready(Err(ClientError::Channel("not there".to_owned())));
        let (stop, stopped) = oneshot::channel();
        let serving = Proxy { open, hear }.serve(listener, async { stopped.await.unwrap_or_default() });
        (address, heard, stop, tokio::spawn(serving))
    }

    /// What the proxy answers to a greeting and a request.
    async fn ask(proxy: SocketAddr, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        stream.write_all(&[5, 1, 0]).await.unwrap();
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).await.unwrap();
        assert_eq!(chosen, [5, 0]);
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    fn request(command: u8, host: &str, port: u16) -> Vec<u8> {
        let mut request = vec![5, command, 0, 3, host.len() as u8];
        request.extend_from_slice(host.as_bytes());
        request.extend_from_slice(&port.to_be_bytes());
        request
    }

    #[tokio::test]
    async fn a_destination_without_a_session_is_refused_by_name() {
        let (proxy, heard, stop, serving) = start().await;
        let answer = ask(proxy, &request(1, "db.internal", 5432)).await;
        assert_eq!(answer[..2], [5, 2]);
        let heard = heard.lock().unwrap().clone();
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].0.to_string(), "db.internal:5432");
        assert!(heard[0].1.contains("not there"), "{heard:?}");
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn only_connections_outward_are_made() {
        let (proxy, heard, _stop, _serving) = start().await;
        for command in [2, 3] {
            assert_eq!(ask(proxy, &request(command, "db.internal", 5432)).await[..2], [5, 7]);
        }
        let mut stranger = TcpStream::connect(proxy).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // Hung up on, politely or not.
        let _ = stranger.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        assert!(heard.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_destination_that_was_idle_longest_makes_room() {
        let to = |n: usize| Destination { host: format!("host-{n}"), port: 80 };
        let (mut open, mut inboxes) = (HashMap::new(), Vec::new());
        for n in 0..SESSIONS {
            let (mut entry, inbox, count) = Open::new();
            entry.used = Instant::now() + Duration::from_secs(n as u64);
            count.send_replace(usize::from(n == 0));
            inboxes.push((inbox, count));
            open.insert(to(n), entry);
        }
        assert!(make_room(&mut open, &to(5)), "it is there already");
        assert_eq!(open.len(), SESSIONS);
        assert!(make_room(&mut open, &to(SESSIONS)));
        assert!(open.contains_key(&to(0)), "a busy one was let go of");
        assert!(!open.contains_key(&to(1)));
        for (_, count) in &inboxes {
            count.send_replace(1);
        }
        let (entry, inbox, count) = Open::new();
        count.send_replace(1);
        inboxes.push((inbox, count));
        open.insert(to(SESSIONS), entry);
        assert!(!make_room(&mut open, &to(99)));
    }

    #[test]
    fn an_address_of_version_six_is_written_in_brackets() {
        let to = Destination::from(TargetAddr::Ip("[2001:db8::1]:443".parse().unwrap()));
        assert_eq!(to.to_string(), "[2001:db8::1]:443");
    }
}
