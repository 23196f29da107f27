//! What a session carries: parsed once, from what policy was asked about.

use crate::error::{ApiError, Code};
use crate::policy::Obligations;
use crate::relay::{Carries, Destination, Forward};
use crate::session::{SessionKind, SessionRequest};

/// Port of the SSH document if none is named.
const SSH_PORT: u16 = 22;
/// Port of the port forwarding documents if none is named.
const FORWARDED_PORT: u16 = 80;

/// A terminal, or the one place that a port session may go to.
///
/// Policy reads the same parameters by the same rules (`policy::entities`),
/// so what was decided on is what the relay holds the agent to.
pub(super) fn carries(
    request: &SessionRequest,
    obligations: &Obligations,
    connections_max: usize,
) -> Result<Carries, ApiError> {
    let (host, default) = match request.document.kind() {
        SessionKind::Shell | SessionKind::InteractiveCommand | SessionKind::NonInteractiveCommand => {
            return Ok(Carries::Terminal);
        }
        SessionKind::Ssh => (None, SSH_PORT),
        SessionKind::Port => (None, FORWARDED_PORT),
        SessionKind::PortToHost => (Some(host(request)?), FORWARDED_PORT),
    };
    let destination = Destination::new(host, port(request, default)?);
    Ok(Carries::Port(Forward { destination, capture: obligations.capture_traffic, connections_max }))
}

/// What the recording of such a session holds, as its header says.
pub(super) fn content(carries: &Carries) -> &'static str {
    match carries {
        Carries::Terminal => "terminal",
        Carries::Port(forward) if forward.capture => "flows+traffic",
        Carries::Port(_) => "flows",
    }
}

fn host(request: &SessionRequest) -> Result<&str, ApiError> {
    let host = single(request, "host")?.filter(|host| !host.trim_end_matches('.').is_empty());
    host.ok_or_else(|| wrong("parameter \"host\" must be given once"))
}

fn port(request: &SessionRequest, default: u16) -> Result<u16, ApiError> {
    let Some(text) = single(request, "portNumber")? else { return Ok(default) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|port| digits && *port > 0);
    number.ok_or_else(|| wrong("parameter \"portNumber\" must be one number from 1 to 65535"))
}

fn single<'a>(request: &'a SessionRequest, name: &str) -> Result<Option<&'a str>, ApiError> {
    match request.parameters.get(name).map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([value]) => Ok(Some(value)),
        Some(_) => Err(wrong("a parameter must be given once")),
    }
}

fn wrong(sentence: &str) -> ApiError {
    ApiError::client(Code::Validation, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Document, Target};

    fn request(document: &str, parameters: &[(&str, &str)]) -> SessionRequest {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
        SessionRequest {
            target: Target::parse("i-0123456789abcdef0").unwrap(),
            document: Document::parse(document).unwrap(),
            parameters: parameters.collect(),
            reason: None,
        }
    }

    fn destination(document: &str, parameters: &[(&str, &str)]) -> Result<String, ApiError> {
        match carries(&request(document, parameters), &Obligations::default(), 1)? {
            Carries::Terminal => Ok("terminal".to_owned()),
            Carries::Port(forward) => Ok(forward.destination.to_string()),
        }
    }

    #[test]
    fn a_destination_is_read_as_policy_reads_it() {
        let to_host = "AWS-StartPortForwardingSessionToRemoteHost";
        for (document, parameters, expected) in [
            ("AWS-StartSSHSession", &[][..], "localhost:22"),
            ("AWS-StartPortForwardingSession", &[], "localhost:80"),
            ("AWS-StartPortForwardingSession", &[("portNumber", "05432")], "localhost:5432"),
            (to_host, &[("host", "DB.Example.com."), ("portNumber", "5432")], "db.example.com:5432"),
            (to_host, &[("host", "fd00::1")], "[fd00::1]:80"),
            ("SSM-SessionManagerRunShell", &[("portNumber", "x")], "terminal"),
        ] {
            assert_eq!(destination(document, parameters).unwrap(), expected, "{document}");
        }
    }

    #[test]
    fn what_is_no_port_or_no_host_is_refused() {
        let to_host = "AWS-StartPortForwardingSessionToRemoteHost";
        for (document, parameters) in [
            ("AWS-StartSSHSession", &[("portNumber", "0")][..]),
            ("AWS-StartSSHSession", &[("portNumber", "+22")]),
            ("AWS-StartSSHSession", &[("portNumber", "65536")]),
            (to_host, &[("portNumber", "80")]),
            (to_host, &[("host", ".")]),
        ] {
            let error = destination(document, parameters).unwrap_err();
            assert_eq!(error.code, Code::Validation, "{document} {parameters:?}");
        }
        let mut twice = request("AWS-StartSSHSession", &[]);
        twice.parameters.insert("portNumber".to_owned(), vec!["22".to_owned(), "23".to_owned()]);
        assert!(carries(&twice, &Obligations::default(), 1).is_err());
    }
}
