//! Are both legs still moving? One session's messages, from leg to leg.
//!
//! The relay knows the sequence of the data channel and passes numbers
//! through, until it has something to say of its own: both ends keep their
//! own retransmission. It records every output
//! message once, forwards it at once, and lets the client's acknowledge
//! pass upstream only when the message is in the recording. Either leg may
//! break and come back alone. A session that an earlier process began goes
//! on where it was, and one that a later process will go on with is left so.

mod acknowledge;
mod commands;
mod destination;
mod downward;
mod echo;
mod farewell;
mod flows;
mod held_back;
mod kms;
mod leaving;
mod leg;
mod meters;
mod noted;
mod notice;
mod observe;
mod opening;
mod output;
mod pump;
mod read_only;
mod resumed;
mod screen_text;
mod tap;
mod typed;
mod upward;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use data_channel::encryption::DataKey;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;

pub use destination::{Carries, Destination, Forward};
pub use kms::{AskedKey, DataKeys};
pub use meters::{Counters, Meters};
pub use pump::run;

use crate::recorder::{Recording, Recovered};
use crate::session::{SessionId, SessionKind};

/// What a session's owner tells its relay.
pub enum Control<C> {
    /// A client has come (back); it replaces the one before.
    Attach(Box<WebSocketStream<C>>),
    /// End the session and tell the client why.
    End(Ending),
    /// Keep other rules from now on.
    Obey(Rules),
    /// Say this on the screen, when there is one.
    Warn(String),
    /// Mark the recording; nobody is shown it.
    Mark(String),
    /// Hang up on the client; the session waits for one to come back.
    HangUp,
    /// Leave the session to a later process; nothing ends.
    Leave,
}

/// Why the gateway ends a session, and what its user reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// A short word for records and metrics.
    pub reason: &'static str,
    /// The sentence printed at the client; one line.
    pub sentence: String,
}

/// What is known of a session that was gone when the gateway came back to it.
const VANISHED: &str = "the session was over at the target when the gateway reconnected to it, and how it \
    ended is not known; what ran in it may not have finished, so look before you start a new one";

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The far side closed it, with the text it gave.
    ByTarget(String),
    /// It is over at the far side, and nobody said why or how it ended.
    Vanished,
    /// The gateway ended it.
    ByGateway(Ending),
    /// It goes on: a later process takes it over.
    Left,
}

impl Ended {
    /// The short word for records and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ByTarget(_) => "target_closed",
            Self::Vanished => "upstream_over",
            Self::ByGateway(ending) => ending.reason,
            Self::Left => "handed_over",
        }
    }

    /// Whether nothing more can come from the far side.
    fn is_over_there(&self) -> bool {
        matches!(self, Self::ByTarget(_) | Self::Vanished)
    }

    /// Whether the session broke rather than ended.
    pub fn is_failure(&self) -> bool {
        matches!(
            self.reason(),
            "recording_failed" | "upstream_lost" | "key_unavailable" | "encryption_failed"
        )
    }

    /// The sentence for the session's record; may be empty.
    pub fn sentence(&self) -> &str {
        match self {
            Self::ByTarget(text) => text,
            Self::Vanished => VANISHED,
            Self::ByGateway(ending) => &ending.sentence,
            Self::Left => "",
        }
    }
}

/// Whether a client is there; the session's state is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A client is attached.
    Connected,
    /// No client; the session waits for one to come back.
    Disconnected,
}

/// A new upstream leg; `Ok(None)` when the session is over upstream.
pub type Redialled<U> = Result<Option<WebSocketStream<U>>, String>;
/// Dials upstream again after a loss, with its own back-off.
pub type Redial<U> = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Redialled<U>> + Send>> + Send>;

/// The times a relay keeps.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Own pings on each leg; a leg silent for three of them is dead.
    pub ping: Duration,
    /// How long a new session waits for its first client.
    pub first_client: Duration,
    /// How long a session lives without a client.
    pub client_away: Duration,
    /// Least time between a message and its acknowledge going back.
    ///
    /// Both stock programs enter a message in their resend list after
    /// sending it, and lose an acknowledge that is faster (about 2 ms).
    pub acknowledge_after: Duration,
    /// How long a closing session waits for its client to hang up.
    pub farewell: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(30),
            first_client: Duration::from_secs(60),
            client_away: Duration::from_secs(20 * 60),
            acknowledge_after: Duration::from_millis(3),
            farewell: Duration::from_secs(2),
        }
    }
}

/// What the policy obliges one session to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether keystrokes are recorded too; output always is.
    pub record_input: bool,
    /// Shown at the client before the first output.
    pub banner: Option<String>,
    /// Ends a session in which nothing moved either way for so long; the
    /// user is warned a minute before.
    pub idle_timeout: Option<Duration>,
    /// Ends a session of this age; the user is warned a minute before.
    pub max_duration: Option<Duration>,
    /// Whether what its user types is kept from the agent.
    pub read_only: bool,
}

/// A key for the digests by which input of a port session is known again.
pub type InputKey = [u8; 32];

/// Everything one relay works with.
pub struct Parts<C, U> {
    /// The gateway's id of the session.
    pub session: SessionId,
    /// Where the session is written down.
    pub recording: Recording,
    /// What the session carries, as policy allowed it.
    pub carries: Carries,
    /// What the policy obliges the session to.
    pub rules: Rules,
    /// The first upstream leg, just opened; `None`: dial it.
    pub upstream: Option<WebSocketStream<U>>,
    /// How to get another one.
    pub redial: Redial<U>,
    /// How to get a key when the target encrypts with KMS.
    pub data_keys: DataKeys,
    /// The key of an encrypted session that is taken over.
    pub data_key: Option<DataKey>,
    /// Keys for what is noted of a port session's input: the first is used,
    /// the others are what earlier processes may have used.
    pub input_keys: Vec<InputKey>,
    /// Orders from the session's owner.
    pub control: mpsc::Receiver<Control<C>>,
    /// Told whenever a client comes or goes.
    pub presence: Box<dyn FnMut(Presence) + Send>,
    /// The process's relay metrics.
    pub meters: Arc<Meters>,
    /// This session's byte counts.
    pub counters: Arc<Counters>,
    /// The times to keep.
    pub times: Times,
    /// What an earlier process did, if it began the session.
    pub resumed: Option<Resumed>,
}

/// What is known of a session that an earlier process began.
pub struct Resumed {
    /// What its recording says.
    pub recovered: Recovered,
    /// What the session carries.
    pub kind: SessionKind,
    /// How long ago it began.
    pub age: Duration,
    /// How long its client has been away; `None` if none was there yet.
    pub away: Option<Duration>,
}

#[cfg(test)]
mod tests;
