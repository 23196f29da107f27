//! A recording in scenes: a screen, and the events from there on.
//!
//! One pass finds where scenes begin, what the screen showed there, and what
//! is worth a mark. After it any scene is read alone, so whoever looks at one
//! moment of a long recording reads a fraction of a megabyte.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::places::transcript;
use super::{End, Place, ReplayError, Timeline};
use crate::asciicast::{Event, EventCode};
use crate::session::printable;
use crate::transcript::{parse_size, sane_size, terminal};

/// Output of one scene, bytes; more would be slow to fetch.
const OUTPUT: usize = 384 * 1024;
/// Events of one scene.
const EVENTS: usize = 8192;
/// Screens kept of one recording, bytes; then scenes become longer.
const SCREENS_MAX: usize = 32 * 1024 * 1024;
/// Marks kept; a recording with more has them by machine.
const MARKS_MAX: usize = 5000;
/// Longest label of a mark, characters.
const LABEL_MAX: usize = 160;
/// Pauses worth cutting short, milliseconds, and how many are kept.
const PAUSE: u64 = 1000;
const PAUSES_MAX: usize = 50_000;

/// Where a scene begins, and what the screen showed.
struct Scene {
    start_ms: u64,
    place: Place,
    size: (u16, u16),
    screen: String,
}

/// A scene as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Columns and rows at its start.
    pub size: (u16, u16),
    /// The output that makes a new terminal look as it did.
    pub screen: String,
    /// Output, input, sizes and marks; the first is at its start.
    pub events: Vec<Event>,
}

/// A recording that can be looked at from any moment.
pub struct Scenes {
    timeline: Mutex<Timeline>,
    scenes: Vec<Scene>,
    marks: Vec<(u64, String)>,
    /// When each pause began, and how long it was.
    pauses: Vec<(u64, u64)>,
    duration_ms: u64,
    end: End,
}

impl Scenes {
    /// Reads a recording once, to its end or to where it is damaged.
    pub fn of(path: &Path) -> Result<Self, ReplayError> {
        let timeline = Timeline::open(path)?;
        let mut pass = Pass::begin(timeline)?;
        while pass.step()? {}
        Ok(pass.done())
    }

    /// How long it is, milliseconds; pauses cut to `limit` milliseconds.
    pub fn duration_ms(&self, limit: Option<u64>) -> u64 {
        self.clock(limit).at(self.duration_ms)
    }

    /// Whether it ends where a recording does.
    pub fn end(&self) -> End {
        self.end
    }

    /// When each scene begins.
    pub fn starts(&self, limit: Option<u64>) -> Vec<u64> {
        let clock = self.clock(limit);
        self.scenes.iter().map(|scene| clock.at(scene.start_ms)).collect()
    }

    /// Commands, marks and new sizes, each with its moment.
    pub fn marks(&self, limit: Option<u64>) -> Vec<(u64, &str)> {
        let clock = self.clock(limit);
        self.marks.iter().map(|(time_ms, label)| (clock.at(*time_ms), label.as_str())).collect()
    }

    /// The window at the beginning.
    pub fn size(&self) -> (u16, u16) {
        self.scenes.first().map_or((80, 24), |scene| scene.size)
    }

    /// When pauses began and how many milliseconds of each are left out.
    pub fn cuts(&self, limit: u64) -> Vec<(u64, u64)> {
        let limit = limit.max(PAUSE);
        let longer = self.pauses.iter().filter(|(_, pause)| *pause > limit);
        longer.map(|(began, pause)| (*began, pause - limit)).collect()
    }

    /// One scene; none if there are not so many.
    pub fn scene(&self, index: usize, limit: Option<u64>) -> Result<Option<Shown>, ReplayError> {
        let Some(scene) = self.scenes.get(index) else { return Ok(None) };
        let clock = self.clock(limit);
        let next = self.scenes.get(index + 1).map(|next| next.start_ms);
        let until = next.unwrap_or(u64::MAX);
        let mut marks = self.marks.iter().filter(|(time_ms, _)| (scene.start_ms..until).contains(time_ms));
        let mut mark = marks.next();
        let mut events = vec![nothing(clock.at(scene.start_ms))];
        let mut timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        timeline.go(scene.place)?;
        // What cannot be read ends the scene; the pass ended there too.
        while let Ok(Some(mut event)) = timeline.next_event() {
            if event.time_ms >= until || event.time_ms > self.duration_ms {
                break;
            }
            while let Some((time_ms, label)) = mark.filter(|(time_ms, _)| *time_ms <= event.time_ms) {
                events.push(marker(clock.at(*time_ms), label));
                mark = marks.next();
            }
            if matches!(event.code, EventCode::Output | EventCode::Input | EventCode::Resize) {
                event.time_ms = clock.at(event.time_ms);
                events.push(event);
            }
        }
        while let Some((time_ms, label)) = mark {
            events.push(marker(clock.at(*time_ms), label));
            mark = marks.next();
        }
        if next.is_none() {
            events.push(nothing(clock.at(self.duration_ms)));
        }
        Ok(Some(Shown { size: scene.size, screen: scene.screen.clone(), events }))
    }

