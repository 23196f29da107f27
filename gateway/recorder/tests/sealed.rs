//! Frames of a sealed recording, passed on with their place in the chain.

use std::io::Write;

use super::super::frames::has_checksum;
use super::super::restore;
use super::*;

/// A sealed recording of three frames.
fn sealed(rig: &Rig) -> Sealed {
    rig.recorder().hurry();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut recording = rig.begin("a-1");
    for sequence in 0..9000 {
        while !recording.has_room() {
            std::thread::yield_now();
        }
        recording.output(sequence, sequence as i64, Stream::Output, &noise(sequence, 1024)).unwrap();
    }
    runtime.block_on(recording.seal(9000, &End::new("done"))).unwrap()
}

/// Puts the file that other evidence makes in place of a sealed one.
fn seal_anew(rig: &Rig, path: &Path, change: impl FnOnce(&mut Evidence)) {
    let mut evidence = rig.recorder().feed().evidence(&session("a-1")).unwrap().unwrap();
    change(&mut evidence);
    evidence.sign(&rig.recorder().house.key).unwrap();
    let mut made = Vec::new();
    restore(fs::File::open(path).unwrap(), &evidence.to_json().unwrap(), &mut made).unwrap();
    fs::File::create(path).unwrap().write_all(&made).unwrap();
}

#[test]
fn every_frame_has_the_lines_and_the_heads_that_its_evidence_says() {
    let rig = Rig::new();
    let sealed = sealed(&rig);
    let frames = rig.recorder().feed().frames(&session("a-1")).unwrap();
    let evidence = rig.evidence("a-1");
    assert_eq!(evidence.frames.len(), 3);
    assert_eq!(frames.lines(), evidence.totals.lines);
    let (mut links, mut file) = (Links::new(), Vec::new());
    while let Some(frame) = frames.read(links.lines()).unwrap() {
        assert_eq!(frame.first_line, links.lines());
        assert_eq!(frames.head_before(frame.first_line), Some(links.head()));
        let lines = zstd::decode_all(&frame.bytes[..]).unwrap();
        assert!(has_checksum(&frame.bytes).unwrap() && lines.len() > 500_000);
        assert_eq!(frames.head_before(links.lines() + 1), None, "no frame begins there");
        let last = lines[..lines.len() - 1].rsplit(|byte| *byte == b'\n').next().unwrap();
        let (last, known) = (Event::parse(last).unwrap().time_ms, frame.until_ms);
        assert!((last..last + 100).contains(&known), "{known} is not the time of {last}");
        links.extend(&lines);
        assert_eq!((links.lines(), links.head()), (frame.first_line + frame.count, frame.chain));
        assert_eq!(frames.end_of(frame.first_line + frame.count - 1), Some(links.lines()));
        file.extend_from_slice(&frame.bytes);
    }
    assert_eq!(links.lines(), frames.lines());
    assert!(fs::read(&sealed.path).unwrap().starts_with(&file));
}

#[test]
fn a_frame_that_was_altered_is_not_passed_on_and_its_lines_are_told() {
    let rig = Rig::new();
    let sealed = sealed(&rig);
    let evidence = rig.evidence("a-1");
    let mut bytes = fs::read(&sealed.path).unwrap();
    bytes[evidence.frames[0].0 as usize + 7] ^= 1;
    fs::write(&sealed.path, &bytes).unwrap();
    let frames = rig.recorder().feed().frames(&session("a-1")).unwrap();
    assert!(frames.read(0).unwrap().is_some());
    let second = evidence.frame_heads[0].0;
    let told = frames.read(second).unwrap_err().to_string();
    let lines = format!("lines {} to {}", second + 1, second + evidence.frame_heads[1].0);
    assert!(told.contains(&lines) && told.contains("a frame is not as it was sealed"), "{told}");
    fs::remove_file(&sealed.path).unwrap();
    assert_eq!(frames.read(0).unwrap(), None);
    assert!(!rig.recorder().feed().is_sealed(&session("a-1")).unwrap());
}

#[test]
fn wrong_heads_are_found_by_verify_though_the_gateway_signed_them() {
    let rig = Rig::new();
    let path = sealed(&rig).path;
    let whole = fs::read(&path).unwrap();
    let changes: [fn(&mut Evidence); 4] = [
        |evidence| evidence.frame_heads[1].1 = Links::new().head(),
        |evidence| evidence.frame_heads[0].0 += 1,
        |evidence| evidence.frame_heads.truncate(2),
        |evidence| evidence.frame_heads.push(evidence.frame_heads[2]),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        seal_anew(&rig, &path, change);
        let damage = rig.verify("a-1").unwrap_err();
        assert!(damage.what.contains("frame 1") || number != 0, "{damage}");
        fs::write(&path, &whole).unwrap();
    }
    assert!(matches!(rig.verify("a-1"), Ok(Report::Sealed(_))));
}

#[test]
fn what_was_sealed_before_heads_were_noted_is_as_good_but_for_its_frames() {
    let rig = Rig::new();
    let path = sealed(&rig).path;
    seal_anew(&rig, &path, |evidence| evidence.frame_heads.clear());
    assert!(rig.evidence("a-1").frame_heads.is_empty());
    let json = String::from_utf8(rig.evidence("a-1").to_json().unwrap()).unwrap();
    assert!(!json.contains("frame_heads"));
    assert!(rig.recorder().feed().frames(&session("a-1")).is_none());
}

#[test]
fn evidence_that_no_known_key_signed_is_not_believed() {
    let rig = Rig::new();
    let path = sealed(&rig).path;
    let evidence = rig.recorder().feed().evidence(&session("a-1")).unwrap().unwrap();
    let forged = Evidence { signature: String::new(), ..evidence };
    let mut made = Vec::new();
    restore(fs::File::open(&path).unwrap(), &forged.to_json().unwrap(), &mut made).unwrap();
    fs::write(&path, &made).unwrap();
    assert!(rig.recorder().feed().frames(&session("a-1")).is_none());
}

#[test]
fn a_backlog_reads_no_line_from_a_given_one_on() {
    let rig = Rig::new();
    sealed(&rig);
    let feed = rig.recorder().feed();
    let mut backlog = feed.lines_from(&session("a-1"), 10).unwrap().unwrap();
    let first = backlog.next_until(usize::MAX, 25).unwrap().unwrap();
    assert_eq!((first.first_line, first.next_line()), (10, 25));
    assert!(backlog.next_until(1000, 25).unwrap().is_none());
    let second = backlog.next_until(1, 5000).unwrap().unwrap();
    assert_eq!((second.first_line, second.count), (25, 1));
    let mut straight = feed.lines_from(&session("a-1"), 0).unwrap().unwrap();
    let batch = straight.next_until(usize::MAX, 26).unwrap().unwrap();
    assert_eq!(batch.chain, second.chain);
}
