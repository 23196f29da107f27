//! Shows a recording while it grows, as fast as it comes.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crossterm::event::{self, Event};

use super::export::ExactBytes;
use super::flows::holds_flows;
use super::queries::Queries;
use super::terminal::{Played, RESTORE, RawMode, Signals, quits};
use super::{ReplayError, Timeline};

/// A key or signal is seen at the latest after this long.
const LOOK: Duration = Duration::from_millis(100);

/// Shows what is in a file and what comes to it, until the other end of
/// `grown` is dropped; each message there says that the file has grown.
///
/// On a terminal a `q` ends it, and what would make the terminal answer is
/// left out; elsewhere the output comes byte by byte as it was.
pub fn follow(path: &Path, grown: &Receiver<()>, on_terminal: bool) -> Result<Played, ReplayError> {
    let signals = Signals::register().map_err(ReplayError::Read)?;
    let raw = if on_terminal { Some(RawMode::enter().map_err(ReplayError::Write)?) } else { None };
    let mut show =
        Show { timeline: None, exact: ExactBytes::default(), queries: Queries::default(), on_terminal };
    let played = show.run(path, grown, &signals);
    if raw.is_some() {
        write(&[RESTORE, b"\r\n"].concat())?;
    }
    played
}

struct Show {
    timeline: Option<Timeline>,
    exact: ExactBytes,
    queries: Queries,
    on_terminal: bool,
}

impl Show {
    fn run(&mut self, path: &Path, grown: &Receiver<()>, signals: &Signals) -> Result<Played, ReplayError> {
        let mut over = false;
        loop {
            self.catch_up(path)?;
            if over {
                let end = self.timeline.as_ref().map(Timeline::end).ok_or(ReplayError::Empty)?;
                return Ok(Played::ToTheEnd(end));
            }
            match grown.recv_timeout(LOOK) {
                Ok(()) => while grown.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => over = true,
            }
            if signals.came() || (self.on_terminal && wants_to_leave()?) {
                return Ok(Played::Stopped);
            }
        }
    }

    /// Shows everything that is there and was not shown yet.
    fn catch_up(&mut self, path: &Path) -> Result<(), ReplayError> {
        if self.timeline.is_none() {
            self.timeline = match Timeline::open(path) {
                Err(ReplayError::Empty) => None,
                opened => Some(opened?),
            };
        }
        let Some(timeline) = &mut self.timeline else { return Ok(()) };
        if holds_flows(timeline.header()) {
            return Err(ReplayError::NoScreen);
        }
        let mut out = Vec::new();
        while let Some(event) = timeline.next_event()? {
            let Some(bytes) = self.exact.of(&event) else { continue };
            if self.on_terminal {
                self.queries.remove(&bytes, &mut out);
            } else {
                out.extend_from_slice(&bytes);
            }
        }
        write(&out)
    }
}

/// Whether one of the keys that were pressed says so.
fn wants_to_leave() -> Result<bool, ReplayError> {
    let mut leave = false;
    while event::poll(Duration::ZERO).map_err(ReplayError::Read)? {
        let pressed = event::read().map_err(ReplayError::Read)?;
        leave |= matches!(pressed, Event::Key(key) if quits(key));
    }
    Ok(leave)
}

fn write(bytes: &[u8]) -> Result<(), ReplayError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(ReplayError::Write)
}
