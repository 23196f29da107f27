//! Which mode a port session has, by what both ends say they are.

use std::cmp::Ordering;

/// From this client on forwardings are multiplexed.
const MUX_CLIENT: &str = "1.1.70";
/// Above this agent they are.
const MUX_AGENT: &str = "3.0.196.0";
/// Above this client and this agent smux sends no keep-alives, which would
/// keep the service from seeing that a session is idle.
const QUIET_CLIENT: &str = "1.2.331.0";
const QUIET_AGENT: &str = "3.1.1511.0";

/// Up to this client standard error is not told from output.
const SEPARATE_CLIENT: &str = "1.2.295";

/// How a port session carries its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One connection at a time, its bytes as they are.
    Basic,
    /// Many connections, in smux.
    Mux {
        /// Whether smux tells every ten seconds that it lives.
        keep_alive: bool,
    },
}

impl Mode {
    /// The mode that the agent picks; only forwardings are multiplexed.
    ///
    /// The client decides for itself by the agent's version, so an agent that
    /// says it is old must be old.
    pub(super) fn of(forwards: bool, client: &str, agent: &str) -> Self {
        let mux = compare(client, MUX_CLIENT).is_ge() && compare(agent, MUX_AGENT).is_gt();
        let quiet = compare(client, QUIET_CLIENT).is_gt() && compare(agent, QUIET_AGENT).is_gt();
        if forwards && mux { Self::Mux { keep_alive: !quiet } } else { Self::Basic }
    }
}

/// Whether a client prints every stream as if it were output.
pub(super) fn cannot_separate(client: &str) -> bool {
    compare(client, SEPARATE_CLIENT).is_le()
}

/// Compares as the agent does: part by part, as numbers where both are.
fn compare(this: &str, other: &str) -> Ordering {
    let (mut these, mut others) = (this.split('.'), other.split('.'));
    loop {
        let order = match (these.next(), others.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(this), Some(other)) => match (this.parse::<u64>(), other.parse::<u64>()) {
                (Ok(this), Ok(other)) => this.cmp(&other),
                _ => this.cmp(other),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_follows_the_versions_of_both_ends() {
        const NEW: &str = "3.3.1957.0";
        let (loud, quiet) = (Mode::Mux { keep_alive: true }, Mode::Mux { keep_alive: false });
        for (forwards, client, agent, mode) in [
            (true, "1.2.764.0", NEW, quiet),
            (true, "1.2.332.0", NEW, quiet),
            (true, "1.2.331.0", NEW, loud),
            (true, "1.2.764.0", "3.1.1511.0", loud),
            (true, "1.2.0.0", NEW, loud),
            (true, "1.1.70.0", NEW, loud),
            (true, "1.1.70", NEW, loud),
            (true, "1.1.61.0", NEW, Mode::Basic),
            (true, "", NEW, Mode::Basic),
            (true, "1.2.764.0", "3.0.196.0", Mode::Basic),
            (false, "1.2.764.0", NEW, Mode::Basic),
        ] {
            assert_eq!(Mode::of(forwards, client, agent), mode, "{client} {agent}");
        }
    }
}
