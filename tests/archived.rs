//! Recordings in the archive: kept, read back, held and deleted.

use std::path::{Path, PathBuf};

use postern::archive::ArchiveConfig;
use postern::config::Config;
use postern::recorder::PublicKey;
use postern::shipper::ShipperConfig;
use serde_json::json;

use crate::support::{
    Browser, Call, DEV, FakeLogs, Fault, House, Person, Recorded, Terminal, until, until_some,
};

/// Archives in a folder of its own, and tidies at once.
fn archiving(days_local: Option<u32>, days: Option<u32>) -> impl FnOnce(&mut Config) {
    move |config| {
        config.archive = ArchiveConfig {
            location: Some(folder(config).display().to_string()),
            keep_local_days: days_local,
            delete_after_days: days,
            ..ArchiveConfig::default()
        };
    }
}

fn folder(config: &Config) -> PathBuf {
    config.state_directory.with_file_name("archive")
}

fn object(house: &House, session: &str, suffix: &str) -> PathBuf {
    house.folder.path().join("archive/recordings").join(format!("{session}{suffix}"))
}

async fn finish(mut terminal: Terminal) -> String {
    terminal.type_line("exit").await;
    terminal.closed().await;
    terminal.session
}

async fn counted(house: &House, result: &str, times: f64) {
    let series = format!("postern_archived_recordings_total{{result=\"{result}\"}}");
    until_some(result, || async { (house.metric(&series).await == times).then_some(()) }).await;
}

async fn key(house: &House) -> PublicKey {
    let keys = Call::get("/v1/recording-keys").send(&house.door).await.ok();
    PublicKey::from_pem(keys[0]["pem"].as_str().unwrap()).unwrap()
}

fn local(house: &House, session: &str) -> PathBuf {
    house.spool.join(format!("{session}.cast.zst"))
}

