//! The commands that engineers, SREs and security people type.

/// `postern completions`: what a shell completes.
pub mod completions;
/// `postern configure`: writes an AWS profile.
pub mod configure;
/// `postern connect`: opens a session.
pub mod connect;
/// `postern console`: signs a browser in.
pub mod console;
/// `postern credentials`: keys for the AWS CLI.
pub mod credentials;
/// `postern decisions` and `postern audit`: what was decided.
pub mod decisions;
/// `postern demo`: everything on one machine.
pub mod demo;
/// `postern doctor`: checks the way to the gateway.
pub mod doctor;
mod elsewhere;
/// `postern exec`: runs one command.
pub mod exec;
mod follow;
/// `postern forward`: carries ports.
pub mod forward;
/// `postern keys`: the keys that sign recordings.
pub mod keys;
/// `postern login`: signs in at an identity provider.
pub mod login;
mod machine;
mod output;
mod plugin;
/// `postern policy`: works on a policy folder.
pub mod policy;
mod recording;
/// `postern replay`: plays a recording.
pub mod replay;
/// `postern revoke`: shuts out at once.
pub mod revoke;
/// `postern search` and `postern index`: finds text in recordings.
pub mod search;
/// `postern serve`: the gateway.
pub mod serve;
/// `postern sessions`: looks at sessions and ends them.
pub mod sessions;
/// `postern ssh`: the SSH client, through a session.
pub mod ssh;
mod stop;
/// `postern targets`: lists machines.
pub mod targets;
/// `postern verify`: finds damage in a recording.
pub mod verify;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::client::plugin::NAME as PLUGIN;
use crate::policy::PolicyError;
use crate::session::printable;

/// What a command that failed exits with; the AWS CLI does the same.
const FAILED: u8 = 255;
/// What a name that several machines have exits with, as wrong usage does.
const AMBIGUOUS: u8 = 2;
/// The variable with the log filter, as `tracing` reads it.
const LOG_VARIABLE: &str = "POSTERN_LOG";

/// Libraries whose debug lines hold tokens or signed requests.
const TALKATIVE: [&str; 6] =
    ["aws_config", "aws_runtime", "aws_sigv4", "aws_smithy_http_client", "aws_smithy_runtime", "hyper"];

const EXAMPLES: &str = "\
Examples:
  postern demo                                   everything on this machine, to try it
  postern configure --gateway https://gw.example.com --profile gw
  postern doctor --profile gw                    is everything set up?
  postern connect web-1 --profile gw             a shell, by name or by id
  postern forward web-1 8080:80                  a port of the machine, here
  postern ssh web-1 -- -A                        the SSH client, scp and rsync too
  postern console                                the same in your browser
  postern exec web-1 -- uname -a                 one command, its output and exit code
  aws ssm start-session --target i-0123456789abcdef0 --profile gw
  postern sessions list                          who is where
  postern replay alice-abcdefghijklmnopqrstuvwxyz
  postern search 'permission denied' --since 7d

Environment:
  AWS_PROFILE, AWS_CONFIG_FILE, AWS_CA_BUNDLE, SSL_CERT_FILE   as with the AWS CLI
  POSTERN_CACHE_DIR   where keys are cached (default ~/.cache/postern)
  POSTERN_LOG         log filter, for example `debug` or `postern=debug`";

