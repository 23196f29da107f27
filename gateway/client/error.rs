//! Why the engineer's side cannot go on, each with what to do about it.

use std::io;
use std::path::Path;

use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use reqwest::Url;

use crate::proxy::{Proxies, Proxy, ProxyError};
use crate::session::printable;

/// Longest text of a foreign error that is shown, in characters.
const SHOWN_MAX: usize = 600;

/// What went wrong between an engineer and the gateway.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The AWS profile is missing or incomplete.
    #[error("{0}")]
    Profile(String),
    /// A CA bundle or certificate cannot be used.
    #[error("{0}")]
    Trust(String),
    /// No AWS identity to sign in with.
    #[error("no AWS credentials to sign in with: {0}")]
    Credentials(String),
    /// The gateway did not accept the sign-in.
    #[error("the gateway refused the sign-in: {0}")]
    SignIn(String),
    /// The gateway answered with an AWS error.
    #[error("{message} ({code})")]
    Api {
        /// The AWS error code.
        code: String,
        /// The gateway's sentence.
        message: String,
    },
    /// The gateway cannot be reached.
    #[error("cannot reach the gateway at {url}: {why}")]
    Unreachable {
        /// What was called.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The connection ended before there was an answer, or in it.
    #[error("the gateway at {url} broke off its answer: {why}; try again, its log says more")]
    BrokeOff {
        /// What was called.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The gateway answered something that makes no sense.
    #[error("the gateway gave an answer that makes no sense: {0}")]
    Answer(String),
    /// No machine is what was asked for.
    #[error("{0}")]
    Target(String),
    /// The data channel cannot go on.
    #[error("{0}")]
    Channel(String),
    /// A file or the terminal failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

impl ClientError {
    /// An error of the system while doing something to a file.
    pub fn io(doing: &str, path: &Path, error: io::Error) -> Self {
        Self::Io { what: format!("cannot {doing} {}", path.display()), error }
    }

    /// Whether a later try may succeed: nobody said no.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BrokeOff { .. } | Self::Answer(_) => true,
            Self::Api { code, .. } => matches!(
                code.as_str(),
                "InternalServerError" | "ServiceUnavailableException" | "ThrottlingException"
            ),
            _ => false,
        }
    }

    /// Maps what the SDK says to one sentence that is safe to show.
    pub fn from_sdk<E, R>(url: &str, error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        if let SdkError::ServiceError(context) = &error {
            let code = context.err().code().unwrap_or("unknown error");
            let message = context.err().message().unwrap_or("the gateway gave no reason");
            return Self::Api { code: shown(code), message: shown(message) };
        }
        let why = with_causes(&error);
        match why.contains("redentials") {
            true => Self::Credentials(no_keys(&error)),
            false => Self::unreachable(url, why),
        }
    }

    /// The network's words, with what to do about those that are known.
    pub(crate) fn unreachable(url: &str, mut why: String) -> Self {
        if why.contains("UnknownIssuer") {
            why.push_str(
                "; the certificate's CA is not trusted, set `ca_bundle` in the profile (or --ca-bundle)",
            );
        }
        match on_the_way(url) {
            Ok(Some(proxy)) => why.push_str(&format!("; the way there is through the proxy {proxy}")),
            Ok(None) => {}
            Err(error) => why.push_str(&format!("; {error}")),
        }
        Self::Unreachable { url: url.to_owned(), why }
    }
}

/// The proxy that the environment names for a URL.
fn on_the_way(url: &str) -> Result<Option<Proxy>, ProxyError> {
    let Ok(url) = Url::parse(url) else { return Ok(None) };
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
    Proxies::from_env().to(host, port)
}

/// Foreign text made safe for a terminal and cut to a sensible length.
pub(crate) fn shown(text: &str) -> String {
    printable(text).chars().take(SHOWN_MAX).collect()
}

/// Text of several lines made safe for a terminal, its lines kept.
pub(crate) fn shown_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines.join("\n").chars().take(SHOWN_MAX * 4).collect()
}

/// Why a source of keys gave none; of a process its last line.
///
/// The SDK puts the whole of what a process said into its error, twice.
pub(crate) fn no_keys(error: &dyn std::error::Error) -> String {
    let mut cause = Some(error);
    while let Some(this) = cause {
        if let Some((_, said)) = this.to_string().split_once("Stderr: ") {
            let mut lines = said.lines().map(str::trim).filter(|line| !line.starts_with("(ProviderError"));
            let last = lines.rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
            let last = last.strip_prefix("postern: ").unwrap_or(last);
            return format!("the profile's credential_process failed: {}", shown(last));
        }
        cause = this.source();
    }
    let why = with_causes(error);
    why.split(" (ProviderError(").next().unwrap_or_default().to_owned()
}

/// An error with all its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_process_that_gave_no_keys_the_last_line_is_told() {
        let said = "an error: Error retrieving credentials: external process exited with code 255. Stderr: \
                    WARN noise\npostern: sign in \u{1b}[2Jfirst\n (ProviderError(ProviderError { source: \"x\" }))";
        let told = no_keys(&io::Error::other(said));
        assert_eq!(told, "the profile's credential_process failed: sign in [2Jfirst");
        let none = no_keys(&io::Error::other("no keys (ProviderError(ProviderError { source: 1 }))"));
        assert_eq!(none, "no keys");
    }
}
