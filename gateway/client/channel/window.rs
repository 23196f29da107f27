//! How much input may be on its way to the far side at once.

use std::time::Duration;

use data_channel::Outgoing;

/// Most messages of keys without acknowledge: 256 KB, half a second of an
/// agent, so that Ctrl-C is never far behind a paste. A port begins there.
const KEYS: usize = 256;
/// Most messages of a port without acknowledge: 4096 of 1.1 KB are 4.7 MB,
/// which is 45 MB/s over a round trip of a tenth of a second.
const PORT: usize = 4096;
/// Time that messages may wait on the way before a window grows no more.
const GROW_BELOW: Duration = Duration::from_millis(200);
/// Time on the way that makes a window shrink: well under the second after
/// which everything would be sent again.
const SHRINK_ABOVE: Duration = Duration::from_millis(400);

/// How many messages may wait for an acknowledge.
///
/// A port's window doubles within a round trip while the far side keeps up,
/// and shrinks when messages queue somewhere on the way: so the far side sets
/// the pace, not the distance to it.
#[derive(Debug)]
pub struct Window {
    messages: usize,
    most: usize,
    /// The fastest round trip so far; what is above it is queueing.
    fastest: Option<Duration>,
    /// It shrinks once a round trip.
    shrinks_from: Duration,
}

impl Window {
    /// Few messages, always: a person waits for the answer.
    pub fn for_keys() -> Self {
        Self { messages: KEYS, most: KEYS, fastest: None, shrinks_from: Duration::ZERO }
    }

    /// As many as the far side can take in.
    pub fn for_a_port() -> Self {
        Self { most: PORT, ..Self::for_keys() }
    }

    /// The most that it can grow to, messages.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Whether another message may go; one place is kept for a resize.
    pub fn has_room(&self, outgoing: &Outgoing) -> bool {
        outgoing.waiting() + 1 < self.messages && !outgoing.is_full()
    }

    /// Whether at least half of it is used, so that more could be.
    ///
    /// Acknowledges come in bunches: only the first of one finds it full.
    pub fn is_used(&self, outgoing: &Outgoing) -> bool {
        outgoing.waiting() * 2 >= self.messages
    }

    /// A message was acknowledged after so long, the window used or not.
    pub fn acknowledged(&mut self, after: Duration, was_used: bool, now: Duration) {
        let fastest = self.fastest.map_or(after, |fastest| fastest.min(after));
        self.fastest = Some(fastest);
        let queued = after.saturating_sub(fastest);
        if was_used && queued < GROW_BELOW {
            self.messages = (self.messages + 1).min(self.most);
        } else if queued > SHRINK_ABOVE && now >= self.shrinks_from {
            self.messages = (self.messages / 4 * 3).max(KEYS);
            self.shrinks_from = now + after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_port_s_window_grows_while_the_far_side_keeps_up() {
        let mut window = Window::for_a_port();
        for _ in 0..10_000 {
            window.acknowledged(ms(80), true, ms(0));
        }
        assert_eq!(window.messages, PORT);
    }

    #[test]
    fn it_does_not_grow_unused_and_shrinks_once_a_round_trip() {
        let mut window = Window::for_a_port();
        window.acknowledged(ms(10), false, ms(0));
        assert_eq!(window.messages, KEYS);
        window.messages = 4000;
        for now in [1000, 1001, 1400, 1601] {
            window.acknowledged(ms(600), true, ms(now));
        }
        assert_eq!(window.messages, 4000 / 4 * 3 / 4 * 3);
    }

    #[test]
    fn a_far_away_machine_is_not_a_slow_one() {
        let mut window = Window::for_a_port();
        for _ in 0..10_000 {
            window.acknowledged(ms(700), true, ms(0));
        }
        assert_eq!(window.messages, PORT);
    }

    #[test]
    fn keys_never_get_more() {
        let mut window = Window::for_keys();
        for _ in 0..1000 {
            window.acknowledged(ms(1), true, ms(0));
        }
        assert_eq!(window.messages, KEYS);
    }
}
