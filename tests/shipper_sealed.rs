//! Frames of sealed recordings are shipped as they are, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use data_encoding::BASE64;
use postern::asciicast::Header;
use postern::recorder::{End, Evidence, Recording, Report, Stream, restore, verify};
use postern::replay::Timeline;
use postern::session::{Durability, SessionId, now_ms};

use crate::support::{FakeLogs, Fault, GROUP, Spool, until};

async fn logs() -> FakeLogs {
    let logs = FakeLogs::start().await;
    logs.make_group(GROUP);
    logs
}

fn begin(spool: &Spool) -> (SessionId, Recording) {
    let id = SessionId::mint("alice");
    let header = Header::new(i64::try_from(now_ms() / 1000).unwrap());
    let recording = spool.recorder.begin(&id, header, Durability::Process).unwrap();
    (id, recording)
}

/// Records so many messages of 1 KB that hardly compress.
async fn record(recording: &mut Recording, messages: std::ops::Range<u64>) {
    let mut state = messages.start + 7;
    for number in messages {
        let mut text = Vec::with_capacity(1024);
        while text.len() < 1000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.extend_from_slice(BASE64.encode(&state.to_le_bytes()).as_bytes());
        }
        while !recording.has_room() {
            tokio::task::yield_now().await;
        }
        recording.output(number, number as i64, Stream::Output, &text).unwrap();
    }
}

/// A sealed recording of three frames.
async fn sealed(spool: &Spool) -> SessionId {
    let (id, mut recording) = begin(spool);
    record(&mut recording, 0..8500).await;
    recording.seal(9_000, &End::new("client left")).await.unwrap();
    assert_eq!(evidence(spool, &id).frames.len(), 3);
    id
}

fn evidence(spool: &Spool, id: &SessionId) -> Evidence {
    spool.recorder.feed().evidence(id).unwrap().unwrap()
}

/// The frames of a sealed file.
fn frames(spool: &Spool, id: &SessionId) -> Vec<Vec<u8>> {
    let file = std::fs::read(spool.path(id)).unwrap();
    let mut rest = file.as_slice();
    let mut next = |size: u32| {
        let (frame, after) = rest.split_at(size as usize);
        rest = after;
        frame.to_vec()
    };
    evidence(spool, id).frames.iter().map(|(size, ..)| next(*size)).collect()
}

/// The segments in a stream by run and number; parts that came twice agree.
fn segments(logs: &FakeLogs, id: &SessionId) -> BTreeMap<(u64, u64), Vec<u8>> {
    let mut parts = BTreeMap::new();
    for event in logs.events(GROUP, id.as_str(), "recording") {
        let number = |name: &str| event[name].as_u64().unwrap();
        let place = (number("run"), number("segment"), number("part"));
        let again = parts.insert(place, event["data"].as_str().unwrap().to_owned());
        assert_eq!(again, None, "{place:?} came twice with different data");
    }
    let mut segments: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for ((run, segment, _), data) in parts {
        segments.entry((run, segment)).or_default().extend(BASE64.decode(data.as_bytes()).unwrap());
    }
    segments
}

fn runs(logs: &FakeLogs, id: &SessionId) -> usize {
    segments(logs, id).keys().map(|(run, _)| *run).collect::<BTreeSet<_>>().len()
}

/// Asserts that all frames and the evidence are there, and nothing else.
fn assert_frame_by_frame(spool: &Spool, logs: &FakeLogs, id: &SessionId) {
    let shipped: Vec<_> = segments(logs, id).into_values().collect();
    let frames = frames(spool, id);
    assert!(shipped[..shipped.len() - 1] == frames, "the segments are not the frames");
}

