//! One connection of a port session as the TCP packets that it might have been.
//!
//! The gateway sees bytes and no packets: addresses, ports, sequence numbers
//! and the cut into segments are made up; bytes, order and times are not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

use crate::asciicast::{Direction, Side};

/// Bytes of one segment, as on an Ethernet.
const SEGMENT: usize = 1440;
/// A window that no conversation fills.
const WINDOW: u16 = u16::MAX;
const HOPS: u8 = 64;
/// The first of the ports that clients take, and how many there are.
const PORTS: (u64, u64) = (49_152, 16_384);
/// Addresses for documentation: RFC 5737 and RFC 3849.
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TARGET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Which ends the made-up packets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    client: IpAddr,
    target: IpAddr,
    port: u16,
}

impl Ends {
    /// The recorded host if it is an address, else one for documentation.
    pub(super) fn new(host: Option<&str>, port: u16) -> Self {
        match host.and_then(|host| host.parse().ok()) {
            Some(target @ IpAddr::V6(_)) => Self { client: CLIENT_V6.into(), target, port },
            Some(target @ IpAddr::V4(_)) => Self { client: CLIENT_V4.into(), target, port },
            None => Self { client: CLIENT_V4.into(), target: TARGET_V4.into(), port },
        }
    }

    /// The address that stands for the recorded host.
    pub(super) fn target(&self) -> IpAddr {
        self.target
    }
}

/// The flags of a segment.
#[derive(Clone, Copy, Default)]
struct Flags {
    syn: bool,
    ack: bool,
    push: bool,
    fin: bool,
    reset: bool,
}

const ACK: Flags = Flags { syn: false, ack: true, push: false, fin: false, reset: false };

/// A conversation: how far each side is, and whether it has ended.
pub(super) struct Conversation {
    ends: Ends,
    client_port: u16,
    up: u32,
    down: u32,
    /// The side whose FIN is still to come, once the other has sent its own.
    open_side: Option<Side>,
}

/// Takes each packet, IP header first.
pub(super) type Packets<'a> = &'a mut Vec<Vec<u8>>;

impl Conversation {
    /// Opens it: SYN, SYN and ACK, ACK.
    pub(super) fn open(ends: Ends, connection: u64, packets: Packets<'_>) -> Self {
        let port = PORTS.0 + connection.saturating_sub(1) % PORTS.1;
        let client_port = u16::try_from(port).unwrap_or(u16::MAX);
        let mut conversation = Self { ends, client_port, up: 0, down: 0, open_side: None };
        let syn = Flags { syn: true, ..Flags::default() };
        conversation.segment(Direction::Up, syn, &[], packets);
        conversation.segment(Direction::Down, Flags { syn: true, ..ACK }, &[], packets);
        conversation.segment(Direction::Up, ACK, &[], packets);
        conversation
    }

    /// Carries bytes, in as many segments as it takes.
    pub(super) fn data(&mut self, direction: Direction, bytes: &[u8], packets: Packets<'_>) {
        for part in bytes.chunks(SEGMENT) {
            self.segment(direction, Flags { push: true, ..ACK }, part, packets);
        }
    }

    /// One side has nothing more to say; the other one has the last word.
    pub(super) fn close(&mut self, by: Side, packets: Packets<'_>) {
        let (ends, other) = match by {
            Side::Client => (Direction::Up, Side::Target),
            Side::Target | Side::Session => (Direction::Down, Side::Client),
        };
        self.finish(ends, packets);
        self.open_side = Some(other);
    }

    /// The other side ends too.
    pub(super) fn end(&mut self, packets: Packets<'_>) {
        match self.open_side.take() {
            Some(Side::Target) => self.finish(Direction::Down, packets),
            Some(_) => self.finish(Direction::Up, packets),
            None => {}
        }
    }

    /// The destination refused it.
    pub(super) fn reset(&mut self, packets: Packets<'_>) {
        self.segment(Direction::Down, Flags { reset: true, ..ACK }, &[], packets);
    }

    fn finish(&mut self, direction: Direction, packets: Packets<'_>) {
        self.segment(direction, Flags { fin: true, ..ACK }, &[], packets);
        let back = match direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        };
        self.segment(back, ACK, &[], packets);
    }

    fn segment(&mut self, direction: Direction, flags: Flags, bytes: &[u8], packets: Packets<'_>) {
        let (from, to) = match direction {
            Direction::Up => ((self.ends.client, self.client_port), (self.ends.target, self.ends.port)),
            Direction::Down => ((self.ends.target, self.ends.port), (self.ends.client, self.client_port)),
        };
        let (sequence, acknowledged) = match direction {
            Direction::Up => (&mut self.up, self.down),
            Direction::Down => (&mut self.down, self.up),
        };
        let mut tcp = between(from.0, to.0).tcp(from.1, to.1, *sequence, WINDOW);
        let counted = u32::from(flags.syn) + u32::from(flags.fin);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        *sequence = sequence.wrapping_add(length).wrapping_add(counted);
        if flags.ack {
            tcp = tcp.ack(acknowledged);
        }
        if flags.syn {
            tcp = tcp.syn();
        }
        if flags.push {
            tcp = tcp.psh();
        }
        if flags.fin {
            tcp = tcp.fin();
        }
        if flags.reset {
            tcp = tcp.rst();
        }
        let mut packet = Vec::with_capacity(tcp.size(bytes.len()));
        // Writing to memory fails only for more bytes than a segment has.
        if tcp.write(&mut packet, bytes).is_ok() {
            packets.push(packet);
        }
    }
}

fn between(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        (from, to) => PacketBuilder::ipv6(v6(from).octets(), v6(to).octets(), HOPS),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    }
}
