//! What a terminal shows after some output: for seeking.

use avt::{ScreenKind, Terminal};

use super::outline::Scene;
use super::{Place, ReplayError};
use crate::transcript::{sane_size, terminal};

/// Output between two snapshots: what is re-read in about 10 ms.
const SNAPSHOT_SPACING: u64 = 256 * 1024;
/// Snapshots kept in memory, all together.
const SNAPSHOTS_MAX_BYTES: usize = 16 * 1024 * 1024;

/// RIS: everything as in a new terminal; also ends an open sequence.
const RESET: &str = "\u{1b}c";

/// The screen at one place of a recording, as bytes that rebuild it.
struct Snapshot {
    place: Place,
    output: u64,
    dump: String,
}

/// The window's content as the player's output makes it.
pub(super) struct Screen {
    terminal: Terminal,
    output: u64,
    snapshots: Vec<Snapshot>,
    spacing: u64,
    /// What an outline says of the recording's own screen, in order.
    scenes: Vec<Scene>,
}

impl Screen {
    /// An empty screen of the window's size.
    pub fn new(cols: u16, rows: u16) -> Result<Self, ReplayError> {
        let terminal = terminal(cols, rows).map_err(|error| ReplayError::NotARecording(error.to_string()))?;
        Ok(Self { terminal, output: 0, snapshots: Vec::new(), spacing: SNAPSHOT_SPACING, scenes: Vec::new() })
    }

    /// Shows output; `after` is the place that follows it.
    pub fn feed(&mut self, text: &str, after: impl FnOnce() -> Place) {
        self.terminal.feed(text);
        self.output = self.output.saturating_add(text.len() as u64);
        let last = self.snapshots.last().map_or(0, |snapshot| snapshot.output);
        if self.scenes.is_empty() && self.output >= last.saturating_add(self.spacing) {
            self.remember(after());
        }
    }

    /// The bytes that make a cleared terminal of this size look like this.
    pub fn dump(&self) -> String {
        self.terminal.dump()
    }

    /// Whether a full-screen program has the screen.
    pub fn is_alternate(&self) -> bool {
        self.terminal.active_screen_kind() == ScreenKind::Alternate
    }

    /// Whether the cursor is in the first column.
    pub fn is_at_line_start(&self) -> bool {
        self.terminal.cursor().col == 0
    }

    /// The window changed its size; snapshots of the old one are useless.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = sane_size(cols, rows);
        self.terminal.resize(cols, rows);
        self.snapshots.clear();
        self.spacing = SNAPSHOT_SPACING;
    }

    /// Learns the screens of an outline; no others are remembered then.
    pub fn know(&mut self, scenes: Vec<Scene>) {
        self.scenes = scenes;
        self.snapshots = Vec::new();
    }

    /// Whether a screen is known between two times, the second included.
    pub fn knows_between(&self, after_ms: u64, until_ms: u64) -> bool {
        let snapshot = before(&self.snapshots, until_ms, |snapshot| snapshot.place);
        let known = snapshot.map(|snapshot| snapshot.place);
        let known = known.or(self.scene_before(until_ms).map(|scene| scene.place));
        known.is_some_and(|place| place.time_ms > after_ms)
    }

    /// Goes to the last screen that is known not after that time, or to none.
    ///
    /// `None`: start again at the first event.
    pub fn rewind(&mut self, time_ms: u64) -> Option<Place> {
        self.terminal.feed(RESET);
        if let Some(scene) = self.scene_before(time_ms) {
            let (place, screen) = (scene.place, scene.screen.clone());
            self.terminal.feed(screen.as_str());
            return Some(place);
        }
        let Some(snapshot) = before(&self.snapshots, time_ms, |snapshot| snapshot.place) else {
            self.output = 0;
            return None;
        };
        self.terminal.feed(snapshot.dump.as_str());
        self.output = snapshot.output;
        Some(snapshot.place)
    }

    /// A scene of an outline that this window has room for.
    fn scene_before(&self, time_ms: u64) -> Option<&Scene> {
        let (cols, rows) = self.terminal.size();
        let fits = |scene: &&Scene| usize::from(scene.size.0) <= cols && usize::from(scene.size.1) <= rows;
        before(&self.scenes, time_ms, |scene| scene.place).filter(fits)
    }

    fn remember(&mut self, place: Place) {
        self.snapshots.push(Snapshot { place, output: self.output, dump: self.terminal.dump() });
        let bytes: usize = self.snapshots.iter().map(|snapshot| snapshot.dump.len()).sum();
        if bytes > SNAPSHOTS_MAX_BYTES {
            let mut nth = 0usize;
            self.snapshots.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.spacing = self.spacing.saturating_mul(2);
        }
    }
}

/// The last of something at places in order that is not after a time.
fn before<T>(all: &[T], time_ms: u64, place: impl Fn(&T) -> Place) -> Option<&T> {
    let later = all.partition_point(|one| place(one).time_ms <= time_ms);
    later.checked_sub(1).and_then(|last| all.get(last))
}
