//! What a crash leaves is put together, byte for byte.

use std::io::Write;

use super::*;

#[tokio::test]
async fn what_was_recorded_survives_a_crash() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let mut sent = Vec::new();
    let mut position = Position::default();
    for sequence in 0..300 {
        let message = noise(sequence, 900);
        position = recording.output(sequence, sequence as i64, Stream::Output, &message).unwrap();
        sent.extend(message);
        if sequence == 150 {
            // Half of it is compressed, the rest only in the journal.
            let lines = recording.lines_for_test();
            while lines.compressed() < position.0 {
                tokio::task::yield_now().await;
            }
        }
    }
    recorded(&mut recording, position).await;
    let mut crashed = rig.crashed();
    crashed.restart();
    let evidence = crashed.evidence("a-1");
    assert!(evidence.end.recovered);
    assert_eq!(evidence.end.reason, "gateway stopped");
    assert_eq!(evidence.end.missing_bytes, 0);
    let (bytes, sequences) = output(&events(&crashed.path("a-1")), Stream::Output);
    assert!(bytes == sent, "{} bytes of {} came back", bytes.len(), sent.len());
    assert_eq!(sequences.last(), Some(&Some(299)));
    assert_eq!(crashed.metrics.recordings.with_label_values(&["recovered"]).get(), 1);
}

#[tokio::test]
async fn a_torn_file_and_a_torn_journal_lose_only_their_ends() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let position = recording.output(1, 0, Stream::Output, b"first").unwrap();
    recorded(&mut recording, position).await;
    let mut crashed = rig.crashed();
    let path = crashed.dir.path().join("spool/a-1.cast.zst");
    let torn = zstd::encode_all(noise(3, 5000).as_slice(), 1).unwrap();
    append(&path, &torn[..torn.len() / 2]);
    for entry in fs::read_dir(crashed.dir.path().join("spool/journal")).unwrap() {
        append(&entry.unwrap().path(), b"PSJ3\x03garbage that is no record at all");
    }
    crashed.restart();
    assert_eq!(output(&events(&crashed.path("a-1")), Stream::Output).0, b"first");
    assert!(matches!(crashed.verify("a-1"), Ok(Report::Sealed(_))));
}

#[tokio::test]
async fn a_recording_without_its_journal_is_recovered_without_its_last_second() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let position = recording.output(1, 0, Stream::Output, b"first").unwrap();
    let lines = recording.lines_for_test();
    while lines.compressed() < position.0 {
        tokio::task::yield_now().await;
    }
    let mut crashed = rig.crashed();
    for entry in fs::read_dir(crashed.dir.path().join("spool/journal")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    crashed.restart();
    assert_eq!(output(&events(&crashed.path("a-1")), Stream::Output).0, b"first");
}

#[tokio::test]
async fn recovered_spools_hold_no_journal_of_the_past() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let position = recording.output(1, 0, Stream::Output, b"first").unwrap();
    recorded(&mut recording, position).await;
    let mut crashed = rig.crashed();
    crashed.restart();
    let journal = fs::read_dir(crashed.dir.path().join("spool/journal")).unwrap();
    let bytes: u64 = journal.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(bytes, 0);
    let before = fs::read(crashed.path("a-1")).unwrap();
    crashed.recorder = None;
    crashed.restart();
    assert_eq!(fs::read(crashed.path("a-1")).unwrap(), before, "a sealed file is not touched");
}

#[tokio::test]
async fn a_cut_sealed_recording_is_never_signed_again() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, &noise(5, 9000)).unwrap();
    let sealed = recording.seal(2, &End::new("done")).await.unwrap();
    rig.recorder = None;
    let bytes = fs::read(&sealed.path).unwrap();
    fs::write(&sealed.path, &bytes[..bytes.len() / 2]).unwrap();
    rig.restart();
    assert!(!sealed.path.exists());
    assert!(rig.dir.path().join("spool/a-1.cast.zst.broken").exists());
    assert_eq!(rig.metrics.recordings.with_label_values(&["failed"]).get(), 1);
}

#[tokio::test]
async fn sessions_left_open_at_the_end_are_recovered_at_the_next_start() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, b"first").unwrap();
    rig.recorder = None;
    drop(recording);
    assert!(matches!(rig.verify("a-1"), Ok(Report::Unsealed { lines: 3, .. })));
    rig.restart();
    assert_eq!(rig.evidence("a-1").end.reason, "gateway stopped");
}

fn append(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}
