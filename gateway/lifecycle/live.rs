//! The sessions that this node runs now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::ClientStream;
use super::token::{Holder, StreamToken};
use crate::relay::{Control, Counters, Ending};
use crate::session::{Instance, Principal, SessionId};

/// Orders that may wait for one session's relay; it takes them at once.
pub(super) const ORDERS_MAX: usize = 8;

/// One running session, as its owner and others reach it.
pub(super) struct Live {
    pub(super) id: SessionId,
    pub(super) principal: Principal,
    pub(super) instance: Instance,
    pub(super) orders: mpsc::Sender<Control<ClientStream>>,
    pub(super) counters: Arc<Counters>,
    holder: Mutex<Holder>,
}

impl Live {
    pub(super) fn new(
        id: SessionId,
        principal: Principal,
        instance: Instance,
        orders: mpsc::Sender<Control<ClientStream>>,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        Self { id, principal, instance, orders, counters, holder: Mutex::default() }
    }

    /// Lets a client with a valid token in, if the session is its own.
    pub(super) fn admit(&self, token: StreamToken, client_id: &str) -> bool {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).admit(token, client_id)
    }

    /// Asks the relay to end; it may have ended already.
    pub(super) async fn end(&self, ending: Ending) {
        // A closed channel means the session is already ending.
        let _ = self.orders.send(Control::End(ending)).await;
    }
}

/// All running sessions of this node.
#[derive(Default)]
pub(super) struct LiveSessions {
    sessions: Mutex<HashMap<SessionId, Arc<Live>>>,
    emptied: Notify,
}

impl LiveSessions {
    pub(super) fn insert(&self, live: Arc<Live>) {
        self.lock().insert(live.id.clone(), live);
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<Arc<Live>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn remove(&self, id: &SessionId) {
        let mut sessions = self.lock();
        sessions.remove(id);
        if sessions.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn count_of(&self, principal: &Principal) -> usize {
        self.lock().values().filter(|live| live.principal.id == principal.id).count()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Waits until no session runs any more.
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

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Live>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
