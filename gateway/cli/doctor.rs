//! `postern doctor`: checks the whole way to the gateway, says what to do.

mod operator;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Url;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::process::Command;
use tokio::time::timeout;

use super::output::{print_json, print_line};
use crate::client::plugin::{NAME as PLUGIN, VERSION};
use crate::client::target::{Found, Wanted};
use crate::client::{ClientError, Gateway, Profile, Trust};
use crate::proxy::Proxies;
use crate::session::{Target, printable};

/// The gateway refuses signatures that are further off.
const CLOCK_MAX: Duration = Duration::from_secs(300);
/// Nearer to the limit than is comfortable.
const CLOCK_WARN: Duration = Duration::from_secs(60);
/// Longest wait for `session-manager-plugin --version`.
const PLUGIN_WAIT: Duration = Duration::from_secs(5);
/// From here on stock plugins refuse stream URLs that are not of AWS.
const VALIDATING: [u32; 3] = [1, 2, 889];
/// Before this one stock plugins lack what agents expect.
const OLDEST: [u32; 3] = [1, 2, 331];
/// How to put our plugin where the AWS CLI finds it.
const INSTALL: &str =
    "put ours first on PATH: ln -sf \"$(command -v postern)\" ~/.local/bin/session-manager-plugin";

/// What `postern doctor` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern doctor --profile gw\n  \
    postern doctor --profile gw --target i-0123456789abcdef0\n  \
    postern doctor --config /etc/postern/postern.toml\n\n\
    Exit code: 0 if nothing failed, else 1.")]
pub struct Args {
    /// The AWS profile that points at the gateway.
    #[arg(long, env = "POSTERN_PROFILE")]
    profile: Option<String>,
    /// A machine (id, name or tag:KEY=VALUE) to ask the policy about,
    /// without opening a session.
    #[arg(long)]
    target: Option<String>,
    /// Look at what a gateway's configuration leads to instead: whether the
    /// log group is there and as configured. Run it as the gateway does, with
    /// its AWS credentials.
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything and prints what it found.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut checks = Vec::new();
    if let Some(config) = &args.config {
        operator::look(config, &mut checks).await;
        return tell(&checks, args.json);
    }
    let target = args.target.as_deref().map(Wanted::parse).transpose()?;
    match Profile::load(args.profile.as_deref()).await {
        Ok(profile) => look(&profile, target.as_ref(), &mut checks).await,
        Err(error) => {
            let advice = "write one: postern configure --gateway URL --profile NAME";
            checks.push(Check::fail("profile", error.to_string(), advice));
            checks.extend(interference());
        }
    }
    tell(&checks, args.json)
}

