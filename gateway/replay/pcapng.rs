//! Writes captured traffic as pcapng, which Wireshark and tcpdump open.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgWriteError, PcapNgWriter};

use super::conversation::{Conversation, Ends};
use super::flows::holds_traffic;
use super::{End, ReplayError, Timeline};
use crate::asciicast::{Event, FlowEvent, Header, Traffic};
use crate::session::printable;

/// How long the other side of an ended connection may still send.
const LAST_WORD_MS: u64 = 60_000;

/// Writes every captured byte as a segment of its connection.
///
/// Addresses and segments are made up, see the file's comment; fails with
/// [`ReplayError::NoTraffic`] if the bytes were not recorded.
pub fn export_pcapng(timeline: &mut Timeline, out: &mut impl Write) -> Result<End, ReplayError> {
    if !holds_traffic(timeline.header()) {
        return Err(ReplayError::NoTraffic);
    }
    let mut capture = Capture::begin(timeline.header(), out)?;
    while let Some(event) = timeline.next_event()? {
        capture.take(&event)?;
    }
    capture.last_words(u64::MAX)?;
    capture.writer.get_mut().flush().map_err(ReplayError::Write)?;
    Ok(timeline.end())
}

struct Capture<'a, W: Write> {
    writer: PcapNgWriter<&'a mut W>,
    ends: Ends,
    /// When the recording began, since the Unix epoch.
    began: Duration,
    open: BTreeMap<u64, Conversation>,
    /// Connections that one side has ended, and when the other one follows.
    ending: VecDeque<(u64, u64)>,
    packets: Vec<Vec<u8>>,
    last_ms: u64,
}

impl<'a, W: Write> Capture<'a, W> {
    fn begin(header: &Header, out: &'a mut W) -> Result<Self, ReplayError> {
        let port = header.postern.as_ref().and_then(|about| about.get("port")?.as_u64());
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        let ends = Ends::new(header.said("host"), port);
        let note = CommonOption::Comment(Cow::Owned(comment(header, ends, port)));
        let section = SectionHeaderBlock {
            options: vec![SectionHeaderOption::Common(note)],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(out, section).map_err(failed)?;
        let interface =
            InterfaceDescriptionBlock { linktype: DataLink::RAW, snaplen: 0, options: Vec::new() };
        writer.write_pcapng_block(interface).map_err(failed)?;
        let began = Duration::from_secs(u64::try_from(header.timestamp).unwrap_or_default());
        let (open, ending, packets) = (BTreeMap::new(), VecDeque::new(), Vec::new());
        Ok(Self { writer, ends, began, open, ending, packets, last_ms: 0 })
    }

    fn take(&mut self, event: &Event) -> Result<(), ReplayError> {
        self.last_words(event.time_ms)?;
        self.last_ms = event.time_ms;
        match (FlowEvent::of(event), Traffic::of(event)) {
            (Some(Ok(flow)), _) => self.flow(event.time_ms, &flow),
            (_, Some(Ok(traffic))) => {
                if let Some(conversation) = self.open.get_mut(&traffic.connection) {
                    conversation.data(traffic.direction, &traffic.bytes, &mut self.packets);
                }
            }
            _ => {}
        }
        self.write(event.time_ms)
    }

    fn flow(&mut self, time_ms: u64, flow: &FlowEvent) {
        match *flow {
            FlowEvent::Open { connection } => {
                let conversation = Conversation::open(self.ends, connection, &mut self.packets);
                self.open.insert(connection, conversation);
            }
            FlowEvent::Close { connection, by, .. } => {
                if let Some(conversation) = self.open.get_mut(&connection) {
                    conversation.close(by, &mut self.packets);
                    self.ending.push_back((time_ms.saturating_add(LAST_WORD_MS), connection));
                }
            }
            FlowEvent::Refused { connection } => {
                if let Some(mut conversation) = self.open.remove(&connection) {
                    conversation.reset(&mut self.packets);
                }
            }
            _ => {}
        }
    }

    /// Ends the conversations whose other side had time enough.
    fn last_words(&mut self, now_ms: u64) -> Result<(), ReplayError> {
        while let Some((due_ms, connection)) = self.ending.pop_front_if(|(due_ms, _)| *due_ms <= now_ms) {
            if let Some(mut conversation) = self.open.remove(&connection) {
                conversation.end(&mut self.packets);
                self.write(due_ms.min(now_ms).max(self.last_ms))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, time_ms: u64) -> Result<(), ReplayError> {
        for packet in self.packets.drain(..) {
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: self.began.saturating_add(Duration::from_millis(time_ms)),
                original_len: u32::try_from(packet.len()).unwrap_or(u32::MAX),
                data: Cow::Owned(packet),
                options: Vec::new(),
            };
            self.writer.write_pcapng_block(block).map_err(failed)?;
        }
        Ok(())
    }
}

/// What the packets are and are not.
fn comment(header: &Header, ends: Ends, port: u16) -> String {
    let word = |name| header.said(name).map(printable).unwrap_or_default();
    format!(
        "Postern session {} of {} on {}: connections to {}:{port}, shown as {}. Bytes, order and times were \
         recorded by the gateway; addresses, ports, sequence numbers and segments are made up.",
        word("session"),
        word("principal"),
        word("target"),
        word("host"),
        ends.target(),
    )
}

fn failed(error: PcapNgWriteError) -> ReplayError {
    ReplayError::Write(std::io::Error::other(error))
}
