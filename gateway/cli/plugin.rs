//! The drop-in for `session-manager-plugin`: same arguments, same words.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use super::connect::say_farewell;
use super::output::print_line;
use crate::client::channel::{Dialer, PORT};
use crate::client::plugin::{Asked, NAME, RESPONSE_VARIABLE, Start, VERSION, parse};
use crate::client::terminal::{self, Ending, Manner, exit_code};
use crate::client::{Gateway, Profile};
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
    super::start_log("off");
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
    match super::block_on(session(start)) {
        Ok(Ending::Closed { text, .. }) if !text.is_empty() => {
            say(&format!("\n\nSessionId: {id} : {text}\n"), 0)
        }
        Ok(Ending::Closed { .. } | Ending::Left) => {
            say(&format!("\n\nExiting session with sessionId: {id}.\n"), 0)
        }
        Ok(Ending::TimedOut) => say(&format!("Session: {id} timed out."), 0),
        Ok(Ending::Unsupported(text)) => failed(&anyhow::anyhow!(text)),
        Ok(ending @ Ending::Signal(_)) => ExitCode::from(exit_code(&ending)),
        Err(error) => failed(&error),
    }
}

async fn session(start: Start) -> anyhow::Result<Ending> {
    let id = start.opened.session_id.clone();
    let profile = Profile::load_for(start.profile.as_deref(), Some(&start.region), start.endpoint.as_deref());
    let gateway = Arc::new(Gateway::open(profile.await?).await?);
    if !start.kind.is_terminal() {
        say_farewell(&gateway, &id).await;
        return Ok(Ending::Unsupported(PORT.to_owned()));
    }
    print_line(&format!("\nStarting session with SessionId: {}", printable(&id)))?;
    let dialer = Dialer::new(gateway.trust.tls()?, Some(Arc::clone(&gateway)));
    let resume = || gateway.resume_session(&id);
    let ended = terminal::run(start.opened, dialer, resume, Manner::Plugin).await;
    if !matches!(ended, Ok(Ending::Closed { .. } | Ending::TimedOut)) {
        say_farewell(&gateway, &id).await;
    }
    Ok(ended?)
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