fn tell(checks: &[Check], json: bool) -> anyhow::Result<ExitCode> {
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if json {
        print_json(&checks)?;
    } else {
        for line in checks.iter().flat_map(lines) {
            print_line(&line)?;
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn lines(check: &Check) -> Vec<String> {
    let word = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let first = format!("{word}  {:<12} {}", check.check, printable(&check.found));
    let advice = check.advice.as_deref().map(|advice| format!("{:19}→ {}", "", printable(advice)));
    [Some(first), advice].into_iter().flatten().collect()
}

async fn look(profile: &Profile, wanted: Option<&Wanted>, checks: &mut Vec<Check>) {
    checks.push(Check::ok(
        "profile",
        format!(
            "{} → {} in {} (from {})",
            profile.name, profile.endpoint, profile.region, profile.endpoint_from
        ),
    ));
    checks.extend(interference());
    checks.extend(proxy(&Proxies::from_env(), &profile.endpoint).await);
    let plugin = plugin().await;
    let (cli, date) = tls_of_cli(profile).await;
    checks.push(cli);
    checks.push(tls_of_plugin(profile, &plugin).await);
    checks.extend(date.map(|date| clock(&date, OffsetDateTime::now_utc())));
    checks.push(judge_plugin(&plugin));
    checks.push(match find_on_path("aws") {
        Some(path) => Check::ok("aws", path.display().to_string()),
        None => Check::warn("aws", "the AWS CLI is not on PATH", "`postern connect` works without it"),
    });
    match sign_in(profile, checks).await {
        Some(gateway) => checks.push(match found(&gateway, wanted).await {
            Ok(target) => dry_run(&gateway, target.as_ref()).await,
            Err(check) => check,
        }),
        None => checks.push(Check::warn("session", "not tried", "sign in first")),
    }
}

/// Settings that send the AWS CLI past the gateway, or everything to it.
fn interference() -> Vec<Check> {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let mut found = Vec::new();
    if let Some(url) = set("AWS_ENDPOINT_URL") {
        let advice = "unset it: it sends every AWS service there, also STS and S3";
        found.push(Check::warn("endpoint", format!("AWS_ENDPOINT_URL={url}"), advice));
    }
    if let Some(url) = set("AWS_ENDPOINT_URL_SSM") {
        let advice = "unset it unless it is the gateway: it beats every profile";
        found.push(Check::warn("endpoint", format!("AWS_ENDPOINT_URL_SSM={url}"), advice));
    }
    if let Some(url) = set("AWS_ENDPOINT_URL_STS") {
        found.push(Check::warn(
            "endpoint",
            format!("AWS_ENDPOINT_URL_STS={url}"),
            "unset it unless you mean it",
        ));
    }
    found
}

/// The proxy on the way to the gateway, if the environment names one.
async fn proxy(proxies: &Proxies, endpoint: &Url) -> Option<Check> {
    let name = "proxy";
    let (host, port) = (endpoint.host_str()?, endpoint.port_or_known_default()?);
    let failed = |error: String| {
        let advice = "correct HTTPS_PROXY, or name the gateway's host in NO_PROXY";
        Some(Check::fail(name, error, advice))
    };
    match proxies.to(host, port) {
        Ok(None) if proxies.is_set() => {
            Some(Check::ok(name, "none for the gateway: this machine, or NO_PROXY says so"))
        }
        Ok(None) => None,
        Ok(Some(proxy)) => match proxies.connect(host, port).await {
            Ok(_) => Some(Check::ok(name, format!("{proxy} leads to the gateway"))),
            Err(error) => failed(error.to_string()),
        },
        Err(error) => failed(error.to_string()),
    }
}

/// The way of the AWS CLI: only the bundle, if there is one.
async fn tls_of_cli(profile: &Profile) -> (Check, Option<String>) {
    let name = "TLS (cli)";
    let trust = match &profile.ca_bundle {
        Some(path) => Trust::bundle(path),
        None => Ok(Trust::system()),
    };
    let with = profile.ca_bundle.as_ref().map_or("public CAs".to_owned(), |path| path.display().to_string());
    match reach(trust, &profile.endpoint).await {
        Ok(date) => (Check::ok(name, format!("the gateway answers, trusted by {with}")), date),
        Err(error) => {
            let advice =
                "check the URL and the network; for a private CA: postern configure … --ca-bundle FILE";
            (Check::fail(name, error.to_string(), advice), None)
        }
    }
}

/// The way of the plugin's WebSocket: a stock one knows no bundle.
async fn tls_of_plugin(profile: &Profile, plugin: &Plugin) -> Check {
    let name = "TLS (plugin)";
    let ours = matches!(plugin, Plugin::Is { version, .. } if version == VERSION);
    let trust = if ours { Trust::load(profile.ca_bundle.as_deref()) } else { Ok(Trust::system()) };
    match reach(trust, &profile.endpoint).await {
        Ok(_) if ours => Check::ok(name, "our plugin trusts the gateway, by bundle or system"),
        Ok(_) => Check::ok(name, "the system (or SSL_CERT_FILE) trusts the gateway"),
        Err(error) => Check::fail(
            name,
            error.to_string(),
            "a stock plugin hangs here: install the CA in the system, or set SSL_CERT_FILE to a bundle that holds it; or use ours",
        ),
    }
}

async fn reach(trust: Result<Trust, ClientError>, endpoint: &Url) -> Result<Option<String>, ClientError> {
    crate::client::sign_in::touch(&trust?, endpoint).await
}

fn clock(date: &str, now: OffsetDateTime) -> Check {
    // HTTP writes GMT where RFC 2822 has a number.
    let Ok(theirs) = OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822) else {
        return Check::warn("clock", "the gateway sent no date", "check that it is the gateway that answers");
    };
    let off = (now - theirs).unsigned_abs();
    let found = format!("{} s off the gateway's", off.as_secs());
    match off {
        off if off > CLOCK_MAX => {
            Check::fail("clock", found, "set this machine's clock (for example with NTP)")
        }
        off if off > CLOCK_WARN => {
            Check::warn("clock", found, "set this machine's clock before it is refused")
        }
        _ => Check::ok("clock", found),
    }
}

enum Plugin {
    Missing,
    Silent(PathBuf),
    Is { path: PathBuf, version: String },
}

async fn plugin() -> Plugin {
    let Some(path) = find_on_path(PLUGIN) else { return Plugin::Missing };
    let mut command = Command::new(&path);
    command.arg("--version").kill_on_drop(true).stdin(std::process::Stdio::null());
    match timeout(PLUGIN_WAIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            Plugin::Is { path, version: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
        }
        _ => Plugin::Silent(path),
    }
}

fn judge_plugin(plugin: &Plugin) -> Check {
    let name = "plugin";
    let (path, version) = match plugin {
        Plugin::Missing => {
            return Check::warn(name, "session-manager-plugin is not on PATH, `aws` needs it", INSTALL);
        }
        Plugin::Silent(path) => {
            return Check::fail(name, format!("{} does not tell its version", path.display()), INSTALL);
        }
        Plugin::Is { path, version } => (path, version),
    };
    let found = format!("{version} at {}", path.display());
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    match numbers.get(..3) {
        _ if version == VERSION => Check::ok(name, format!("ours, {found}")),
        None => Check::warn(name, found, "its version cannot be judged"),
        Some(numbers) if numbers >= VALIDATING.as_slice() => {
            Check::warn(name, found, format!("it may refuse a gateway's stream URL; {INSTALL}"))
        }
        // Builds from source call themselves 1.2.0.
        Some([1, 2, 0]) => Check::ok(name, format!("built from source, {found}")),
        Some(numbers) if numbers < OLDEST.as_slice() => {
            Check::fail(name, found, format!("it is too old; {INSTALL}"))
        }
        Some(_) => Check::ok(name, found),
    }
}

async fn sign_in(profile: &Profile, checks: &mut Vec<Check>) -> Option<Gateway> {
    let name = "sign-in";
    let signed_in = async {
        let gateway = Gateway::open(profile.clone()).await?;
        let keys = gateway.credentials().await?;
        Ok::<_, ClientError>((gateway, keys))
    };
    match signed_in.await {
        Ok((gateway, keys)) => {
            let found = format!("keys {} for profile {}", keys.access_key_id(), profile.name);
            checks.push(match &profile.credential_process {
                Some(_) => Check::ok(name, found),
                None => Check::warn(name, found, "they are not from a gateway: run postern configure"),
            });
            Some(gateway)
        }
        Err(error) => {
            let advice = match &profile.credential_process {
                Some(command) => format!("run it to see more: {command}"),
                None => "the profile has no credential_process: run postern configure".to_owned(),
            };
            checks.push(Check::fail(name, error.to_string(), advice));
            None
        }
    }
}

/// The machine that was asked for.
async fn found(gateway: &Gateway, wanted: Option<&Wanted>) -> Result<Option<Target>, Check> {
    let Some(wanted) = wanted else { return Ok(None) };
    match wanted.find(gateway).await {
        Ok(Found::One(target)) => Ok(Some(target)),
        Ok(Found::Several(instances)) => {
            let found = format!("{} machines {}", instances.len(), wanted.describe());
            Err(Check::warn("session", found, "name one by its id"))
        }
        Err(error) => {
            Err(Check::fail("session", error.to_string(), "`postern targets` lists what you may see"))
        }
    }
}

/// What the person can do, or whom to ask.
fn advice(answer: &Value) -> String {
    let hints = answer.get("hints").and_then(Value::as_array).into_iter().flatten();
    let hints: Vec<&str> = hints.filter_map(Value::as_str).collect();
    match hints.is_empty() {
        true => "ask for access, or for the policy to be changed".to_owned(),
        false => printable(&hints.join(", and ")),
    }
}

/// What would happen to StartSession, without a session.
async fn dry_run(gateway: &Gateway, target: Option<&Target>) -> Check {
    let name = "session";
    if let Some(target) = target {
        let answer = gateway.get_json::<Value>(&format!("/v1/access?target={}", target.as_str())).await;
        return answered(target, answer.map_err(|error| error.to_string()));
    }
    match gateway.machines().await {
        Ok(seen) => {
            let online = seen.found.iter().filter(|machine| machine.instance.online).count();
            let more = if seen.cut { " and more" } else { "" };
            let found = format!("{}{more} machines visible, {online} online", seen.found.len());
            if seen.found.is_empty() {
                return Check::warn(name, found, "no policy lets you see a machine, or none is registered");
            }
            Check::ok(name, found)
        }
        Err(error) => {
            let advice =
                "if keys are refused: postern credentials --fresh …, else ask the gateway's operators";
            Check::fail(name, error.to_string(), advice)
        }
    }
}

/// What policy would say to a session there, or that it could not be asked.
fn answered(target: &Target, answer: Result<Value, String>) -> Check {
    let name = "session";
    let allowed = answer.as_ref().ok().and_then(|answer| answer.get("allowed")?.as_bool());
    let sentence =
        answer.as_ref().ok().and_then(|answer| answer.get("sentence")?.as_str()).unwrap_or_default();
    match (allowed, &answer) {
        (Some(true), _) => Check::ok(name, format!("allowed on {target}: {sentence}")),
        (Some(false), Ok(answer)) => {
            Check::fail(name, format!("denied on {target}: {sentence}"), advice(answer))
        }
        _ => {
            let why = answer.as_ref().err().map_or("its answer says neither yes nor no", String::as_str);
            let found = format!("the gateway could not be asked about {target}: {why}");
            Check::fail(
                name,
                found,
                "`postern targets` lists what you may see; else ask the gateway's operators",
            )
        }
    }
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn verdict(version: &str) -> Verdict {
        judge_plugin(&Plugin::Is { path: "/x".into(), version: version.to_owned() }).verdict
    }

    #[test]
    fn plugins_are_judged_by_their_generation() {
        for (version, expected) in [
            (VERSION, Verdict::Ok),
            ("1.2.677.0", Verdict::Ok),
            ("1.2.0.0", Verdict::Ok),
            ("1.2.300.0", Verdict::Fail),
            ("1.2.889.0", Verdict::Warn),
            ("1.3.0.0", Verdict::Warn),
            ("custom", Verdict::Warn),
        ] {
            assert_eq!(verdict(version), expected, "{version}");
        }
        assert_eq!(judge_plugin(&Plugin::Missing).verdict, Verdict::Warn);
    }

    #[test]
    fn a_clock_that_is_off_is_found() {
        let now = datetime!(2026-11-22 10:15 UTC);
        for (date, expected) in [
            ("Sun, 22 Nov 2026 10:15:02 GMT", Verdict::Ok),
            ("Sun, 22 Nov 2026 10:17:00 GMT", Verdict::Warn),
            ("Sun, 22 Nov 2026 10:09:00 GMT", Verdict::Fail),
            ("yesterday", Verdict::Warn),
        ] {
            assert_eq!(clock(date, now).verdict, expected, "{date}");
        }
    }

    #[test]
    fn a_policy_that_was_not_asked_is_not_ok() {
        let target = Target::parse("i-0123456789abcdef0").unwrap();
        let asked = |answer| answered(&target, answer);
        let yes = serde_json::json!({"allowed": true, "sentence": "permitted by a"});
        assert_eq!(asked(Ok(yes)).verdict, Verdict::Ok);
        assert_eq!(asked(Ok(serde_json::json!({"allowed": false}))).verdict, Verdict::Fail);
        assert_eq!(asked(Ok(serde_json::json!({}))).verdict, Verdict::Fail);
        let check = asked(Err("HTTP status 503".to_owned()));
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(lines(&check).concat().contains("HTTP status 503"));
    }

    #[test]
    fn every_line_says_what_to_do() {
        let check = Check::fail("clock", "600 s\u{1b}[2J off", "set it");
        assert_eq!(lines(&check), ["FAIL  clock        600 s[2J off", "                   → set it"]);
    }
}
