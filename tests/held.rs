//! A hold and a deletion at the same time: held is there, or not held.

use std::cell::Cell;

use futures_util::future::join_all;
use postern::archive::ArchiveConfig;
use postern::config::Config;
use postern::shipper::{AtLimit, ShipperConfig};
use serde_json::json;

use crate::support::{Call, DEV, FakeLogs, House, Terminal, until, until_some};

/// Recordings that somebody wants to hold while they are deleted.
const ROUNDS: usize = 36;

/// One of these is held when the first before it is gone, one when the second is, and so on.
const NEAR: usize = 9;

/// What is archived is deleted at once, unless it is held.
fn deleting(config: &mut Config) {
    config.archive = ArchiveConfig {
        location: Some(config.state_directory.with_file_name("archive").display().to_string()),
        delete_after_days: Some(0),
        ..ArchiveConfig::default()
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_while_it_was_deleted_is_there_or_was_refused() {
    let house = House::with(deleting).await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let archive = house.folder.path().join("archive/recordings");
    let copies = |session: &str| {
        let name = format!("{session}.cast.zst");
        (archive.join(&name), archive.join(format!("{session}.json")), house.spool.join(name))
    };
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut terminal = Terminal::shell(&alice, DEV).await;
        terminal.type_line("exit").await;
        terminal.closed().await;
        let session = terminal.session;
        let (object, manifest, local) = copies(&session);
        // As the deletion comes near, nearer, and is at it; or it is over already.
        match round % 3 {
            0 => {}
            1 => until("the object", || object.exists() || !local.exists()).await,
            _ => until("the manifest", || manifest.exists() || !local.exists()).await,
        }
        let answer = carol.call(Call::post(&format!("/v1/sessions/{session}/hold"), &json!({}))).await;
        match answer.status {
            200 => held.push(session),
            _ => {
                let told = answer.refused("DoesNotExistException");
                assert!(told.contains("so there is nothing to hold"), "{told}");
                refused.push(session);
            }
        }
    }
    // Each was archived, and each that is not held was deleted after that.
    for (result, times) in [("archived", ROUNDS), ("deleted", refused.len())] {
        let series = format!("postern_archived_recordings_total{{result=\"{result}\"}}");
        let there = || async { (house.metric(&series).await >= times as f64).then_some(()) };
        until_some(&series, there).await;
    }
    for session in &held {
        let (object, manifest, _) = copies(session);
        assert!(object.exists() && manifest.exists(), "{session} was held and is gone");
        let path = format!("/v1/sessions/{session}/recording");
        assert_eq!(carol.call(Call::get(&path)).await.status, 200, "{session}");
    }
    for session in &refused {
        let (object, manifest, local) = copies(session);
        assert!(!object.exists() && !manifest.exists() && !local.exists(), "{session} was there to be held");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_while_a_full_spool_made_room_is_there_or_was_refused() {
    let logs = FakeLogs::start().await;
    logs.make_group("/postern");
    let url = logs.url.clone();
    let house = House::with(move |config| {
        config.shipper = ShipperConfig {
            log_group: "/postern".into(),
            endpoint_url: Some(url),
            spool_limit_mb: 8,
            at_limit: AtLimit::RemoveShipped,
            ..ShipperConfig::default()
        };
    })
    .await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let mut sessions = Vec::new();
    for _ in 0..ROUNDS {
        let mut terminal = Terminal::shell(&alice, DEV).await;
        terminal.type_line("exit").await;
        terminal.closed().await;
        sessions.push(terminal.session);
    }
    for session in &sessions {
        until("the end in CloudWatch", || !logs.events("/postern", session, "sessionEnd").is_empty()).await;
    }
    let indexed = "postern_catalogue_recordings_total{result=\"indexed\"}";
    let all = || async { (house.metric(indexed).await >= ROUNDS as f64).then_some(()) };
    until_some("all of them in the catalogue", all).await;
    let is_there = |session: &String| house.spool.join(format!("{session}.cast.zst")).exists();
    std::fs::write(house.spool.join("ballast"), vec![0; 16 << 20]).unwrap();
    // They go one after the other, oldest first. Each is held as that comes near, or comes nearer.
    let last = sessions.pop().unwrap();
    let held: Vec<_> = sessions.iter().map(|_| Cell::new(false)).collect();
    let holds = sessions.iter().enumerate().map(|(number, session)| {
        let (carol, held, sessions, is_there) = (&carol, &held, &sessions, &is_there);
        let near = number.checked_sub(1 + number % NEAR);
        let is_near = move || near.is_none_or(|near| held[near].get() || !is_there(&sessions[near]));
        async move {
            until("one before it to be gone or held", is_near).await;
            let path = format!("/v1/sessions/{session}/hold");
            let answer = carol.call(Call::post(&path, &json!({}))).await;
            held[number].set(answer.status == 200);
            answer
        }
    });
    let answers = join_all(holds).await;
    until("the last to go", || !is_there(&last)).await;
    for (session, answer) in sessions.iter().zip(answers) {
        match answer.status {
            200 => assert!(is_there(session), "{session} was held and is gone"),
            _ => {
                let told = answer.refused("DoesNotExistException");
                assert!(told.contains("so there is nothing to hold"), "{told}");
                assert!(!is_there(session), "{session} was there to be held");
            }
        }
    }
}
