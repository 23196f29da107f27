//! The argv and environment contract of `session-manager-plugin`.

use serde::Deserialize;

use crate::client::channel::CLIENT_VERSION;
use crate::client::{ClientError, Opened};
use crate::session::{Document, SessionKind};

/// The name under which the AWS CLI starts us.
pub const NAME: &str = "session-manager-plugin";
/// The version that we claim: the AWS CLI passes the session in a variable
/// from 1.2.497 on, AWS supports 1.2.764 and later.
pub const VERSION: &str = CLIENT_VERSION;
/// How names of variables that hold a session begin.
pub const RESPONSE_VARIABLE: &str = "AWS_SSM_START_SESSION_RESPONSE";

/// What the AWS CLI asks for.
pub enum Asked {
    /// No arguments: say that it is installed.
    Installed,
    /// `--version`.
    Version,
    /// Something that only another plugin knows.
    Unknown,
    /// A session is to be carried.
    Start(Box<Start>),
}

/// A session that the AWS CLI has started.
pub struct Start {
    /// What opens its data channel.
    pub opened: Opened,
    /// The region of the calls that resume and end it.
    pub region: String,
    /// The profile that the person named, if any.
    pub profile: Option<String>,
    /// What it carries; `None` if only its handshake tells.
    pub kind: Option<SessionKind>,
    /// Where the calls that resume and end it go.
    pub endpoint: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    session_id: String,
    token_value: String,
    stream_url: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    document_name: Option<String>,
}

/// Reads the arguments; `variable` gives what a variable holds.
pub fn parse(args: &[String], variable: impl Fn(&str) -> Option<String>) -> Result<Asked, ClientError> {
    let arg = |at: usize| args.get(at).map(String::as_str);
    match (args.len(), arg(1)) {
        (0 | 1, _) => return Ok(Asked::Installed),
        (2, Some("--version")) => return Ok(Asked::Version),
        (2 | 3, _) => return Ok(Asked::Unknown),
        _ if arg(3) != Some("StartSession") => return Ok(Asked::Unknown),
        _ => {}
    }
    let first = arg(1).unwrap_or_default();
    let response = match first.starts_with(RESPONSE_VARIABLE) {
        true => {
            variable(first).ok_or_else(|| ClientError::Channel(format!("the variable {first} is not set")))?
        }
        false => first.to_owned(),
    };
    let unusable =
        |what: &str| ClientError::Channel(format!("the AWS CLI passed {what} that cannot be read"));
    let response: Response = serde_json::from_str(&response).map_err(|_| unusable("a session"))?;
    let given = |text: &&str| !text.is_empty();
    let request: Request = match arg(5).filter(given) {
        Some(text) => serde_json::from_str(text).map_err(|_| unusable("a request"))?,
        None => Request::default(),
    };
    Ok(Asked::Start(Box::new(Start {
        opened: Opened {
            session_id: response.session_id,
            stream_url: response.stream_url,
            token: response.token_value,
        },
        region: arg(2).unwrap_or_default().to_owned(),
        profile: arg(4).filter(given).map(str::to_owned),
        kind: kind_of(request.document_name.as_deref()),
        endpoint: arg(6).filter(given).map(str::to_owned),
    })))
}

/// A document of the account's own may be anything.
fn kind_of(document: Option<&str>) -> Option<SessionKind> {
    match document {
        Some(name) => Document::parse(name).ok()?.known_kind(),
        None => Some(SessionKind::Shell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str = r#"{"SessionId":"s-1","TokenValue":"secret","StreamUrl":"wss://gw/x"}"#;

    fn parse_words(words: &[&str]) -> Result<Asked, ClientError> {
        let args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&args, |name| (name == "AWS_SSM_START_SESSION_RESPONSE").then(|| RESPONSE.to_owned()))
    }

    fn start(words: &[&str]) -> Start {
        match parse_words(words) {
            Ok(Asked::Start(start)) => *start,
            _ => panic!("{words:?} is not a start"),
        }
    }

    #[test]
    fn the_session_comes_in_a_variable_or_as_an_argument() {
        let request = r#"{"Target":"i-1","DocumentName":"AWS-StartInteractiveCommand"}"#;
        for first in [RESPONSE, "AWS_SSM_START_SESSION_RESPONSE"] {
            let start = start(&[NAME, first, "eu-west-1", "StartSession", "gw", request, "https://gw"]);
            assert_eq!(start.opened.token, "secret");
            assert_eq!((start.region.as_str(), start.profile.as_deref()), ("eu-west-1", Some("gw")));
            assert_eq!(start.kind, Some(SessionKind::InteractiveCommand));
            assert_eq!(start.endpoint.as_deref(), Some("https://gw"));
        }
    }

    #[test]
    fn an_old_cli_passes_four_arguments_and_an_empty_profile_is_none() {
        let old = start(&[NAME, RESPONSE, "us-east-1", "StartSession"]);
        assert_eq!((old.profile, old.endpoint, old.kind), (None, None, Some(SessionKind::Shell)));
        let unnamed = start(&[NAME, RESPONSE, "us-east-1", "StartSession", "", "{\"Target\":\"i-1\"}", ""]);
        assert_eq!((unnamed.profile, unnamed.endpoint), (None, None));
    }

    #[test]
    fn a_document_of_the_account_s_own_may_be_anything() {
        let kind = |name: &str| {
            let request = format!(r#"{{"Target":"i-1","DocumentName":"{name}"}}"#);
            start(&[NAME, RESPONSE, "r", "StartSession", "", &request, ""]).kind
        };
        assert_eq!(kind("SSM-SessionManagerRunShell"), Some(SessionKind::Shell));
        assert_eq!(kind("AWS-StartSSHSession"), Some(SessionKind::Ssh));
        assert_eq!(kind("Our-Jump-Host"), None);
    }

    #[test]
    fn other_calls_are_told_apart() {
        assert!(matches!(parse_words(&[NAME]), Ok(Asked::Installed)));
        assert!(matches!(parse_words(&[NAME, "--version"]), Ok(Asked::Version)));
        for words in [&[NAME, "x"][..], &[NAME, "x", "y"], &[NAME, RESPONSE, "r", "StopSession"]] {
            assert!(matches!(parse_words(words), Ok(Asked::Unknown)), "{words:?}");
        }
    }

    #[test]
    fn an_error_never_holds_the_token() {
        let broken = RESPONSE.replace('}', "");
        for first in [broken.as_str(), "AWS_SSM_START_SESSION_RESPONSE_2"] {
            let Err(error) = parse_words(&[NAME, first, "r", "StartSession", "", "{}", ""]) else {
                panic!("{first} was accepted")
            };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_version_is_newer_than_the_cli_and_aws_ask_for() {
        let parts: Vec<u32> = VERSION.split('.').map(|part| part.parse().unwrap()).collect();
        assert!(parts.len() == 4 && parts.as_slice() > [1, 2, 764, 0].as_slice());
    }
}
