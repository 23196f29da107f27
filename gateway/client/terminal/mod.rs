//! A person at a terminal, or a pipe, at the near end of a data channel.

mod end_of_input;
mod escape;
mod raw_mode;
mod streams;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::client::channel::{Channel, Command, Dialer, End, Event};
use crate::client::{ClientError, Opened};
use end_of_input::EndOfInput;
use escape::{Escape, Escapes, HELP};
pub use raw_mode::{RawMode, terminal_size};
use streams::Shown;

/// Events and keys on their way between channel and terminal.
const QUEUE: usize = 256;
/// Keys sent as signals that may wait; more say nothing new.
const SIGNALS_WAITING: usize = 16;
/// `SIGTSTP`, which Ctrl-Z sends.
const STOP: i32 = if cfg!(target_os = "macos") { 18 } else { 20 };

/// Who is at the near end; decides where words go and what is passed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `postern connect`: words to standard error, escapes, exit codes.
    Connect,
    /// The stock plugin: its words, all of them on standard output.
    Plugin,
}

/// How a session ended at the terminal.
#[derive(Debug)]
pub enum Ending {
    /// The far side closed it, with a text or without.
    Closed {
        /// What it said, safe to show.
        text: String,
        /// The exit code that it reported.
        exit_code: Option<i32>,
    },
    /// The gateway says that the session is over.
    TimedOut,
    /// The person left with `~.`, or nobody reads the output any more.
    Left,
    /// This program was told to end by a signal.
    Signal(i32),
    /// The session cannot be carried by this client; safe to show.
    Unsupported(String),
}

/// Joins the terminal to a session until either ends.
///
/// The terminal is as before when this returns, panics or is dropped.
pub async fn run<R, F>(
    opened: Opened,
    dialer: Dialer,
    resume: R,
    manner: Manner,
) -> Result<Ending, ClientError>
where
    R: Fn() -> F,
    F: Future<Output = Result<Option<Opened>, ClientError>>,
{
    let raw_mode = RawMode::enter()?;
    let (commands, take_commands) = mpsc::channel(QUEUE);
    let (give_events, events) = mpsc::channel(QUEUE);
    let channel = Channel::new(opened, dialer, resume, terminal_size(), (take_commands, give_events));
    let mut desk = Desk::new(manner, commands, raw_mode.is_some())?;
    let ending = join(&mut desk, events, channel.run()).await;
    desk.finish().await;
    drop(raw_mode);
    ending
}

/// Works until the person leaves, or the channel ends and all is heard.
async fn join(
    desk: &mut Desk,
    events: mpsc::Receiver<Event>,
    channel: impl Future<Output = Result<End, ClientError>>,
) -> Result<Ending, ClientError> {
    let mut channel = pin!(channel);
    let end = {
        let mut work = pin!(desk.work(events));
        tokio::select! {
            ending = &mut work => match ending {
                Some(ending) => return Ok(ending),
                None => channel.await,
            },
            // What the channel said before it ended is still on its way.
            end = &mut channel => match work.await {
                Some(ending) => return Ok(ending),
                None => end,
            },
        }
    };
    end.map(|end| desk.ending_of(&end))
}

/// Everything around the terminal while a session lasts.
struct Desk {
    manner: Manner,
    commands: mpsc::Sender<Command>,
    input: mpsc::Receiver<Bytes>,
    output: Option<mpsc::Sender<Shown>>,
    written: JoinHandle<()>,
    signals: Signals,
    escapes: Option<Escapes>,
    end_of_input: EndOfInput,
    /// What waits for room on its way to the far side, in order.
    typed: VecDeque<Command>,
    /// What waits for room on its way to the terminal.
    shown: VecDeque<Shown>,
    input_is_open: bool,
    closed: Option<String>,
    exit_code: Option<i32>,
    began: Instant,
}

impl Desk {
    fn new(manner: Manner, commands: mpsc::Sender<Command>, is_terminal: bool) -> Result<Self, ClientError> {
        let (output, written) = streams::output();
        Ok(Self {
            manner,
            commands,
            input: streams::input(),
            output: Some(output),
            written,
            signals: Signals::listen()?,
            escapes: is_terminal.then(Escapes::default),
            end_of_input: EndOfInput::default(),
            typed: VecDeque::new(),
            shown: VecDeque::new(),
            input_is_open: true,
            closed: None,
            exit_code: None,
            began: Instant::now(),
        })
    }

