//! Where the scenes of a recording begin, found in one pass.
//!
//! Whoever reads a recording for another purpose can find them on the way:
//! the catalogue does, so that a long one is opened at once later.

use serde::{Deserialize, Serialize};

use super::source::Frame;
use super::{End, Place, Timeline};
use crate::asciicast::{Event, EventCode};
use crate::session::printable;
use crate::transcript::{Command, Transcript};

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
pub(super) const PAUSE: u64 = 1000;
const PAUSES_MAX: usize = 50_000;
/// zstd level of a packed outline.
const LEVEL: i32 = 3;

/// Where a scene begins, and what the screen showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scene {
    pub(super) start_ms: u64,
    pub(super) place: Place,
    pub(super) size: (u16, u16),
    pub(super) screen: String,
}

/// What one pass through a recording finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    pub(super) frames: Vec<Frame>,
    pub(super) scenes: Vec<Scene>,
    pub(super) marks: Vec<(u64, String)>,
    /// When each pause began, and how long it was.
    pub(super) pauses: Vec<(u64, u64)>,
    pub(super) duration_ms: u64,
    pub(super) end: End,
}

impl Outline {
    /// Reads what [`Outline::pack`] made; none if it is something else.
    pub fn unpack(packed: &[u8]) -> Option<Self> {
        let text = zstd::stream::decode_all(packed).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The outline in few bytes; screens are much alike.
    pub fn pack(&self) -> std::io::Result<Vec<u8>> {
        zstd::stream::encode_all(serde_json::to_vec(self)?.as_slice(), LEVEL)
    }

    /// How many scenes there are.
    pub fn scenes(&self) -> usize {
        self.scenes.len()
    }
}

/// Finds scenes, marks and pauses while somebody reads a recording.
pub struct Outliner {
    output: usize,
    events: usize,
    screens: usize,
    spacing: usize,
    last_ms: u64,
    scenes: Vec<Scene>,
    marks: Vec<(u64, String)>,
    pauses: Vec<(u64, u64)>,
}

impl Outliner {
    /// Before the first event of a recording.
    pub fn begin(timeline: &Timeline, transcript: &Transcript) -> Self {
        let first = Scene {
            start_ms: 0,
            place: timeline.first(),
            size: transcript.size(),
            screen: transcript.screen(),
        };
        Self {
            output: 0,
            events: 0,
            screens: 0,
            spacing: OUTPUT,
            last_ms: 0,
            scenes: vec![first],
            marks: Vec::new(),
            pauses: Vec::new(),
        }
    }

    /// An event at a place, before the transcript has taken it.
    pub fn before(&mut self, event: &Event, place: Place, transcript: &Transcript) {
        if (self.output >= self.spacing || self.events >= EVENTS) && event.time_ms > self.last_ms {
            self.cut(event.time_ms, place, transcript);
        }
        let pause = event.time_ms.saturating_sub(self.last_ms);
        if pause > PAUSE && self.pauses.len() < PAUSES_MAX {
            self.pauses.push((self.last_ms, pause));
        }
        self.last_ms = self.last_ms.max(event.time_ms);
        self.events += 1;
        match event.code {
            EventCode::Output => self.output += event.data.len(),
            EventCode::Resize => self.mark(event.time_ms, &format!("window {}", event.data)),
            EventCode::Marker if transcript.has_told(event) => {}
            EventCode::Marker => self.mark(event.time_ms, &event.data),
            _ => {}
        }
    }

    /// Commands that the transcript has found by now.
    pub fn commands(&mut self, commands: &[Command]) {
        for command in commands {
            self.mark(command.time_ms.min(self.last_ms), &command.text);
        }
    }

    /// After the last event.
    pub fn done(mut self, timeline: &mut Timeline) -> Outline {
        self.marks.sort_by_key(|(time_ms, _)| *time_ms);
        let last_start = self.scenes.last().map_or(0, |scene| scene.start_ms);
        Outline {
            frames: timeline.frames(),
            scenes: self.scenes,
            marks: self.marks,
            pauses: self.pauses,
            // A scene lasts at least a moment, or players refuse it.
            duration_ms: self.last_ms.max(last_start + 1),
            end: timeline.end(),
        }
    }

    fn cut(&mut self, start_ms: u64, place: Place, transcript: &Transcript) {
        let screen = transcript.screen();
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
        self.scenes.push(Scene { start_ms, place, size: transcript.size(), screen });
        (self.output, self.events) = (0, 0);
    }

    fn mark(&mut self, time_ms: u64, label: &str) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push((time_ms, printable(label).chars().take(LABEL_MAX).collect()));
        }
    }
}
