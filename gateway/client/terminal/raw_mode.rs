//! The terminal in raw mode, and back, whatever happens.

use std::io::IsTerminal;
use std::sync::Once;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode, size};
use data_channel::Size;

use crate::client::ClientError;

/// What is told when there is no terminal; the stock plugin's numbers.
const NO_TERMINAL: Size = Size { cols: 300, rows: 100 };

/// A terminal that hands over every key; dropped, it is as before.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Switches standard input to raw mode; `None` if it is no terminal.
    pub fn enter() -> Result<Option<Self>, ClientError> {
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        restore_before_a_panic_speaks();
        let failed = |error| ClientError::Io { what: "cannot switch the terminal".to_owned(), error };
        enable_raw_mode().map_err(failed)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = disable_raw_mode();
    }
}

/// The size of the terminal that output goes to.
pub fn terminal_size() -> Size {
    let is_terminal = std::io::stdout().is_terminal() || std::io::stdin().is_terminal();
    match is_terminal.then(size) {
        Some(Ok((cols, rows))) if cols > 0 && rows > 0 => Size { cols, rows },
        _ => NO_TERMINAL,
    }
}

/// A panic message in raw mode is a staircase, so the mode goes first.
fn restore_before_a_panic_speaks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let speak = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = disable_raw_mode();
            speak(panic);
        }));
    });
}
