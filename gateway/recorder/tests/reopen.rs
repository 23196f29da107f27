//! A recording that goes on after its process is one recording.

use std::io::Write;
use std::process::Command;

use super::*;
use crate::asciicast::EventCode;

/// What each message says; one of them splits a rune, one is no text.
const MESSAGES: [&[u8]; 6] = [b"$ ", b"caf\xc3", b"\xa9\r\n", b"\xff\xfe", b"ls\r\n", b"\xe2\x82"];

/// A spool as a crash leaves it, half of its lines only in the journal.
async fn left() -> Rig {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let mut position = Position::default();
    for (sequence, message) in (0..).zip(MESSAGES) {
        position = recording.output(sequence as u64 * 10, sequence, Stream::Output, message).unwrap();
        if sequence == 2 {
            let lines = recording.lines_for_test();
            while lines.compressed() < position.0 {
                tokio::task::yield_now().await;
            }
        }
    }
    recorded(&mut recording, position).await;
    rig.crashed()
}

/// Goes on with the next message and seals; its bytes and numbers.
async fn go_on(rig: &Rig) -> (Recovered, Vec<u8>, Vec<Option<i64>>) {
    let (mut recording, recovered) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
    let next = recovered.next_output.unwrap_or(0);
    recording.output(recovered.last_ms, next, Stream::Output, b"\xacmore").unwrap();
    recording.seal(1_000, &End::new("done")).await.unwrap();
    let evidence = rig.evidence("a-1");
    assert_eq!((evidence.end.reason.as_str(), evidence.end.recovered), ("done", false));
    let (bytes, sequences) = output(&events(&rig.path("a-1")), Stream::Output);
    (recovered, bytes, sequences)
}

fn assert_prefix_and_more(recovered: &Recovered, bytes: &[u8], sequences: &[Option<i64>], what: &str) {
    let kept = usize::try_from(recovered.next_output.unwrap_or(0)).unwrap();
    let expected = [&MESSAGES[..kept].concat(), b"\xacmore".as_slice()].concat();
    assert_eq!(bytes, expected, "{what}");
    assert_eq!(sequences, (0..=kept as i64).map(Some).collect::<Vec<_>>(), "{what}");
    let messages = recovered.messages.iter().map(|message| message.bytes.as_slice());
    assert_eq!(messages.collect::<Vec<_>>(), &MESSAGES[..kept], "{what}");
    assert_eq!(recovered.output_bytes as usize, MESSAGES[..kept].concat().len(), "{what}");
}

#[tokio::test]
async fn a_recording_goes_on_where_it_was() {
    let mut rig = left().await;
    rig.start_again();
    let (recovered, bytes, sequences) = go_on(&rig).await;
    assert_eq!(recovered.next_output, Some(6));
    assert_eq!((recovered.last_ms, recovered.owed, recovered.notices), (50, None, 0));
    assert_prefix_and_more(&recovered, &bytes, &sequences, "whole");
    // The rune that the last message left open is shown whole.
    let shown: String = events(&rig.path("a-1"))
        .into_iter()
        .filter(|e| e.code == EventCode::Output)
        .map(|e| e.data)
        .collect();
    assert!(shown.ends_with("ls\r\n€more"), "{shown:?}");
    // The old journal is gone; the new one has only what is new.
    assert!(rig.recorder_journal_bytes() < 300, "{}", rig.recorder_journal_bytes());
}

#[tokio::test]
async fn wherever_the_file_was_cut_the_journal_makes_it_whole() {
    let whole = left().await;
    let file = fs::read(whole.path_of("a-1")).unwrap();
    let mut gone_on = 0;
    for cut in 0..=file.len() {
        let mut rig = whole.crashed();
        fs::write(rig.path_of("a-1"), &file[..cut]).unwrap();
        rig.start_again();
        match rig.recorder().reopen(&session("a-1")) {
            // Nobody knows whose recording it was.
            Err(RecorderError::Hole(_)) => {
                assert_eq!(gone_on, 0, "cut at {cut}");
                rig.recorder().seal_left(&session("a-1"));
                assert!(rig.evidence("a-1").end.recovered);
            }
            Err(other) => panic!("cut at {cut}: {other}"),
            Ok(reopened) => {
                drop(reopened);
                gone_on += 1;
            }
        }
    }
    assert!(gone_on > file.len() / 4, "{gone_on} of {}", file.len());
}

#[tokio::test]
async fn wherever_the_journal_was_cut_what_is_there_goes_on() {
    let whole = left().await;
    let name =
        fs::read_dir(whole.dir.path().join("spool/journal")).unwrap().next().unwrap().unwrap().file_name();
    let journal = |rig: &Rig| rig.dir.path().join("spool/journal").join(&name);
    let bytes = fs::read(journal(&whole)).unwrap();
    let mut kept = std::collections::BTreeSet::new();
    for cut in 0..=bytes.len() {
        let mut rig = whole.crashed();
        fs::write(journal(&rig), &bytes[..cut]).unwrap();
        rig.start_again();
        let (recovered, bytes, sequences) = go_on(&rig).await;
        assert_prefix_and_more(&recovered, &bytes, &sequences, &format!("cut at {cut}"));
        kept.insert(recovered.next_output);
    }
    assert_eq!(kept.first(), Some(&Some(3)), "the file has three of them");
    assert_eq!(kept.last(), Some(&Some(6)));
}