    fn clock(&self, limit: Option<u64>) -> Clock {
        let limit = limit.map(|limit| limit.max(PAUSE));
        let mut before = 0;
        let cuts = limit.map(|limit| {
            let longer = self.pauses.iter().filter(|(_, pause)| *pause > limit);
            let cut = longer.map(|(began, pause)| {
                let cut = (*began, before);
                before += pause - limit;
                cut
            });
            cut.collect()
        });
        Clock { limit: limit.unwrap_or(u64::MAX), cuts: cuts.unwrap_or_default(), all: before }
    }
}

/// Moments of a recording whose long pauses are cut short.
struct Clock {
    limit: u64,
    /// When each cut pause began, and what was cut before it.
    cuts: Vec<(u64, u64)>,
    all: u64,
}

impl Clock {
    fn at(&self, time_ms: u64) -> u64 {
        let next = self.cuts.partition_point(|(began, _)| *began < time_ms);
        let Some((began, before)) = next.checked_sub(1).and_then(|last| self.cuts.get(last)) else {
            return time_ms;
        };
        let with = self.cuts.get(next).map_or(self.all, |(_, before)| *before);
        // Inside the pause only so much of it has been cut.
        let cut = (time_ms - began).saturating_sub(self.limit).min(with - before);
        time_ms - before - cut
    }
}

/// The one pass through a recording.
struct Pass {
    timeline: Timeline,
    terminal: avt::Terminal,
    transcript: crate::transcript::Transcript,
    size: (u16, u16),
    output: usize,
    events: usize,
    screens: usize,
    spacing: usize,
    last_ms: u64,
    scenes: Vec<Scene>,
    marks: Vec<(u64, String)>,
    pauses: Vec<(u64, u64)>,
}

impl Pass {
    fn begin(timeline: Timeline) -> Result<Self, ReplayError> {
        let not = |error: avt::InvalidSize| ReplayError::NotARecording(error.to_string());
        let size = (timeline.header().width, timeline.header().height);
        let first = Scene { start_ms: 0, place: timeline.first(), size: sane(size), screen: String::new() };
        Ok(Self {
            terminal: terminal(size.0, size.1).map_err(not)?,
            transcript: transcript(timeline.header())?,
            timeline,
            size: sane(size),
            output: 0,
            events: 0,
            screens: 0,
            spacing: OUTPUT,
            last_ms: 0,
            scenes: vec![first],
            marks: Vec::new(),
            pauses: Vec::new(),
        })
    }

