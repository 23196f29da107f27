//! Who can write to the spool, and has no key, has nothing signed as whole.

use std::io::Write;

use super::*;

/// Writes a recording anew with other text, as `zstd --no-check` does.
fn forge(path: &Path, change: impl Fn(Vec<String>) -> Vec<String>) {
    let forged = change(lines(path)).concat();
    let mut frame = zstd::Encoder::new(Vec::new(), 1).unwrap();
    frame.include_checksum(false).unwrap();
    frame.write_all(forged.as_bytes()).unwrap();
    fs::write(path, frame.finish().unwrap()).unwrap();
}

fn lie(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line.replace("rm -rf /", "ls -la /")).collect()
}

fn remove_journal(rig: &Rig) {
    for entry in fs::read_dir(rig.dir.path().join("spool/journal")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// A crash of a session that said something, and of whose lines some are signed.
async fn interrupted() -> Rig {
    let rig = Rig::new();
    let mut follower = rig.recorder().feed().follow();
    let mut recording = rig.begin("a-1");
    for sequence in 0..5 {
        recording.output(sequence * 100, sequence as i64, Stream::Output, b"rm -rf / ").unwrap();
    }
    loop {
        if let Shipment::Checkpoint { .. } = follower.next().await.unwrap() {
            return rig.crashed();
        }
    }
}

#[tokio::test]
async fn a_sealed_recording_that_was_written_anew_is_never_signed_again() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    assert_eq!(names(&rig, ".begun").len(), 1);
    recording.output(1, 0, Stream::Output, b"rm -rf /").unwrap();
    let sealed = recording.seal(2, &End::new("done")).await.unwrap();
    rig.recorder = None;
    assert_eq!(names(&rig, ".begun"), [""; 0]);
    forge(&sealed.path, lie);
    rig.start_again();
    assert!(rig.recorder().reopen(&session("a-1")).unwrap().is_none());
    assert!(!sealed.path.exists());
    assert_eq!(names(&rig, ".broken"), ["a-1.cast.zst.broken"]);
    assert_eq!(rig.metrics.recordings.with_label_values(&["failed"]).get(), 1);
    assert!(rig.metrics.recorder_errors.get() > 0);
    rig.restart();
    assert!(!sealed.path.exists());
}

#[tokio::test]
async fn what_was_signed_of_a_sealed_recording_goes_with_the_next_start() {
    // A crash between the seal and the end of its checkpoints.
    let mut rig = Rig::new();
    let recording = rig.begin("a-1");
    let begun = fs::read(Checkpoint::begun_path(&rig.path("a-1"))).unwrap();
    let sealed = recording.seal(2, &End::new("done")).await.unwrap();
    fs::write(Checkpoint::begun_path(&sealed.path), begun).unwrap();
    rig.restart();
    assert_eq!(names(&rig, ".begun"), [""; 0]);
    assert!(matches!(rig.verify("a-1"), Ok(Report::Sealed(_))));
}

#[tokio::test]
async fn a_recording_that_others_know_to_be_sealed_is_set_aside() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let begun = fs::read(Checkpoint::begun_path(&rig.path("a-1"))).unwrap();
    recording.output(1, 0, Stream::Output, b"rm -rf /").unwrap();
    let sealed = recording.seal(2, &End::new("done")).await.unwrap();
    rig.recorder = None;
    forge(&sealed.path, lie);
    // Who kept a copy of what was signed gets past that.
    fs::write(Checkpoint::begun_path(&sealed.path), begun).unwrap();
    rig.start_again();
    rig.recorder().refuse_left(&session("a-1"));
    assert_eq!(rig.recorder().left(), []);
    assert!(rig.recorder().seal_left(&session("a-1")).is_none());
    assert!(!sealed.path.exists());
    assert_eq!(names(&rig, ".broken"), ["a-1.cast.zst.broken"]);
    assert_eq!(names(&rig, ".begun"), [""; 0]);
}

#[tokio::test]
async fn an_interrupted_recording_without_anything_signed_is_not_sealed() {
    let mut crashed = interrupted().await;
    let path = crashed.path_of("a-1");
    Checkpoint::remove(&path);
    forge(&path, lie);
    crashed.restart();
    assert!(!path.exists());
    assert_eq!(names(&crashed, ".broken"), ["a-1.cast.zst.broken"]);
}

