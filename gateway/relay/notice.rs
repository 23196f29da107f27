//! What the gateway itself says on the screen: warnings before an end, waits.

use std::task::Context;
use std::time::Duration;

use data_channel::handshake::HandshakeRequest;
use data_channel::message::{Draft, Message, MessageType};
use data_channel::payload::PayloadType;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use uuid::Uuid;

use super::pump::{Pump, Step, recording_failed};
use super::{Ended, Rules};
use crate::session::{SessionKind, now_ms};

/// How long before its end a session is warned; of shorter limits, half.
const BEFORE: Duration = Duration::from_secs(60);

/// The limits of a session, and which of them it was warned of.
pub(super) struct Warnings {
    idle: Option<Limit>,
    longest: Option<Limit>,
    /// What the session's owner wants said, as soon as it can be.
    pub(super) told: Option<String>,
}

struct Limit {
    length: Duration,
    /// Since when the time ran that the user was warned of.
    warned: Option<Instant>,
}

impl Limit {
    fn new(length: Duration) -> Self {
        Self { length, warned: None }
    }

    /// When the warning is due, if it was not given for this beginning.
    fn due(&self, since: Instant) -> Option<Instant> {
        let before = BEFORE.min(self.length / 2);
        (self.warned != Some(since)).then(|| since + (self.length - before))
    }

    /// What is left, if the warning is due; it counts as given then.
    fn warn(&mut self, since: Instant, now: Instant) -> Option<Duration> {
        if self.due(since)? > now {
            return None;
        }
        self.warned = Some(since);
        Some((since + self.length).saturating_duration_since(now))
    }
}

impl Warnings {
    pub(super) fn new(rules: &Rules) -> Self {
        let (idle, longest) = (rules.idle_timeout.map(Limit::new), rules.max_duration.map(Limit::new));
        Self { idle, longest, told: None }
    }

    /// Warns of other limits from now on; what is to be said stays so.
    pub(super) fn keep(&mut self, rules: &Rules) {
        *self = Self { told: self.told.take(), ..Self::new(rules) };
    }

    /// When the next one is due, for a session of these times.
    fn due(&self, started: Instant, active: Instant) -> Option<Instant> {
        let idle = self.idle.as_ref().and_then(|limit| limit.due(active));
        let longest = self.longest.as_ref().and_then(|limit| limit.due(started));
        let told = self.told.as_ref().map(|_| started);
        idle.into_iter().chain(longest).chain(told).min()
    }

    /// The warning that is due; given once.
    fn next(&mut self, started: Instant, active: Instant, now: Instant) -> Option<String> {
        if let Some(sentence) = self.told.take() {
            return Some(sentence);
        }
        if let Some(limit) = &mut self.longest
            && let Some(left) = limit.warn(started, now)
        {
            let (left, length) = (in_words(left), in_words(limit.length));
            return Some(format!(
                "this session ends in {left} because it reaches its longest duration of {length}"
            ));
        }
        let limit = self.idle.as_mut()?;
        let left = in_words(limit.warn(active, now)?);
        let quiet = in_words(now.saturating_duration_since(active));
        Some(format!("this session ends in {left} because nothing happened for {quiet}; press a key to stay"))
    }
}

/// Where a notice can be shown.
#[derive(Default)]
pub(super) struct Screen {
    kind: Kind,
    /// Whether the agent's first output is there; before it clients are
    /// not ready, and take the session for what the first message is.
    lit: bool,
}

/// What the output of a session is.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A terminal's; so is that of every session without a handshake.
    #[default]
    Terminal,
    /// A command's, which another program may read.
    Command,
    /// A connection's, in which no byte may be put.
    Port,
}

impl Screen {
    /// Goes on after an earlier process; `lit`: there has been output.
    pub(super) fn go_on(&mut self, kind: SessionKind, lit: bool) {
        self.lit = lit;
        self.kind = match kind {
            SessionKind::Shell | SessionKind::InteractiveCommand => Kind::Terminal,
            SessionKind::NonInteractiveCommand => Kind::Command,
            SessionKind::Port | SessionKind::PortToHost | SessionKind::Ssh => Kind::Port,
        };
    }

    /// Learns from a message of the agent what there is to show things on.
    pub(super) fn shows(&mut self, message: &Message) {
        if message.payload_type() == PayloadType::HandshakeRequest {
            self.kind = kind_of(message.payload());
        }
        self.lit |= self.takes_banner(message);
    }

    /// Whether the user sees the message's payload, and text before it.
    pub(super) fn takes_banner(&self, message: &Message) -> bool {
        let spoken = match message.payload_type() {
            PayloadType::HandshakeRequest
            | PayloadType::HandshakeComplete
            | PayloadType::EncChallengeRequest
            | PayloadType::Flag
            // Clients read a status out of it.
            | PayloadType::ExitCode => false,
            _ => true,
        };
        spoken && self.kind != Kind::Port
    }

    /// The type of a notice's message.
    fn payload_type(&self) -> PayloadType {
        if self.kind == Kind::Command { PayloadType::StdErr } else { PayloadType::Output }
    }
}

