//! What is signed while a session runs proves what a crash leaves.

use std::io::Write;

use super::*;

/// A crash after which file and checkpoint are there and a journal is not
/// needed: 100 messages, signed.
async fn signed() -> Rig {
    let rig = Rig::new();
    let mut follower = rig.recorder().feed().follow();
    let mut recording = rig.begin("a-1");
    for sequence in 0..100 {
        recording.output(sequence * 10, sequence as i64, Stream::Output, &noise(sequence, 300)).unwrap();
    }
    // The first turn of a session that writes is signed at once.
    let signed = loop {
        if let Shipment::Checkpoint { checkpoint, .. } = follower.next().await.unwrap() {
            break checkpoint;
        }
    };
    assert!(signed.signed_by(&rig.keys()));
    let crashed = rig.crashed();
    let Report::Unsealed { proved: Some(proved), lines, .. } = crashed.verify("a-1").unwrap() else {
        panic!("nothing is proved")
    };
    assert_eq!(proved, *signed);
    assert!(proved.lines > 1 && proved.lines <= lines);
    crashed
}

/// Writes the open file anew with other lines.
fn rewrite(rig: &Rig, change: impl Fn(Vec<String>) -> Vec<String>) {
    let path = rig.path_of("a-1");
    let changed = change(lines(&path)).concat();
    let mut frame = zstd::Encoder::new(Vec::new(), 1).unwrap();
    frame.write_all(changed.as_bytes()).unwrap();
    fs::write(&path, frame.finish().unwrap()).unwrap();
}

#[tokio::test]
async fn a_crashed_recording_is_proved_up_to_its_checkpoint() {
    let mut crashed = signed().await;
    crashed.restart();
    let evidence = crashed.evidence("a-1");
    assert_eq!(evidence.doubts(), [""; 0]);
    let checkpoint = evidence.checkpoint.unwrap();
    assert!(evidence.end.recovered && checkpoint.lines <= evidence.totals.lines);
    assert!(!crashed.dir.path().join("spool/a-1.cast.zst.checkpoint").exists());
}

#[tokio::test]
async fn a_recording_that_was_altered_after_a_crash_is_neither_proved_nor_sealed() {
    let mut crashed = signed().await;
    rewrite(&crashed, |mut lines| {
        lines[2] = lines[2].replacen("\"o\"", "\"i\"", 1);
        lines
    });
    let damage = crashed.verify("a-1").unwrap_err();
    assert!(damage.what.contains("not those that were signed"), "{damage}");
    crashed.start_again();
    let reopened = crashed.recorder().reopen(&session("a-1"));
    assert!(matches!(reopened, Err(RecorderError::Altered(_))));
    crashed.recorder().seal_left(&session("a-1"));
    assert!(!is_sealed(&crashed.path("a-1")).unwrap());
    assert_eq!(crashed.recorder().healthy(), Ok(()));
    assert_eq!(crashed.metrics.recordings.with_label_values(&["failed"]).get(), 1);
}

#[tokio::test]
async fn lines_that_were_signed_and_are_gone_are_missed() {
    let mut crashed = signed().await;
    rewrite(&crashed, |mut lines| {
        lines.truncate(10);
        lines
    });
    for entry in fs::read_dir(crashed.dir.path().join("spool/journal")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let damage = crashed.verify("a-1").unwrap_err();
    assert!(damage.what.contains("and 10 are here"), "{damage}");
    crashed.start_again();
    let reopened = crashed.recorder().reopen(&session("a-1"));
    assert!(matches!(reopened, Err(RecorderError::Hole(_))));
    crashed.recorder().seal_left(&session("a-1"));
    let evidence = crashed.evidence("a-1");
    assert!(evidence.end.missing_bytes > 0 && evidence.checkpoint.is_none());
    let doubts = evidence.doubts();
    assert!(doubts[0].ends_with("bytes of its lines are lost; markers in it say where"), "{doubts:?}");
    assert!(events(&crashed.path("a-1")).iter().any(|event| event.data.contains("were lost here")));
}

#[tokio::test]
async fn a_checkpoint_by_a_stranger_proves_nothing() {
    let crashed = signed().await;
    let stranger = SigningKey::open(&crashed.dir.path().join("keys/other")).unwrap();
    let damage = verify(&crashed.path_of("a-1"), &[stranger.public()]).unwrap_err();
    assert!(damage.what.contains("no trusted key signed it"), "{damage}");
}

#[tokio::test]
async fn after_a_rotation_the_new_key_signs_and_the_old_one_is_still_known() {
    let mut crashed = signed().await;
    let path = crashed.dir.path().join("keys/key");
    let (old, new) = SigningKey::rotate(&path).unwrap();
    assert_ne!(old, new);
    let known = SigningKey::open(&path).unwrap().known();
    assert_eq!(known, [new, old]);
    // What the old key signed before the crash counts for the new process.
    crashed.restart();
    let evidence = crashed.evidence("a-1");
    assert_eq!(evidence.key_id, new.id());
    assert_eq!(evidence.checkpoint.unwrap().key_id, old.id());
    let third = SigningKey::rotate(&path).unwrap().1;
    assert!(verify(&crashed.path("a-1"), &[third]).is_err());
    assert!(verify(&crashed.path("a-1"), &SigningKey::open(&path).unwrap().known()).is_ok());
}
