//! `postern ssh`: the SSH client of this machine, through a session.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use super::machine::Through;
use super::stop::Stop;
use crate::client::ports::Notice;
use crate::client::start::Starter;
use crate::client::{Ending, exit_code};
use crate::session::{Document, printable};

/// The document that carries an SSH connection.
const DOCUMENT: &str = "AWS-StartSSHSession";
/// The SSH client.
const SSH: &str = "ssh";

/// What `postern ssh` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern ssh ec2-user@web-1\n  \
    postern ssh web-1 -- -L 8080:localhost:80 uptime\n\n\
    It runs `ssh`, so ~/.ssh/config, agents and known_hosts are as always; the machine's\n\
    id is the host's name there. What stands behind -- goes to ssh: options, a command.\n\n\
    For ssh, scp, sftp and rsync as they are, put this into ~/.ssh/config:\n\n  \
    Host i-* mi-*\n      \
    ProxyCommand postern ssh-proxy %h %p\n\n\
    Then: scp file ec2-user@i-0123456789abcdef0:  (add --profile NAME to the ProxyCommand,\n\
    or set POSTERN_PROFILE or AWS_PROFILE). Names work too: with `Host web-*`.\n\n\
    Exit code: that of ssh.")]
pub struct Args {
    /// A machine (id, name or tag:KEY=VALUE), USER@ before it if need be.
    #[arg(value_name = "[USER@]TARGET")]
    target: String,
    #[command(flatten)]
    through: Through,
    /// Options and command for ssh.
    #[arg(last = true, value_name = "SSH ARGS")]
    rest: Vec<OsString>,
}

/// What `postern ssh-proxy` can be told.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    /// A target (i-…, mi-…, ecs:…), a machine's name, or tag:KEY=VALUE.
    target: String,
    /// The port of the SSH server.
    #[arg(default_value_t = 22)]
    port: u16,
    #[command(flatten)]
    through: Through,
}

/// Becomes the SSH client.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (user, machine) = parts(&args.target)?;
    // A name is looked up here: a ProxyCommand can ask nobody which one.
    let Starter { target, .. } = args.through.to(machine).await?;
    let host = match user {
        Some(user) => format!("{user}@{target}"),
        None => target.to_string(),
    };
    let mut command = Command::new(SSH);
    command.arg("-o").arg(format!("ProxyCommand={}", proxy_command(&args.through)?));
    command.arg(host).args(args.rest);
    let error = command.exec();
    Err(error).context("cannot run ssh; is an SSH client installed?")
}

/// The user, if one is named, and the machine.
fn parts(target: &str) -> anyhow::Result<(Option<&str>, &str)> {
    let Some((user, machine)) = target.split_once('@') else { return Ok((None, target)) };
    // A variable of the shell that is not set leaves nothing; ssh would print all it can do.
    if user.is_empty() {
        bail!(
            "no user stands before the @ of \"{}\": write USER@TARGET, or the target alone",
            printable(target)
        );
    }
    Ok((Some(user), machine))
}

/// The command line that ssh gives to a shell.
fn proxy_command(through: &Through) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let Some(program) = program.to_str() else { bail!("the path of this program is not UTF-8") };
    let mut words = vec![quoted(program), "ssh-proxy".to_owned()];
    if let Some(profile) = &through.profile {
        words.push(quoted(&format!("--profile={profile}")));
    }
    if let Some(reason) = &through.reason {
        words.push(quoted(&format!("--reason={reason}")));
    }
    words.extend(["--", "%h", "%p"].map(str::to_owned));
    Ok(words.join(" "))
}

/// A word for the shell, its percent signs for ssh.
fn quoted(word: &str) -> String {
    super::exec::quoted(word).replace('%', "%%")
}

/// Carries standard input and output; nothing of ours is among the bytes.
pub async fn proxy(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let stop = Stop::listen()?;
    let starter = args.through.to(&args.target).await?;
    let parameters = BTreeMap::from([("portNumber".to_owned(), vec![args.port.to_string()])]);
    let session = starter.port(Document::parse(DOCUMENT)?, parameters).await?;
    let tell = |notice| match notice {
        Notice::Message(text) => eprintln!("postern: {text}"),
        Notice::Lost => eprintln!("postern: the connection to the gateway is lost, reconnecting"),
        Notice::Back => eprintln!("postern: connected again"),
        Notice::Refused => {
            eprintln!("postern: port {} of {} could not be reached", args.port, starter.target)
        }
        Notice::Accepted | Notice::Finished => {}
    };
    let ending = session.carry_standard(stop.told(), &tell).await?;
    if let Ending::Closed { text, .. } = &ending
        && !text.is_empty()
    {
        eprintln!("postern: {}", printable(text));
    }
    Ok(stop.exit_code(exit_code(&ending)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_refused_with_a_sentence() {
        assert_eq!(parts("alice@web-dev").unwrap(), (Some("alice"), "web-dev"));
        assert_eq!(parts("web-dev").unwrap(), (None, "web-dev"));
        let error = parts("@web-dev").unwrap_err().to_string();
        assert!(error.starts_with("no user stands before the @ of \"@web-dev\""), "{error}");
    }

    #[test]
    fn ssh_s_proxy_command_keeps_every_word_whole() {
        let through =
            Through { profile: Some("my profile".to_owned()), reason: Some("50% of it's done".to_owned()) };
        let command = proxy_command(&through).unwrap();
        assert!(
            command.ends_with("ssh-proxy '--profile=my profile' '--reason=50%% of it'\\''s done' -- %h %p"),
            "{command}"
        );
    }
}
