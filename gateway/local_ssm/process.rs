//! The target's side: a shell on a terminal, or a command on two pipes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use data_channel::{PayloadType, Size};
use pty_process::Pty;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Sleep, sleep, timeout};

use super::document::Work;
use super::parking::Mutex;
use super::settings::LocalTarget;

/// How long output may pause after the shell's exit before it counts as
/// ended: a job left behind can hold the terminal open for ever.
const QUIET: Duration = Duration::from_millis(50);
/// Most output after the shell's exit, bytes; a terminal buffers far less.
const AFTER_EXIT_MAX: usize = 1 << 20;
/// How long a shell has to leave after it was hung up.
const GRACE: Duration = Duration::from_millis(500);
/// Rounds of killing what is left: what forks while it is looked for is
/// found in the next round, and the last one sees that all are gone.
const KILL_ROUNDS: usize = 100;
/// Pause between the rounds; killed processes need a moment to go.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// The terminal's size until the client tells one.
const FIRST_SIZE: Size = Size { cols: 80, rows: 24 };

/// Opening a terminal and starting its shell is done one at a time.
///
/// The library marks the terminal close-on-exec only after opening it: a
/// shell started in between would hold another session's terminal open.
static STARTING: Mutex<()> = Mutex::new(());

/// A running shell or command.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    streams: Streams,
    exit: Option<ExitStatus>,
    quiet: Option<Pin<Box<Sleep>>>,
    after_exit: usize,
}

enum Streams {
    Terminal(Pty),
    Pipes { out: Option<ChildStdout>, err: Option<ChildStderr>, separate: bool },
}

