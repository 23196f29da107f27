//! Recordings as an auditor reads them: verified, then decoded.

use std::path::Path;

use postern::asciicast::{Event, EventCode, Header, Stream, exact_output};
use postern::recorder::{Evidence, PublicKey, Report, is_sealed, verify};
use postern::replay::Timeline;

use super::web::Call;
use super::{House, until};

/// A sealed recording, checked against the gateway's published key.
pub struct Recorded {
    pub header: Header,
    pub events: Vec<Event>,
    pub evidence: Evidence,
}

impl Recorded {
    /// Waits for the seal of a session's recording, verifies and reads it.
    pub async fn of(house: &House, session: &str) -> Self {
        let path = house.spool.join(format!("{session}.cast.zst"));
        until("the seal", || is_sealed(&path).unwrap_or(false)).await;
        Self::read(house, &path).await
    }

    pub async fn read(house: &House, path: &Path) -> Self {
        let keys = Call::get("/v1/recording-keys").send(&house.door).await.ok();
        let key = PublicKey::from_pem(keys[0]["pem"].as_str().unwrap()).unwrap();
        Self::checked(path, &key)
    }

    /// Verifies with a key and reads.
    pub fn checked(path: &Path, key: &PublicKey) -> Self {
        let Report::Sealed(evidence) = verify(path, std::slice::from_ref(key)).unwrap() else {
            panic!("{} is not sealed", path.display())
        };
        let mut timeline = Timeline::open(path).unwrap();
        let header = timeline.header().clone();
        let mut events = Vec::new();
        while let Some(event) = timeline.next_event().unwrap() {
            events.push(event);
        }
        Self { header, events, evidence: *evidence }
    }

    /// The exact bytes of all output.
    pub fn bytes(&self) -> Vec<u8> {
        let output = exact_output(&self.events).filter(|event| event.stream != Stream::ExitCode);
        output.flat_map(|event| event.content.into_owned()).collect()
    }

    /// The numbers of the messages that are in it, in order.
    pub fn sequences(&self) -> Vec<i64> {
        exact_output(&self.events).filter_map(|event| event.sequence).collect()
    }

    /// Asserts that every message from the first to the last is there once.
    pub fn assert_once(&self) {
        let sequences = self.sequences();
        let first = sequences.first().copied().unwrap_or_default();
        let wanted: Vec<i64> = (first..).take(sequences.len()).collect();
        assert_eq!(sequences, wanted);
    }

    /// The data of all events of one kind.
    pub fn of_kind(&self, code: EventCode) -> Vec<&str> {
        self.events.iter().filter(|event| event.code == code).map(|event| event.data.as_str()).collect()
    }
}

/// Whether a text is in the spool: in the journal or in the open recording.
pub fn spool_holds(house: &House, session: &str, text: &str) -> bool {
    let journal = std::fs::read_dir(house.spool.join("journal")).unwrap();
    let journaled = journal.filter_map(|entry| std::fs::read(entry.unwrap().path()).ok());
    let contains = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    journaled.into_iter().any(|bytes| contains(&bytes)) || recording_holds(house, session, contains)
}

fn recording_holds(house: &House, session: &str, contains: impl Fn(&[u8]) -> bool) -> bool {
    let path = house.spool.join(format!("{session}.cast.zst"));
    let Ok(mut timeline) = Timeline::open(&path) else { return false };
    let mut all = Vec::new();
    while let Ok(Some(event)) = timeline.next_event() {
        all.extend_from_slice(event.data.as_bytes());
    }
    contains(&all)
}
