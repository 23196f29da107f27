//! How much work a seal is worth, and that it can be made again.

use std::fs::File;

use super::*;

/// More than a frame that is always worth the best.
const OUTPUT: usize = 1 << 20;

/// Records the same output each time; gives the sealed file.
async fn sealed(rig: &Rig, id: &str) -> Vec<u8> {
    let mut recording = rig.begin(id);
    for (number, piece) in noise(7, OUTPUT).chunks(1024).enumerate() {
        while !recording.has_room() {
            tokio::task::yield_now().await;
        }
        recording.output(number as u64, number as i64, Stream::Output, piece).unwrap();
    }
    let sealed = recording.seal(0, &End::new("done")).await.unwrap();
    rig.verify(id).unwrap();
    fs::read(sealed.path).unwrap()
}

fn restored(rig: &Rig, id: &str) -> Vec<u8> {
    let evidence = serde_json::to_vec(&rig.evidence(id)).unwrap();
    let lines = zstd::Decoder::new(File::open(rig.path(id)).unwrap()).unwrap();
    let mut again = Vec::new();
    restore(lines, &evidence, &mut again).unwrap();
    again
}

#[tokio::test]
async fn a_seal_that_others_wait_for_is_larger_and_both_can_be_made_again() {
    let rig = Rig::new();
    let best = sealed(&rig, "best").await;
    rig.recorder().hurry();
    let quick = sealed(&rig, "quick").await;
    rig.recorder().house.waiting_seals.fetch_sub(1, Ordering::Relaxed);
    assert!(best.len() < quick.len(), "{} and {} bytes", best.len(), quick.len());
    assert!(restored(&rig, "best") == best);
    assert!(restored(&rig, "quick") == quick);
    // Nobody waits any more: what was counted was counted off again.
    assert_eq!(rig.recorder().house.waiting_seals.load(Ordering::Relaxed), 0);
    assert!(sealed(&rig, "again").await.len().abs_diff(best.len()) < 64);
}
