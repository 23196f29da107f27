//! Decides what a terminal shows when; time is an argument, output bytes.

use std::time::Duration;

use super::export::ExactBytes;
use super::queries::Queries;
use super::screen::Screen;
use super::{Outline, Place, ReplayError, Timeline};
use crate::asciicast::{Event, EventCode};

/// How far an arrow key goes.
const SEEK_MS: u64 = 5_000;
/// A marker just passed is not the previous one yet, while playing.
const MARKER_GRACE_MS: u64 = 1_000;
/// Markers remembered; a recording with more has them by machine.
const MARKERS_MAX: usize = 100_000;
/// Output of one tick: what a terminal draws before a key must be seen.
const TICK_BYTES: usize = 256 * 1024;
/// Slowest and fastest: beyond them playing is no playing.
const SPEED_MIN: f64 = 1.0 / 64.0;
const SPEED_MAX: f64 = 1024.0;
/// Leaves the alternate screen, soft-resets modes and colours, clears.
const CLEAR: &[u8] = b"\x1b[?1049l\x1b[!p\x1b[?7h\x1b[r\x1b[m\x1b[H\x1b[2J\x1b7";

/// How to play.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Times as fast as recorded.
    pub speed: f64,
    /// Longest pause kept; the header's limit if `None`.
    pub idle_limit: Option<Duration>,
    /// Where to begin, milliseconds.
    pub from_ms: u64,
}

/// What a person does to the player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Stops and goes on.
    Pause,
    /// Goes back 5 s.
    Back,
    /// Goes forward 5 s.
    Forward,
    /// Goes to the marker or command before.
    PreviousMarker,
    /// Goes to the marker or command after; stays if there is none.
    NextMarker,
    /// Doubles the speed.
    Faster,
    /// Halves the speed.
    Slower,
    /// While paused: shows the next output.
    Step,
}

/// What to wait for before the next tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A key, at most for this long.
    For(Duration),
    /// A key: the player is paused.
    Key,
    /// Nothing: everything was shown.
    Ended,
}

/// Plays a timeline; has no terminal, no clock and no thread of its own.
pub struct Player {
    timeline: Timeline,
    next: Option<Event>,
    screen: Screen,
    queries: Queries,
    exact: ExactBytes,
    markers: Vec<u64>,
    /// Every marker and command, once somebody has looked for them.
    places: Option<Vec<u64>>,
    speed: f64,
    idle_limit_ms: Option<f64>,
    /// Time of the last event shown.
    shown_ms: u64,
    /// Recorded time that has passed since that event, but for the running.
    spent_ms: f64,
    /// Since when it runs; `None`: paused.
    since: Option<Duration>,
}

impl Player {
    /// A player for a window of that many columns and rows, running.
    pub fn new(
        timeline: Timeline,
        window: (u16, u16),
        settings: Settings,
        now: Duration,
    ) -> Result<Self, ReplayError> {
        let of_header = timeline.header().idle_time_limit;
        let idle_s = settings.idle_limit.map(|limit| limit.as_secs_f64()).or(of_header);
        Ok(Self {
            timeline,
            next: None,
            screen: Screen::new(window.0, window.1)?,
            queries: Queries::default(),
            exact: ExactBytes::default(),
            markers: Vec::new(),
            places: None,
            speed: settings.speed.clamp(SPEED_MIN, SPEED_MAX),
            idle_limit_ms: idle_s.filter(|limit| *limit >= 0.0).map(|limit| limit * 1000.0),
            shown_ms: 0,
            spent_ms: 0.0,
            since: Some(now),
        })
    }