impl Process {
    /// Starts what the document asks for.
    pub(super) fn start(work: &Work, target: &LocalTarget) -> io::Result<Self> {
        let _one_at_a_time = STARTING.lock();
        match work {
            Work::Shell { .. } => Self::on_terminal(&target.shell, target),
            Work::InteractiveCommand(line) => {
                Self::on_terminal(&["sh".to_owned(), "-c".to_owned(), line.clone()], target)
            }
            Work::NonInteractiveCommand { argv, separate } => {
                Self::on_pipes(argv, separate.is_some(), target)
            }
            Work::Port(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn on_terminal(argv: &[String], target: &LocalTarget) -> io::Result<Self> {
        let (terminal, its_end) = pty_process::open().map_err(io::Error::other)?;
        let size = pty_process::Size::new(FIRST_SIZE.rows, FIRST_SIZE.cols);
        terminal.resize(size).map_err(io::Error::other)?;
        let command = pty_process::Command::from(command(argv, target)?);
        let child = command.spawn(its_end).map_err(io::Error::other)?;
        Self::new(child, Streams::Terminal(terminal))
    }

    fn on_pipes(argv: &[String], separate: bool, target: &LocalTarget) -> io::Result<Self> {
        let mut command = command(argv, target)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        Self::new(child, Streams::Pipes { out, err, separate })
    }

    fn new(child: Child, streams: Streams) -> io::Result<Self> {
        let raw = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = raw.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { child, pid, streams, exit: None, quiet: None, after_exit: 0 })
    }

    /// Reads output; `None` is its end. May be dropped and called again.
    ///
    /// Output ends when its stream does, or when the process has exited and
    /// nothing more comes.
    pub(super) fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Option<PayloadType>> {
        let before = into.filled().len();
        let read = self.streams.poll_read(cx, into);
        if let Poll::Ready(Some(kind)) = read {
            if self.exit.is_some() {
                self.after_exit += into.filled().len() - before;
                self.quiet = None;
            }
            let too_much = self.after_exit > AFTER_EXIT_MAX;
            return Poll::Ready((!too_much).then_some(kind));
        }
        let waits_for_exit = matches!(self.streams, Streams::Pipes { .. });
        if read.is_ready() && !waits_for_exit {
            return Poll::Ready(None);
        }
        if self.exit.is_none() {
            self.exit = Some(ready!(pin!(self.child.wait()).poll(cx)).unwrap_or_default());
        }
        if read.is_ready() {
            return Poll::Ready(None);
        }
        let quiet = self.quiet.get_or_insert_with(|| Box::pin(sleep(QUIET)));
        quiet.as_mut().poll(cx).map(|()| None)
    }

    /// Types into the terminal; a command without one takes no input.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.streams {
            Streams::Terminal(terminal) => Pin::new(terminal).poll_write(cx, bytes),
            Streams::Pipes { .. } => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Whether it reads what is typed.
    pub(super) fn has_terminal(&self) -> bool {
        matches!(self.streams, Streams::Terminal(_))
    }

    /// Sets the terminal's size; the shell is told by the kernel.
    pub(super) fn resize(&self, size: Size) {
        if let Streams::Terminal(terminal) = &self.streams {
            // A terminal that is gone has no size; its end is seen elsewhere.
            let _ = terminal.resize(pty_process::Size::new(size.rows, size.cols));
        }
    }

    /// Interrupts a command that has no terminal to do so.
    pub(super) fn interrupt(&self, signal: Signal) {
        // It may have exited already.
        let _ = kill_process_group(self.pid, signal);
    }

    /// The exit code as a shell tells it: 128 and the signal, if one killed it.
    pub(super) fn exit_code(&self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let exit = self.exit?;
        exit.code().or_else(|| exit.signal().map(|signal| 128 + signal))
    }

    /// Ends it and everything on its terminal, and waits until it is gone.
    pub(super) async fn end(self) {
        let Self { mut child, pid, streams, .. } = self;
        let on_terminal = matches!(streams, Streams::Terminal(_));
        // The group may be gone already: that is what is wanted.
        let _ = kill_process_group(pid, if on_terminal { Signal::HUP } else { Signal::TERM });
        drop(streams);
        let left = timeout(GRACE, child.wait()).await;
        // Reads /proc: some milliseconds on a busy machine.
        let _ = tokio::task::spawn_blocking(move || kill_all(pid)).await;
        if left.is_err() {
            let _ = child.wait().await;
        }
    }
}

impl Streams {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Option<PayloadType>> {
        match self {
            Self::Terminal(terminal) => {
                let before = into.filled().len();
                // When the shell leaves, the terminal says EIO: the end.
                let read = ready!(Pin::new(terminal).poll_read(cx, into));
                let some = read.is_ok() && into.filled().len() > before;
                Poll::Ready(some.then_some(PayloadType::Output))
            }
            Self::Pipes { out, err, separate } => {
                let error_kind = if *separate { PayloadType::StdErr } else { PayloadType::Output };
                let first = poll_pipe(out, cx, into);
                if first == Poll::Ready(true) {
                    return Poll::Ready(Some(PayloadType::Output));
                }
                match poll_pipe(err, cx, into) {
                    Poll::Ready(true) => Poll::Ready(Some(error_kind)),
                    Poll::Ready(false) => first.map(|_| None),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

/// Whether the pipe gave bytes; false once it has ended.
fn poll_pipe<T: AsyncRead + Unpin>(
    pipe: &mut Option<T>,
    cx: &mut Context<'_>,
    into: &mut ReadBuf<'_>,
) -> Poll<bool> {
    let Some(open) = pipe else { return Poll::Ready(false) };
    let before = into.filled().len();
    let read = ready!(Pin::new(open).poll_read(cx, into));
    let some = read.is_ok() && into.filled().len() > before;
    if !some {
        *pipe = None;
    }
    Poll::Ready(some)
}

/// A command with a small environment: the gateway's own holds secrets.
fn command(argv: &[String], target: &LocalTarget) -> io::Result<Command> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let inherited =
        |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let path = inherited("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut environment = BTreeMap::from([
        ("PATH", path),
        ("HOME", inherited("HOME", "/")),
        ("USER", inherited("USER", "root")),
        ("SHELL", target.shell.first().cloned().unwrap_or_default()),
        ("TERM", "xterm-256color".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ]);
    environment.extend(target.environment.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment).current_dir(&target.directory).kill_on_drop(true);
    Ok(command)
}

/// Kills every process in the session or group that the given one led.
fn kill_all(leader: Pid) {
    for _ in 0..KILL_ROUNDS {
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let left = names.filter(|name| is_led_by(name, leader.as_raw_pid()) == Some(true));
        let left: Vec<Pid> = left.filter_map(|name| Pid::from_raw(name.parse().ok()?)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(KILL_PAUSE);
    }
}

/// Whether a process lives and is in the leader's session or group.
///
/// Read from its `stat`: `pid (name) state ppid pgrp session …`. A system
/// call would do, but rustix takes the 0 of another namespace for a bug.
fn is_led_by(pid: &str, leader: i32) -> Option<bool> {
    if !pid.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let mut groups = fields.skip(1).take(2);
    Some(!dead && groups.any(|group| group.parse::<i32>().is_ok_and(|group| group == leader)))
}
