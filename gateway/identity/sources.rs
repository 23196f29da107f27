//! Sign-ins counted by where they come from.

use std::net::{IpAddr, Ipv6Addr};

use time::OffsetDateTime;

use super::quota::Quota;

/// How many sources' worth a whole IPv6 /48 may take: a site has one.
const SOURCES_PER_SITE: u32 = 4;

/// Who is counted as one: an IPv4 address or an IPv6 /64.
pub fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => network(address, 64),
        v4 => v4,
    }
}

fn network(address: Ipv6Addr, bits: u32) -> IpAddr {
    let rest = u128::MAX.checked_shr(bits).unwrap_or_default();
    IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !rest))
}

/// Takes of one source in two minutes, and of one site.
///
/// Each kind has its own table, so that whoever has a million IPv6 networks
/// fills none that others need: a full one of /64s leaves the /48s.
pub(super) struct Sources {
    addresses: Quota<IpAddr>,
    networks: Quota<IpAddr>,
    sites: Quota<IpAddr>,
}

impl Sources {
    pub(super) fn new(each: u32) -> Self {
        Self {
            addresses: Quota::new(each),
            networks: Quota::new(each),
            sites: Quota::new(each.saturating_mul(SOURCES_PER_SITE)),
        }
    }

    /// Takes one, unless the limit is reached.
    pub(super) fn take(&self, peer: IpAddr, now: OffsetDateTime) -> bool {
        match peer.to_canonical() {
            IpAddr::V6(address) => {
                self.sites.take(network(address, 48), now)
                    && self.networks.count(network(address, 64), now).unwrap_or(true)
            }
            v4 => self.addresses.take(v4, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_takes_its_own_and_a_site_those_of_four() {
        let sources = Sources::new(2);
        let take = |text: &str| sources.take(address(text), NOW);
        assert!(take("192.0.2.1") && take("::ffff:192.0.2.1") && !take("192.0.2.1"));
        assert!(take("192.0.2.2"));
        assert!(take("2001:db8::1") && take("2001:db8::2") && !take("2001:db8::3"));
        // The refused one counted for the site as well.
        let others = (1..100).filter(|n| take(&format!("2001:db8:0:{n:x}::1"))).count();
        assert_eq!(others, 5);
        assert!(take("2001:db8:1::1"));
    }

    #[test]
    fn whoever_has_many_networks_shuts_nobody_out() {
        let sources = Sources::new(120);
        for site in 0..200 {
            for network in 0..480 {
                sources.take(address(&format!("2001:db8:{site:x}:{network:x}::1")), NOW);
            }
        }
        assert!(sources.take(address("2001:db9::1"), NOW));
        assert!(sources.take(address("192.0.2.1"), NOW));
    }
}
