//! What is obliged to be on disk counts once it was flushed, and not before.

use super::flusher::ToFlusher;
use super::*;

/// Waits until the journal has it, on disk or not.
async fn written(recording: &mut Recording, position: Position) {
    poll_fn(|context| recording.poll_written(context, position)).await.unwrap();
}

#[tokio::test]
async fn what_must_be_on_disk_counts_once_it_was_flushed() {
    let rig = Rig::new();
    let disk = &rig.recorder().house.disk;
    let mut recording = rig.begin_on_disk("a-1");
    let mut other = rig.begin("b-2");
    for sequence in 0..3 {
        disk.slow.store(true, Ordering::Release);
        let position = recording.output(1, sequence, Stream::Output, b"on disk").unwrap();
        written(&mut recording, position).await;
        assert!(recording.recorded() < position);
        // Nobody else waits for the disk.
        let position_of_other = other.output(1, sequence, Stream::Output, b"in a file").unwrap();
        recorded(&mut other, position_of_other).await;
        disk.slow.store(false, Ordering::Release);
        recorded(&mut recording, position).await;
    }
}

#[tokio::test]
async fn what_must_be_elsewhere_must_be_on_disk_too() {
    let rig = Rig::new();
    let (feed, disk) = (rig.recorder().feed(), &rig.recorder().house.disk);
    let _follower = feed.follow_and_store();
    let id = session("a-1");
    let mut recording = rig.recorder().begin(&id, header("a-1"), Durability::Remote).unwrap();
    disk.slow.store(true, Ordering::Release);
    let position = recording.output(1, 0, Stream::Output, b"both").unwrap();
    written(&mut recording, position).await;
    feed.accepted(&id, u64::MAX);
    assert!(recording.recorded() < position, "a machine that crashes now has not got it");
    disk.slow.store(false, Ordering::Release);
    recorded(&mut recording, position).await;
}

#[tokio::test]
async fn one_flush_serves_all_sessions_that_wait_for_it() {
    let rig = Rig::new();
    let disk = &rig.recorder().house.disk;
    let mut recordings: Vec<_> = (0..50).map(|n| rig.begin_on_disk(&format!("s-{n}"))).collect();
    for recording in &mut recordings {
        let position = recording.output(1, 0, Stream::Output, b"first").unwrap();
        recorded(recording, position).await;
    }
    disk.slow.store(true, Ordering::Release);
    let before = disk.flushes.load(Ordering::Acquire);
    for recording in &mut recordings {
        let position = recording.output(2, 1, Stream::Output, b"second").unwrap();
        written(recording, position).await;
    }
    disk.slow.store(false, Ordering::Release);
    for recording in &mut recordings {
        let position = recording.position();
        recorded(recording, position).await;
    }
    // One was under way or came at once; the other had all the rest.
    assert!(disk.flushes.load(Ordering::Acquire) - before <= 2);
}

#[tokio::test]
async fn a_disk_that_cannot_flush_ends_only_the_sessions_that_need_it() {
    let rig = Rig::new();
    let disk = &rig.recorder().house.disk;
    let mut recording = rig.begin_on_disk("a-1");
    let mut other = rig.begin("b-2");
    let position = recording.output(1, 0, Stream::Output, b"safe").unwrap();
    recorded(&mut recording, position).await;

    disk.broken.store(true, Ordering::Release);
    let position = recording.output(2, 1, Stream::Output, b"who knows").unwrap();
    let error = poll_fn(|context| recording.poll_recorded(context, position)).await.unwrap_err();
    assert!(
        error.to_string().contains("the journal cannot be flushed to disk: input/output error"),
        "{error}"
    );
    assert!(rig.recorder().healthy().unwrap_err().contains("flushed"));
    let position = other.output(2, 0, Stream::Output, b"still promised").unwrap();
    recorded(&mut other, position).await;
    let refused = rig.recorder().begin(&session("c-3"), header("c-3"), Durability::Process);
    assert!(matches!(refused, Err(RecorderError::Unhealthy(_))));

    disk.broken.store(false, Ordering::Release);
    while rig.recorder().healthy().is_err() {
        tokio::task::yield_now().await;
    }
    // What is flushed after a failure goes to a segment of its own.
    let mut again = rig.begin_on_disk("d-4");
    let position = again.output(1, 0, Stream::Output, b"safe again").unwrap();
    recorded(&mut again, position).await;

    let sealed = recording.seal(3, &End::new("recording_failed")).await.unwrap();
    let evidence = rig.evidence("a-1");
    assert!(evidence.end.recovered && evidence.end.reason.contains("flushed"), "{:?}", evidence.end);
    assert!(output(&events(&sealed.path), Stream::Output).0.starts_with(b"safe"));
    other.seal(3, &End::new("done")).await.unwrap();
    assert_eq!(output(&events(&rig.path("b-2")), Stream::Output).0, b"still promised");
    assert!(!rig.evidence("b-2").end.recovered);
}

