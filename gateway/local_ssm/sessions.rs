//! Every session of the account, live or over: what the API tells of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::callers::{Caller, random, token_digest};
use super::parking::Mutex;
use super::wire::Wire;
use crate::session::{SessionId, SessionRequest};

/// Most live sessions: each is a process of this machine with its terminal.
const LIVE_MAX: usize = 200;
/// Most sessions remembered after their end, for `DescribeSessions`.
const ENDED_MAX: usize = 1_000;
/// How long a token opens a connection: dials are over within 45 s.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Orders that may wait for a session's task; it takes them at once.
const ORDERS_MAX: usize = 16;
/// Most bytes kept of what an agent sent, when tests ask for it: 64 MiB.
const SENT_MAX: usize = 64 << 20;

/// What a session's task is told.
pub(super) enum Order {
    /// A client has shown its token: this is its connection.
    Attach(Box<Wire>),
    /// End the session.
    Terminate,
    /// Cut the connection without a word; tells whether there was one.
    Cut(oneshot::Sender<bool>),
    /// Close the connection as the service does every hour, likewise.
    Bye(oneshot::Sender<bool>),
}

/// How a session is, in the API's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Connecting,
    Connected,
    Disconnected,
    Terminating,
    Terminated,
    Failed,
}

impl Status {
    /// The word of the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::Disconnected => "Disconnected",
            Self::Terminating => "Terminating",
            Self::Terminated => "Terminated",
            Self::Failed => "Failed",
        }
    }

    /// Whether the session is over.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Terminated | Self::Failed)
    }
}

/// What became of a session's messages, counted for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that clients opened.
    pub connections: u64,
    /// Acknowledges that came for waiting messages.
    pub acknowledges: u64,
    /// Acknowledges that came for nothing: repeated or unknown.
    pub stray_acknowledges: u64,
    /// Messages that the agent sent again.
    pub resends: u64,
    /// Input messages that came again.
    pub duplicates: u64,
    /// Messages that could not be read or had a wrong digest.
    pub rejects: u64,
}

/// The same, while they are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) acknowledges: AtomicU64,
    pub(super) stray_acknowledges: AtomicU64,
    pub(super) resends: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) rejects: AtomicU64,
}

impl Counters {
    /// Counts one more.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections: read(&self.connections),
            acknowledges: read(&self.acknowledges),
            stray_acknowledges: read(&self.stray_acknowledges),
            resends: read(&self.resends),
            duplicates: read(&self.duplicates),
            rejects: read(&self.rejects),
        }
    }
}

/// One session, as API, connections and its task share it.
pub(super) struct Session {
    /// Its id.
    pub(super) id: SessionId,
    /// What was asked for.
    pub(super) request: SessionRequest,
    /// The caller's ARN.
    pub(super) owner: String,
    /// The user that it runs as; the stand-in only remembers.
    pub(super) run_as: Option<String>,
    /// When it was started.
    pub(super) started: OffsetDateTime,
    /// What happened to its messages.
    pub(super) counters: Counters,
    /// Whether the next encrypted message is to be altered.
    pub(super) spoil_next: AtomicBool,
    facts: Mutex<Facts>,
    orders: mpsc::Sender<Order>,
    sent: Option<Mutex<Vec<u8>>>,
}

struct Facts {
    status: Status,
    ended: Option<OffsetDateTime>,
    token: Option<Token>,
}

struct Token {
    digest: [u8; 32],
    until: Instant,
    /// The first client that used it; nobody else may.
    client: Option<String>,
}

impl Session {
    /// A new session, its first token, and what its task is to obey.
    pub(super) fn new(
        id: SessionId,
        request: SessionRequest,
        caller: &Caller,
        keep_sent: bool,
    ) -> (Arc<Self>, mpsc::Receiver<Order>) {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let facts = Facts { status: Status::Connecting, ended: None, token: None };
        let session = Self {
            id,
            request,
            owner: caller.arn.clone(),
            run_as: caller.run_as.clone(),
            started: OffsetDateTime::now_utc(),
            counters: Counters::default(),
            spoil_next: AtomicBool::new(false),
            facts: Mutex::new(facts),
            orders,
            sent: keep_sent.then(Mutex::default),
        };
        (Arc::new(session), inbox)
    }

