//! The drop-in for `session-manager-plugin`: same arguments, same words.

mod port;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use crate::cli::connect;
use crate::cli::output::print_line;
use crate::client::channel::{Carries, Line};
use crate::client::plugin::{Asked, NAME, RESPONSE_VARIABLE, Start, VERSION, parse};
use crate::client::ports::{Begun, Mode, PortSession};
use crate::client::terminal::{Manner, terminal_size};
use crate::client::{Ending, Gateway, Profile, exit_code};
use crate::session::printable;

/// Names the descriptor with the session after the variable was unset.
const DESCRIPTOR_VARIABLE: &str = "POSTERN_PLUGIN_DESCRIPTOR";
/// Most bytes that a pipe takes without a reader, on every system we run on.
const PIPE_MAX: usize = 16 * 1024;
/// What the stock plugin says when it is called without arguments.
const INSTALLED: &str = "\nThe Session Manager plugin was installed successfully. \
                         Use the AWS CLI to start a session.\n";
/// What a session that could not be carried exits with.
const FAILED: u8 = 1;

/// Runs as the plugin; the token stays out of arguments and environment.
pub fn main(args: &[OsString]) -> ExitCode {
    crate::cli::start_log("off");
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    forget_variable(&args);
    match parse(&args, response) {
        Ok(Asked::Installed) => say(INSTALLED, 0),
        Ok(Asked::Version) => say(VERSION, 0),
        Ok(Asked::Unknown) => say("Unknown operation", FAILED),
        Ok(Asked::Start(start)) => carry(*start),
        Err(error) => failed(&error.into()),
    }
}

fn carry(start: Start) -> ExitCode {
    let id = printable(&start.opened.session_id);
    match crate::cli::block_on(session(start)) {
        Ok(Some(ending)) => told(&id, ending),
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn told(id: &str, ending: Ending) -> ExitCode {
    match ending {
        Ending::Closed { text, .. } if !text.is_empty() => say(&format!("\n\nSessionId: {id} : {text}\n"), 0),
        Ending::Closed { .. } | Ending::Left => {
            say(&format!("\n\nExiting session with sessionId: {id}.\n"), 0)
        }
        Ending::TimedOut => say(&format!("Session: {id} timed out."), 0),
        Ending::Unsupported(text) => failed(&anyhow::anyhow!(text)),
        ending @ (Ending::Signal(_) | Ending::Open) => ExitCode::from(exit_code(&ending)),
    }
}

/// Carries the session; nothing is said at the end if there is no ending.
async fn session(start: Start) -> anyhow::Result<Option<Ending>> {
    let id = start.opened.session_id.clone();
    let profile = Profile::load_for(start.profile.as_deref(), Some(&start.region), start.endpoint.as_deref());
    let gateway = Arc::new(Gateway::open(profile.await?).await?);
    print_line(&format!("\nStarting session with SessionId: {}", printable(&id)))?;
    let carries = match start.kind {
        Some(kind) if !kind.is_terminal() => Carries::Port,
        _ => Carries::Terminal(terminal_size()),
    };
    let line = Line::through(&gateway, start.opened, carries)?;
    if start.kind.is_some() && carries != Carries::Port {
        return connect::carry(&gateway, &id, line, Manner::Plugin).await.map(Some);
    }
    match PortSession::begin(id.clone(), line).await {
        Ok(Begun::Port(session)) => {
            let is_standard = session.mode() == Mode::Standard;
            let ending = port::carry(session).await?;
            // At the end of input SSH has gone: nobody is told anything.
            Ok(Some(ending).filter(|ending| !(is_standard && matches!(ending, Ending::Left))))
        }
        Ok(Begun::Other(line)) => connect::carry(&gateway, &id, line, Manner::Plugin).await.map(Some),
        Ok(Begun::Over(ending)) => Ok(Some(ending)),
        Err(error) => {
            gateway.say_farewell(&id).await;
            Err(error.into())
        }
    }
}

/// Starts this program anew without the variable that holds the token.
///
/// The AWS CLI passes the session in a variable, which every program that
/// fetches keys for us would inherit, and which `/proc` shows. What it holds
/// goes through a pipe instead. If that fails the variable stays.
fn forget_variable(args: &[String]) {
    let Some(name) = args.get(1).filter(|name| name.starts_with(RESPONSE_VARIABLE)) else { return };
    let Some(value) = std::env::var(name).ok().filter(|value| value.len() <= PIPE_MAX) else { return };
    let (Ok((reader, mut writer)), Ok(program)) = (std::io::pipe(), std::env::current_exe()) else { return };
    let kept = rustix::io::fcntl_setfd(reader.as_fd(), rustix::io::FdFlags::empty());
    if kept.is_err() || writer.write_all(value.as_bytes()).is_err() {
        return;
    }
    drop(writer);
    let mut command = Command::new(program);
    command.arg0(NAME).args(args.iter().skip(1)).env_remove(name);
    let error = command.env(DESCRIPTOR_VARIABLE, reader.as_raw_fd().to_string()).exec();
    tracing::debug!(%error, "the session's variable could not be unset");
}

/// The session: from the pipe, or from the variable that could not be unset.
fn response(name: &str) -> Option<String> {
    if let Ok(value) = std::env::var(name) {
        return Some(value);
    }
    let descriptor: u32 = std::env::var(DESCRIPTOR_VARIABLE).ok()?.parse().ok()?;
    std::fs::read_to_string(format!("/dev/fd/{descriptor}")).ok()
}

fn say(text: &str, code: u8) -> ExitCode {
    // Nothing is left to be said when standard output is gone.
    let _ = print_line(text);
    ExitCode::from(code)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    say(&format!("Cannot perform start session: {}", printable(&format!("{error:#}"))), FAILED)
}
