//! Which mode each end takes, by the version that the other one gave.

use data_channel::handshake::HandshakeResponse;
use serde_json::{Map, Value};

use super::Fault;
use crate::recorder::Mode;

/// The plugin multiplexes with agents newer than this.
const AGENT_WITHOUT: [u64; 4] = [3, 0, 196, 0];
/// The agent multiplexes with clients from this one on.
const CLIENT_WITH: [u64; 3] = [1, 1, 70];
/// The field of the answer that the agent goes by.
const CLIENT_VERSION: &str = "ClientVersion";

/// The client's version, read so that the agent cannot read another one.
pub(super) fn client_version(payload: &[u8]) -> Result<String, Fault> {
    let unreadable = Fault::Handshake("the client's handshake cannot be read");
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(payload) else { return Err(unreadable) };
    // The agent's JSON ignores case, also that of letters beyond ASCII.
    let twin =
        |key: &String| !key.is_ascii() || key != CLIENT_VERSION && key.eq_ignore_ascii_case(CLIENT_VERSION);
    if fields.keys().any(twin) {
        return Err(unreadable);
    }
    // A field named twice is an error here and the last one counts there.
    HandshakeResponse::parse(payload).map(|answer| answer.client_version).map_err(|_| unreadable)
}

/// How both ends will carry connections, if they agree.
///
/// Each decides for itself: `ssm-protocol.md` 6.1.
pub(super) fn mode(local_forwarding: bool, agent: &str, client: &str) -> Result<Mode, Fault> {
    if !local_forwarding {
        return Ok(Mode::Basic);
    }
    let disagree = || {
        let printable = crate::session::printable;
        Fault::Versions { agent: printable(agent), client: printable(client) }
    };
    let agent_wants = numbers(client).ok_or_else(disagree)? >= CLIENT_WITH.to_vec();
    let client_wants = numbers(agent).is_some_and(|agent| agent.len() == 4 && agent > AGENT_WITHOUT.to_vec());
    match (agent_wants, client_wants) {
        (true, true) => Ok(Mode::Multiplexed),
        (false, false) => Ok(Mode::Basic),
        _ => Err(disagree()),
    }
}

/// The numbers of a version; anything else is compared as text somewhere.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
    version.split('.').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_multiplex_when_both_are_new_enough() {
        assert_eq!(mode(true, "3.3.0.0", "1.2.677.0"), Ok(Mode::Multiplexed));
        assert_eq!(mode(true, "3.0.196.1", "1.1.70"), Ok(Mode::Multiplexed));
        assert_eq!(mode(true, "3.0.196.0", "1.1.69.9"), Ok(Mode::Basic));
        assert_eq!(mode(false, "3.3.0.0", "nonsense"), Ok(Mode::Basic));
    }

    #[test]
    fn ends_that_would_not_understand_each_other_are_told_apart() {
        for (agent, client) in
            [("3.0.196.0", "1.2.677.0"), ("3.3.0.0", "1.1.69.0"), ("3.3.0", "1.2.677.0"), ("", "1.2.677.0")]
        {
            let error = mode(true, agent, client).unwrap_err();
            assert_eq!(error.reason(), "version_mismatch", "{agent} and {client}");
        }
        for client in ["", "1.2.x", "1.-2.3", "1.2.677.0-beta"] {
            assert!(mode(true, "3.3.0.0", client).is_err(), "{client:?} was read");
        }
    }

    #[test]
    fn a_version_that_may_be_read_in_two_ways_is_refused() {
        let version = |payload: &str| client_version(payload.as_bytes());
        assert_eq!(version(r#"{"ClientVersion":"1.2.677.0","Errors":null}"#).unwrap(), "1.2.677.0");
        for payload in [
            r#"{"ClientVersion":"1.2.677.0","clientversion":"1.0.0.0"}"#,
            r#"{"ClientVersion":"1.2.677.0","ClientVersion":"1.0.0.0"}"#,
            r#"{"ClientVersion":"1.2.677.0","ClientVer\u017fion":"1.0.0.0"}"#,
            "[]",
            "",
        ] {
            assert_eq!(version(payload).unwrap_err().reason(), "bad_handshake", "{payload}");
        }
    }
}