fn kind_of(handshake: &[u8]) -> Kind {
    let Ok(request) = HandshakeRequest::parse(handshake) else { return Kind::Port };
    let action = request.session_type();
    match action.as_ref().map(|action| action.session_type.as_str()) {
        Some("Standard_Stream" | "InteractiveCommands") => Kind::Terminal,
        Some("NonInteractiveCommands") => Kind::Command,
        // Whatever it is, it is safer not to write into it.
        _ => Kind::Port,
    }
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Warns when it is time, and repeats what the client may have missed.
    pub(super) fn give_notice(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = false;
        if self.client.is_some()
            && let Some(raw) = self.output.repeat_oldest(self.now)
        {
            self.queue_for_client(raw);
            moved = true;
        }
        if self.warning_due().is_some_and(|due| due <= self.now)
            && let Some(sentence) = self.warnings.next(self.started, self.active, self.now)
        {
            self.say(&sentence, cx)?;
            moved = true;
        }
        if let Some(sentence) = self.held_back_notice() {
            self.say(&sentence, cx)?;
            moved = true;
        }
        Ok(moved)
    }

    /// When there is something to say (again) that can be said.
    pub(super) fn notice_due(&mut self) -> Option<Instant> {
        let again = self.client.is_some().then(|| self.output.due_again()).flatten();
        again.into_iter().chain(self.warning_due()).chain(self.held_back_due()).min()
    }

    /// A client that is away is warned when it is back.
    fn warning_due(&self) -> Option<Instant> {
        let due = self.warnings.due(self.started, self.active)?;
        self.can_say().then_some(due)
    }

    /// Whether somebody is there to read it, and there is room for it.
    pub(super) fn can_say(&self) -> bool {
        let heard = match self.screen.kind {
            Kind::Port => true,
            _ => self.screen.lit && self.client.is_some() && self.output.has_room(),
        };
        heard && self.tap.has_room()
    }

    pub(super) fn say(&mut self, sentence: &str, cx: &mut Context<'_>) -> Result<(), Ended> {
        if self.screen.kind == Kind::Port {
            tracing::info!(session = %self.outside.session, sentence, "a warning that nobody sees");
            return self.tap.marker(sentence, self.now).map_err(|e| recording_failed(&e));
        }
        let text = format!("\r\n*** postern: {sentence} ***\r\n");
        let payload_type = self.screen.payload_type();
        // Nobody but the gateway can say it again, in a later process too.
        self.note_debt()?;
        let position = self.tap.notice(payload_type, &text, self.now).map_err(|e| recording_failed(&e))?;
        let draft = Draft {
            message_type: MessageType::OutputStreamData,
            created_ms: now_ms(),
            sequence: self.output.client_next(),
            flags: 0,
            id: Uuid::new_v4(),
            payload_type,
            payload: text.as_bytes(),
        };
        if let Ok(message) = Message::parse(draft.encode()) {
            self.output.accept_notice(message, position, self.now);
            self.output.is_in_debt();
            self.send_output(cx);
        }
        Ok(())
    }
}

/// A duration as people say it, in its largest fitting unit.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let (count, unit) = match seconds {
        0..=59 | 61..=119 => (seconds.max(1), "second"),
        _ if seconds.is_multiple_of(3600) => (seconds / 3600, "hour"),
        _ => ((seconds + 30) / 60, "minute"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn warnings(idle: Option<Duration>, longest: Option<Duration>) -> Warnings {
        Warnings::new(&Rules { idle_timeout: idle, max_duration: longest, ..Rules::default() })
    }

    #[test]
    fn a_quiet_session_is_warned_once_a_minute_before_its_end() {
        let start = Instant::now();
        let mut warnings = warnings(Some(15 * MINUTE), None);
        assert_eq!(warnings.due(start, start), Some(start + 14 * MINUTE));
        assert_eq!(warnings.next(start, start, start + 13 * MINUTE), None);
        assert_eq!(
            warnings.next(start, start, start + 14 * MINUTE).unwrap(),
            "this session ends in 1 minute because nothing happened for 14 minutes; press a key to stay"
        );
        assert_eq!(warnings.due(start, start), None);
        assert_eq!(warnings.next(start, start, start + 15 * MINUTE), None);
    }

    #[test]
    fn what_happens_afterwards_starts_the_quiet_time_anew() {
        let start = Instant::now();
        let mut warnings = warnings(Some(15 * MINUTE), None);
        warnings.next(start, start, start + 14 * MINUTE).unwrap();
        let active = start + 14 * MINUTE;
        assert_eq!(warnings.due(start, active), Some(start + 28 * MINUTE));
        assert!(warnings.next(start, active, start + 28 * MINUTE).is_some());
    }

    #[test]
    fn the_longest_duration_is_warned_of_once_whatever_happens() {
        let start = Instant::now();
        let mut warnings = warnings(None, Some(60 * MINUTE));
        let sentence = warnings.next(start, start + MINUTE, start + 59 * MINUTE).unwrap();
        assert_eq!(
            sentence,
            "this session ends in 1 minute because it reaches its longest duration of 1 hour"
        );
        assert_eq!(warnings.due(start, start + 59 * MINUTE), None);
    }

    #[test]
    fn a_short_limit_is_warned_of_at_half() {
        let start = Instant::now();
        let mut warnings = warnings(Some(Duration::from_secs(10)), None);
        assert_eq!(warnings.due(start, start), Some(start + Duration::from_secs(5)));
        let late = start + Duration::from_millis(6_500);
        let sentence = warnings.next(start, start, late).unwrap();
        assert!(
            sentence.starts_with("this session ends in 4 seconds because nothing happened for 7 seconds;")
        );
    }

    #[test]
    fn durations_are_said_as_people_say_them() {
        let said = [0, 1, 59, 60, 90, 119, 120, 840, 3600, 7200, 5400].map(Duration::from_secs).map(in_words);
        let wanted = [
            "1 second",
            "1 second",
            "59 seconds",
            "1 minute",
            "90 seconds",
            "119 seconds",
            "2 minutes",
            "14 minutes",
            "1 hour",
            "2 hours",
            "90 minutes",
        ];
        assert_eq!(said, wanted);
    }
}
