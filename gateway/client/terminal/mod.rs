//! A person at a terminal, or a pipe, at the near end of a data channel.

mod end_of_input;
mod escape;
mod raw_mode;
mod streams;

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::client::channel::{Command, End, Event, Line};
use crate::client::ports::is_port;
use crate::client::{ClientError, Ending};
use end_of_input::EndOfInput;
use escape::{Escape, Escapes, HELP};
pub use raw_mode::{RawMode, terminal_size};
use streams::Shown;

/// Keys sent as signals that may wait; more say nothing new.
const SIGNALS_WAITING: usize = 16;
/// `SIGTSTP`, which Ctrl-Z sends.
const STOP: i32 = if cfg!(target_os = "macos") { 18 } else { 20 };

/// Said of a document that turns out to be a port's.
const PORT: &str = "this document opens a port: use `postern forward` or `postern ssh`";

/// Who is at the near end; decides where words go and what is passed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `postern connect`: words to standard error, escapes, exit codes.
    Connect,
    /// `postern exec`: no terminal, no input, only the command's output.
    Command,
    /// The stock plugin: its words, all of them on standard output.
    Plugin,
}

/// Joins the terminal to a session until either ends.
///
/// The terminal is as before when this returns, panics or is dropped.
pub async fn run(mut line: Line, manner: Manner) -> Result<Ending, ClientError> {
    let raw_mode = if manner == Manner::Command { None } else { RawMode::enter()? };
    let mut desk = Desk::new(manner, line.commands.clone(), raw_mode.is_some())?;
    let ending = match desk.work(&mut line).await {
        Some(ending) => Ok(ending),
        None => line.end().await.map(|end| desk.ending_of(&end)),
    };
    drop(line);
    desk.finish().await;
    drop(raw_mode);
    ending
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
        let reads = manner != Manner::Command;
        Ok(Self {
            manner,
            commands,
            input: if reads { streams::input() } else { mpsc::channel(1).1 },
            output: Some(output),
            written,
            signals: Signals::listen()?,
            escapes: is_terminal.then(Escapes::default),
            end_of_input: EndOfInput::default(),
            typed: VecDeque::new(),
            shown: VecDeque::new(),
            input_is_open: reads,
            closed: None,
            exit_code: None,
            began: Instant::now(),
        })
    }

    /// Carries keys and output; `None` when the channel has ended.
    async fn work(&mut self, line: &mut Line) -> Option<Ending> {
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
                event = line.event(), if self.shown.is_empty() => {
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
            Event::Handshake(asked) if is_port(&asked) => return Some(Ending::Unsupported(PORT.to_owned())),
            Event::Handshake(_) | Event::Flag(_) => {}
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
        match Ending::of(end) {
            Ending::Closed { .. } => {
                Ending::Closed { text: self.closed.take().unwrap_or_default(), exit_code: self.exit_code }
            }
            other => other,
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
