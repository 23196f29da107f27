//! Which input messages are new: each is recorded once, none is missed.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use data_channel::message::Message;
use ring::hmac;

use super::InputKey;
use crate::recorder::INPUT_DIGEST;

/// Numbers that may be ahead of the first one missing.
///
/// The stock plugin keeps 10,000 messages; more is no client's burst.
const AHEAD_MAX: i64 = 12_000;
/// No client gets so far, in any number of years.
const NUMBER_MAX: i64 = 1 << 48;
/// Numbers remembered that the agent has not taken, about 80 bytes each.
///
/// A stock client forgets all but 10,000 of its own; beyond this a message
/// has to be sent again once the agent has taken some.
const UNTAKEN_MAX: usize = 24_000;
/// Where a message holds the SHA-256 of its payload.
const DIGEST: std::ops::Range<usize> = 80..112;

/// What an input message is to the record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Not seen before.
    Fresh,
    /// Not seen before, under a number that was.
    Other,
    /// Seen before, or of no effect at the agent.
    Repeat,
    /// Too far ahead of what is missing, or of what the agent has taken.
    TooEarly,
}

struct Seen {
    digest: Digest,
    /// An earlier process has recorded it, maybe under an older key.
    before: bool,
    taken: bool,
}

/// The input messages that the agent may still act upon.
///
/// Until the agent has taken a number, another payload under the same
/// number may be the one it acts upon, so a different one is new.
#[derive(Default)]
pub(super) struct TypedMessages {
    /// The lowest number never seen.
    next: i64,
    seen: BTreeMap<i64, Seen>,
    /// Below it an earlier process may have missed a number.
    unsure_below: i64,
    /// The first number to come says where the client is.
    adrift: bool,
    digests: Digests,
}

impl TypedMessages {
    /// Goes on after an earlier process that recorded these.
    ///
    /// What it did not record is new, wherever it comes in.
    pub(super) fn go_on(&mut self, recorded: BTreeMap<i64, Digest>) {
        let seen = |(number, digest)| (number, Seen { digest, before: true, taken: false });
        self.seen = recorded.into_iter().map(seen).collect();
        self.adrift = true;
    }

    /// Makes digests with the first key; the others are of earlier processes.
    pub(super) fn keyed(keys: &[InputKey]) -> Self {
        Self { digests: Digests::with(keys), ..Self::default() }
    }

    /// What a message says, so that nobody without the key can guess it.
    pub(super) fn digest(&self, message: &Message) -> Digest {
        self.digests.of(message)
    }

    /// Says what the message is, and remembers it.
    pub(super) fn arrival(&mut self, message: &Message) -> Typed {
        let sequence = message.sequence();
        if self.adrift {
            if sequence > NUMBER_MAX {
                return Typed::TooEarly;
            }
            (self.next, self.unsure_below, self.adrift) = (sequence, sequence, false);
        }
        if sequence > self.next.saturating_add(AHEAD_MAX) {
            return Typed::TooEarly;
        }
        let digest = self.digest(message);
        let full = self.seen.len() >= UNTAKEN_MAX && !self.forget_doubt();
        match self.seen.get(&sequence) {
            Some(seen) if seen.taken || seen.digest == digest => return Typed::Repeat,
            Some(seen) if seen.before && self.digests.had(message, &seen.digest) => return Typed::Repeat,
            Some(_) => return Typed::Other,
            None if sequence < self.next && sequence >= self.unsure_below => return Typed::Repeat,
            None if full => return Typed::TooEarly,
            None => {
                self.seen.insert(sequence, Seen { digest, before: false, taken: false });
                while self.seen.contains_key(&self.next) {
                    self.next += 1;
                }
            }
        }
        Typed::Fresh
    }

    /// The other message under a number passes too.
    pub(super) fn replace(&mut self, message: &Message) {
        let digest = self.digest(message);
        if let Some(seen) = self.seen.get_mut(&message.sequence()) {
            (seen.digest, seen.before) = (digest, false);
        }
    }

    /// The agent acknowledged the number.
    pub(super) fn taken(&mut self, sequence: i64) {
        if let Some(seen) = self.seen.get_mut(&sequence) {
            seen.taken = true;
        }
        while let Some((first, seen)) = self.seen.range(self.unsure_below..self.next).next() {
            let first = *first;
            if !seen.taken {
                break;
            }
            self.seen.remove(&first);
        }
    }

    /// Makes room among what is in doubt; false if nothing is.
    ///
    /// It is recorded again then, rather than not at all.
    fn forget_doubt(&mut self) -> bool {
        let doubtful = self.seen.first_entry().filter(|first| *first.key() < self.unsure_below);
        doubtful.map(OccupiedEntry::remove).is_some()
    }
}

/// What a message says, so short that it can be noted.
type Digest = [u8; INPUT_DIGEST];

/// How a message is told from another.
///
/// A recording holds the digests of a port session, whose bytes are nobody's
/// to know: so they are keyed, and short words cannot be tried. Those of a
/// terminal are kept in memory and are plain, as what they are of is recorded.
#[derive(Default)]
struct Digests {
    keys: Vec<hmac::Key>,
}

impl Digests {
    fn with(keys: &[InputKey]) -> Self {
        Self { keys: keys.iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)).collect() }
    }

    fn of(&self, message: &Message) -> Digest {
        self.keys.first().map_or_else(|| plain(message), |key| keyed(key, message))
    }

    /// Whether an earlier process made this of the same message: with any of
    /// the keys, or as builds did that had none.
    fn had(&self, message: &Message, digest: &Digest) -> bool {
        plain(message) == *digest || self.keys.iter().any(|key| keyed(key, message) == *digest)
    }
}

