//! What is read back from elsewhere is this session's, signed, or not shown.

use std::path::{Path, PathBuf};

use postern::archive::ArchiveConfig;
use postern::shipper::ShipperConfig;
use serde_json::Value;

use crate::support::{Answer, Call, DEV, FakeLogs, House, Person, Terminal, until, until_some};

const GROUP: &str = "/postern/sessions";

struct Told {
    session: String,
    sealed: Vec<u8>,
}

/// A session that is over; its recording is as it was sealed.
async fn ended(house: &House, person: &Person, command: &str) -> Told {
    let mut terminal = Terminal::shell(person, DEV).await;
    terminal.type_line(command).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let path = local(house, &terminal.session);
    until("the seal", || postern::recorder::is_sealed(&path).unwrap_or(false)).await;
    Told { session: terminal.session.clone(), sealed: std::fs::read(path).unwrap() }
}

fn local(house: &House, session: &str) -> PathBuf {
    house.spool.join(format!("{session}.cast.zst"))
}

async fn fetched(person: &Person, session: &str) -> Answer {
    person.call(Call::get(&format!("/v1/sessions/{session}/recording"))).await
}

fn is_recording(message: &str) -> bool {
    message.contains("\"eventName\":\"recording\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_another_session_in_the_log_stream_is_not_shown_as_this_one() {
    let logs = FakeLogs::start().await;
    logs.make_group(GROUP);
    let url = logs.url.clone();
    let house = House::with(move |config| {
        config.shipper =
            ShipperConfig { log_group: GROUP.into(), endpoint_url: Some(url), ..ShipperConfig::default() };
    })
    .await;
    let alice = house.alice().await;
    let longer = ended(&house, &alice, "seq 1 5000").await;
    let own = ended(&house, &alice, "echo mine").await;
    for told in [&longer, &own] {
        until("the end", || !logs.events(GROUP, &told.session, "sessionEnd").is_empty()).await;
        std::fs::remove_file(local(&house, &told.session)).unwrap();
    }
    // The longer one's events, as somebody would write them who may.
    let forged: Vec<_> = logs
        .stream(GROUP, &longer.session)
        .into_iter()
        .filter(|event| is_recording(&event.message))
        .collect();
    let forged = forged.into_iter().map(|mut event| {
        let mut said: Value = serde_json::from_str(&event.message).unwrap();
        said["sessionId"] = own.session.clone().into();
        said["run"] = (said["run"].as_u64().unwrap() + 1).into();
        event.message = said.to_string();
        event
    });
    let forged: Vec<_> = forged.collect();
    logs.tamper(GROUP, &own.session, |events| events.extend(forged.clone()));
    let answer = fetched(&alice, &own.session).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == own.sealed, "another session was shown");

    // Without the seal it would be a recording that is not complete yet.
    logs.tamper(GROUP, &own.session, |events| {
        events.retain(|event| !event.message.contains("\"holds\":\"seal\""));
        events.retain(|event| !event.message.contains("\"eventName\":\"checkpoint\""));
    });
    assert_eq!(fetched(&alice, &own.session).await.status, 500);
    logs.tamper(GROUP, &own.session, |events| *events = forged);
    let refused = fetched(&alice, &own.session).await;
    assert_eq!(refused.status, 500);
    assert!(refused.text().contains("is not what this gateway has signed"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_another_session_in_the_archive_is_not_shown_as_this_one() {
    let house = House::with(|config| {
        let folder = config.state_directory.with_file_name("archive");
        let location = Some(folder.display().to_string());
        config.archive = ArchiveConfig { location, ..ArchiveConfig::default() };
    })
    .await;
    let alice = house.alice().await;
    let other = ended(&house, &alice, "seq 1 500").await;
    let own = ended(&house, &alice, "echo mine").await;
    let object = |session: &str, suffix: &str| {
        house.folder.path().join("archive/recordings").join(format!("{session}{suffix}"))
    };
    for told in [&other, &own] {
        until("the manifest", || object(&told.session, ".json").exists()).await;
        until_some("the note", || async { alice.session(&told.session).await.get("archived_ms").cloned() })
            .await;
        std::fs::remove_file(local(&house, &told.session)).unwrap();
    }
    assert!(fetched(&alice, &own.session).await.body == own.sealed);
    let replace = |suffix: &str| {
        std::fs::copy(object(&other.session, suffix), object(&own.session, suffix)).unwrap();
    };
    replace(".cast.zst");
    refused(&alice, &own.session).await;
    replace(".json");
    refused(&alice, &own.session).await;
    std::fs::remove_file(object(&own.session, ".json")).unwrap();
    refused(&alice, &own.session).await;
    restore(&object(&own.session, ".cast.zst"), &own.sealed);
    refused(&alice, &own.session).await;
}

fn restore(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

async fn refused(person: &Person, session: &str) {
    let answer = fetched(person, session).await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("is not what was archived"), "{}", answer.text());
}