    /// Takes one event; false at the end, and where the file is damaged.
    fn step(&mut self) -> Result<bool, ReplayError> {
        let place = self.timeline.place();
        let event = match self.timeline.next_event() {
            Ok(Some(event)) => event,
            Ok(None) | Err(ReplayError::Damaged { .. } | ReplayError::Line { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if (self.output >= self.spacing || self.events >= EVENTS) && event.time_ms > self.last_ms {
            self.cut(event.time_ms, place);
        }
        let pause = event.time_ms - self.last_ms;
        if pause > PAUSE && self.pauses.len() < PAUSES_MAX {
            self.pauses.push((self.last_ms, pause));
        }
        self.last_ms = event.time_ms;
        self.take(&event);
        Ok(true)
    }

    fn cut(&mut self, start_ms: u64, place: Place) {
        let screen = self.terminal.dump();
        self.screens += screen.len();
        if self.screens > SCREENS_MAX {
            // Every other screen is forgotten: scenes become twice as long.
            let mut nth = 0usize;
            self.scenes.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.screens = self.scenes.iter().map(|scene| scene.screen.len()).sum::<usize>() + screen.len();
            self.spacing = self.spacing.saturating_mul(2);
        }
        self.scenes.push(Scene { start_ms, place, size: self.size, screen });
        (self.output, self.events) = (0, 0);
    }

    fn take(&mut self, event: &Event) {
        self.events += 1;
        match event.code {
            EventCode::Output => {
                self.output += event.data.len();
                self.terminal.feed(&event.data);
            }
            EventCode::Resize => {
                if let Some(size) = parse_size(&event.data) {
                    self.size = sane(size);
                    let (cols, rows) = sane_size(size.0, size.1);
                    self.terminal.resize(cols, rows);
                    self.mark(event.time_ms, &format!("window {}", event.data));
                }
            }
            EventCode::Marker => self.mark(event.time_ms, &event.data),
            _ => {}
        }
        self.transcript.event(event);
        for command in self.transcript.take().commands {
            self.mark(command.time_ms.min(event.time_ms), &command.text);
        }
    }

    fn mark(&mut self, time_ms: u64, label: &str) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push((time_ms, printable(label).chars().take(LABEL_MAX).collect()));
        }
    }

    fn done(mut self) -> Scenes {
        for command in self.transcript.finish().commands {
            if self.marks.len() < MARKS_MAX {
                self.marks.push((command.time_ms.min(self.last_ms), printable(&command.text)));
            }
        }
        self.marks.sort_by_key(|(time_ms, _)| *time_ms);
        let last_start = self.scenes.last().map_or(0, |scene| scene.start_ms);
        // A scene lasts at least a moment, or players refuse it.
        let duration_ms = self.last_ms.max(last_start + 1);
        Scenes {
            end: self.timeline.end(),
            timeline: Mutex::new(self.timeline),
            scenes: self.scenes,
            marks: self.marks,
            pauses: self.pauses,
            duration_ms,
        }
    }
}

fn sane((cols, rows): (u16, u16)) -> (u16, u16) {
    let (cols, rows) = sane_size(cols, rows);
    (u16::try_from(cols).unwrap_or(80), u16::try_from(rows).unwrap_or(24))
}

fn nothing(time_ms: u64) -> Event {
    Event { time_ms, code: EventCode::Output, data: String::new() }
}

fn marker(time_ms: u64, label: &str) -> Event {
    Event { time_ms, code: EventCode::Marker, data: label.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn recording(lines: &[String]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let header = r#"{"version": 2, "width": 40, "height": 5}"#.to_owned();
        let text: String = std::iter::once(&header).chain(lines).map(|line| format!("{line}\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn output(ms: u64, text: &str) -> String {
        format!("[{}, \"o\", {}]", ms as f64 / 1000.0, serde_json::to_string(text).unwrap())
    }

    /// What a terminal shows after a scene's screen and some of its events.
    fn shown(scene: &Shown, until_ms: u64) -> String {
        let mut terminal = terminal(scene.size.0, scene.size.1).unwrap();
        terminal.feed(&scene.screen);
        for event in scene.events.iter().take_while(|event| event.time_ms <= until_ms) {
            if event.code == EventCode::Output {
                terminal.feed(&event.data);
            }
        }
        terminal.dump()
    }

    #[test]
    fn every_moment_looks_the_same_from_its_scene_as_from_the_beginning() {
        let lines: Vec<String> = (0..4000u64)
            .map(|n| {
                output(
                    n * 7,
                    &format!("\x1b[3{}m{}\r\n", n % 8, "x".repeat(usize::try_from(n % 300).unwrap())),
                )
            })
            .collect();
        let file = recording(&lines);
        let scenes = Scenes::of(file.path()).unwrap();
        let starts = scenes.starts(None);
        assert!(starts.len() > 1, "{starts:?}");
        let mut whole = terminal(40, 5).unwrap();
        for n in 0..4000u64 {
            let event = Event::parse(lines[usize::try_from(n).unwrap()].as_bytes()).unwrap();
            whole.feed(&event.data);
            if n % 397 == 0 || starts.contains(&event.time_ms) {
                let index = starts.partition_point(|start| *start <= event.time_ms) - 1;
                let scene = scenes.scene(index, None).unwrap().unwrap();
                assert_eq!(shown(&scene, event.time_ms), whole.dump(), "at {} ms", event.time_ms);
            }
        }
    }

    #[test]
    fn pauses_are_cut_and_marks_stay_with_what_they_mark() {
        let lines = [
            output(100, "a"),
            "[10.0, \"m\", \"policy\\u001b[2J asked again\"]".to_owned(),
            output(60_000, "b"),
            "[60.5, \"r\", \"100x30\"]".to_owned(),
        ];
        let file = recording(&lines);
        let scenes = Scenes::of(file.path()).unwrap();
        assert_eq!(scenes.duration_ms(None), 60_500);
        assert_eq!(scenes.duration_ms(Some(2000)), 100 + 2000 + 2000 + 500);
        let marks = scenes.marks(Some(2000));
        assert_eq!(marks, [(2100, "policy[2J asked again"), (4600, "window 100x30")]);
        let scene = scenes.scene(0, Some(2000)).unwrap().unwrap();
        let times: Vec<u64> = scene.events.iter().map(|event| event.time_ms).collect();
        let mut told = String::new();
        for event in &scene.events {
            let _ = write!(told, "{}", event.code.as_char());
        }
        assert_eq!((times, told.as_str()), (vec![0, 100, 2100, 4100, 4600, 4600, 4600], "oomomro"));
        assert_eq!(scenes.cuts(2000), [(100, 7900), (10_000, 48_000)]);
        assert!(scenes.scene(1, None).unwrap().is_none());
    }
}
