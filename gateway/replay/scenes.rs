//! A recording in scenes: a screen, and the events from there on.
//!
//! One pass finds where scenes begin, what the screen showed there, and what
//! is worth a mark. After it any scene is read alone, so whoever looks at one
//! moment of a long recording reads a fraction of a megabyte.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::outline::{Outline, Outliner, PAUSE};
use super::places::transcript;
use super::{End, ReplayError, Timeline};
use crate::asciicast::{Event, EventCode};

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
    outline: Outline,
}

impl Scenes {
    /// Reads a recording once, to its end or to where it is damaged.
    pub fn of(path: &Path) -> Result<Self, ReplayError> {
        let mut timeline = Timeline::open(path)?;
        let mut transcript = transcript(timeline.header())?;
        let mut outliner = Outliner::begin(&timeline, &transcript);
        loop {
            let place = timeline.place();
            let event = match timeline.next_event() {
                Ok(Some(event)) => event,
                Ok(None) | Err(ReplayError::Damaged { .. } | ReplayError::Line { .. }) => break,
                Err(error) => return Err(error),
            };
            outliner.before(&event, place, &transcript);
            transcript.event(&event);
            outliner.commands(&transcript.take().commands);
        }
        outliner.commands(&transcript.finish().commands);
        let outline = outliner.done(&mut timeline);
        Ok(Self { timeline: Mutex::new(timeline), outline })
    }

    /// A recording whose outline is known from an earlier pass.
    pub fn with(path: &Path, outline: Outline) -> Result<Self, ReplayError> {
        let mut timeline = Timeline::open(path)?;
        timeline.know_frames(&outline.frames);
        Ok(Self { timeline: Mutex::new(timeline), outline })
    }

    /// How long it is, milliseconds; pauses cut to `limit` milliseconds.
    pub fn duration_ms(&self, limit: Option<u64>) -> u64 {
        self.clock(limit).at(self.outline.duration_ms)
    }

    /// Whether it ends where a recording does.
    pub fn end(&self) -> End {
        self.outline.end
    }

    /// When each scene begins.
    pub fn starts(&self, limit: Option<u64>) -> Vec<u64> {
        let clock = self.clock(limit);
        self.outline.scenes.iter().map(|scene| clock.at(scene.start_ms)).collect()
    }

    /// Commands, marks and new sizes, each with its moment.
    pub fn marks(&self, limit: Option<u64>) -> Vec<(u64, &str)> {
        let clock = self.clock(limit);
        self.outline.marks.iter().map(|(time_ms, label)| (clock.at(*time_ms), label.as_str())).collect()
    }

    /// The window at the beginning.
    pub fn size(&self) -> (u16, u16) {
        self.outline.scenes.first().map_or((80, 24), |scene| scene.size)
    }

    /// When pauses began and how many milliseconds of each are left out.
    pub fn cuts(&self, limit: u64) -> Vec<(u64, u64)> {
        let limit = limit.max(PAUSE);
        let longer = self.outline.pauses.iter().filter(|(_, pause)| *pause > limit);
        longer.map(|(began, pause)| (*began, pause - limit)).collect()
    }

    /// One scene; none if there are not so many.
    pub fn scene(&self, index: usize, limit: Option<u64>) -> Result<Option<Shown>, ReplayError> {
        let Some(scene) = self.outline.scenes.get(index) else { return Ok(None) };
        let clock = self.clock(limit);
        let next = self.outline.scenes.get(index + 1).map(|next| next.start_ms);
        let until = next.unwrap_or(u64::MAX);
        let mut marks =
            self.outline.marks.iter().filter(|(time_ms, _)| (scene.start_ms..until).contains(time_ms));
        let mut mark = marks.next();
        let mut events = vec![nothing(clock.at(scene.start_ms))];
        let mut timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        timeline.go(scene.place)?;
        // What cannot be read ends the scene; the pass ended there too.
        while let Ok(Some(mut event)) = timeline.next_event() {
            if event.time_ms >= until || event.time_ms > self.outline.duration_ms {
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
            events.push(nothing(clock.at(self.outline.duration_ms)));
        }
        Ok(Some(Shown { size: scene.size, screen: scene.screen.clone(), events }))
    }

    fn clock(&self, limit: Option<u64>) -> Clock {
        let limit = limit.map(|limit| limit.max(PAUSE));
        let mut before = 0;
        let cuts = limit.map(|limit| {
            let longer = self.outline.pauses.iter().filter(|(_, pause)| *pause > limit);
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
    use crate::transcript::terminal;

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
