//! What is recorded is what was said, and it is final when sealed.

use std::io::Write;
use std::process::{Command, Stdio};

use super::super::lines::{Lines, OpenFile};
use super::super::links::Links;
use super::*;
use crate::asciicast::EventCode;

#[tokio::test]
async fn a_sealed_recording_has_every_event_once() {
    let rig = Rig::new();
    let mut recording = rig.begin("alice-1");
    recording.output(5, 3, Stream::Output, b"$ ").unwrap();
    recording.input(900, b"ls\r").unwrap();
    recording.resize(950, 120, 40).unwrap();
    recording.marker(960, "ls").unwrap();
    recording.output(1000, 4, Stream::Output, b"caf\xc3").unwrap();
    recording.output(999, 5, Stream::Output, b"\xa9\r\n").unwrap();
    recording.output(1100, 6, Stream::StdErr, b"no\xff").unwrap();
    let last = recording.output(1200, 7, Stream::ExitCode, b"EXIT_CODE: 2").unwrap();
    recorded(&mut recording, last).await;
    let sealed = recording.seal(1300, &End::new("client left")).await.unwrap();
    assert_eq!(sealed.path, rig.path("alice-1"));

    let events = events(&sealed.path);
    let codes: String = events.iter().map(|event| event.code.as_char()).collect();
    assert_eq!(codes, "soirmbobosbobx");
    assert!(events.is_sorted_by_key(|event| event.time_ms));
    assert_eq!(events.last().unwrap().data, "2");
    assert_eq!(output(&events, Stream::Output), ("$ café\r\n".into(), vec![Some(3), Some(4), Some(5)]));
    assert_eq!(output(&events, Stream::StdErr), (b"no\xff".to_vec(), vec![Some(6)]));
    assert_eq!(output(&events, Stream::ExitCode), (b"EXIT_CODE: 2".to_vec(), vec![Some(7)]));

    let evidence = rig.evidence("alice-1");
    assert_eq!(evidence.end.reason, "client left");
    assert_eq!(evidence.end.at_ms, 1300);
    assert_eq!(evidence.segments[0].sequences, Some((3, 7)));
    assert_eq!(evidence.totals.lines, 15);
    assert!(!evidence.end.recovered);
}

#[tokio::test]
async fn what_is_shown_above_output_is_recorded_with_it_or_not_at_all() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let before = recording.position();
    recording.above_output(1, Stream::Output, "Be careful.\r\n");
    assert_eq!(recording.position(), before, "it could be kept alone");
    recording.output(1, 0, Stream::Output, b"$ ").unwrap();
    recording.output(2, 1, Stream::Output, b"more").unwrap();
    let sealed = recording.seal(2, &End::new("terminated")).await.unwrap();
    let expected = (b"Be careful.\r\n$ more".to_vec(), vec![None, Some(0), Some(1)]);
    assert_eq!(output(&events(&sealed.path), Stream::Output), expected);
}

#[tokio::test]
async fn a_rune_that_never_ends_is_kept_to_the_byte() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, b"x\xe2\x82").unwrap();
    let sealed = recording.seal(2, &End::new("terminated")).await.unwrap();
    let expected = (b"x\xe2\x82".to_vec(), vec![Some(0), None]);
    assert_eq!(output(&events(&sealed.path), Stream::Output), expected);
}

#[tokio::test]
async fn a_position_is_recorded_only_when_the_journal_has_it() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let before = recording.recorded();
    let position = recording.output(1, 0, Stream::Output, &noise(1, 1024)).unwrap();
    assert!(position > before);
    recorded(&mut recording, position).await;
    assert_eq!(recording.recorded(), position);
    let journal = fs::read_dir(rig.dir.path().join("spool/journal")).unwrap();
    let bytes: u64 = journal.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes > 1024, "{bytes} bytes in the journal");
}

#[tokio::test]
async fn many_sessions_at_once_do_not_mix() {
    let rig = Rig::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..24u64 {
        let mut recording = rig.begin(&format!("s-{number}"));
        tasks.spawn(async move {
            let mut sent = Vec::new();
            for sequence in 0..200 {
                let message = noise(number * 1000 + sequence, 700);
                let position = recording.output(sequence, sequence as i64, Stream::Output, &message).unwrap();
                if sequence % 50 == 0 {
                    recorded(&mut recording, position).await;
                }
                sent.extend(message);
            }
            let sealed = recording.seal(1000, &End::new("done")).await.unwrap();
            let (bytes, sequences) = output(&events(&sealed.path), Stream::Output);
            assert!(bytes == sent, "session {number} was recorded wrongly");
            assert_eq!(sequences.len(), 200);
            number
        });
    }
    while let Some(done) = tasks.join_next().await {
        let id = format!("s-{}", done.unwrap());
        assert_eq!(rig.evidence(&id).segments.last().unwrap().sequences.unwrap().1, 199);
    }
}

