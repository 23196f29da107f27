//! Port sessions: the table, and the capture that Wireshark opens.

use std::collections::BTreeMap;

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::json;

use super::*;
use crate::asciicast::{Direction, FlowEvent, Guess, Mode, Side, encode_flow, encode_traffic};

/// A recording of connections; `said` writes its lines.
fn recorded(content: &str, host: &str, said: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut header = Header::new(1_700_000_000);
    header.postern = json!({
        "session": "alice-1", "principal": "alice", "target": "mi-1",
        "content": content, "host": host, "port": 5432,
    })
    .as_object()
    .cloned();
    let mut text = Vec::new();
    header.write(&mut text).unwrap();
    said(&mut text);
    text
}

fn flow(text: &mut Vec<u8>, time_ms: u64, event: FlowEvent) {
    encode_flow(text, time_ms, &event).unwrap();
}

fn two_connections(text: &mut Vec<u8>) {
    let (agent, client) = ("3.3.0.0".to_owned(), "1.2.764.0".to_owned());
    flow(text, 0, FlowEvent::Handshake { mode: Mode::Multiplexed, agent, client });
    flow(text, 1000, FlowEvent::Open { connection: 1 });
    let guess = Guess {
        protocol: "tls".to_owned(),
        server_name: Some("db\u{1b}.example.com".to_owned()),
        alpn: vec!["h2".to_owned()],
        ..Guess::default()
    };
    flow(text, 1001, FlowEvent::Protocol { connection: 1, from: Side::Client, guess });
    flow(text, 2000, FlowEvent::Open { connection: 2 });
    flow(text, 3120, FlowEvent::Close { connection: 1, up: 5, down: 70_000, by: Side::Target });
    flow(text, 3200, FlowEvent::Bytes { connection: 1, up: 9, down: 70_000 });
    flow(text, 4000, FlowEvent::Refused { connection: 2 });
}

fn table(text: &[u8]) -> FlowTable {
    let (_folder, path) = file(text);
    flow_table(&mut Timeline::open(&path).unwrap()).unwrap().0
}

/// The payload bytes of every conversation, by its ports, as TCP puts them together.
fn conversations(capture: &[u8]) -> BTreeMap<(u16, u16), Vec<u8>> {
    let (mut reader, mut next) = (PcapNgReader::new(capture).unwrap(), BTreeMap::new());
    let mut bytes: BTreeMap<(u16, u16), Vec<u8>> = BTreeMap::new();
    let mut last = Duration::ZERO;
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap().0 else { continue };
        assert!(packet.timestamp >= last, "packets are in the order of their times");
        last = packet.timestamp;
        let sliced = SlicedPacket::from_ip(&packet.data).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("a packet without TCP") };
        check_sum(&sliced, tcp);
        let way = (tcp.source_port(), tcp.destination_port());
        let expected = next.entry(way).or_insert(tcp.sequence_number());
        assert_eq!(tcp.sequence_number(), *expected, "{way:?}");
        let more = tcp.payload().len() as u32 + u32::from(tcp.syn()) + u32::from(tcp.fin());
        *expected = expected.wrapping_add(more);
        let back = next.get(&(way.1, way.0)).copied();
        assert!(
            !tcp.ack() || back == Some(tcp.acknowledgment_number()),
            "{way:?} acknowledges what is not there"
        );
        bytes.entry(way).or_default().extend_from_slice(tcp.payload());
    }
    bytes
}

fn check_sum(packet: &SlicedPacket<'_>, tcp: &TcpSlice<'_>) {
    let sum = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(sum, tcp.checksum());
}

#[test]
fn a_port_session_is_shown_as_a_table() {
    let text = recorded("flows", "db.example.com", two_connections);
    let expected = "\
2 connections to db.example.com:5432, 9 bytes up, 70000 bytes down
CONNECTION  OPENED       CLOSED       UP  DOWN   LOOKS LIKE               ENDED BY
1           0:00:01.000  0:00:03.120  9   70000  tls db.example.com (h2)  target
2           0:00:02.000  0:00:04.000  0   0                               refused
";
    assert_eq!(text_of(&text), expected);
    let (_folder, path) = file(&text);
    let mut out = Vec::new();
    plain(&mut Timeline::open(&path).unwrap(), 0, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expected, "a pipe gets the table too");
    let json = serde_json::to_value(table(&text)).unwrap();
    assert_eq!(json["mode"], "multiplexed");
    assert_eq!(json["connections"][0]["guesses"][0]["alpn"][0], "h2");
    assert_eq!(json["connections"][1]["end"], "refused");
}

#[test]
fn a_connection_whose_end_was_not_recorded_has_none() {
    let text = recorded("flows", "localhost", |text| {
        flow(text, 10, FlowEvent::Open { connection: 1 });
        flow(text, 10_010, FlowEvent::Bytes { connection: 1, up: 3, down: 4 });
        text.extend_from_slice(b"[11.0,\"f\",\"{\\\"event\\\":\\\"of the future\\\"}\"]\n");
    });
    let flows = table(&text).connections;
    assert_eq!((flows[0].up, flows[0].down, flows[0].end, flows[0].closed_ms), (3, 4, None, None));
}

#[test]
fn without_capture_there_is_nothing_for_wireshark() {
    for content in ["flows", "terminal"] {
        let (_folder, path) = file(&recorded(content, "localhost", two_connections));
        let error = export(&mut Timeline::open(&path).unwrap(), Format::Pcapng, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("@capture_traffic"), "{error}");
    }
}

proptest! {
    #[test]
    fn a_capture_holds_the_very_bytes_of_every_connection(
        said in prop::collection::vec((1u64..5, any::<bool>(), prop::collection::vec(any::<u8>(), 1..4000)), 0..20),
        host in prop::sample::select(vec!["localhost", "10.1.2.3", "fd00::7", "db.example.com"]),
    ) {
        let text = recorded("flows+traffic", host, |text| {
            for connection in 1..5 {
                flow(text, connection, FlowEvent::Open { connection });
            }
            for (at, (connection, up, bytes)) in said.iter().enumerate() {
                let direction = if *up { Direction::Up } else { Direction::Down };
                encode_traffic(text, 10 + at as u64, *connection, direction, bytes);
            }
            flow(text, 100, FlowEvent::Close { connection: 1, up: 0, down: 0, by: Side::Client });
            encode_traffic(text, 101, 1, Direction::Down, b"late");
            flow(text, 200, FlowEvent::Close { connection: 2, up: 0, down: 0, by: Side::Session });
        });
        let bytes = conversations(&exported(&text, Format::Pcapng));
        for connection in 1..5u64 {
            let port = 49_151 + connection as u16;
            for up in [true, false] {
                let of = said.iter().filter(|(of, way, _)| (*of, *way) == (connection, up));
                let mut expected: Vec<u8> = of.flat_map(|(_, _, bytes)| bytes.clone()).collect();
                if connection == 1 && !up {
                    expected.extend_from_slice(b"late");
                }
                let way = if up { (port, 5432) } else { (5432, port) };
                prop_assert_eq!(&bytes[&way], &expected);
            }
        }
    }
}
