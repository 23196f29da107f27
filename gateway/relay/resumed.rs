//! A session that an earlier process began goes on where it was.

use std::task::Context;
use std::time::Duration;

use data_channel::message::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::output::Owed;
use super::pump::{Pump, Upstream, recording_failed};
use super::{Ended, Presence, Resumed};
use crate::recorder::{Position, RecorderError, Recovered};

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
        // While the gateway was away nothing could happen.
        self.active = self.now;
        self.away_since = ago(away.unwrap_or_default());
        self.attached = away.is_some();
        self.back_until = self.now + BACK_WITHIN;
        self.tap.go_on(self.started, &mut recovered, self.now);
        self.flows_go_on(&mut recovered);
        // The banner stands before the first output.
        if recovered.next_output.is_some() {
            self.rules.banner = None;
        }
        self.screen.go_on(kind, recovered.next_output.is_some());
        self.output.go_on(&recovered);
        self.settled = recovered.settled;
        if let Err(error) = self.note_restart(&recovered) {
            self.say_farewell(recording_failed(&error));
        }
        if self.attached {
            (self.outside.presence)(Presence::Disconnected);
        }
    }

    fn note_restart(&mut self, recovered: &Recovered) -> Result<(), RecorderError> {
        let last = self.started + Duration::from_millis(recovered.last_ms);
        let without = self.now.saturating_duration_since(last).as_secs();
        self.tap.marker(&format!("gateway restarted; nothing was recorded for {without} s"), self.now)?;
        if !recovered.settled && self.flows.is_none() {
            // A client that is not ready takes messages in their order only.
            self.output.take_back(0, None, self.now);
        }
        if let Some(owed) = recovered.owed {
            self.output.take_back(owed, None, self.now);
            self.output.is_in_debt();
            self.noted = Some((owed, Position::default()));
        }
        Ok(())
    }

    /// The connections of a port session go on where they were.
    fn flows_go_on(&mut self, recovered: &mut Recovered) {
        let Some(flows) = &mut self.flows else { return };
        let state = recovered.flow.get_or_insert_default();
        flows.go_on(state, self.now);
        let (began, open) = flows.counts();
        self.outside.counters.flows_go_on(began, open as u64);
        self.outside.meters.flows_go_on(open);
    }

    /// Lets the agent know what a silent client has that no recording has.
    ///
    /// Nobody could give it again after the next restart, so it must be sure
    /// that the client is there and heard it.
    pub(super) fn believe_silence(&mut self, sequence: i64) {
        let Some(leg) = &mut self.client else { return };
        let alive = leg.alive_at();
        leg.ask(self.now);
        if alive.is_some() {
            let owed = self.output.silence_until(sequence, self.now, alive);
            self.hold_all(owed);
        }
    }

    /// The agent repeats what an earlier process recorded.
    pub(super) fn give_back(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), Ended> {
        let message = match self.flows {
            Some(_) => self.with_notice(message),
            None => self.kms.downward(message)?,
        };
        self.output.take_back(message.sequence(), Some(&message), self.now);
        self.send_output(cx);
        Ok(())
    }

    /// The agent will not say any more what the client may lack.
    pub(super) fn give_back_all(&mut self) {
        if let Some(from) = self.output.recorded_from() {
            self.output.take_back(from, None, self.now);
        }
    }

    /// Acknowledges what a client that was there before was just sent.
    pub(super) fn answer_for_client(&mut self) {
        let owed = self.output.answers();
        if let Err(ended) = self.hold_in_debt(owed) {
            self.say_farewell(ended);
        }
    }

    /// Acknowledges that the client did not give: a later process must know.
    pub(super) fn hold_in_debt(&mut self, owed: Vec<Owed>) -> Result<(), Ended> {
        if owed.is_empty() {
            return Ok(());
        }
        let noted = self.note_debt()?;
        let noted = |owed: Owed| Owed { position: owed.position.max(noted), ..owed };
        self.hold_all(owed.into_iter().map(noted).collect());
        Ok(())
    }

    /// Notes what only the gateway can still give the client.
    pub(super) fn note_debt(&mut self) -> Result<Position, Ended> {
        let from = self.output.lacks_from();
        self.output.is_in_debt();
        match self.noted {
            Some((noted, position)) if noted <= from => Ok(position),
            _ => {
                let position = self.tap.owed(Some(from), self.now).map_err(|e| recording_failed(&e))?;
                self.noted = Some((from, position));
                Ok(position)
            }
        }
    }

    /// Notes what a later process has to know of the client.
    pub(super) fn settle(&mut self) {
        if !self.settled && self.output.is_settled() {
            self.settled = self.tap.settled(self.now).is_ok();
        }
        if self.output.is_paid() && self.noted.take().is_some() {
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
