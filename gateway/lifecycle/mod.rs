//! In which order? One session from StartSession to its seal.
//!
//! Read `start`, `attach`, `resume`, `end` and `live_through` from top to
//! bottom: decide, begin recording, open upstream, hand out the stream URL;
//! relay until a side, the policy or the recorder says stop; seal and count.
//! `adopt` and `hand_over` carry sessions over the end of a process.

mod admission;
mod adoption;
mod audit;
mod capacity;
mod client_stream;
mod explaining;
mod following;
mod holds;
mod indexing;
mod keeping;
mod keys;
mod ledger;
mod listing;
mod live;
mod obedience;
mod once;
mod patience;
mod ports;
mod presence;
mod proofs;
mod recordings;
mod revoking;
mod rooms;
mod sealed;
mod searching;
mod seat;
mod shadows;
mod stopping;
mod stored;
mod token;
mod turns;
mod upstream;
mod visits;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_tungstenite::WebSocketStream;

use self::ledger::Readers;
use self::live::{Live, LiveSessions, ORDERS_MAX, Started};
pub use self::once::Invocation;
use self::once::Once;
use self::sealed::Waiting;
use self::token::StreamToken;
use self::upstream::Opened;
use crate::error::{ApiError, Blame, Code};
use crate::policy::Action;
use crate::recorder::{End, Recording};
use crate::registry::{Revocation, SessionRecord};
use crate::relay::{self, Carries, Control, Counters, Ended, Ending, Meters, Parts, Rules};
use crate::session::{Principal, SessionId, SessionRequest};

/// What the keys are for by which input of a port session is known again.
const INPUT: &str = "port input";

pub use self::admission::Asker;
pub use self::audit::Chain;
pub use self::client_stream::ClientStream;
pub use self::explaining::{Explained, Supposed};
pub use self::following::Following;
pub use self::keeping::{Kept, Retention};
pub use self::listing::{LivePort, SessionQuery};
pub use self::proofs::Unproved;
pub use self::recordings::Places;
pub use self::rooms::{Rooms, Settings};
pub use self::searching::FoundHit;
pub use self::seat::Seat;
pub use self::shadows::{Seen, Shadows};
pub use self::stored::RecordingFile;
pub use self::turns::{Turn, Turns};
pub use self::visits::known_as;

/// A client's WebSocket, upgraded and ready.
pub type ClientSocket = WebSocketStream<ClientStream>;

/// What StartSession and ResumeSession answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The gateway's session id.
    pub session: SessionId,
    /// Opens the stream once, within a minute.
    pub token: String,
    /// The same for the life of the session.
    pub stream_url: String,
}

/// The life of every session on this node.
pub struct Lifecycle {
    rooms: Rooms,
    settings: Settings,
    meters: Arc<Meters>,
    live: LiveSessions,
    started: Once<Result<Ticket, ApiError>>,
    to_index: Waiting,
    to_archive: Waiting,
    searches: Semaphore,
    watchers: Turns,
    /// Who reads decisions of others.
    readers: Readers,
    /// What is indexed is not deleted meanwhile, or it would stay findable.
    indexing_or_deleting: tokio::sync::Mutex<()>,
    /// What is being deleted is not held any more, and what is held is there.
    holding_or_deleting: Arc<tokio::sync::Mutex<()>>,
    /// What the archive has and nobody can use.
    damaged: stored::Damaged,
    draining: AtomicBool,
    leaving: AtomicBool,
    /// Who and what is shut out now.
    revocations: ArcSwap<Vec<Revocation>>,
    /// Sessions of an earlier process that are not taken over yet.
    adopting: watch::Sender<HashSet<SessionId>>,
}

