//! What a session carries, and where policy allowed it to go.

use std::fmt;

use data_channel::handshake::HandshakeRequest;
use serde_json::Value;

use super::flows::Fault;

/// Where the agent connects if its handshake names no host.
const LOCALHOST: &str = "localhost";
/// The session type of everything that carries a port.
const PORT: &str = "Port";

/// What a session carries, as it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carries {
    /// A terminal or the streams of a command.
    Terminal,
    /// Connections to one port.
    Port(Forward),
}

impl Carries {
    /// Where a port session goes.
    pub fn destination(&self) -> Option<Destination> {
        match self {
            Self::Terminal => None,
            Self::Port(forward) => Some(forward.destination.clone()),
        }
    }
}

/// The connections that a port session may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The only place they may go to.
    pub destination: Destination,
    /// Whether their bytes are recorded too.
    pub capture: bool,
    /// How many may be open at once.
    pub connections_max: usize,
}

/// A host and a port, written as policy sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    host: String,
    port: u16,
}

impl Destination {
    /// A destination; no host is the target itself.
    pub fn new(host: Option<&str>, port: u16) -> Self {
        let host = host.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        Self { host: if host.is_empty() { LOCALHOST.to_owned() } else { host }, port }
    }

    /// The host, lower case and without a final dot.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The session that a handshake asks for, once it is the allowed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Whether the document wants local port forwarding; SSH does not.
    pub(super) local_forwarding: bool,
}

/// Checks what the agent is about to do against what was allowed.
pub(super) fn check(allowed: &Destination, request: &HandshakeRequest) -> Result<Agreed, Fault> {
    let Some(action) = request.session_type() else {
        return Err(Fault::Handshake("the target's agent does not say what the session is"));
    };
    if action.session_type != PORT {
        return Err(Fault::Kind);
    }
    if request.kms_encryption().is_some() {
        return Err(Fault::Handshake("the target's agent wants to encrypt a port session"));
    }
    // The stock plugin reads an action it knows; two of them could differ.
    if request.requested_client_actions.len() != 1 {
        return Err(Fault::Handshake("the target's agent asks for more than a port session needs"));
    }
    let host = property(&action.properties, "host")?;
    let port = property(&action.properties, "portNumber")?;
    let named = port.as_deref().and_then(number).map(|port| Destination::new(host.as_deref(), port));
    if named.as_ref() != Some(allowed) {
        let host = host.unwrap_or_else(|| LOCALHOST.to_owned());
        let named = format!("{}:{}", host, port.unwrap_or_default());
        return Err(Fault::Destination {
            named: crate::session::printable(&named),
            allowed: allowed.clone(),
        });
    }
    let kind = property(&action.properties, "type")?;
    Ok(Agreed { local_forwarding: kind.as_deref() == Some("LocalPortForwarding") })
}

/// The only property of that name; the agent ignores case when it reads.
fn property(properties: &Value, name: &str) -> Result<Option<String>, Fault> {
    let Some(properties) = properties.as_object() else { return Ok(None) };
    let mut named = properties.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    let value = named.next().map(|(_, value)| value);
    if named.next().is_some() {
        return Err(Fault::Handshake("the target's agent names a property twice"));
    }
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(Fault::Handshake("the target's agent names no readable destination")),
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(kind: &str, properties: Value) -> HandshakeRequest {
        HandshakeRequest::new("3.3.0.0", kind, properties)
    }

    #[test]
    fn the_very_destination_that_was_allowed_passes() {
        let local = Destination::new(None, 22);
        let ssh = request("Port", json!({"portNumber": "22"}));
        assert_eq!(check(&local, &ssh), Ok(Agreed { local_forwarding: false }));
        let named = json!({"portNumber": "5432", "host": "DB.example.com.", "type": "LocalPortForwarding"});
        let remote = Destination::new(Some("db.Example.com"), 5432);
        assert_eq!(check(&remote, &request("Port", named)), Ok(Agreed { local_forwarding: true }));
    }

    #[test]
    fn another_host_or_port_is_named_in_the_refusal() {
        let allowed = Destination::new(Some("db.example.com"), 5432);
        for properties in [
            json!({"portNumber": "5433", "host": "db.example.com"}),
            json!({"portNumber": "5432", "host": "db2.example.com"}),
            json!({"portNumber": "5432"}),
            json!({"portNumber": "05432x", "host": "db.example.com"}),
            json!({"host": "db.example.com"}),
            Value::Null,
        ] {
            let error = check(&allowed, &request("Port", properties.clone())).unwrap_err();
            assert_eq!(error.reason(), "wrong_destination", "{properties}");
            assert!(error.to_string().contains("db.example.com:5432"), "{error}");
        }
    }

    #[test]
    fn a_property_that_the_agent_might_read_otherwise_is_refused() {
        let allowed = Destination::new(None, 22);
        let both = request("Port", json!({"portNumber": "22", "PortNumber": "23"}));
        assert_eq!(check(&allowed, &both).unwrap_err().reason(), "bad_handshake");
        let hidden = request("Port", json!({"portNumber": "22", "Host": "db"}));
        assert_eq!(check(&allowed, &hidden).unwrap_err().reason(), "wrong_destination");
    }

    #[test]
    fn a_port_session_is_a_port_session() {
        let allowed = Destination::new(None, 22);
        let shell = request("Standard_Stream", json!({"portNumber": "22"}));
        assert_eq!(check(&allowed, &shell).unwrap_err().reason(), "wrong_kind");
        let mut silent = shell.clone();
        silent.requested_client_actions.clear();
        assert_eq!(check(&allowed, &silent).unwrap_err().reason(), "bad_handshake");
    }
}
