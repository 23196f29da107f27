//! A session that an earlier process began goes on where it was.

use std::task::Context;
use std::time::Duration;

use data_channel::acknowledge::Acknowledge;
use data_channel::message::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::output::Owed;
use super::pump::{Pump, Upstream, recording_failed};
use super::{Ended, Presence, Resumed};
use crate::recorder::{Position, RecorderError, Recovered};
use crate::session::now_ms;

/// How long a client may take to come back and hear that it is over.
///
/// Stock clients come back within about 6 s, whatever the outage was.
const BACK_WITHIN: Duration = Duration::from_secs(15);

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Takes up what the earlier process left.
    pub(super) fn go_on(&mut self, resumed: Resumed) {
        let Resumed { mut recovered, kind, age, away } = resumed;
        let ago = |duration| self.now.checked_sub(duration).unwrap_or(self.now);
        self.started = ago(age);
        self.active = (self.started + Duration::from_millis(recovered.last_ms)).min(self.now);
        self.away_since = ago(away.unwrap_or_default());
        self.attached = away.is_some();
        self.back_until = self.now + BACK_WITHIN;
        self.tap.go_on(self.started, std::mem::take(&mut recovered.inputs));
        // The banner stands before the first output.
        if recovered.next_output.is_some() {
            self.rules.banner = None;
        }
        self.screen.go_on(kind, recovered.next_output.is_some());
        self.output.go_on(&recovered, self.attached);
        if let Err(error) = self.note_restart(&recovered) {
            self.say_farewell(recording_failed(&error));
        }
        if self.attached {
            (self.outside.presence)(Presence::Disconnected);
        }
    }

    fn note_restart(&mut self, recovered: &Recovered) -> Result<(), RecorderError> {
        let without = self.now.saturating_duration_since(self.active).as_secs();
        self.tap.marker(&format!("gateway restarted; nothing was recorded for {without} s"), self.now)?;
        if !self.attached {
            return Ok(());
        }
        let next = recovered.next_output.unwrap_or_default();
        self.owe(recovered.owed.map_or(next, |owed| owed.min(next)), None)
    }

    /// Keeps output for the client from a number on, and answers for it.
    fn owe(&mut self, from: i64, message: Option<&Message>) -> Result<(), RecorderError> {
        let answers = self.output.take_back(from, message, self.now);
        if self.output.is_answering() {
            let position = self.tap.owed(Some(from), self.now)?;
            for acknowledge in answers {
                self.answer(acknowledge, position);
            }
        }
        Ok(())
    }

    /// The agent repeats what an earlier process recorded.
    pub(super) fn give_back(&mut self, message: &Message) -> Result<(), Ended> {
        self.owe(message.sequence(), Some(message)).map_err(|error| recording_failed(&error))
    }

    /// The agent will not say any more what the client may lack.
    pub(super) fn give_back_all(&mut self) {
        if let Some(from) = self.output.recorded_from() {
            self.output.take_back(from, None, self.now);
        }
    }

    /// Acknowledges to the agent in the client's place, once recorded.
    pub(super) fn answer(&mut self, acknowledge: Acknowledge, position: Position) {
        let due = self.now + self.outside.times.acknowledge_after;
        self.held.hold(acknowledge.sequence, position, (self.now, due), acknowledge.encode(now_ms()));
    }

    /// Acknowledges that the client did not give: a later process must know.
    pub(super) fn hold_in_debt(&mut self, owed: Vec<Owed>) -> Result<(), Ended> {
        if owed.is_empty() {
            return Ok(());
        }
        self.output.is_in_debt();
        let from = self.output.lacks_from();
        let position = self.tap.owed(Some(from), self.now).map_err(|error| recording_failed(&error))?;
        self.hold_all(owed.into_iter().map(|owed| Owed { position, ..owed }).collect());
        Ok(())
    }

    /// Notes it when the client has all that was acknowledged for it.
    pub(super) fn settle_debt(&mut self) {
        if self.output.is_paid() {
            // A recording that failed ends the session with its next message.
            let _ = self.tap.owed(None, self.now);
        }
    }

    /// Goes on with what is the agent's oldest message.
    pub(super) fn go_on_at(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), Ended> {
        let text = format!("the agent goes on with message {}", message.sequence());
        self.tap.marker(&text, self.now).map_err(|error| recording_failed(&error))?;
        self.output.skip_to(message.sequence());
        // It may be among those that are held; then the held one is the same.
        let _ = self.output.take_held();
        self.output_message(message, cx)
    }

    /// The leg is gone: dialled again, unless the session is left anyway.
    pub(super) fn upstream_gone(&mut self) {
        self.upstream = match self.leaving {
            Some(_) => Upstream::Over,
            None => Upstream::Redialling((self.outside.redial)()),
        };
    }
}