impl Lifecycle {
    /// Takes the rooms; sessions may start at once.
    pub fn new(rooms: Rooms, settings: Settings) -> Arc<Self> {
        let meters = Arc::new(Meters::new(&rooms.metrics));
        Arc::new(Self {
            rooms,
            settings,
            meters,
            live: LiveSessions::default(),
            started: Once::new(),
            to_index: Waiting::default(),
            to_archive: Waiting::default(),
            searches: Semaphore::new(searching::AT_ONCE),
            watchers: Turns::new(following::EACH_MAX, following::WATCHERS_MAX),
            readers: Readers::default(),
            indexing_or_deleting: tokio::sync::Mutex::default(),
            holding_or_deleting: Arc::default(),
            damaged: stored::Damaged::default(),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            revocations: ArcSwap::default(),
            adopting: watch::Sender::default(),
        })
    }

    /// StartSession; a repeated call (same key) gets the same answer.
    pub async fn start(
        self: &Arc<Self>,
        asker: &Asker,
        request: SessionRequest,
        invocation: Option<Invocation>,
    ) -> Result<Ticket, ApiError> {
        let (this, asker) = (Arc::clone(self), asker.clone());
        // The caller may go away meanwhile; the work goes on for the repeat.
        let work = tokio::spawn(async move {
            match invocation {
                None => this.open(&asker, request).await,
                Some(call) => this.open_once(&asker, request, call).await,
            }
        });
        work.await.unwrap_or_else(|_| Err(ApiError::gateway("the gateway could not start the session")))
    }

    /// Decide, begin the recording, open upstream, hand out the stream URL.
    async fn open(self: &Arc<Self>, asker: &Asker, request: SessionRequest) -> Result<Ticket, ApiError> {
        let _place = self.place_for(&asker.principal)?;
        let (instance, plan) = self.subject_of(asker, &request).await?;
        let decision = self.admit_start(asker, &request, (&instance, &plan)).await?;
        admission::refuse_unkeepable(&decision.obligations, &self.rooms.recorder)?;
        let carries = ports::carries(&plan, &decision.obligations, self.settings.connections_per_session)?;
        let run_as = admission::run_as(&decision.obligations, &asker.principal)?;

        let id = SessionId::mint(&asker.principal.name);
        let header =
            recordings::header(&id, asker, &request, (&decision, plan.kind, &carries), &self.settings.node);
        let recording = self
            .rooms
            .recorder
            .begin(&id, header, decision.obligations.record)
            .map_err(|e| recordings::cannot_record(&e))?;
        let opened = match self.open_upstream(asker, &request, &id, run_as).await {
            Ok(opened) => opened,
            Err(error) => {
                self.never_opened(recording).await;
                return Err(error);
            }
        };

        let record = recordings::record(
            &id,
            asker,
            &request,
            ((&instance, plan.kind), &decision, &opened.upstream.session_id),
            &self.settings.node,
        );
        let given = recordings::given(asker, &plan, &decision, &opened.client);
        if let Err(error) = self.rooms.registry.add_started(&record, &given).await {
            tracing::error!(session = %id, %error, "the session could not be registered");
            self.never_opened(recording).await;
            self.terminate_upstream(&opened.upstream).await;
            return Err(ApiError::gateway("the gateway could not register the session; try again"));
        }
        let rules = admission::rules(&decision.obligations);
        let started = Started::new(&record, asker, (given.parameters, decision.obligations));
        self.run_session((record, started), (recording, rules, carries), opened);
        self.ticket(&id, asker)
    }