    /// Carries keys and output; `None` when the channel has ended.
    async fn work(&mut self, mut events: mpsc::Receiver<Event>) -> Option<Ending> {
        let output = self.output.clone()?;
        let commands = self.commands.clone();
        loop {
            let rest = self.end_of_input.next().map_or(self.began, |next| self.began + next);
            let rests = self.end_of_input.next().is_some() && self.typed.is_empty();
            tokio::select! {
                room = output.reserve(), if !self.shown.is_empty() => match (room, self.shown.pop_front()) {
                    (Ok(room), Some(shown)) => room.send(shown),
                    _ => return Some(Ending::Left),
                },
                event = events.recv(), if self.shown.is_empty() => {
                    if let Some(ending) = self.hear(event?) {
                        return Some(ending);
                    }
                }
                room = commands.reserve(), if !self.typed.is_empty() && !commands.is_closed() => {
                    if let (Ok(room), Some(command)) = (room, self.typed.pop_front()) {
                        room.send(command);
                    }
                }
                keys = self.input.recv(), if self.input_is_open && self.typed.is_empty() => {
                    if let Some(ending) = self.take_keys(keys) {
                        return Some(ending);
                    }
                }
                heard = self.signals.next() => match heard {
                    Heard::Resize => self.resize(),
                    Heard::Key(key) if self.typed.len() < SIGNALS_WAITING => self.type_bytes(&[key]),
                    Heard::Key(_) => {}
                    Heard::End(number) => return Some(Ending::Signal(number)),
                },
                () = sleep_until(rest), if rests => {
                    let now = self.began.elapsed();
                    if let Some(bytes) = self.end_of_input.due(now) {
                        self.type_bytes(bytes);
                    }
                }
                () = output.closed() => return Some(Ending::Left),
            }
        }
    }

    fn take_keys(&mut self, keys: Option<Bytes>) -> Option<Ending> {
        let Some(keys) = keys else {
            self.input_is_open = false;
            let last = self.end_of_input.ended(self.began.elapsed());
            self.type_bytes(last);
            return None;
        };
        self.end_of_input.saw_input(&keys);
        let Some(escapes) = &mut self.escapes else {
            self.typed.push_back(Command::Input(keys));
            return None;
        };
        let mut onward = Vec::with_capacity(keys.len() + 1);
        let escape = escapes.pass(&keys, &mut onward);
        self.type_bytes(&onward);
        match escape {
            Some(Escape::Leave) => return Some(Ending::Left),
            Some(Escape::Help) => self.remark(HELP),
            None => {}
        }
        None
    }

    fn type_bytes(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.typed.push_back(Command::Input(Bytes::copy_from_slice(bytes)));
        }
    }

    fn resize(&mut self) {
        self.typed.retain(|command| !matches!(command, Command::Resize(_)));
        self.typed.push_back(Command::Resize(terminal_size()));
    }

    fn hear(&mut self, event: Event) -> Option<Ending> {
        match event {
            Event::Output(bytes) => {
                self.end_of_input.saw_output(self.began.elapsed());
                if self.end_of_input.is_ignored() {
                    return Some(Ending::Left);
                }
                self.shown.push_back(Shown::Out(bytes));
            }
            Event::StdErr(bytes) if self.manner == Manner::Plugin => self.shown.push_back(Shown::Out(bytes)),
            Event::StdErr(bytes) => self.shown.push_back(Shown::Err(bytes)),
            Event::ExitCode(code, bytes) => {
                self.exit_code = code;
                if self.manner == Manner::Plugin {
                    self.shown.push_back(Shown::Out(bytes));
                }
            }
            Event::Message(text) if self.manner == Manner::Plugin => {
                self.show_line(&text);
            }
            Event::Message(text) => self.remark(&text),
            Event::Unsupported(text) => return Some(Ending::Unsupported(text)),
            Event::Closed(text) => {
                self.closed = Some(text);
                return Some(self.ending_of(&End::Closed));
            }
            Event::Lost => self.remark("postern: connection lost, reconnecting (~. ends the session)"),
            Event::Back => self.remark("postern: connected again"),
            Event::Flag(_) => {}
        }
        None
    }

    /// A line of our own among the output; only for people, not for pipes.
    fn remark(&mut self, text: &str) {
        if self.escapes.is_some() && self.manner == Manner::Connect {
            let line = format!("\r\n{}\r\n", text.replace('\n', "\r\n"));
            self.shown.push_back(Shown::Err(Bytes::from(line)));
        }
    }

    /// A line of the agent, where the stock plugin shows it.
    fn show_line(&mut self, text: &str) {
        let line = format!("{}\r\n", text.replace('\n', "\r\n"));
        self.shown.push_back(Shown::Out(Bytes::from(line)));
    }

    fn ending_of(&mut self, end: &End) -> Ending {
        match end {
            End::TimedOut => Ending::TimedOut,
            End::Closed | End::Left => {
                Ending::Closed { text: self.closed.take().unwrap_or_default(), exit_code: self.exit_code }
            }
        }
    }

    /// Waits until everything is shown, unless a signal says otherwise.
    async fn finish(&mut self) {
        if let Some(output) = self.output.take() {
            for shown in self.shown.drain(..) {
                // A terminal so slow that there is no room loses a remark only.
                let _ = output.try_send(shown);
            }
        }
        tokio::select! {
            _ = &mut self.written => {}
            () = self.signals.told_to_end() => {}
        }
    }
}