#[tokio::test]
async fn an_id_is_recorded_once() {
    let rig = Rig::new();
    let _recording = rig.begin("a-1");
    let again = rig.recorder().begin(&session("a-1"), header("a-1"), Durability::Process);
    assert!(matches!(again, Err(RecorderError::Exists(_))));
}

#[tokio::test]
async fn a_session_that_outruns_the_disk_is_told_to_wait() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    // Holding the file's lock is what a stuck disk looks like to the compressor.
    let lines = recording.lines_for_test();
    let stuck = lines.open_file();
    let message = noise(1, 64 * 1024);
    let refused = (0..200).find_map(|n| recording.output(n, n as i64, Stream::Output, &message).err());
    assert!(matches!(refused, Some(RecorderError::Backlog)), "{refused:?}");
    assert!(!recording.has_room());
    drop(stuck);
    let sealed = recording.seal(1, &End::new("done")).await.unwrap();
    assert!(sealed.line_bytes > 4 << 20);
}

#[test]
fn a_busy_session_keeps_room_for_its_lines_and_a_quiet_one_none() {
    let lines = Lines::after(session("a-1"), (0, Links::new()), OpenFile::new());
    let mut spare = Vec::new();
    let mut room_after = |size: usize| {
        let mut buffer = lines.buffer();
        buffer.bytes.extend(std::iter::repeat_n(b'\n', size));
        buffer.journal(|_, _| {});
        assert_eq!(buffer.take_journaled(&mut spare).len(), size);
        buffer.packed();
        buffer.bytes.capacity()
    };
    assert_eq!(room_after(20_000), 0);
    assert_eq!(room_after(150_000), 187_500, "what it writes in a second fits");
    assert_eq!(room_after(400_000), 800_000, "the compressor is late");
    // A turn may come right after another.
    assert_eq!(room_after(1000), 400_000);
    assert_eq!([room_after(0), room_after(0)], [125_000, 0]);
}

#[tokio::test]
async fn a_dropped_recording_is_sealed_as_abandoned() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, b"hi").unwrap();
    drop(recording);
    rig.recorder = None;
    assert_eq!(rig.evidence("a-1").end.reason, "abandoned");
}

#[tokio::test]
async fn an_open_recording_altered_on_disk_is_not_signed() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let mut forged = fs::OpenOptions::new().append(true).open(rig.path("a-1")).unwrap();
    let line = b"[0.000,\"o\",\"it was not me\"]\n";
    forged.write_all(&zstd::encode_all(line.as_slice(), 1).unwrap()).unwrap();
    recording.output(1, 0, Stream::Output, b"rm -rf /").unwrap();
    let sealed = recording.seal(2, &End::new("done")).await;
    assert!(matches!(sealed, Err(RecorderError::Altered(_))), "{sealed:?}");
    assert!(rig.recorder().healthy().is_ok(), "other sessions go on");
}

#[tokio::test]
async fn an_open_recording_that_was_deleted_is_given_up_once() {
    let rig = Rig::new();
    let mut whole = rig.begin("a-1");
    whole.output(1, 0, Stream::Output, b"rm -rf /").unwrap();
    let mut failed = rig.begin("b-2");
    failed.output(1, 0, Stream::Output, b"rm -rf /").unwrap();
    failed.lines_for_test().fail("the disk is full");
    for (id, recording) in [("a-1", whole), ("b-2", failed)] {
        fs::remove_file(rig.path(id)).unwrap();
        let Err((error, later)) = recording.seal_or_later(2, &End::new("done")).await else { panic!("{id}") };
        assert!(matches!(error, RecorderError::Altered(_)), "{id}: {error}");
        // The answer is final: nobody tries again.
        assert!(later.sealed().await.is_none(), "{id}");
    }
}

#[tokio::test]
async fn a_recording_that_cannot_be_written_fails_and_says_why() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    // A directory in its place: appending must fail, whoever runs the test.
    fs::remove_file(rig.path("a-1")).unwrap();
    fs::create_dir(rig.path("a-1")).unwrap();
    recording.output(1, 0, Stream::Output, b"x").unwrap();
    let failed = poll_fn(|context| recording.poll_recorded(context, Position(u64::MAX))).await;
    assert!(matches!(failed, Err(RecorderError::Failed(_))), "{failed:?}");
    assert!(recording.output(2, 1, Stream::Output, b"y").is_err());
    let other = rig.recorder().begin(&session("b-2"), header("b-2"), Durability::Process);
    assert!(other.is_ok() || rig.recorder().healthy().is_err());
    assert!(rig.metrics.recorder_errors.get() > 0);
}