/// The guarded door between engineers and their machines in AWS.
#[derive(Debug, Parser)]
#[command(name = "postern", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Args),
    /// Start a gateway with everything embedded, on this machine
    Demo(demo::Args),
    /// Write an AWS profile that goes through a gateway
    Configure(configure::Args),
    /// Print keys for the AWS CLI (credential_process)
    Credentials(credentials::Args),
    /// Sign in with your company's identity provider
    Login(login::Args),
    /// Print a link that signs your browser in to the console
    Console(console::Args),
    /// Open a session on a machine
    Connect(connect::Args),
    /// Carry ports of a machine, or of hosts that it reaches, to this one
    Forward(forward::Args),
    /// Run the SSH client on a machine
    Ssh(ssh::Args),
    /// Carry an SSH client's bytes on standard input and output
    #[command(hide = true)]
    SshProxy(ssh::ProxyArgs),
    /// Run one command on a machine, without a shell
    Exec(exec::Args),
    /// List the machines that you may see
    Targets(targets::Args),
    /// List, show and end sessions
    Sessions(sessions::Args),
    /// Shut a person, a role, a session or a machine out, at once
    Revoke(revoke::Args),
    /// List, show and export what policy decided
    Decisions(decisions::Args),
    /// Follow any id from the person to the recording
    Audit(decisions::AuditArgs),
    /// Play a recording, or write it to a file
    Replay(recording::Args),
    /// Find text or commands in recordings
    Search(search::Args),
    /// Index a folder of recordings for search
    Index(search::IndexArgs),
    /// Find out whether a recording is whole and unaltered
    Verify(verify::Args),
    /// List the keys that sign recordings, or make another one sign
    #[command(subcommand)]
    Keys(keys::Command),
    /// Work on a policy folder
    #[command(subcommand)]
    Policy(Box<policy::Command>),
    /// Check profile, TLS, clock, sign-in and plugin, and say what to do
    Doctor(doctor::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

/// Runs the program and says how it went.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.first().is_some_and(is_plugin) {
        return plugin::main(&args);
    }
    let cli = Cli::parse_from(args);
    start_log(cli.command.log_level());
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(args) => serve::run(args),
            Self::Demo(args) => demo::run(args),
            Self::Configure(args) => configure::run(&args),
            Self::Credentials(args) => credentials::run(&args),
            Self::Login(args) => block_on(login::run(args)),
            Self::Console(args) => block_on(console::run(args)),
            Self::Connect(args) => block_on(connect::run(args)),
            Self::Forward(args) => block_on(forward::run(args)),
            Self::Ssh(args) => block_on(ssh::run(args)),
            Self::SshProxy(args) => block_on(ssh::proxy(args)),
            Self::Exec(args) => block_on(exec::run(args)),
            Self::Targets(args) => block_on(targets::run(args)),
            Self::Sessions(args) => block_on(sessions::run(args)),
            Self::Revoke(args) => block_on(revoke::run(args)),
            Self::Decisions(args) => block_on(decisions::run(args)),
            Self::Audit(args) => block_on(decisions::audit(args)),
            Self::Replay(args) => recording::replay(args),
            Self::Search(args) => block_on(search::run(args)),
            Self::Index(args) => block_on(search::index(args)),
            Self::Verify(args) => verify::run(args),
            Self::Keys(command) => keys::run(command),
            Self::Policy(command) => block_on(policy::run(*command)),
            Self::Doctor(args) => block_on(doctor::run(args)),
            Self::Completions(args) => completions::run(&args),
        }
    }

    /// Servers tell what they do; a line in the middle of a shell disturbs.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) | Self::Demo(_) => "info",
            _ => "off",
        }
    }
}

/// Runs a client's work on this thread; threads that read on are left.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

fn start_log(level: &str) {
    let mut filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let is_off = filter.max_level_hint() == Some(LevelFilter::OFF);
    let talkative = TALKATIVE.into_iter().filter(|_| !is_off);
    for directive in talkative.filter_map(|library| format!("{library}=warn").parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    // A second start is a test's; the first one stays.
    let _ = log.try_init();
}

/// What went wrong, on standard error; nothing when a pipe was merely closed.
fn failed(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        return ExitCode::SUCCESS;
    }
    eprintln!("postern: {}", told(error));
    ExitCode::from(if error.is::<machine::Ambiguous>() { AMBIGUOUS } else { FAILED })
}

/// An error and its causes, each once; a policy folder's keeps its lines.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Its first line is an arrow's column: it stands alone.
    let apart = if error.is::<PolicyError>() && text.contains('\n') { "\n" } else { "" };
    let lines: Vec<String> = text.trim_end().lines().map(printable).collect();
    format!("{apart}{}", lines.join("\n"))
}

fn is_plugin(name: &OsString) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == PLUGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_policy_error_keeps_its_lines_and_no_control_characters() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), "\n@id(\"a\") permit (principal == 7);").unwrap();
        let alone = anyhow::Error::from(crate::policy::Policy::load(dir.path()).unwrap_err());
        let within = crate::serve::ServeError::from(crate::policy::Policy::load(dir.path()).unwrap_err());
        for error in [alone, within.into()] {
            let told = told(&error);
            assert!(told.lines().count() > 3 && told.contains("a.cedar:2"), "{told}");
            assert_eq!(told.matches("a.cedar:2").count(), 1, "{told}");
        }
        let other = anyhow::anyhow!("in\u{1b}[2Jner").context("outer");
        assert_eq!(told(&other), "outer: in[2Jner");
    }

    #[test]
    fn the_plugin_is_known_by_its_file_name() {
        for (name, expected) in [
            ("session-manager-plugin", true),
            ("/usr/local/bin/session-manager-plugin", true),
            ("postern", false),
            ("/opt/session-manager-plugin/postern", false),
        ] {
            assert_eq!(is_plugin(&OsString::from(name)), expected, "{name}");
        }
    }
}