    /// A client opened the stream: let it in if token and client fit.
    ///
    /// The error is the sentence for the `channel_closed` message. While the
    /// session is being taken over this waits; the caller sets the limit.
    pub async fn attach(&self, id: &SessionId, token: &str, client_id: &str) -> Result<Seat, &'static str> {
        // Nobody else holds the sender, so this ends only when it is settled.
        let _ = self.adopting.subscribe().wait_for(|ids| !ids.contains(id)).await;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let Some(token) = StreamToken::open(&self.rooms.keys, token, id, now) else {
            return Err("the token is not valid any more; start or resume the session again");
        };
        let Some(live) = self.live.get(id).filter(|live| !live.has_ended()) else {
            return Err("the session has ended");
        };
        if let Some(visit) = &token.visit
            && self.is_signed_out(visit).await
        {
            return Err("this browser is signed out; sign in again");
        }
        if !live.admit(token, client_id) {
            return Err("the session is in use by another client");
        }
        Ok(Seat { live })
    }

    /// ResumeSession; `None` when there is nothing to come back to.
    ///
    /// A refusal is no error: stock clients hang for ever on one. An error
    /// is the gateway's own, and clients try again.
    pub async fn resume(&self, asker: &Asker, id: &SessionId) -> Result<Option<Ticket>, ApiError> {
        self.settled(id).await?;
        let Some(live) = self.live.get(id).filter(|live| !live.has_ended()) else { return Ok(None) };
        // Whoever comes back has just proved who they are.
        live.renew(&asker.principal, asker.proved_until_ms);
        if live.is_dismissed() && live.principal.id == asker.principal.id {
            return self.ticket(id, asker).map(Some);
        }
        match self.admit_on_session(Action::ResumeSession, asker, &live).await {
            Ok(_) => self.ticket(id, asker).map(Some),
            Err(error) if error.blame == Blame::Gateway => Err(error),
            Err(denied) => {
                tracing::info!(session = %id, principal = %asker.principal.arn, %denied, "resume refused");
                Ok(None)
            }
        }
    }

    /// TerminateSession, by its owner or by whom policy allows.
    pub async fn end(
        self: &Arc<Self>,
        asker: &Asker,
        id: &SessionId,
        why: Option<&str>,
    ) -> Result<(), ApiError> {
        self.settled(id).await?;
        let by = crate::session::printable(&asker.principal.name);
        let sentence = |owner: &Principal| match why {
            Some(why) => format!("ended by {by}: {why}"),
            None if asker.principal.id == owner.id => String::new(),
            None => format!("ended by {by}"),
        };
        let Some(live) = self.live.get(id) else {
            return match self.rooms.registry.session(id).await {
                // Ending twice is no error, to whoever may know of the session.
                Ok(Some(record)) if self.may_see(asker, &record) && record.state.is_over() => Ok(()),
                Ok(Some(record)) if self.may_see(asker, &record) => {
                    self.admit_ending(asker, &record).await?;
                    self.end_elsewhere(asker, &record, sentence(&record.principal)).await
                }
                _ => Err(ApiError::client(Code::DoesNotExist, format!("there is no session {id}"))),
            };
        };
        self.admit_on_session(Action::TerminateSession, asker, &live).await?;
        let sentence = sentence(&live.principal);
        live.end(Ending { reason: "terminated", sentence }).await;
        Ok(())
    }

    fn run_session(
        self: &Arc<Self>,
        (record, started): (SessionRecord, Started),
        recording: (Recording, Rules, Carries),
        mut opened: Opened,
    ) {
        let (orders, control) = mpsc::channel(ORDERS_MAX);
        let resumed = opened.resumed.as_ref();
        let counters =
            Counters::from(record.bytes_in, resumed.map_or(0, |resumed| resumed.recovered.output_bytes));
        let live = Live::new(&record, started, (orders, counters));
        let live = Arc::new(live.to(recording.2.destination()));
        if let Some(ending) = opened.dismissed.take() {
            live.set_dismissed();
            let _ = live.orders.try_send(Control::End(ending));
        }
        self.live.insert(Arc::clone(&live));
        let resumed = opened.resumed.as_ref();
        if resumed.is_none() {
            let kind = admission::kind_label(record.kind);
            self.rooms.metrics.sessions_started.with_label_values(&[kind]).inc();
        }
        let what = if resumed.is_some() { "session taken over" } else { "session started" };
        tracing::info!(session = %record.id, principal = %record.principal.arn, target = %record.target, "{what}");
        // A session that was being opened while the drain began is not in its list.
        if self.draining.load(Ordering::Acquire) {
            let order = if self.is_leaving() { Control::Leave } else { Control::End(stopping()) };
            let _ = live.orders.try_send(order);
        }
        let this = Arc::clone(self);
        let asked = Arc::clone(&live);
        // Whatever changed while it was being opened did not find it in the list.
        tokio::spawn(async move { this.ask_again(vec![asked]).await });
        tokio::spawn(Arc::clone(self).live_through(live, control, recording, opened));
    }

    /// Relay until somebody says stop; then seal, register and count.
    async fn live_through(
        self: Arc<Self>,
        live: Arc<Live>,
        control: mpsc::Receiver<Control<ClientStream>>,
        (recording, rules, carries): (Recording, Rules, Carries),
        opened: Opened,
    ) {
        let id = live.id.clone();
        let upstream = Arc::new(opened.upstream);
        let parts = Parts {
            session: id.clone(),
            recording,
            carries,
            rules,
            upstream: opened.socket,
            redial: self.redialler(Arc::clone(&upstream), opened.client),
            data_keys: self.data_keys(&upstream, &id),
            data_key: opened.data_key,
            input_keys: self.rooms.keys.keys_for(INPUT, id.as_str().as_bytes()),
            control,
            presence: self.presence_of(&live),
            meters: Arc::clone(&self.meters),
            counters: Arc::clone(&live.counters),
            times: self.settings.times,
            resumed: opened.resumed,
        };
        let (recording, age_ms, ended) = relay::run(parts).await;
        live.set_ended();
        if ended == Ended::Left {
            self.leave(&live, recording).await;
            return self.live.remove(&id);
        }
        let terminate = async {
            if matches!(ended, Ended::ByGateway(_)) {
                self.terminate_upstream(&upstream).await;
            }
        };
        // The evidence does not wait for AWS.
        tokio::join!(terminate, self.seal(&live, recording, age_ms, &ended));
        self.live.remove(&id);
    }

    /// Seals the recording, and registers and counts the end.
    async fn seal(self: &Arc<Self>, live: &Live, recording: Recording, age_ms: u64, ended: &Ended) {
        let sha256 = match recording.seal_or_later(age_ms, &recordings::end(ended)).await {
            Ok(sealed) => {
                self.recording_sealed(&live.id);
                Some(sealed.sha256)
            }
            Err((error, later)) => {
                tracing::error!(session = %live.id, %error, "the recording could not be sealed");
                self.expect_seal(&live.id, later);
                None
            }
        };
        self.register_end(live, ended, sha256).await;
        self.rooms.metrics.sessions_ended.with_label_values(&[ended.reason()]).inc();
        tracing::info!(session = %live.id, reason = ended.reason(), "session ended");
    }

    /// Seals what there is of a recording whose session did not open.
    async fn never_opened(&self, recording: Recording) {
        if let Err(error) = recording.seal(0, &End::new("never opened")).await {
            tracing::error!(%error, "the recording of a session that did not open could not be sealed");
        }
    }

    fn ticket(&self, id: &SessionId, asker: &Asker) -> Result<Ticket, ApiError> {
        let token = StreamToken::new(id.clone(), OffsetDateTime::now_utc().unix_timestamp());
        let token = token
            .for_visit(asker.visit.clone())
            .seal(&self.rooms.keys)
            .ok_or_else(|| ApiError::gateway("the gateway could not make a token"))?;
        let stream_url = format!("{}/v1/data-channel/{id}?role=publish_subscribe", self.settings.stream_base);
        Ok(Ticket { session: id.clone(), token, stream_url })
    }
}

/// What users read when the gateway is stopped.
fn stopping() -> Ending {
    Ending { reason: "gateway_stopped", sentence: "the gateway is stopping".to_owned() }
}