#[tokio::test]
async fn without_its_checkpoint_a_recording_is_sealed_with_doubts() {
    for goes_on in [false, true] {
        let mut crashed = interrupted().await;
        fs::remove_file(crashed.dir.path().join("spool/a-1.cast.zst.checkpoint")).unwrap();
        remove_journal(&crashed);
        forge(&crashed.path_of("a-1"), |mut lines| {
            lines.truncate(4);
            lie(lines)
        });
        crashed.start_again();
        if goes_on {
            let (recording, _) = crashed.recorder().reopen(&session("a-1")).unwrap().unwrap();
            recording.seal(600, &End::new("done")).await.unwrap();
        } else {
            crashed.recorder().seal_left(&session("a-1")).unwrap();
        }
        let evidence = crashed.evidence("a-1");
        let doubts = evidence.doubts();
        assert_eq!((evidence.end.recovered, evidence.takeovers.len()), (!goes_on, usize::from(goes_on)));
        assert!(
            doubts.len() == 1 && doubts[0].starts_with("none of the 3 lines of events found when"),
            "{doubts:?}"
        );
    }
}

#[tokio::test]
async fn the_header_of_a_recording_is_signed_from_the_beginning() {
    let mut crashed = interrupted().await;
    fs::remove_file(crashed.dir.path().join("spool/a-1.cast.zst.checkpoint")).unwrap();
    forge(&crashed.path_of("a-1"), |mut lines| {
        lines[0] = lines[0].replace("a-1", "b-2");
        lines
    });
    crashed.start_again();
    assert!(matches!(crashed.recorder().reopen(&session("a-1")), Err(RecorderError::Altered(_))));
}

#[tokio::test]
async fn evidence_tells_of_each_process_that_went_on() {
    let mut rig = interrupted().await;
    for process in 1..=3 {
        rig.start_again();
        let (mut recording, recovered) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
        let next = recovered.next_output.unwrap();
        let position = recording.output(recovered.last_ms, next, Stream::Output, b"more").unwrap();
        recorded(&mut recording, position).await;
        if process == 3 {
            recording.seal(700, &End::new("done")).await.unwrap();
        } else {
            recording.leave();
        }
    }
    let evidence = rig.evidence("a-1");
    let [first, second, third] = evidence.takeovers.as_slice() else { panic!("{:?}", evidence.takeovers) };
    assert!(first.signed_lines > 1 && first.signed_lines <= first.lines);
    // Who stops in peace signs all of it.
    assert_eq!((second.signed_lines, third.signed_lines), (second.lines, third.lines));
    assert!(first.lines < second.lines && second.lines < third.lines);
    assert_eq!(evidence.doubts(), [""; 0]);
    let mut links = Links::new();
    for line in lines(&rig.path("a-1")).iter().take(third.lines as usize) {
        links.extend(line.as_bytes());
    }
    assert_eq!(links.head(), third.signed_head);
}

#[tokio::test]
async fn a_checkpoint_in_pieces_is_as_good_as_none_and_flagged() {
    let mut crashed = interrupted().await;
    fs::write(crashed.dir.path().join("spool/a-1.cast.zst.checkpoint"), b"").unwrap();
    crashed.restart();
    let evidence = crashed.evidence("a-1");
    assert_eq!(evidence.checkpoint.as_ref().unwrap().lines, 1);
    assert_eq!(evidence.doubts().len(), 1);
    assert!(crashed.metrics.recorder_errors.get() > 0);
}

#[tokio::test]
async fn an_unsigned_time_that_no_crash_explains_is_doubted() {
    let mut crashed = interrupted().await;
    let kept = fs::read(crashed.dir.path().join("spool/a-1.cast.zst.checkpoint")).unwrap();
    crashed.start_again();
    let (mut recording, recovered) = crashed.recorder().reopen(&session("a-1")).unwrap().unwrap();
    let late = recovered.last_ms + 20_000;
    recording.output(late, recovered.next_output.unwrap(), Stream::Output, b"rm -rf ~").unwrap();
    recording.leave();
    crashed.recorder = None;
    forge(&crashed.path_of("a-1"), |mut lines| {
        let last = lines.last_mut().unwrap();
        *last = last.replace("rm -rf ~", "ls -la ~");
        lines
    });
    // An older checkpoint fits what is there now.
    fs::write(crashed.dir.path().join("spool/a-1.cast.zst.checkpoint"), kept).unwrap();
    remove_journal(&crashed);
    crashed.restart();
    let doubts = crashed.evidence("a-1").doubts();
    assert!(doubts.len() == 1 && doubts[0].contains("had not been signed before"), "{doubts:?}");
}