#[tokio::test]
async fn a_recording_outlives_one_process_after_the_other() {
    let mut rig = left().await;
    for process in 0..5_i64 {
        rig.start_again();
        let (mut recording, recovered) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
        assert_eq!(recovered.next_output, Some(6 + process));
        let position = recording.output(100, 6 + process, Stream::Output, b"x").unwrap();
        recorded(&mut recording, position).await;
        if process % 2 == 0 {
            let crashed = rig.crashed();
            recording.leave();
            rig = crashed;
        } else {
            recording.leave();
        }
    }
    rig.restart();
    let (bytes, sequences) = output(&events(&rig.path_of("a-1")), Stream::Output);
    assert_eq!(bytes, [MESSAGES.concat(), b"xxxxx".to_vec()].concat());
    assert_eq!(sequences, (0..11).map(Some).collect::<Vec<_>>());
    assert_eq!(rig.evidence("a-1").end.missing_bytes, 0);
}

#[tokio::test]
async fn a_crash_while_reopening_loses_nothing() {
    let mut rig = left().await;
    fs::write(rig.dir.path().join("spool/a-1.cast.zst.sealing"), b"half of it").unwrap();
    rig.start_again();
    let (recovered, bytes, sequences) = go_on(&rig).await;
    assert_eq!(recovered.next_output, Some(6));
    assert_prefix_and_more(&recovered, &bytes, &sequences, "a draft in the way");
}

#[tokio::test]
async fn a_recording_with_a_hole_does_not_go_on_and_says_so_when_sealed() {
    let mut rig = left().await;
    let mut broken = Vec::new();
    let first = fs::read_dir(rig.dir.path().join("spool/journal")).unwrap().next().unwrap().unwrap().path();
    let number = first.file_stem().unwrap().to_str().unwrap();
    let number = u64::from_str_radix(number, 16).unwrap();
    journal::encode(number, &session("a-1"), 5_000, b"[9.000,\"o\",\"late\"]\n", &mut broken);
    fs::OpenOptions::new().append(true).open(first).unwrap().write_all(&broken).unwrap();
    rig.start_again();
    assert!(matches!(rig.recorder().reopen(&session("a-1")), Err(RecorderError::Hole(_))));
    assert_eq!(rig.recorder().left(), [session("a-1")]);
    rig.recorder().seal_left(&session("a-1"));
    assert!(rig.evidence("a-1").end.missing_bytes > 0);
}

#[tokio::test]
async fn zstd_reads_it_before_and_while_it_goes_on() {
    let mut rig = left().await;
    rig.start_again();
    let (mut recording, _) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
    let position = recording.output(100, 6, Stream::Output, b"after").unwrap();
    let lines = recording.lines_for_test();
    while lines.compressed() < position.0 {
        tokio::task::yield_now().await;
    }
    let read = Command::new("zstd").args(["-dcq"]).arg(rig.path("a-1")).output().unwrap();
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(text.contains("ls\\r\\n") && text.contains("after"), "{text}");
}

#[tokio::test]
async fn what_is_noted_for_a_later_process_reaches_it() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, b"password: ").unwrap();
    recording.input_is(2, 4).unwrap();
    recording.input(2, b"s").unwrap();
    recording.input(3, b"\xff").unwrap();
    recording.resize(4, 120, 40).unwrap();
    let position = recording.owed(5, Some(0)).unwrap();
    recorded(&mut recording, position).await;
    recording.leave();
    rig.start_again();
    let (recording, recovered) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
    let hash = |bytes: &[u8]| {
        *ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().first_chunk::<16>().unwrap()
    };
    assert_eq!(recovered.inputs, [(4, hash(b"s")), (5, hash(b"\xff"))].into());
    assert_eq!((recovered.size, recovered.owed, recovered.last_ms), (Some((120, 40)), Some(0), 5));
    drop(recording);
}

#[tokio::test]
async fn what_was_seen_of_a_port_session_is_there_with_its_note_or_not_at_all() {
    let whole = Rig::new();
    let mut recording = whole.begin("a-1");
    for number in 1..=4 {
        let open = FlowNote::Event(FlowEvent::Open { connection: number });
        let traffic = FlowNote::Traffic(number, Direction::Up, vec![0xff; 50].into());
        let mut note = FlowState { output: 1, input: number as i64, opened: number, ..FlowState::default() };
        note.set_digests(&[[number as u8; INPUT_DIGEST]]);
        let position = recording.flows(number, &[open, traffic], &note).unwrap();
        recorded(&mut recording, position).await;
    }
    let whole = whole.crashed();
    let name =
        fs::read_dir(whole.dir.path().join("spool/journal")).unwrap().next().unwrap().unwrap().file_name();
    let journal = |rig: &Rig| rig.dir.path().join("spool/journal").join(&name);
    let bytes = fs::read(journal(&whole)).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..=bytes.len() {
        let mut rig = whole.crashed();
        fs::write(journal(&rig), &bytes[..cut]).unwrap();
        rig.start_again();
        let (recording, recovered) = rig.recorder().reopen(&session("a-1")).unwrap().unwrap();
        recording.seal(recovered.last_ms, &End::new("done")).await.unwrap();
        let codes: Vec<EventCode> = events(&rig.path_of("a-1")).iter().map(|event| event.code).collect();
        let count = |code| codes.iter().filter(|it| **it == code).count() as u64;
        let opened = recovered.flow.as_ref().map_or(0, |flow| flow.opened);
        assert_eq!((count(EventCode::FLOW), count(EventCode::TRAFFIC)), (opened, opened), "cut at {cut}");
        let inputs = (1..=opened).map(|number| (number as i64 - 1, [number as u8; INPUT_DIGEST]));
        assert_eq!(recovered.inputs, inputs.collect(), "cut at {cut}");
        seen.insert(opened);
    }
    assert_eq!(seen.last(), Some(&4));
}