#[tokio::test]
async fn the_journal_is_needed_until_the_file_of_a_disk_session_was_flushed() {
    let rig = Rig::new();
    let mut recording = rig.begin_on_disk("a-1");
    let position = recording.output(1, 0, Stream::Output, b"on disk").unwrap();
    recorded(&mut recording, position).await;
    let lines = recording.lines_for_test();
    while lines.compressed() < position.0 {
        tokio::task::yield_now().await;
    }
    assert!(lines.safe() < position.0, "the file may still be in memory only");
    rig.recorder().flusher.send(ToFlusher::File(lines.clone())).unwrap();
    while lines.safe() < position.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_files_of_many_sessions_take_one_flush_and_no_acknowledge_waits_for_it() {
    let rig = Rig::new();
    let disk = &rig.recorder().house.disk;
    let mut recordings: Vec<_> = (0..50).map(|n| rig.begin_on_disk(&format!("s-{n}"))).collect();
    let mut ends = Vec::new();
    for recording in &mut recordings {
        let position = recording.output(1, 0, Stream::Output, b"first").unwrap();
        recorded(recording, position).await;
        let lines = recording.lines_for_test();
        while lines.compressed() < position.0 {
            tokio::task::yield_now().await;
        }
        ends.push((lines, position.0));
    }
    disk.slow_all.store(true, Ordering::Release);
    let before = disk.flushes.load(Ordering::Acquire);
    for (lines, _) in &ends {
        rig.recorder().flusher.send(ToFlusher::File(lines.clone())).unwrap();
    }
    while disk.flushes.load(Ordering::Acquire) == before {
        tokio::task::yield_now().await;
    }
    // The journal's flush goes on meanwhile.
    let position = recordings[0].output(2, 1, Stream::Output, b"second").unwrap();
    recorded(&mut recordings[0], position).await;
    disk.slow_all.store(false, Ordering::Release);
    for (lines, end) in &ends {
        while lines.safe() < *end {
            tokio::task::yield_now().await;
        }
    }
    // A few that came first were flushed by themselves, the rest at once.
    let flushes = disk.flushes.load(Ordering::Acquire) - before;
    assert!(flushes <= 4 + 1 + 2, "{flushes} flushes");
}

#[tokio::test]
async fn files_that_cannot_be_flushed_end_their_sessions() {
    let rig = Rig::new();
    let mut recordings: Vec<_> = (0..9).map(|n| rig.begin_on_disk(&format!("s-{n}"))).collect();
    for recording in &mut recordings {
        let position = recording.output(1, 0, Stream::Output, b"first").unwrap();
        recorded(recording, position).await;
    }
    rig.recorder().house.disk.broken.store(true, Ordering::Release);
    for recording in &recordings {
        rig.recorder().flusher.send(ToFlusher::File(recording.lines_for_test())).unwrap();
    }
    for recording in &recordings {
        let lines = recording.lines_for_test();
        while lines.failure().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(lines.failure().unwrap().contains("cannot be flushed to disk: input/output error"));
    }
}

#[tokio::test]
async fn what_cannot_be_sealed_at_once_is_sealed_when_the_disk_works_again() {
    let rig = Rig::new();
    let disk = &rig.recorder().house.disk;
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, b"kept").unwrap();
    disk.broken.store(true, Ordering::Release);
    let (error, later) = recording.seal_or_later(2, &End::new("done")).await.unwrap_err();
    assert!(error.to_string().contains("input/output error"), "{error}");
    disk.broken.store(false, Ordering::Release);
    let sealed = later.sealed().await.unwrap();
    assert_eq!(sealed.path, rig.path("a-1"));
    assert!(!rig.evidence("a-1").end.recovered, "all of it is there");
}

#[tokio::test]
async fn a_sealed_file_whose_name_is_not_on_disk_is_not_taken_for_an_altered_one() {
    let rig = Rig::new();
    let disk = &rig.recorder().house.disk;
    let begun = [("a-1", false, rig.begin("a-1")), ("b-2", true, rig.begin("b-2"))];
    for (id, fails, mut recording) in begun {
        recording.output(1, 0, Stream::Output, b"kept").unwrap();
        if fails {
            recording.lines_for_test().fail("for this test");
        }
        disk.forgets_names.store(true, Ordering::Release);
        let (error, later) = recording.seal_or_later(2, &End::new("done")).await.unwrap_err();
        assert!(error.to_string().contains("input/output error"), "{error}");
        let begun = Checkpoint::begun_path(&rig.path(id));
        assert!(begun.exists(), "a crash may bring the open file back");
        disk.forgets_names.store(false, Ordering::Release);
        let sealed = later.sealed().await.unwrap();
        assert_eq!(rig.evidence(id).end.recovered, fails);
        assert_eq!(sealed.bytes, fs::metadata(rig.path(id)).unwrap().len());
        assert!(!begun.exists());
    }
}