    /// Appends the output that is due; tells what to wait for.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<u8>) -> Result<Wait, ReplayError> {
        loop {
            let Some(since) = self.since else { return Ok(Wait::Key) };
            let Some(next_ms) = self.peek()? else { return Ok(Wait::Ended) };
            let left_ms = (self.kept_gap(next_ms) - self.spent_ms).max(0.0);
            let due = since.saturating_add(Duration::from_secs_f64(left_ms / self.speed / 1000.0));
            if due > now {
                return Ok(Wait::For(due - now));
            }
            if out.len() >= TICK_BYTES {
                return Ok(Wait::For(Duration::ZERO));
            }
            // The next wait begins when this event was due, so that being
            // late once does not make everything after it late.
            self.since = Some(due);
            self.spent_ms = 0.0;
            self.show(Some(out));
        }
    }

    /// Does what a key says; appends what the terminal needs for it.
    pub fn press(&mut self, key: Key, now: Duration, out: &mut Vec<u8>) -> Result<(), ReplayError> {
        self.settle(now);
        let position = self.position_ms();
        match key {
            Key::Pause => self.since = if self.since.is_some() { None } else { Some(now) },
            Key::Faster => self.speed = (self.speed * 2.0).min(SPEED_MAX),
            Key::Slower => self.speed = (self.speed / 2.0).max(SPEED_MIN),
            Key::Back => self.seek(position.saturating_sub(SEEK_MS), out)?,
            Key::Forward => self.seek(position.saturating_add(SEEK_MS), out)?,
            Key::PreviousMarker => self.seek_marker_before(position, out)?,
            Key::NextMarker => self.seek_marker_after(position, out)?,
            Key::Step => self.step(out)?,
        }
        Ok(())
    }

    /// Goes to a time and redraws; events at exactly that time are shown.
    pub fn seek(&mut self, target_ms: u64, out: &mut Vec<u8>) -> Result<(), ReplayError> {
        if target_ms < self.shown_ms || self.screen.knows_between(self.shown_ms, target_ms) {
            let place = self.screen.rewind(target_ms).unwrap_or(self.timeline.first());
            self.go(place)?;
        }
        let mut reached_end = false;
        while !reached_end {
            match self.peek()? {
                Some(next_ms) if next_ms <= target_ms => self.show(None),
                Some(_) => break,
                None => reached_end = true,
            }
        }
        let missing = target_ms.saturating_sub(self.shown_ms);
        self.spent_ms = if reached_end { 0.0 } else { missing as f64 };
        self.redraw(out);
        Ok(())
    }

    /// Learns what the screen showed at many places of the recording.
    pub fn know_outline(&mut self, outline: Outline) {
        self.timeline.know_frames(&outline.frames);
        self.screen.know(outline.scenes);
    }

    /// Learns where all markers and commands are, in order.
    pub fn know_places(&mut self, places: Vec<u64>) {
        self.places = Some(places);
    }

    /// The window changed its size.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        self.screen.resize(cols, rows);
    }

    /// One line on where the player is.
    pub fn status(&self, total_ms: Option<u64>) -> String {
        let mut line = clock(self.position_ms());
        if let Some(total_ms) = total_ms.filter(|total| *total > 0) {
            line.push_str(" of ");
            line.push_str(&clock(total_ms));
        }
        if self.speed != 1.0 {
            line.push_str(&format!(", {}x", self.speed));
        }
        if self.since.is_none() {
            line.push_str(", paused");
        }
        line
    }

    /// Whether a person has paused it.
    pub fn is_paused(&self) -> bool {
        self.since.is_none()
    }

    /// Whether the cursor is where a prompt belongs.
    pub fn is_at_line_start(&self) -> bool {
        self.screen.is_at_line_start()
    }

    /// Whether a full-screen program has the screen now.
    pub fn is_alternate(&self) -> bool {
        self.screen.is_alternate()
    }

    /// The recording, to ask how it ends.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Where the player is: recorded milliseconds.
    pub fn position_ms(&self) -> u64 {
        let gap = self.next.as_ref().map_or(0, |next| next.time_ms.saturating_sub(self.shown_ms));
        self.shown_ms.saturating_add((self.spent_ms as u64).min(gap))
    }

    /// Books the time that ran until now, so that speed may change.
    fn settle(&mut self, now: Duration) {
        if let Some(since) = self.since.replace(now) {
            self.spent_ms += now.saturating_sub(since).as_secs_f64() * 1000.0 * self.speed;
        } else {
            self.since = None;
        }
    }

    /// The pause before the next event, as long as it is kept.
    fn kept_gap(&self, next_ms: u64) -> f64 {
        let gap = next_ms.saturating_sub(self.shown_ms) as f64;
        self.idle_limit_ms.map_or(gap, |limit| gap.min(limit))
    }

    fn peek(&mut self) -> Result<Option<u64>, ReplayError> {
        if self.next.is_none() {
            self.next = self.timeline.next_event()?;
        }
        Ok(self.next.as_ref().map(|event| event.time_ms))
    }

    /// Shows the event that was peeked at, to the model and to `out`.
    fn show(&mut self, out: Option<&mut Vec<u8>>) {
        let Some(event) = self.next.take() else { return };
        self.shown_ms = event.time_ms;
        match event.code {
            EventCode::Output => {
                let timeline = &self.timeline;
                self.screen.feed(&event.data, || timeline.place());
            }
            EventCode::Marker
                if self.markers.len() < MARKERS_MAX
                    && self.markers.last().is_none_or(|last| *last < event.time_ms) =>
            {
                self.markers.push(event.time_ms);
            }
            _ => {}
        }
        let bytes = self.exact.of(&event);
        if let (Some(bytes), Some(out)) = (bytes, out) {
            self.queries.remove(&bytes, out);
        }
    }

    fn step(&mut self, out: &mut Vec<u8>) -> Result<(), ReplayError> {
        if self.since.is_some() {
            return Ok(());
        }
        self.spent_ms = 0.0;
        while self.peek()?.is_some() {
            let is_output = self.next.as_ref().is_some_and(|event| event.code == EventCode::Output);
            self.show(Some(out));
            if is_output {
                break;
            }
        }
        Ok(())
    }

    fn seek_marker_before(&mut self, position: u64, out: &mut Vec<u8>) -> Result<(), ReplayError> {
        let grace = if self.since.is_some() { MARKER_GRACE_MS } else { 0 };
        let before = position.saturating_sub(grace);
        let places = self.places.as_ref().unwrap_or(&self.markers);
        let known = places.partition_point(|marker| *marker < before);
        match known.checked_sub(1).and_then(|last| places.get(last).copied()) {
            Some(marker) => self.seek(marker, out),
            None => Ok(()),
        }
    }

    fn seek_marker_after(&mut self, position: u64, out: &mut Vec<u8>) -> Result<(), ReplayError> {
        if let Some(places) = &self.places {
            let next = places.get(places.partition_point(|place| *place <= position)).copied();
            return next.map_or(Ok(()), |place| self.seek(place, out));
        }
        let is_marker = |event: &Event| event.code == EventCode::Marker;
        if let Some(marker) = self.next.as_ref().filter(|event| is_marker(event)) {
            return self.seek(marker.time_ms, out);
        }
        let (here, before) = (self.timeline.place(), self.next.take());
        let found = loop {
            match self.timeline.next_event()? {
                Some(event) if is_marker(&event) => break Some(event.time_ms),
                Some(_) => {}
                None => break None,
            }
        };
        self.timeline.go(here)?;
        self.next = before;
        found.map_or(Ok(()), |marker| self.seek(marker, out))
    }

    fn go(&mut self, place: Place) -> Result<(), ReplayError> {
        self.timeline.go(place)?;
        self.next = None;
        self.exact = ExactBytes::default();
        self.shown_ms = place.time_ms;
        Ok(())
    }

    /// Clears the terminal and shows what it should show.
    pub fn redraw(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(CLEAR);
        self.queries = Queries::default();
        self.queries.remove(self.screen.dump().as_bytes(), out);
    }
}

/// `1:05` or `1:02:03`.
fn clock(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
