//! How the two ends of a port session talk, by what the handshake says.

use data_channel::HandshakeRequest;
use serde_json::Value;

use crate::client::channel::PORT_SESSION;

/// The value of `type` that means a listener on this side.
const LOCAL: &str = "LocalPortForwarding";
/// Agents above this one carry many connections in one session.
const MULTIPLEXED_ABOVE: [u32; 4] = [3, 0, 196, 0];
/// Agents above this one need no keep-alive in a multiplexed session.
const SILENT_ABOVE: [u32; 4] = [3, 1, 1511, 0];
/// Agents above this one end the session when the flag says so.
const FLAG_ABOVE: [u32; 4] = [2, 3, 722, 0];

/// How bytes of connections are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Many connections, each a stream of smux.
    Multiplexed {
        /// Whether an old agent has to be told that we are alive.
        keep_alive: bool,
    },
    /// One connection at a time, its bytes as they are.
    Basic,
    /// The standard streams of this program, as SSH wants them.
    Standard,
}

/// What a port session's document says, as the agent resolved it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// The port of the far side.
    pub port: String,
    /// The host of the far side, if it is not the target itself.
    pub host: String,
    /// The port to listen on; empty or 0 for any.
    pub local_port: String,
    /// The socket to listen on, if it is a unix socket.
    pub local_unix_socket: Option<String>,
}

/// Whether a handshake asks for a port session.
pub fn is_port(asked: &HandshakeRequest) -> bool {
    asked.session_type().is_some_and(|action| action.session_type == PORT_SESSION)
}

/// Whether an agent ends a session for the flag `TerminateSession`.
pub(super) fn knows_the_flag(agent: &str) -> bool {
    is_above(agent, FLAG_ABOVE)
}

impl Mode {
    /// The mode that the agent takes too, as the stock plugin works it out.
    pub fn of(asked: &HandshakeRequest) -> (Self, Properties) {
        let properties = asked.session_type().map(|action| action.properties).unwrap_or_default();
        let word = |name: &str| match properties.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let is_unix = word("localConnectionType") == "unix";
        let said = Properties {
            port: word("portNumber"),
            host: word("host"),
            local_port: word("localPortNumber"),
            local_unix_socket: is_unix.then(|| word("localUnixSocket")),
        };
        let agent = asked.agent_version.as_str();
        let mode = match word("type").as_str() {
            LOCAL if is_above(agent, MULTIPLEXED_ABOVE) => {
                Self::Multiplexed { keep_alive: !is_above(agent, SILENT_ABOVE) }
            }
            LOCAL => Self::Basic,
            _ => Self::Standard,
        };
        (mode, said)
    }
}

/// The stock plugin's comparison: four numbers, strictly greater, else no.
fn is_above(version: &str, than: [u32; 4]) -> bool {
    let parts: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    parts.is_ok_and(|parts| <[u32; 4]>::try_from(parts).is_ok_and(|parts| parts > than))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mode(agent: &str, properties: Value) -> Mode {
        Mode::of(&HandshakeRequest::new(agent, PORT_SESSION, properties)).0
    }

    #[test]
    fn the_mode_is_the_stock_plugin_s() {
        let local = || json!({"type": LOCAL, "portNumber": "80"});
        for (agent, expected) in [
            ("3.3.0.0", Mode::Multiplexed { keep_alive: false }),
            ("3.1.1511.1", Mode::Multiplexed { keep_alive: false }),
            ("3.1.1511.0", Mode::Multiplexed { keep_alive: true }),
            ("3.0.196.1", Mode::Multiplexed { keep_alive: true }),
            ("3.0.196.0", Mode::Basic),
            ("3.3.0", Mode::Basic),
            ("3.3.0.0.0", Mode::Basic),
            ("3.x.0.0", Mode::Basic),
            ("", Mode::Basic),
        ] {
            assert_eq!(mode(agent, local()), expected, "{agent}");
        }
        assert_eq!(mode("3.3.0.0", json!({"portNumber": "22"})), Mode::Standard);
        assert_eq!(mode("3.3.0.0", Value::Null), Mode::Standard);
    }

    #[test]
    fn properties_are_words_and_a_unix_socket_must_be_asked_for() {
        let properties = json!({"portNumber": 5432, "host": "db", "localPortNumber": "0", "localUnixSocket": "/s",
            "localConnectionType": "unix", "type": LOCAL});
        let (_, said) = Mode::of(&HandshakeRequest::new("3.3.0.0", PORT_SESSION, properties));
        let expected = Properties {
            port: "5432".to_owned(),
            host: "db".to_owned(),
            local_port: "0".to_owned(),
            local_unix_socket: Some("/s".to_owned()),
        };
        assert_eq!(said, expected);
        let tcp = json!({"localUnixSocket": "/s"});
        assert_eq!(Mode::of(&HandshakeRequest::new("3.3.0.0", PORT_SESSION, tcp)).1.local_unix_socket, None);
    }
}