/// What signals mean to a session.
enum Heard {
    Resize,
    Key(u8),
    End(i32),
}

/// The signals that a session listens to.
struct Signals {
    resize: Signal,
    keys: [(Signal, u8); 3],
    ends: [(Signal, i32); 2],
}

impl Signals {
    fn listen() -> Result<Self, ClientError> {
        let on = |kind| {
            signal(kind)
                .map_err(|error| ClientError::Io { what: "cannot listen to signals".to_owned(), error })
        };
        // Ctrl-C, Ctrl-\ and Ctrl-Z are keys for the far side, also when
        // another process sends them as signals.
        let stop = SignalKind::from_raw(STOP);
        Ok(Self {
            resize: on(SignalKind::window_change())?,
            keys: [(on(SignalKind::interrupt())?, 0x03), (on(SignalKind::quit())?, 0x1c), (on(stop)?, 0x1a)],
            ends: [(on(SignalKind::terminate())?, 15), (on(SignalKind::hangup())?, 1)],
        })
    }

    async fn next(&mut self) -> Heard {
        let Self { resize, keys: [interrupt, quit, stop], ends: [terminate, hangup] } = self;
        tokio::select! {
            _ = resize.recv() => Heard::Resize,
            _ = interrupt.0.recv() => Heard::Key(interrupt.1),
            _ = quit.0.recv() => Heard::Key(quit.1),
            _ = stop.0.recv() => Heard::Key(stop.1),
            _ = terminate.0.recv() => Heard::End(terminate.1),
            _ = hangup.0.recv() => Heard::End(hangup.1),
        }
    }

    async fn told_to_end(&mut self) {
        while matches!(self.next().await, Heard::Resize) {}
    }
}

/// The exit code that tells a script how a session ended.
pub fn exit_code(ending: &Ending) -> u8 {
    const FAILED: u8 = 255;
    match ending {
        Ending::Closed { exit_code: Some(code), .. } => u8::try_from(*code).unwrap_or(FAILED),
        Ending::Closed { text, .. } if text.is_empty() => 0,
        Ending::Left => 0,
        Ending::Signal(number) => u8::try_from(128 + number).unwrap_or(FAILED),
        Ending::Closed { .. } | Ending::TimedOut | Ending::Unsupported(_) => FAILED,
    }
}

/// How long a farewell call to the gateway may take.
pub const FAREWELL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str, exit_code: Option<i32>) -> Ending {
        Ending::Closed { text: text.to_owned(), exit_code }
    }

    #[test]
    fn the_exit_code_tells_scripts_how_it_ended() {
        for (ending, code) in [
            (closed("", None), 0),
            (closed("", Some(3)), 3),
            (closed("", Some(-1)), 255),
            (closed("ended by policy", None), 255),
            (Ending::Left, 0),
            (Ending::TimedOut, 255),
            (Ending::Signal(15), 143),
            (Ending::Unsupported("ports".to_owned()), 255),
        ] {
            assert_eq!(exit_code(&ending), code, "{ending:?}");
        }
    }
}
