//! Challenges: random, bound to a peer, answered once and soon.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::IdentityError;
use super::key_ring::{KeyRing, TAG_LENGTH, random};
use super::sources::Sources;
use super::spent::Spent;

/// How long a challenge may be answered; a client answers at once.
const LIFE: Duration = Duration::minutes(2);
/// Challenges answered from one source in two minutes; an office shares an
/// address.
const PER_SOURCE: u32 = 120;
/// Bytes of a challenge: its end, what makes it unique, and our tag.
const END_LENGTH: usize = 4;
const RANDOM_LENGTH: usize = 12;
/// What the key ring tags challenges for.
const PURPOSE: &str = "challenge";

/// A challenge as it is handed to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Challenge {
    /// 32 bytes that nobody can guess, base64url.
    pub challenge: String,
    /// The gateway's URL, which must be the one the client knows.
    pub server: String,
    /// Seconds left to answer.
    pub expires_in: u32,
}

/// Makes challenges, and remembers those that were answered.
///
/// A challenge says by its tag whom it was made for and until when, so an
/// open one takes no memory, and whoever asks for many is in nobody's way.
pub(super) struct Challenges {
    server: String,
    ring: Arc<KeyRing>,
    spent: Spent,
    sources: Sources,
}

impl Challenges {
    pub(super) fn new(server: String, ring: Arc<KeyRing>) -> Self {
        Self { server, ring, spent: Spent::default(), sources: Sources::new(PER_SOURCE) }
    }

    pub(super) fn issue(&self, peer: IpAddr, now: OffsetDateTime) -> Result<Challenge, IdentityError> {
        let until = u32::try_from((now + LIFE).unix_timestamp()).map_err(|_| IdentityError::NotSealed)?;
        let (end, unique) = (until.to_be_bytes(), random::<RANDOM_LENGTH>());
        let tag = self.ring.tag(PURPOSE, &tagged(end, unique, peer)).ok_or(IdentityError::NotSealed)?;
        let challenge = URL_SAFE_NO_PAD.encode([end.as_slice(), &unique, &tag].concat());
        let expires_in = u32::try_from(LIFE.whole_seconds()).unwrap_or_default();
        Ok(Challenge { challenge, server: self.server.clone(), expires_in })
    }

    /// Spends a challenge; whatever comes of it, it is never good again.
    pub(super) fn spend(
        &self,
        challenge: &str,
        peer: IpAddr,
        now: OffsetDateTime,
    ) -> Result<(), IdentityError> {
        let until = self
            .until(challenge, peer)
            .ok_or(IdentityError::Challenge("is unknown, or was issued to another address"))?;
        if now >= until {
            return Err(IdentityError::Challenge("has expired"));
        }
        if !self.sources.take(peer, now) {
            return Err(IdentityError::TooMany("sign-ins from your address"));
        }
        self.spent.spend(&[challenge], until, now).map_err(|error| match error {
            IdentityError::Token(_) => IdentityError::Challenge("was used before"),
            other => other,
        })
    }

    /// Its end, if we made it for this peer.
    fn until(&self, challenge: &str, peer: IpAddr) -> Option<OffsetDateTime> {
        let bytes = URL_SAFE_NO_PAD.decode(challenge).ok()?;
        let (end, rest) = bytes.split_first_chunk::<END_LENGTH>()?;
        let (unique, tag) = rest.split_first_chunk::<RANDOM_LENGTH>()?;
        let tag: &[u8; TAG_LENGTH] = tag.try_into().ok()?;
        let ours = self.ring.has_tagged(PURPOSE, &tagged(*end, *unique, peer), tag);
        ours.then(|| super::keys::moment(u32::from_be_bytes(*end).into()))
    }
}

/// What the tag is over: end, random bytes and the peer's address.
fn tagged(end: [u8; END_LENGTH], unique: [u8; RANDOM_LENGTH], peer: IpAddr) -> Vec<u8> {
    let peer = match peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    [end.as_slice(), &unique, &Ipv6Addr::octets(&peer)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn challenges() -> Challenges {
        let folder = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(&folder.path().join("keys")).unwrap();
        Challenges::new("https://gw.example.com".to_owned(), Arc::new(ring))
    }

    fn refusal(result: Result<(), IdentityError>) -> String {
        result.expect_err("the challenge was accepted").to_string()
    }

    #[test]
    fn a_challenge_is_good_once() {
        let (challenges, peer) = (challenges(), address("192.0.2.1"));
        let issued = challenges.issue(peer, NOW).unwrap();
        assert_eq!((issued.challenge.len(), issued.expires_in), (43, 120));
        assert!(challenges.spend(&issued.challenge, peer, NOW).is_ok());
        assert!(refusal(challenges.spend(&issued.challenge, peer, NOW)).contains("used before"));
        for foreign in ["never issued", "", &"A".repeat(43), &issued.challenge[..42]] {
            assert!(refusal(challenges.spend(foreign, peer, NOW)).contains("unknown"), "{foreign}");
        }
    }

    #[test]
    fn a_challenge_is_good_for_two_minutes() {
        let (challenges, peer) = (challenges(), address("192.0.2.1"));
        let issued = challenges.issue(peer, NOW).unwrap();
        assert!(refusal(challenges.spend(&issued.challenge, peer, NOW + LIFE)).contains("expired"));
    }

    #[test]
    fn a_challenge_is_good_for_its_peer_alone() {
        let challenges = challenges();
        let issued = challenges.issue(address("192.0.2.1"), NOW).unwrap();
        let elsewhere = challenges.spend(&issued.challenge, address("192.0.2.2"), NOW);
        assert!(refusal(elsewhere).contains("another address"));
        let mapped = challenges.issue(address("::ffff:192.0.2.1"), NOW).unwrap();
        assert!(challenges.spend(&mapped.challenge, address("192.0.2.1"), NOW).is_ok());
    }

    #[test]
    fn a_changed_challenge_is_none_of_ours() {
        let (challenges, peer) = (challenges(), address("192.0.2.1"));
        let issued = URL_SAFE_NO_PAD.decode(challenges.issue(peer, NOW).unwrap().challenge).unwrap();
        for place in 0..issued.len() {
            let mut changed = issued.clone();
            changed[place] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert!(refusal(challenges.spend(&changed, peer, NOW)).contains("unknown"), "{place}");
        }
    }

    #[test]
    fn whoever_asks_for_many_challenges_shuts_nobody_out() {
        let challenges = challenges();
        for host in 0..20_000 {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from_bits(host));
            assert!(challenges.issue(peer, NOW).is_ok());
        }
        let peer = address("192.0.2.1");
        let issued = challenges.issue(peer, NOW).unwrap();
        assert!(challenges.spend(&issued.challenge, peer, NOW).is_ok());
    }

    #[test]
    fn one_source_answers_so_many_and_another_still_can() {
        let challenges = challenges();
        let answer = |host: &str| {
            let issued = challenges.issue(address(host), NOW).unwrap();
            challenges.spend(&issued.challenge, address(host), NOW)
        };
        for _ in 0..PER_SOURCE {
            assert!(answer("2001:db8::1").is_ok());
        }
        assert!(matches!(answer("2001:db8::2"), Err(IdentityError::TooMany(_))));
        assert!(answer("2001:db8:0:1::1").is_ok());
    }
}
