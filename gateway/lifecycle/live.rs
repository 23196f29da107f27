//! The sessions that this node runs now.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use super::proofs::Proven;
use super::token::{Holder, StreamToken};
use super::{Asker, ClientStream};
use crate::policy::{Obligations, Running};
use crate::registry::SessionRecord;
use crate::relay::{Control, Counters, Destination, Ending};
use crate::session::{Document, Instance, Principal, SessionId, SessionKind, now_ms};

/// Orders that may wait for one session's relay; it takes them at once.
pub(super) const ORDERS_MAX: usize = 8;

/// What a session was started with, and by what right.
pub(super) struct Started {
    pub(super) kind: SessionKind,
    pub(super) document: Document,
    pub(super) parameters: BTreeMap<String, Vec<String>>,
    pub(super) reason: Option<String>,
    pub(super) source_ip: IpAddr,
    pub(super) proved_until_ms: u64,
    pub(super) at_ms: u64,
    pub(super) obligations: Obligations,
}

impl Started {
    pub(super) fn new(
        record: &SessionRecord,
        asker: &Asker,
        (parameters, obligations): (BTreeMap<String, Vec<String>>, Obligations),
    ) -> Self {
        Self {
            kind: record.kind,
            document: record.document.clone(),
            parameters,
            reason: record.reason.clone(),
            source_ip: asker.source_ip,
            proved_until_ms: asker.proved_until_ms,
            at_ms: record.started_ms,
            obligations,
        }
    }
}

/// When the byte counts were seen to change last.
struct Moved {
    bytes: u64,
    at: Instant,
}

/// One running session, as its owner and others reach it.
pub(super) struct Live {
    pub(super) id: SessionId,
    pub(super) principal: Principal,
    /// The same as proved last, and until when that counts.
    pub(super) proven: Mutex<Proven>,
    /// What it was started with.
    pub(super) started: Started,
    /// Its machine, as it was described last.
    instance: ArcSwap<Instance>,
    /// The alert rules that it met.
    alerts: Mutex<Vec<String>>,
    /// What the policy obliges to now.
    obligations: Mutex<Obligations>,
    moved: Mutex<Moved>,
    pub(super) orders: mpsc::Sender<Control<ClientStream>>,
    pub(super) counters: Arc<Counters>,
    /// Where a port session goes.
    pub(super) destination: Option<Destination>,
    ended: AtomicBool,
    attached: AtomicBool,
    dismissed: AtomicBool,
    holder: Mutex<Holder>,
}

impl Live {
    pub(super) fn new(
        record: &SessionRecord,
        started: Started,
        (orders, counters): (mpsc::Sender<Control<ClientStream>>, Counters),
    ) -> Self {
        Self {
            id: record.id.clone(),
            principal: record.principal.clone(),
            proven: Mutex::new(Proven::new(&record.principal, started.proved_until_ms, now_ms())),
            alerts: Mutex::default(),
            obligations: Mutex::new(started.obligations.clone()),
            started,
            instance: ArcSwap::from_pointee(record.instance.clone()),
            moved: Mutex::new(Moved { bytes: 0, at: Instant::now() }),
            orders,
            counters: Arc::new(counters),
            destination: None,
            ended: AtomicBool::new(false),
            attached: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            holder: Mutex::default(),
        }
    }

    /// The same, going to a port.
    pub(super) fn to(self, destination: Option<Destination>) -> Self {
        Self { destination, ..self }
    }

    /// Its machine, as it was described last.
    pub(super) fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// Takes a new description of its machine; true if it says anything new.
    pub(super) fn describe(&self, instance: Instance) -> bool {
        let new = **self.instance.load() != instance;
        if new {
            self.instance.store(Arc::new(instance));
        }
        new
    }

    /// The alert rules that it met, without duplicates.
    pub(super) fn alerts(&self) -> Vec<String> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that it met a rule; false if it has met that one before.
    pub(super) fn met(&self, rule: &str) -> bool {
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !alerts.iter().any(|known| known == rule);
        if new {
            alerts.push(rule.to_owned());
        }
        new
    }