async fn hold(person: &Person, session: &str, body: &serde_json::Value) -> crate::support::Answer {
    person.call(Call::post(&format!("/v1/sessions/{session}/hold"), body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archived_recording_is_read_where_it_is() {
    let house = House::with(archiving(Some(0), None)).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo kept-$((1+1))").await;
    terminal.until("kept-2\r\n$ ").await;
    let session = finish(terminal).await;
    until("the file to leave the spool", || !local(&house, &session).exists()).await;

    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(object(&house, &session, ".json")).unwrap()).unwrap();
    assert_eq!(manifest["session"], session.as_str());
    assert_eq!((&manifest["target"], &manifest["durability"]), (&json!(DEV), &json!("process")));
    let path = format!("/v1/sessions/{session}/recording");
    let answer = alice.call(Call::get(&path)).await;
    assert_eq!(answer.status, 200);
    let copy = house.folder.path().join("copy.cast.zst");
    std::fs::write(&copy, &answer.body).unwrap();
    let recorded = Recorded::checked(&copy, &key(&house).await);
    assert!(String::from_utf8_lossy(&recorded.bytes()).contains("kept-2"));
    assert_eq!(house.metric("postern_archive_backlog").await, 0.0);
    assert_eq!(house.metric("postern_archived_bytes_total").await, answer.body.len() as f64);
    // What has left the spool is still found.
    let found = alice.call(Call::post("/v1/search", &json!({"text": "kept-2"}))).await.ok();
    assert_eq!(found["hits"][0]["session"], session.as_str());
    // Whoever may not replay it here may not read it there.
    let bob = house.sign_in("bob").await;
    bob.call(Call::get(&path)).await.refused("AccessDeniedException");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_archived_now_is_archived_later() {
    let house = House::with(archiving(None, None)).await;
    let alice = house.alice().await;
    // A file where the folder should be: every write fails.
    let folder = house.folder.path().join("archive/recordings");
    std::fs::write(&folder, "").unwrap();
    let session = finish(Terminal::shell(&alice, DEV).await).await;
    counted(&house, "retried", 1.0).await;
    assert_eq!(house.metric("postern_archive_backlog").await, 1.0);
    std::fs::remove_file(&folder).unwrap();
    counted(&house, "archived", 1.0).await;
    let kept = |path: &Path| std::fs::read(path).unwrap();
    assert_eq!(kept(&object(&house, &session, ".cast.zst")), kept(&local(&house, &session)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_recording_is_not_deleted_until_it_is_released() {
    let house = House::with(archiving(Some(0), Some(0))).await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let terminal = Terminal::shell(&alice, DEV).await;
    let held = terminal.session.clone();
    hold(&alice, &held, &json!({})).await.refused("AccessDeniedException");
    let answer = hold(&carol, &held, &json!({"reason": "case 4711"})).await.ok();
    assert_eq!(answer["hold"]["reason"], "case 4711");
    finish(terminal).await;
    // The next one is deleted as soon as it is archived; by then the held one was passed over.
    let other = finish(Terminal::shell(&alice, DEV).await).await;
    counted(&house, "deleted", 1.0).await;
    assert!(!object(&house, &other, ".cast.zst").exists() && !local(&house, &other).exists());
    assert!(object(&house, &held, ".cast.zst").exists());
    assert!(alice.session(&held).await["hold"]["by"].as_str().unwrap().ends_with("Auditor/carol"));
    assert_eq!(alice.call(Call::get(&format!("/v1/sessions/{held}/recording"))).await.status, 200);

    hold(&carol, &held, &json!({"release": true})).await.ok();
    finish(Terminal::shell(&alice, DEV).await).await;
    counted(&house, "deleted", 3.0).await;
    assert!(!object(&house, &held, ".cast.zst").exists() && !object(&house, &held, ".json").exists());
    assert_eq!(alice.call(Call::get(&format!("/v1/sessions/{held}/recording"))).await.status, 400);
    // What is nowhere any more cannot be held.
    let told = hold(&carol, &held, &json!({})).await.refused("DoesNotExistException");
    assert!(told.contains("neither here nor in the archive, so there is nothing to hold"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_archive_has_damaged_is_given_out_as_it_was_shipped() {
    let logs = FakeLogs::start().await;
    logs.make_group("/postern");
    let url = logs.url.clone();
    let house = House::with(|config| {
        archiving(None, None)(config);
        config.shipper = ShipperConfig {
            log_group: "/postern".into(),
            endpoint_url: Some(url),
            ..ShipperConfig::default()
        };
    })
    .await;
    let alice = house.alice().await;
    let browser = Browser::of(&house, &alice).await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    // What does not compress: its end comes long after the answer began.
    terminal.type_line("head -c 500000 /dev/urandom | base64 -w 0; echo wh''ole").await;
    terminal.until("whole").await;
    let session = finish(terminal).await;
    counted(&house, "archived", 1.0).await;
    until("the end in CloudWatch", || !logs.events("/postern", &session, "sessionEnd").is_empty()).await;
    let mut bytes = std::fs::read(local(&house, &session)).unwrap();
    let (whole, middle) = (bytes.clone(), bytes.len() / 2);
    bytes[middle] ^= 1;
    std::fs::write(object(&house, &session, ".cast.zst"), &bytes).unwrap();
    std::fs::remove_file(local(&house, &session)).unwrap();

    // The console has a copy of its own made first, so it finds out before it answers.
    let index = browser.get(&format!("/sessions/{session}/replay")).await.ok();
    assert_eq!(index["sealed"], true);
    counted(&house, "damaged", 2.0).await;
    // By now it is known.
    let answer = alice.call(Call::get(&format!("/v1/sessions/{session}/recording"))).await;
    assert_eq!((answer.status, answer.body == whole), (200, true));
    assert!(answer.headers.contains("x-postern-archive-damaged: true"), "{}", answer.headers);
    // Nowhere else either: refused at once, with what is wrong.
    logs.outage(Some(Fault::Denied));
    let told = alice.call(Call::get(&format!("/v1/sessions/{session}/recording"))).await;
    let told = told.refused("InternalServerError");
    assert!(told.contains("is not what was archived") && told.contains("its bytes are not the"), "{told}");
}
