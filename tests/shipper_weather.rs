//! Whatever the weather, CloudWatch ends up with the exact recordings.

use postern::asciicast::Header;
use postern::recorder::{End, Recording, Report, Stream, verify};
use postern::replay::Timeline;
use postern::session::{Durability, SessionId, now_ms};
use serde_json::json;

use crate::support::{FakeLogs, Fault, GROUP, Spool, until, until_some};

fn header(began_ms: u64) -> Header {
    let mut header = Header::new(i64::try_from(began_ms / 1000).unwrap());
    header.postern =
        json!({"target": "i-0abc", "principal": "arn:aws:iam::1:user/alice"}).as_object().cloned();
    header
}

fn begin(spool: &Spool) -> (SessionId, Recording) {
    let id = SessionId::mint("alice");
    let recording = spool.recorder.begin(&id, header(now_ms()), Durability::Process).unwrap();
    (id, recording)
}

async fn logs() -> FakeLogs {
    let logs = FakeLogs::start().await;
    logs.make_group(GROUP);
    logs
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Lines of text, now and then binary or much at once.
fn burst(random: &mut u64, number: i64) -> (String, Vec<u8>) {
    let word = format!("line-{number}-");
    let more = match xorshift(random) % 10 {
        0 => (0..xorshift(random) % 60_000).map(|_| xorshift(random) as u8 | 0x80).collect(),
        1 => "x".repeat(xorshift(random) as usize % 200_000).into_bytes(),
        _ => xorshift(random).to_string().into_bytes(),
    };
    (word.clone(), [word.as_bytes(), b"\r\n", &more, b"\r\n"].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_weather_every_line_is_in_cloudwatch_and_recordings_come_back_whole() {
    for seed in [3, 17, 4_211] {
        let mut random = seed;
        let logs = logs().await;
        let mut spool = Spool::start(&logs).await;
        logs.weather(seed, 30);
        let mut sessions: Vec<_> = (0..4).map(|_| (begin(&spool), Vec::new())).collect();
        for number in 0..60 {
            let at = xorshift(&mut random) as usize % sessions.len();
            let ((_, recording), words) = &mut sessions[at];
            let (word, bytes) = burst(&mut random, number);
            recording.output(number as u64 * 50, number, Stream::Output, &bytes).unwrap();
            words.push(word);
            match xorshift(&mut random) % 20 {
                0 => spool.shipper_dies().await,
                1..5 => {
                    let calls = logs.calls("PutLogEvents");
                    until("another call", || logs.calls("PutLogEvents") > calls).await;
                }
                _ => {}
            }
        }
        for ((id, recording), words) in sessions {
            recording.seal(5_000, &End::new("client left")).await.unwrap();
            spool.shipped(&id).await;
            let events = logs.events(GROUP, id.as_str(), "output");
            let text: Vec<String> = events.iter().map(|event| event["sessionData"].to_string()).collect();
            let text = text.concat();
            for word in words {
                assert!(text.contains(&word), "{word:?} is not in the transcript of {id}");
            }
            let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "a number of {id} stands for two events");
            let segments = logs.events(GROUP, id.as_str(), "recording");
            let runs: std::collections::BTreeSet<u64> =
                segments.iter().flat_map(|e| e["run"].as_u64()).collect();
            assert_eq!(runs.len(), 1, "{id} was shipped more than once");
        }
        logs.weather(seed, 10);
        for entry in std::fs::read_dir(spool.folder.path().join("spool")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(id) = name.strip_suffix(".cast.zst") {
                spool.assert_whole(&SessionId::parse(id).unwrap()).await;
            }
        }
        logs.assert_kept_to_quotas();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cursor_only_ships_the_session_once_more() {
    let logs = logs().await;
    let mut spool = Spool::start(&logs).await;
    let (id, mut recording) = begin(&spool);
    recording.output(1, 0, Stream::Output, b"one\r\n").unwrap();
    until("the line", || !logs.events(GROUP, id.as_str(), "output").is_empty()).await;
    for entry in std::fs::read_dir(spool.folder.path().join("shipper")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    spool.shipper_dies().await;
    recording.output(2, 1, Stream::Output, b"two\r\n").unwrap();
    recording.seal(3, &End::new("client left")).await.unwrap();
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_session_can_be_read_back_as_far_as_it_went() {
    let logs = logs().await;
    let spool = Spool::start(&logs).await;
    let (id, mut recording) = begin(&spool);
    for number in 0..3 {
        recording.output(number as u64, number, Stream::Output, b"a line\r\n").unwrap();
        let lines = || logs.events(GROUP, id.as_str(), "output").len();
        let before = lines();
        until("the line", || lines() > before).await;
        let copy = spool.read_back(&id).await.unwrap();
        assert!(!copy.sealed);
        let mut timeline = Timeline::open(&copy.path).unwrap();
        let mut shown = 0;
        while let Some(event) = timeline.next_event().unwrap() {
            shown += usize::from(event.data == "a line\r\n");
        }
        assert_eq!(shown as i64, number + 1);
    }
    let key = [spool.recorder.public_key()];
    let proved = until_some("a signed copy", || async {
        let copy = spool.read_back(&id).await.unwrap();
        let Report::Unsealed { proved, .. } = verify(&copy.path, &key).unwrap() else { panic!("sealed") };
        proved.filter(|proved| proved.lines == copy.lines)
    });
    assert!(proved.await.signed_by(&key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_a_month_ago_is_shipped_at_a_time_that_aws_takes() {
    let logs = logs().await;
    let spool = Spool::start(&logs).await;
    let id = SessionId::mint("alice");
    let month_ms = 30 * 24 * 3_600_000;
    let mut recording = spool.recorder.begin(&id, header(now_ms() - month_ms), Durability::Process).unwrap();
    for day in 0..30 {
        recording.output(day * 24 * 3_600_000, day as i64, Stream::Output, b"a day\r\n").unwrap();
    }
    recording.seal(month_ms, &End::new("client left")).await.unwrap();
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
    assert_eq!(logs.events(GROUP, id.as_str(), "sessionEnd").len(), 1);
    logs.assert_kept_to_quotas();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_aws_rejects_for_their_time_are_sent_again() {
    for ahead in [-6, 15 * 24] {
        let logs = logs().await;
        let spool = Spool::start(&logs).await;
        logs.clock_ahead(ahead * 3_600_000);
        let (id, mut recording) = begin(&spool);
        recording.output(1, 0, Stream::Output, b"one\r\n").unwrap();
        recording.seal(2, &End::new("client left")).await.unwrap();
        if ahead > 0 {
            // Nothing that this clock can say is new enough: it waits.
            until("attempts", || logs.calls("PutLogEvents") > 2).await;
            logs.clock_ahead(0);
        }
        spool.shipped(&id).await;
        spool.assert_whole(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_is_created_again() {
    let logs = logs().await;
    let spool = Spool::start(&logs).await;
    let (id, mut recording) = begin(&spool);
    recording.output(1, 0, Stream::Output, b"one\r\n").unwrap();
    until("the line", || !logs.events(GROUP, id.as_str(), "output").is_empty()).await;
    logs.fail("PutLogEvents", Fault::Missing);
    recording.output(2, 1, Stream::Output, b"two\r\n").unwrap();
    recording.seal(3, &End::new("client left")).await.unwrap();
    spool.shipped(&id).await;
    spool.assert_whole(&id).await;
    assert!(logs.calls("CreateLogStream") > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_begin_at_once_create_their_streams_within_the_quota() {
    let logs = logs().await;
    let spool = Spool::start(&logs).await;
    let mut sessions = Vec::new();
    for _ in 0..60 {
        let (id, mut recording) = begin(&spool);
        recording.output(1, 0, Stream::Output, b"hello\r\n").unwrap();
        sessions.push((id, recording));
    }
    for (id, recording) in sessions {
        recording.seal(2, &End::new("client left")).await.unwrap();
        spool.shipped(&id).await;
    }
    logs.assert_kept_to_quotas();
}
