//! Each session's lines, read as text and commands, against the rules.

use std::collections::HashMap;
use std::sync::Arc;

use super::rules::{On, Rule, Rules};
use super::{MARK, Raised};
use crate::asciicast::{Event, EventCode, Header};
use crate::recorder::{Batch, Feed, RecorderError, Shipment};
use crate::session::{SessionId, printable};
use crate::transcript::{Source, Text, Transcript, is_label};

/// Longest text of an alert, in characters.
const TEXT_MAX: usize = 200;
/// Bytes of lines read at a time to catch up.
const AT_ONCE: usize = 1 << 20;

/// A command that was sent off so long ago is marked no more.
const LATE_MS: u64 = 10_000;
/// Commands of one shipment that are marked; a paste has fewer.
const LABELS_MAX: usize = 256;

/// The sessions that are followed.
pub(super) struct Sessions {
    rules: Rules,
    feed: Feed,
    followed: HashMap<SessionId, Followed>,
}

/// One session, as far as its lines went.
struct Followed {
    header: Arc<Header>,
    /// The number of the next line.
    done: u64,
    text: Text,
    /// When the last output came.
    last_ms: u64,
    /// None if no rule looks at commands, or there is no usable terminal.
    transcript: Option<Transcript>,
    /// Labels of commands that the shell did not mark, until they are asked for.
    labels: Vec<String>,
}

/// Something that met a rule.
pub(super) type Met = (Rule, Raised);

impl Sessions {
    pub(super) fn new(rules: Rules, feed: Feed) -> Self {
        Self { rules, feed, followed: HashMap::new() }
    }

    /// The header of a session that is followed.
    pub(super) fn about(&self, session: &SessionId) -> Option<Arc<Header>> {
        self.followed.get(session).map(|followed| Arc::clone(&followed.header))
    }

    /// A session's commands that were found since, as labels for its recording.
    ///
    /// The relay marks those of the shell's own marks by itself.
    pub(super) fn labels(&mut self, session: &SessionId) -> Vec<String> {
        self.followed
            .get_mut(session)
            .map(|followed| std::mem::take(&mut followed.labels))
            .unwrap_or_default()
    }

    /// Takes a shipment; gives what met a rule.
    pub(super) fn follow(&mut self, shipment: Shipment) -> Vec<Met> {
        let session = shipment.session().clone();
        let mut met = Vec::new();
        match shipment {
            Shipment::Begun { header, .. } => {
                let followed = Followed::new(header, self.rules.look_at(On::Command));
                self.followed.insert(session, followed);
            }
            Shipment::Lines { batch, .. } => {
                let Some(followed) = self.followed.get_mut(&session) else { return met };
                if followed.done.max(1) < batch.first_line {
                    self.catch_up(&session, &mut met);
                }
                let Some(followed) = self.followed.get_mut(&session) else { return met };
                if let Some(batch) = batch.after(followed.done) {
                    followed.batch(&session, &batch, &self.rules, &mut met);
                }
            }
            Shipment::Behind { .. } => self.catch_up(&session, &mut met),
            Shipment::Checkpoint { .. } => {}
            Shipment::Sealed { .. } => {
                self.catch_up(&session, &mut met);
                if let Some(followed) = self.followed.remove(&session) {
                    followed.finish(&session, &self.rules, &mut met);
                }
            }
        }
        met
    }

    /// Reads what was not offered from the spool.
    fn catch_up(&mut self, session: &SessionId, met: &mut Vec<Met>) {
        let Some(followed) = self.followed.get_mut(session) else { return };
        // Nothing was raised here yet: what is marked, an earlier process has raised.
        let (first, before) = (followed.done == 0, met.len());
        let mut marked = Vec::new();
        let mut read = || -> Result<(), RecorderError> {
            let Some(mut backlog) = self.feed.lines_from(session, followed.done)? else { return Ok(()) };
            while let Some(batch) = backlog.next(AT_ONCE)? {
                marks_in(&batch, &mut marked);
                followed.batch(session, &batch, &self.rules, met);
            }
            Ok(())
        };
        if let Err(error) = read() {
            tracing::error!(%session, %error, "lines could not be looked at for alerts");
        }
        if first {
            // An earlier process has marked them, or it is too late.
            followed.labels.clear();
        }
        for (_, alert) in met.iter_mut().skip(before).filter(|_| first) {
            let mark = alert.mark();
            let place = marked.iter().position(|marked| *marked == mark);
            alert.marked = place.map(|place| marked.swap_remove(place)).is_some();
        }
    }
}

impl Followed {
    fn new(header: Arc<Header>, commands: bool) -> Self {
        let transcript = commands.then(|| Transcript::of(&header).ok()).flatten();
        Self { header, done: 0, last_ms: 0, text: Text::default(), transcript, labels: Vec::new() }
    }

    fn batch(&mut self, session: &SessionId, batch: &Batch, rules: &Rules, met: &mut Vec<Met>) {
        self.done = batch.next_line();
        for line in batch.lines.split_inclusive(|byte| *byte == b'\n') {
            // The header is no event.
            let Ok(event) = Event::parse(line) else { continue };
            self.event(session, &event, rules, met);
        }
    }

    fn event(&mut self, session: &SessionId, event: &Event, rules: &Rules, met: &mut Vec<Met>) {
        if event.code == EventCode::Output && rules.look_at(On::Output) {
            self.last_ms = event.time_ms;
            let mut lines = Vec::new();
            self.text.output(&event.data, &mut lines);
            for line in lines {
                raise((session, event.time_ms), (On::Output, &line), rules, met);
            }
        }
        let Some(transcript) = &mut self.transcript else { return };
        transcript.event(event);
        for command in transcript.take().commands {
            let late = command.time_ms.saturating_add(LATE_MS) < event.time_ms;
            if command.source != Source::Shell && !late && self.labels.len() < LABELS_MAX {
                self.labels.push(command.label());
            }
            raise((session, command.time_ms), (On::Command, &command.text), rules, met);
        }
    }

    /// A last line may be without its end.
    fn finish(mut self, session: &SessionId, rules: &Rules, met: &mut Vec<Met>) {
        let mut lines = Vec::new();
        self.text.finish(&mut lines);
        for line in lines.iter().filter(|_| rules.look_at(On::Output)) {
            raise((session, self.last_ms), (On::Output, line), rules, met);
        }
    }
}

fn raise((session, time_ms): (&SessionId, u64), (on, text): (On, &str), rules: &Rules, met: &mut Vec<Met>) {
    for rule in rules.met(on, text) {
        let text: String = printable(text).chars().take(TEXT_MAX).collect();
        let alert = Raised {
            session: session.clone(),
            rule: rule.name.as_str().into(),
            time_ms,
            text,
            marked: false,
        };
        met.push((rule.clone(), alert));
    }
}

fn marks_in(batch: &Batch, marked: &mut Vec<String>) {
    for line in batch.lines.split_inclusive(|byte| *byte == b'\n') {
        if let Ok(event) = Event::parse(line)
            && event.code == EventCode::Marker
            && event.data.starts_with(MARK)
            // A command may look like an alert.
            && !is_label(&event.data)
        {
            marked.push(event.data);
        }
    }
}