async fn failed_calls(logs: &FakeLogs, operation: &str) {
    let calls = logs.calls(operation);
    until("failed calls", || logs.calls(operation) > calls + 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_shipped_as_they_are_whatever_the_weather() {
    for seed in [5, 23] {
        let logs = logs().await;
        let mut spool = Spool::of_recordings(&logs).await;
        spool.shipper_is_gone();
        let ids = [sealed(&spool).await, sealed(&spool).await];
        logs.weather(seed, 30);
        spool.start_shipper().await;
        for _ in 0..6 {
            let calls = logs.calls("PutLogEvents");
            until("another call", || logs.calls("PutLogEvents") > calls).await;
            spool.shipper_dies().await;
        }
        for id in &ids {
            spool.shipped(id).await;
            assert_frame_by_frame(&spool, &logs, id);
            assert_eq!(runs(&logs, id), 1);
        }
        logs.weather(seed, 10);
        for id in &ids {
            spool.assert_whole(id).await;
        }
        logs.assert_kept_to_quotas();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shipped_of_a_frame_is_not_shipped_again_and_what_is_there_can_be_read() {
    let logs = logs().await;
    let mut spool = Spool::of_recordings(&logs).await;
    spool.shipper_is_gone();
    let id = sealed(&spool).await;
    let first = evidence(&spool, &id).frame_heads[0].0;
    // All of the first frame and a part of the second one.
    let batches = frames(&spool, &id)[0].len().div_ceil(135_000).div_ceil(5) as u64;
    logs.full_after(Some(batches + 2));
    spool.start_shipper().await;
    let taken = logs.calls("PutLogEvents");
    until("the first frame", || logs.calls("PutLogEvents") > taken + batches + 3).await;
    let copy = spool.read_back(&id).await.unwrap();
    assert_eq!((copy.sealed, copy.lines), (false, first));
    let checked = verify(&copy.path, &[spool.recorder.public_key()]);
    assert!(matches!(checked, Ok(Report::Unsealed { lines, .. }) if lines == first), "{checked:?}");
    let mut timeline = Timeline::open(&copy.path).unwrap();
    let mut events = 0;
    while timeline.next_event().unwrap().is_some() {
        events += 1;
    }
    assert!(events > 1000, "{events}");
    logs.full_after(None);
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
    assert_frame_by_frame(&spool, &logs, &id);
    let stored = logs.stream(GROUP, id.as_str()).len();
    assert_eq!(stored, logs.events(GROUP, id.as_str(), "recording").len(), "parts were shipped twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shipper_that_dies_within_a_frame_goes_on_with_the_same_events() {
    // The next one may have other forms to ship, for which it needs lines.
    for transcript in [false, true] {
        let logs = logs().await;
        let mut spool = Spool::of_recordings(&logs).await;
        spool.shipper_is_gone();
        let id = sealed(&spool).await;
        logs.full_after(Some(2));
        spool.start_shipper().await;
        failed_calls(&logs, "PutLogEvents").await;
        assert_eq!(segments(&logs, &id).len(), 1, "a part of the first frame");
        spool.shipper_is_gone();
        logs.full_after(None);
        spool.ships_transcripts(transcript);
        spool.start_shipper().await;
        spool.shipped(&id).await;
        spool.assert_whole(&id).await;
        assert_eq!(runs(&logs, &id), if transcript { 2 } else { 1 });
        assert_eq!(logs.events(GROUP, id.as_str(), "sessionEnd").len(), usize::from(transcript));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_lines_of_a_running_session_its_frames_are_shipped_from_the_next_one_on() {
    for dies in [false, true] {
        let logs = logs().await;
        let mut spool = Spool::of_recordings(&logs).await;
        let (id, mut recording) = begin(&spool);
        record(&mut recording, 0..300).await;
        until("the lines", || !segments(&logs, &id).is_empty()).await;
        logs.outage(Some(Fault::Broken));
        record(&mut recording, 300..8500).await;
        recording.seal(9_000, &End::new("client left")).await.unwrap();
        if dies {
            spool.shipper_dies().await;
        }
        logs.outage(None);
        spool.shipped(&id).await;
        spool.assert_whole(&id).await;
        let (frames, shipped) = (frames(&spool, &id), segments(&logs, &id));
        let shipped: Vec<_> = shipped.into_values().collect();
        assert!(!shipped.contains(&frames[0]), "the first frame was begun with lines");
        assert!(shipped[shipped.len() - 3..shipped.len() - 1] == frames[1..], "the others are frames");
        assert_eq!(runs(&logs, &id), 1);
        logs.assert_kept_to_quotas();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_planned_as_lines_is_shipped_as_lines_though_a_frame_has_them() {
    let logs = logs().await;
    let mut spool = Spool::of_recordings(&logs).await;
    let (id, mut recording) = begin(&spool);
    // The batch is stored, and nobody hears of it.
    logs.fail("PutLogEvents", Fault::DoneAndCut);
    logs.full_after(Some(1));
    record(&mut recording, 0..200).await;
    failed_calls(&logs, "PutLogEvents").await;
    let before = segments(&logs, &id);
    recording.seal(9_000, &End::new("client left")).await.unwrap();
    spool.shipper_dies().await;
    logs.full_after(None);
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
    let after = segments(&logs, &id);
    assert!(before.iter().all(|(place, bytes)| after[place] == *bytes));
    assert_eq!(runs(&logs, &id), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_was_altered_on_disk_is_not_shipped() {
    let logs = logs().await;
    let mut spool = Spool::of_recordings(&logs).await;
    spool.shipper_is_gone();
    let id = sealed(&spool).await;
    let whole = std::fs::read(spool.path(&id)).unwrap();
    let mut altered = whole.clone();
    altered[evidence(&spool, &id).frames[0].0 as usize + 1000] ^= 1;
    std::fs::write(spool.path(&id), altered).unwrap();
    let metrics = std::sync::Arc::clone(&spool.metrics);
    let refused = || metrics.shipper.errors.with_label_values(&["spool"]).get();
    spool.start_shipper().await;
    until("the refusal", || refused() > 0).await;
    assert_eq!(segments(&logs, &id).len(), 1, "the first frame is as it was");
    std::fs::write(spool.path(&id), whole).unwrap();
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
    assert_frame_by_frame(&spool, &logs, &id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_recordings_whose_evidence_says_no_heads_are_shipped_by_lines() {
    let logs = logs().await;
    let mut spool = Spool::of_recordings(&logs).await;
    spool.shipper_is_gone();
    let id = sealed(&spool).await;
    let mut older = evidence(&spool, &id);
    older.frame_heads.clear();
    older.signature.clear();
    older.signature = BASE64.encode(&spool.recorder.sign(&serde_json::to_vec(&older).unwrap()));
    let mut made = Vec::new();
    let lines = std::fs::File::open(spool.path(&id)).unwrap();
    restore(lines, &serde_json::to_vec(&older).unwrap(), &mut made).unwrap();
    std::fs::File::create(spool.path(&id)).unwrap().write_all(&made).unwrap();
    let checked = verify(&spool.path(&id), &[spool.recorder.public_key()]);
    assert!(matches!(checked, Ok(Report::Sealed(_))), "{checked:?}");
    spool.start_shipper().await;
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
    assert!(segments(&logs, &id).len() > 10);
    assert_eq!(runs(&logs, &id), 1);
}