fn plain(message: &Message) -> Digest {
    message.raw().get(DIGEST).and_then(|bytes| bytes.first_chunk().copied()).unwrap_or_default()
}

fn keyed(key: &hmac::Key, message: &Message) -> Digest {
    let tag = hmac::sign(key, message.raw().get(DIGEST).unwrap_or_default());
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use data_channel::message::{Draft, MessageType};
    use data_channel::payload::PayloadType;
    use uuid::Uuid;

    use super::*;

    fn message(sequence: i64, payload: &[u8]) -> Message {
        let draft = Draft {
            message_type: MessageType::InputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            id: Uuid::new_v4(),
            payload_type: PayloadType::Output,
            payload,
        };
        Message::parse(draft.encode()).unwrap()
    }

    #[test]
    fn a_repeat_is_not_recorded_again() {
        let mut typed = TypedMessages::default();
        assert_eq!(typed.arrival(&message(0, b"ls")), Typed::Fresh);
        assert_eq!(typed.arrival(&message(0, b"ls")), Typed::Repeat);
        typed.taken(0);
        assert_eq!(typed.arrival(&message(0, b"rm")), Typed::Repeat);
        assert!(typed.seen.is_empty());
    }

    #[test]
    fn a_jump_ahead_hides_nothing_that_follows() {
        let mut typed = TypedMessages::default();
        assert_eq!(typed.arrival(&message(1_000_000_000, b"x")), Typed::TooEarly);
        assert_eq!(typed.arrival(&message(5, b"x")), Typed::Fresh);
        for sequence in 0..5 {
            assert_eq!(typed.arrival(&message(sequence, b"x")), Typed::Fresh);
        }
        assert_eq!(typed.arrival(&message(5, b"x")), Typed::Repeat);
    }

    #[test]
    fn other_bytes_under_a_number_that_the_agent_has_not_taken_are_recorded() {
        let mut typed = TypedMessages::default();
        assert_eq!(typed.arrival(&message(0, b"harmless")), Typed::Fresh);
        assert_eq!(typed.arrival(&message(0, b"rm -rf /")), Typed::Other);
    }

    #[test]
    fn what_the_agent_never_takes_costs_a_bounded_amount() {
        let mut typed = TypedMessages::default();
        let fresh = (0..50_000).filter(|sequence| typed.arrival(&message(*sequence, b"x")) == Typed::Fresh);
        assert_eq!(fresh.count(), UNTAKEN_MAX);
        typed.taken(0);
        assert_eq!(typed.arrival(&message(UNTAKEN_MAX as i64, b"x")), Typed::Fresh);
    }

    #[test]
    fn after_a_restart_what_was_recorded_is_a_repeat_and_all_else_is_new() {
        let mut before = TypedMessages::default();
        before.arrival(&message(5, b"ls"));
        let digest = before.seen.remove(&5).unwrap().digest;
        let mut typed = TypedMessages::default();
        typed.go_on([(5, digest)].into());
        assert_eq!(typed.arrival(&message(20_000, b"x")), Typed::Fresh);
        typed.taken(20_000);
        assert_eq!(typed.arrival(&message(5, b"ls")), Typed::Repeat);
        assert_eq!(typed.arrival(&message(5, b"rm")), Typed::Other);
        assert_eq!(typed.arrival(&message(6, b"y")), Typed::Fresh);
        assert_eq!(typed.arrival(&message(6, b"y")), Typed::Repeat);
        for sequence in 20_001..40_000 {
            assert_eq!(typed.arrival(&message(sequence, b"z")), Typed::Fresh);
            typed.taken(sequence);
        }
        assert_eq!(typed.arrival(&message(30_000, b"z")), Typed::Repeat);
        assert!(typed.seen.len() < 10);
    }

    #[test]
    fn the_digest_of_a_port_session_is_of_no_use_without_its_key() {
        let secret = message(0, b"AUTH hunter2");
        let (old, new) = (TypedMessages::keyed(&[[1; 32]]), TypedMessages::keyed(&[[2; 32], [1; 32]]));
        let noted = old.digest(&secret);
        assert_eq!(noted, TypedMessages::keyed(&[[1; 32]]).digest(&secret), "after a restart it is the same");
        assert!(noted != plain(&secret) && noted != new.digest(&secret));
        // The key ring has another first key, or the build before noted plain ones.
        for noted in [noted, new.digest(&secret), plain(&secret)] {
            let mut typed = TypedMessages::keyed(&[[2; 32], [1; 32]]);
            typed.go_on([(0, noted)].into());
            assert_eq!(typed.arrival(&secret), Typed::Repeat);
            assert_eq!(typed.arrival(&message(0, b"AUTH hunter3")), Typed::Other);
        }
        let mut typed = TypedMessages::keyed(&[[3; 32]]);
        typed.go_on([(0, noted)].into());
        assert_eq!(typed.arrival(&secret), Typed::Other, "without its key nobody can tell");
    }

    #[test]
    fn what_is_in_doubt_makes_room_for_what_is_typed() {
        let recorded = (0..UNTAKEN_MAX as i64).map(|number| (number, [0; INPUT_DIGEST]));
        let mut typed = TypedMessages::default();
        typed.go_on(recorded.collect());
        for sequence in 100_000..100_100 {
            assert_eq!(typed.arrival(&message(sequence, b"x")), Typed::Fresh);
        }
        assert_eq!(typed.seen.len(), UNTAKEN_MAX);
    }

    #[test]
    fn what_the_agent_has_taken_costs_no_memory() {
        let mut typed = TypedMessages::default();
        for sequence in 0..1000 {
            typed.arrival(&message(sequence, b"x"));
            typed.taken(sequence);
        }
        assert!(typed.seen.is_empty());
    }
}