    /// What the policy obliges to now.
    pub(super) fn obligations(&self) -> MutexGuard<'_, Obligations> {
        self.obligations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it has been there, and what it moved; idle to a second.
    pub(super) fn running(&self, now: Instant) -> Running {
        let bytes = self.counters.input() + self.counters.output();
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.bytes != bytes {
            *moved = Moved { bytes, at: now };
        }
        let age = Duration::from_millis(now_ms().saturating_sub(self.started.at_ms));
        Running { age, idle: now.saturating_duration_since(moved.at), bytes }
    }

    /// Lets a client with a valid token in, if the session is its own.
    pub(super) fn admit(&self, token: StreamToken, client_id: &str) -> bool {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).admit(token, client_id)
    }

    /// The browser that holds it, if one does.
    pub(super) fn visit(&self) -> Option<String> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).visit().map(str::to_owned)
    }

    /// The browser that holds it is signed out.
    pub(super) fn sign_out(&self) {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).sign_out();
    }

    /// Nobody is let in any more; the recording is being sealed.
    pub(super) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A client is or was there, here or in an earlier process.
    pub(super) fn set_attached(&self) {
        self.attached.store(true, Ordering::Release);
    }

    pub(super) fn was_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// It is over; its owner may still come and read why.
    pub(super) fn set_dismissed(&self) {
        self.dismissed.store(true, Ordering::Release);
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// Asks the relay to end; it may have ended already.
    pub(super) async fn end(&self, ending: Ending) {
        // A closed channel means the session is already ending.
        let _ = self.orders.send(Control::End(ending)).await;
    }
}

/// All sessions of this node, running and about to.
#[derive(Default)]
pub(super) struct LiveSessions {
    state: Mutex<Table>,
    emptied: Notify,
}

#[derive(Default)]
struct Table {
    running: HashMap<SessionId, Arc<Live>>,
    /// Principal ids of sessions that are being opened.
    opening: Vec<String>,
}

/// Why there is no place for another session.
pub(super) enum Full {
    /// The node runs as many as it may.
    Node,
    /// The principal has as many as it may.
    Principal,
}

/// A session's place while it is being opened.
pub(super) struct Place<'a> {
    sessions: &'a LiveSessions,
    principal: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        if let Some(index) = table.opening.iter().position(|id| *id == self.principal) {
            table.opening.swap_remove(index);
        }
        self.sessions.tell_if_empty(&table);
    }
}

impl LiveSessions {
    /// Takes a place before AWS is asked, so that no limit is overrun.
    pub(super) fn place(&self, principal: &Principal, most: usize, each: usize) -> Result<Place<'_>, Full> {
        let mut table = self.lock();
        if table.running.len() + table.opening.len() >= most {
            return Err(Full::Node);
        }
        let running = table.running.values().filter(|live| live.principal.id == principal.id).count();
        let opening = table.opening.iter().filter(|id| **id == principal.id).count();
        if running + opening >= each {
            return Err(Full::Principal);
        }
        table.opening.push(principal.id.clone());
        drop(table);
        Ok(Place { sessions: self, principal: principal.id.clone() })
    }

    /// Keeps a place for a session that is there already, limit or not.
    pub(super) fn expect(&self, principal: &Principal) {
        self.lock().opening.push(principal.id.clone());
    }

    /// The place that was kept, to be given back.
    pub(super) fn expected(&self, principal: &Principal) -> Place<'_> {
        Place { sessions: self, principal: principal.id.clone() }
    }

    pub(super) fn insert(&self, live: Arc<Live>) {
        self.lock().running.insert(live.id.clone(), live);
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<Arc<Live>> {
        self.lock().running.get(id).cloned()
    }

    pub(super) fn remove(&self, id: &SessionId) {
        let mut table = self.lock();
        table.running.remove(id);
        self.tell_if_empty(&table);
    }

    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.lock().running.values().cloned().collect()
    }

    /// How many run or are being opened.
    pub(super) fn count(&self) -> usize {
        let table = self.lock();
        table.running.len() + table.opening.len()
    }

    /// Waits until no session runs or is being opened any more.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Listening starts before the look, so a removal in between is not missed.
            emptied.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn tell_if_empty(&self, table: &Table) {
        if table.running.is_empty() && table.opening.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
