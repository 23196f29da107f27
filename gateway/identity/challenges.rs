//! Challenges: random, bound to a peer, answered once and soon.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::IdentityError;
use super::key_ring::random;
use super::quota::Quota;

/// How long a challenge may be answered; a client answers at once.
const LIFE: Duration = Duration::minutes(2);
/// Most challenges open at once; one is about 100 bytes, so 1 MB in all.
const OPEN_MAX: usize = 8192;
/// Challenges for one source in two minutes; an office shares an address.
const PER_SOURCE: u32 = 120;

/// A challenge as it is handed to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Challenge {
    /// 32 random bytes, base64url.
    pub challenge: String,
    /// The gateway's URL, which must be the one the client knows.
    pub server: String,
    /// Seconds left to answer.
    pub expires_in: u32,
}

/// The challenges that may be answered now.
pub(super) struct Challenges {
    server: String,
    open: Mutex<HashMap<String, Open>>,
    sources: Quota<IpAddr>,
}

struct Open {
    peer: IpAddr,
    until: OffsetDateTime,
}

impl Challenges {
    pub(super) fn new(server: String) -> Self {
        Self { server, open: Mutex::default(), sources: Quota::new(PER_SOURCE) }
    }

    pub(super) fn issue(&self, peer: IpAddr, now: OffsetDateTime) -> Result<Challenge, IdentityError> {
        if !self.sources.take(source(peer), now) {
            return Err(IdentityError::TooMany("sign-in challenges for your address"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_MAX {
            open.retain(|_, challenge| now < challenge.until);
        }
        if open.len() >= OPEN_MAX {
            return Err(IdentityError::TooMany("sign-ins at once"));
        }
        let challenge = URL_SAFE_NO_PAD.encode(random::<32>());
        open.insert(challenge.clone(), Open { peer: peer.to_canonical(), until: now + LIFE });
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
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = open.remove(challenge) else {
            return Err(IdentityError::Challenge("is unknown or was used before"));
        };
        if now >= found.until {
            return Err(IdentityError::Challenge("has expired"));
        }
        if found.peer != peer.to_canonical() {
            return Err(IdentityError::Challenge("was issued to another address"));
        }
        Ok(())
    }
}

/// Who is counted as one: an IPv4 address or an IPv6 /64.
pub(super) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn challenges() -> Challenges {
        Challenges::new("https://gw.example.com".to_owned())
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
        assert!(refusal(challenges.spend("never issued", peer, NOW)).contains("unknown"));
    }

    #[test]
    fn a_challenge_is_good_for_two_minutes() {
        let (challenges, peer) = (challenges(), address("192.0.2.1"));
        let issued = challenges.issue(peer, NOW).unwrap();
        assert!(refusal(challenges.spend(&issued.challenge, peer, NOW + LIFE)).contains("expired"));
    }

    #[test]
    fn a_challenge_is_good_for_its_peer_alone_and_trying_spends_it() {
        let challenges = challenges();
        let issued = challenges.issue(address("192.0.2.1"), NOW).unwrap();
        assert!(
            refusal(challenges.spend(&issued.challenge, address("192.0.2.2"), NOW))
                .contains("another address")
        );
        assert!(challenges.spend(&issued.challenge, address("192.0.2.1"), NOW).is_err());
        let mapped = challenges.issue(address("::ffff:192.0.2.1"), NOW).unwrap();
        assert!(challenges.spend(&mapped.challenge, address("192.0.2.1"), NOW).is_ok());
    }

    #[test]
    fn one_source_cannot_take_every_challenge() {
        let challenges = challenges();
        for host in 0..PER_SOURCE {
            assert!(challenges.issue(address(&format!("2001:db8::{host:x}")), NOW).is_ok());
        }
        assert!(matches!(challenges.issue(address("2001:db8::ffff"), NOW), Err(IdentityError::TooMany(_))));
        assert!(challenges.issue(address("2001:db8:0:1::1"), NOW).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_frees_what_has_expired() {
        let challenges = challenges();
        for host in 0..OPEN_MAX {
            let peer = IpAddr::V4(std::net::Ipv4Addr::from_bits(host as u32));
            assert!(challenges.issue(peer, NOW).is_ok());
        }
        assert!(challenges.issue(address("192.0.2.1"), NOW).is_err());
        assert!(challenges.issue(address("192.0.2.1"), NOW + LIFE).is_ok());
    }
}