#[tokio::test]
async fn zstd_reads_a_recording_while_it_is_written_and_after() {
    if Command::new("zstd").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    let lines = recording.lines_for_test();
    let position = recording.output(1, 0, Stream::Output, &noise(7, 5000)).unwrap();
    while lines.compressed() < position.0 {
        tokio::task::yield_now().await;
    }
    let live = Command::new("zstdcat").arg(rig.path("a-1")).output().unwrap();
    assert_eq!(live.stdout.split(|b| *b == b'\n').count(), 4, "header, mark, event");
    let sealed = recording.seal(2, &End::new("done")).await.unwrap();
    let test = Command::new("zstd").arg("-tq").arg(&sealed.path).output().unwrap();
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stderr));
    let whole = Command::new("zstdcat").arg(&sealed.path).output().unwrap();
    assert_eq!(whole.stdout, live.stdout);
    let digest = ring::digest::digest(&ring::digest::SHA256, &whole.stdout);
    assert_eq!(rig.evidence("a-1").lines_sha256, data_encoding::HEXLOWER.encode(digest.as_ref()));
}

#[tokio::test]
async fn a_second_process_may_not_use_the_spool() {
    let rig = Rig::new();
    let second = open(rig.dir.path(), &rig.metrics);
    assert!(matches!(second, Err(RecorderError::InUse(_))));
}

#[tokio::test]
async fn a_closed_recorder_keeps_nobody_waiting() {
    let mut rig = Rig::new();
    let mut recording = rig.begin("a-1");
    rig.recorder = None;
    assert!(poll_fn(|context| recording.poll_recorded(context, Position(u64::MAX))).await.is_err());
    assert!(recording.output(1, 0, Stream::Output, b"x").is_err());
    assert!(matches!(recording.seal(1, &End::new("x")).await, Err(RecorderError::Closed)));
}

#[test]
fn the_key_is_made_once_and_kept_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys/evidence.pem");
    let first = SigningKey::open(&path).unwrap();
    assert_eq!(SigningKey::open(&path).unwrap().public(), first.public());
    assert_eq!(first.public().id().len(), 16);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(PublicKey::read(&dir.path().join("keys/evidence.pem.pub")).unwrap(), first.public());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(SigningKey::open(&path).is_err(), "a key that others can read was used");
    assert!(!format!("{first:?}").contains("pair"));
}

#[test]
fn torn_and_foreign_recordings_are_read_as_far_as_they_go() {
    let text = b"{\"version\":2}\n[0.1,\"o\",\"a\"]\n[0.2,\"o\",\"b\"]\n";
    let packed = zstd::encode_all(text.as_slice(), 3).unwrap();
    for source in [text.as_slice(), &packed] {
        let mut reader = LineReader::new(source);
        let mut count = 0;
        while reader.next_line().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
        assert!(!reader.torn());
        assert!(reader.next_line().unwrap().is_none());
    }
    for cut in 0..packed.len() {
        let mut reader = LineReader::new(&packed[..cut]);
        while reader.next_line().unwrap().is_some() {}
        assert!(cut == 0 || reader.torn(), "cut at {cut}");
    }
    let endless = vec![b'x'; 3 << 20];
    assert!(LineReader::new(endless.as_slice()).next_line().is_err());
    let bomb = zstd::encode_all(endless.as_slice(), 3).unwrap();
    assert!(LineReader::new(bomb.as_slice()).next_line().is_err());
}

#[tokio::test]
async fn an_exit_code_that_is_no_number_stays_text() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::ExitCode, b"killed").unwrap();
    let sealed = recording.seal(2, &End::new("done")).await.unwrap();
    let events = events(&sealed.path);
    assert_eq!(events.last().unwrap().code, EventCode::Output);
    assert_eq!(output(&events, Stream::ExitCode), (b"killed".to_vec(), vec![Some(0)]));
}

#[tokio::test]
async fn the_largest_message_is_recorded_and_a_larger_one_is_not() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    // Every byte of a control character takes six in a line.
    let message = vec![1; read::LINE_MAX / 6 - 10];
    recording.input(1, &message).unwrap();
    let before = recording.position();
    let refused = recording.input(2, &[1; read::LINE_MAX / 6]).unwrap_err();
    assert!(matches!(refused, RecorderError::LineTooLong(length) if length > read::LINE_MAX), "{refused}");
    assert_eq!(recording.position(), before, "nothing of it is recorded");
    recording.output(3, 0, Stream::Output, &[0xff; 300_000]).unwrap();
    let sealed = recording.seal(4, &End::new("done")).await.unwrap();
    assert_eq!(rig.evidence("a-1").end.reason, "done");
    let events = events(&sealed.path);
    assert!(events[0].data.as_bytes() == message);
    assert!(output(&events, Stream::Output).0 == [0xff; 300_000]);
}

#[tokio::test]
async fn a_seal_that_fails_leaves_no_half_of_one() {
    let rig = Rig::new();
    let mut recording = rig.begin("a-1");
    recording.output(1, 0, Stream::Output, b"one").unwrap();
    // Nothing can take the open file's name while this is there.
    let path = rig.path("a-1");
    let lines = recording.lines_for_test();
    while lines.compressed() < recording.position().0 {
        tokio::task::yield_now().await;
    }
    fs::rename(&path, path.with_extension("kept")).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(recording.seal(2, &End::new("done")).await.is_err());
    assert!(!rig.dir.path().join("spool/a-1.cast.zst.sealing").exists());
}
