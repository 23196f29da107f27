//! Runs a player on the real terminal and always gives it back as it was.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::places::places;
use super::{End, Key, Outline, Player, ReplayError, Settings, Timeline, Wait};

/// A signal is seen at the latest after this long.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);
/// Window assumed if the terminal does not tell.
const WINDOW_UNKNOWN: (u16, u16) = (80, 24);
/// Puts the window's title on the terminal's stack.
const KEEP_TITLE: &[u8] = b"\x1b[22;2t";
/// Undoes what a recording may have switched on: mouse, paste and focus
/// reports, keypad and cursor keys, margins, colours, hidden cursor, title.
/// Margins and origin mode move the cursor home, so it is kept around them.
pub(super) const RESTORE: &[u8] =
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\
    \x1b[<u\x1b[?1l\x1b>\x1b7\x1b[?6l\x1b[r\x1b8\x1b[4l\x1b[?7h\x1b(B\x0f\x1b[m\x1b[?25h\x1b[0 q\x1b[23;2t";
/// What the bar of a paused player tells besides the time.
const KEYS: &str = "· space goes on · ←→ 5 s · [ ] commands · . next output · q quits ";
/// Leaves the screen of a full-screen program.
const LEAVE_ALTERNATE: &[u8] = b"\x1b[?1049l";

/// How playing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Played {
    /// Everything was shown.
    ToTheEnd(End),
    /// The person or a signal stopped it.
    Stopped,
}

/// Plays a recording on the terminal; the keys are those of [`Key`].
///
/// With its outline any moment of a long recording is there at once. `notice`
/// gets one line if the recording is larger than the window.
pub fn play(
    (path, outline): (&Path, Option<Outline>),
    settings: Settings,
    mut notice: impl FnMut(&str),
) -> Result<Played, ReplayError> {
    let timeline = Timeline::open(path)?;
    let window = terminal::size().unwrap_or(WINDOW_UNKNOWN);
    let (cols, rows) = (timeline.header().width, timeline.header().height);
    if cols > window.0 || rows > window.1 {
        notice(&format!(
            "the recording is {cols}x{rows} and this window {}x{}: enlarge it to see lines as they were",
            window.0, window.1
        ));
    }
    let total = Total::measure(path, timeline.header().duration);
    let places = Places::find(path);
    let signals = Signals::register().map_err(ReplayError::Read)?;
    let clock = Instant::now();
    let mut player = Player::new(timeline, window, settings, clock.elapsed())?;
    if let Some(outline) = outline {
        player.know_outline(outline);
    }
    let mut stage = Stage { player, total, places, clock, rows: window.1, cols: window.0, has_bar: false };
    let _raw = RawMode::enter().map_err(ReplayError::Write)?;
    let played = stage.run(settings.from_ms, &signals);
    let left = if stage.player.is_alternate() { LEAVE_ALTERNATE } else { b"" };
    let restored = write(&[left, RESTORE].concat());
    let played = played?;
    match played {
        // The shell's prompt is not part of what was recorded.
        Played::Stopped => write(b"\r\n\x1b[J")?,
        Played::ToTheEnd(_) if !stage.player.is_at_line_start() => write(b"\r\n")?,
        Played::ToTheEnd(_) => {}
    }
    restored.map(|()| played)
}

/// The player with everything that it needs to meet a person.
struct Stage {
    player: Player,
    total: Total,
    places: Places,
    clock: Instant,
    cols: u16,
    rows: u16,
    /// Whether the last row shows the bar of a paused player.
    has_bar: bool,
}

impl Stage {
    fn run(&mut self, from_ms: u64, signals: &Signals) -> Result<Played, ReplayError> {
        write(KEEP_TITLE)?;
        let mut out = Vec::new();
        if from_ms > 0 {
            self.player.seek(from_ms, &mut out)?;
        }
        loop {
            let ticked = self.player.tick(self.clock.elapsed(), &mut out);
            write(&out)?;
            out.clear();
            let wait = match ticked? {
                Wait::Ended => return Ok(Played::ToTheEnd(self.player.timeline().end())),
                Wait::For(wait) => wait.min(SIGNAL_CHECK),
                Wait::Key => SIGNAL_CHECK,
            };
            if signals.came() {
                return Ok(Played::Stopped);
            }
            // Every key that is there is taken before more is shown.
            let mut ready = event::poll(wait).map_err(ReplayError::Read)?;
            while ready {
                if self.meet(event::read().map_err(ReplayError::Read)?, &mut out)? {
                    return Ok(Played::Stopped);
                }
                ready = event::poll(Duration::ZERO).map_err(ReplayError::Read)?;
            }
        }
    }

    /// Acts on what came from the terminal; true: the person wants to leave.
    fn meet(&mut self, event: Event, out: &mut Vec<u8>) -> Result<bool, ReplayError> {
        match event {
            Event::Resize(cols, rows) => {
                (self.cols, self.rows) = (cols, rows);
                self.player.resize(cols, rows);
                if self.has_bar {
                    self.remove_bar(out);
                    self.show_bar(out);
                }
            }
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                if quits(key) {
                    self.remove_bar(out);
                    write(out)?;
                    return Ok(true);
                }
                if let Some(key) = meaning(key) {
                    self.remove_bar(out);
                    if let Some(places) = self.places.found() {
                        self.player.know_places(places);
                    }
                    self.player.press(key, self.clock.elapsed(), out)?;
                    let title = format!("\x1b]2;postern replay: {}\x07", self.player.status(self.total.ms()));
                    out.extend_from_slice(title.as_bytes());
                    if self.player.is_paused() {
                        self.show_bar(out);
                    }
                }
            }
            _ => {}
        }
        Ok(false)
    }

    /// Covers the last row with where the player is and what keys do.
    fn show_bar(&mut self, out: &mut Vec<u8>) {
        let text = format!(" {} {KEYS}", self.player.status(self.total.ms()));
        let text: String = text.chars().take(usize::from(self.cols)).collect();
        out.extend_from_slice(format!("\x1b7\x1b[{};1H\x1b[0;7m{text}\x1b[m\x1b8", self.rows).as_bytes());
        self.has_bar = true;
    }

    fn remove_bar(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.has_bar) {
            self.player.redraw(out);
        }
    }
}

pub(super) fn quits(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.code == KeyCode::Char('q') || control && key.code == KeyCode::Char('c')
}

fn meaning(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char(' ') => Key::Pause,
        KeyCode::Left => Key::Back,
        KeyCode::Right => Key::Forward,
        KeyCode::Char('[') => Key::PreviousMarker,
        KeyCode::Char(']') => Key::NextMarker,
        KeyCode::Char('+' | '=' | '>') => Key::Faster,
        KeyCode::Char('-' | '<') => Key::Slower,
        KeyCode::Char('.') => Key::Step,
        _ => return None,
    })
}

fn write(bytes: &[u8]) -> Result<(), ReplayError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(ReplayError::Write)
}

/// The recording's length, found out in the background if need be.
struct Total(Arc<AtomicU64>);

impl Total {
    fn measure(path: &Path, of_header: Option<f64>) -> Self {
        let known = of_header.filter(|seconds| *seconds > 0.0).map_or(0, |seconds| (seconds * 1000.0) as u64);
        let total = Arc::new(AtomicU64::new(known));
        if known == 0 {
            let (path, found) = (path.to_owned(), Arc::clone(&total));
            std::thread::spawn(move || {
                if let Ok(mut timeline) = Timeline::open(&path) {
                    found.store(timeline.last_ms(), Ordering::Relaxed);
                }
            });
        }
        Self(total)
    }

    fn ms(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }
}

/// Where markers and commands are, found out in the background.
struct Places(mpsc::Receiver<Vec<u64>>);

impl Places {
    fn find(path: &Path) -> Self {
        let (path, (finder, found)) = (path.to_owned(), mpsc::channel());
        std::thread::spawn(move || {
            // What cannot be read to its end is played as far as it goes.
            if let Ok(places) = places(&path) {
                let _ = finder.send(places);
            }
        });
        Self(found)
    }

    /// All of them, once, when they are known.
    fn found(&self) -> Option<Vec<u64>> {
        self.0.try_recv().ok()
    }
}

/// Whether somebody asked the process to end.
pub(super) struct Signals {
    came: Arc<AtomicBool>,
    ids: Vec<signal_hook::SigId>,
}

impl Signals {
    pub fn register() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let register = |signal| signal_hook::flag::register(signal, Arc::clone(&came));
        let ids = [SIGHUP, SIGINT, SIGTERM].into_iter().map(register).collect::<io::Result<_>>()?;
        Ok(Self { came, ids })
    }

    pub fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// Raw mode while it lives, also through an error or a panic.
pub(super) struct RawMode;

impl RawMode {
    pub fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nobody is left to tell if the terminal has gone.
        let _ = terminal::disable_raw_mode();
    }
}