    /// Mints a token; the one before is void. None once the session is over.
    pub(super) fn token(&self) -> Option<String> {
        let mut facts = self.facts.lock();
        if facts.status.is_over() || facts.status == Status::Terminating {
            return None;
        }
        let text = URL_SAFE_NO_PAD.encode(random::<48>());
        let (digest, until) = (token_digest(&text), Instant::now() + TOKEN_LIFE);
        facts.token = Some(Token { digest, until, client: None });
        Some(text)
    }

    /// Whether this client may connect with this token.
    ///
    /// The client that used it first may use it again while it is fresh, as
    /// dials are repeated with the same token.
    pub(super) fn admits(&self, token: &str, client: &str) -> bool {
        let mut facts = self.facts.lock();
        let Some(kept) = &mut facts.token else { return false };
        if kept.digest != token_digest(token) || kept.until < Instant::now() {
            return false;
        }
        kept.client.get_or_insert_with(|| client.to_owned()) == client
    }

    /// How the session is.
    pub(super) fn status(&self) -> Status {
        self.facts.lock().status
    }

    /// When it ended, if it did.
    pub(super) fn ended(&self) -> Option<OffsetDateTime> {
        self.facts.lock().ended
    }

    /// Tells how it is from now on; an end is never undone.
    pub(super) fn set_status(&self, status: Status) {
        let mut facts = self.facts.lock();
        if facts.status.is_over() || (facts.status == Status::Terminating && !status.is_over()) {
            return;
        }
        facts.status = status;
        if status.is_over() {
            facts.ended = Some(OffsetDateTime::now_utc());
            facts.token = None;
        }
    }

    /// Tells the task; false if it is over or does not listen.
    pub(super) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Keeps bytes that were sent for the first time, if tests want them.
    pub(super) fn keep(&self, bytes: &[u8]) {
        let Some(sent) = &self.sent else { return };
        let mut sent = sent.lock();
        if sent.len() + bytes.len() <= SENT_MAX {
            sent.extend_from_slice(bytes);
        }
    }

    /// What was kept.
    pub(super) fn kept(&self) -> Vec<u8> {
        self.sent.as_ref().map(|sent| sent.lock().clone()).unwrap_or_default()
    }

    /// What has been counted.
    pub(super) fn counts(&self) -> Counts {
        self.counters.read()
    }
}

/// The sessions by id.
#[derive(Default)]
pub(super) struct Sessions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<String, Arc<Session>>,
    ended: VecDeque<Arc<Session>>,
}

impl Sessions {
    /// Takes a session in; false if there are too many.
    pub(super) fn add(&self, session: &Arc<Session>) -> bool {
        let mut table = self.table.lock();
        if table.live.len() >= LIVE_MAX {
            return false;
        }
        table.live.insert(session.id.to_string(), Arc::clone(session));
        true
    }

    /// Moves a session to the history.
    pub(super) fn retire(&self, session: &Session) {
        let mut table = self.table.lock();
        let Some(session) = table.live.remove(session.id.as_str()) else { return };
        if table.ended.len() >= ENDED_MAX {
            table.ended.pop_front();
        }
        table.ended.push_back(session);
    }

    /// A session, live or remembered.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Session>> {
        let table = self.table.lock();
        let ended = || table.ended.iter().rev().find(|session| session.id.as_str() == id);
        table.live.get(id).or_else(ended).cloned()
    }

    /// The sessions that are live, or those that are over; newest first.
    pub(super) fn list(&self, live: bool) -> Vec<Arc<Session>> {
        let table = self.table.lock();
        let mut sessions: Vec<_> =
            if live { table.live.values().cloned().collect() } else { table.ended.iter().cloned().collect() };
        drop(table);
        sessions.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
        sessions
    }
}
