//! `postern configure`: writes an AWS profile that goes through a gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::output::print_line;
use crate::client::aws_config_file::{GatewayProfile, command_word, write};
use crate::client::profile::gateway_url;
use crate::client::sign_in::config_file;
use crate::client::{ClientError, Trust};

/// The region when nothing names one.
const FALLBACK_REGION: &str = "us-east-1";

/// What `postern configure` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern configure --gateway https://gw.example.com --profile gw\n  \
    postern configure --gateway https://gw.example.com --profile gw-prod --source-profile prod --region eu-west-1\n\n\
    It writes [profile NAME] and [services NAME] into the AWS configuration file and changes nothing else.\n\
    Run it again at any time.")]
pub struct Args {
    /// The gateway's URL.
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// The name of the profile to write.
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// The profile with your AWS identity (default: the usual AWS chain).
    #[arg(long, value_name = "NAME")]
    source_profile: Option<String>,
    /// The region of your machines.
    #[arg(long)]
    region: Option<String>,
    /// A file with the CA certificates of the gateway, if they are not public.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Prove your identity with tokens of STS (GetWebIdentityToken).
    #[arg(long)]
    web_identity: bool,
    /// Sign in with `postern login` instead of an AWS identity.
    #[arg(long, conflicts_with_all = ["source_profile", "web_identity"])]
    login: bool,
    /// The configuration file (default: AWS_CONFIG_FILE or ~/.aws/config).
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
}

/// Writes the profile and says what to do next.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = args.config_file.clone().or_else(config_file);
    let path = path.context("there is no HOME; name the file with --config-file")?;
    let profile = profile(args)?;
    let changed = write(&path, &profile)?;
    let verb = if changed { "wrote" } else { "nothing to change in" };
    let name = &profile.name;
    print_line(&format!("{verb} profile {name}: {}", path.display()))?;
    let standard = args.config_file.is_none() || args.config_file == config_file();
    if !standard {
        print_line(&format!("use it with:  export AWS_CONFIG_FILE={}", command_word(&text_of(&path)?)?))?;
    }
    if args.login {
        print_line(&format!("first:  postern login --profile {name}"))?;
    }
    print_line(&format!("next:  postern doctor --profile {name}"))?;
    print_line(&format!("then:  aws ssm start-session --target TARGET --profile {name}"))?;
    Ok(ExitCode::SUCCESS)
}

fn profile(args: &Args) -> anyhow::Result<GatewayProfile> {
    let gateway = gateway_url(&args.gateway)?.origin().ascii_serialization();
    if args.source_profile.as_deref() == Some(args.profile.as_str()) {
        anyhow::bail!("the profile cannot be its own source; give --profile another name");
    }
    let ca_bundle = match &args.ca_bundle {
        Some(path) => {
            Trust::bundle(path)?;
            Some(text_of(&std::path::absolute(path)?)?)
        }
        None => None,
    };
    let mut command = vec![command_word(&text_of(&this_program()?)?)?];
    command.extend(["credentials".to_owned(), "--gateway".to_owned(), command_word(&gateway)?]);
    let options = [
        ("--source-profile", args.source_profile.as_deref()),
        ("--region", args.region.as_deref().filter(|_| !args.login)),
        ("--ca-bundle", ca_bundle.as_deref()),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            command.extend([option.to_owned(), command_word(value)?]);
        }
    }
    let flags = [("--web-identity", args.web_identity), ("--login", args.login)];
    command.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned()));
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let region =
        args.region.clone().or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    Ok(GatewayProfile {
        name: args.profile.clone(),
        region: region.unwrap_or_else(|| FALLBACK_REGION.to_owned()),
        gateway,
        credential_process: command.join(" "),
        ca_bundle,
    })
}

/// The path under which the AWS CLI finds us, wherever it is started.
fn this_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    Ok(std::path::absolute(program)?)
}

fn text_of(path: &Path) -> Result<String, ClientError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        ClientError::Profile(format!("{} is not UTF-8 and cannot be written down", path.display()))
    })
}
