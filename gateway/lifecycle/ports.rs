//! What a session carries: parsed once, from what policy was asked about.

use std::collections::BTreeMap;

use crate::broker::Plan;
use crate::error::{ApiError, Blame, Code};
use crate::policy::Obligations;
use crate::relay::{Carries, Destination, Forward};
use crate::session::SessionKind;

/// Port of the SSH document if none is named.
const SSH_PORT: u16 = 22;
/// Port of the port forwarding documents if none is named.
const FORWARDED_PORT: u16 = 80;

/// Parameters of a document, under the names of AWS's own.
type Given = BTreeMap<String, Vec<String>>;

/// A terminal, or the one place that a port session may go to.
///
/// Policy reads the same parameters by the same rules (`policy::entities`),
/// so what was decided on is what the relay holds the agent to.
pub(super) fn carries(
    plan: &Plan,
    obligations: &Obligations,
    connections_max: usize,
) -> Result<Carries, ApiError> {
    let (host, default) = match plan.kind {
        SessionKind::Shell | SessionKind::InteractiveCommand | SessionKind::NonInteractiveCommand => {
            return Ok(Carries::Terminal);
        }
        SessionKind::Ssh => (None, SSH_PORT),
        SessionKind::Port => (None, FORWARDED_PORT),
        SessionKind::PortToHost => (Some(host(&plan.parameters)?), FORWARDED_PORT),
    };
    if obligations.read_only {
        // A connection of which one end is silenced is none.
        let sentence = "the policy lets you only read here, and a port or SSH session cannot be read only";
        return Err(ApiError::new(Code::AccessDenied, Blame::Policy, sentence));
    }
    let destination = Destination::new(host, port(&plan.parameters, default)?);
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

fn host(given: &Given) -> Result<&str, ApiError> {
    let host = single(given, "host")?.filter(|host| !host.trim_end_matches('.').is_empty());
    host.ok_or_else(|| wrong("parameter \"host\" must be given once"))
}

fn port(given: &Given, default: u16) -> Result<u16, ApiError> {
    let Some(text) = single(given, "portNumber")? else { return Ok(default) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|port| digits && *port > 0);
    number.ok_or_else(|| wrong("parameter \"portNumber\" must be one number from 1 to 65535"))
}

fn single<'a>(given: &'a Given, name: &str) -> Result<Option<&'a str>, ApiError> {
    match given.get(name).map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([value]) => Ok(Some(value)),
        Some(_) => Err(wrong("a parameter must be given once")),
    }
}

fn wrong(sentence: &str) -> ApiError {
    ApiError::client(Code::InvalidParameters, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: SessionKind, parameters: &[(&str, &str)]) -> Plan {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
        Plan { kind, parameters: parameters.collect() }
    }

    fn destination(kind: SessionKind, parameters: &[(&str, &str)]) -> Result<String, ApiError> {
        match carries(&plan(kind, parameters), &Obligations::default(), 1)? {
            Carries::Terminal => Ok("terminal".to_owned()),
            Carries::Port(forward) => Ok(forward.destination.to_string()),
        }
    }

    #[test]
    fn a_destination_is_read_as_policy_reads_it() {
        for (kind, parameters, expected) in [
            (SessionKind::Ssh, &[][..], "localhost:22"),
            (SessionKind::Port, &[], "localhost:80"),
            (SessionKind::Port, &[("portNumber", "05432")], "localhost:5432"),
            (
                SessionKind::PortToHost,
                &[("host", "DB.Example.com."), ("portNumber", "5432")],
                "db.example.com:5432",
            ),
            (SessionKind::PortToHost, &[("host", "fd00::1")], "[fd00::1]:80"),
            (SessionKind::Shell, &[("portNumber", "x")], "terminal"),
        ] {
            assert_eq!(destination(kind, parameters).unwrap(), expected, "{kind:?}");
        }
    }

    #[test]
    fn what_is_no_port_or_no_host_is_refused() {
        for (kind, parameters) in [
            (SessionKind::Ssh, &[("portNumber", "0")][..]),
            (SessionKind::Ssh, &[("portNumber", "+22")]),
            (SessionKind::Ssh, &[("portNumber", "65536")]),
            (SessionKind::PortToHost, &[("portNumber", "80")]),
            (SessionKind::PortToHost, &[("host", ".")]),
        ] {
            let error = destination(kind, parameters).unwrap_err();
            assert_eq!(error.code, Code::InvalidParameters, "{kind:?} {parameters:?}");
        }
        let mut twice = plan(SessionKind::Ssh, &[]);
        twice.parameters.insert("portNumber".to_owned(), vec!["22".to_owned(), "23".to_owned()]);
        assert!(carries(&twice, &Obligations::default(), 1).is_err());
    }
}
