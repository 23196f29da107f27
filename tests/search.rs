//! Searching recordings: soon after the seal, by those who may replay them.

use postern::replay::{Outline, Scenes};
use serde_json::{Value, json};

use crate::support::{Call, DEV, House, PROD, Person, Terminal, until_some};

/// Types lines into a shell on a machine and leaves it; its session.
async fn shell(person: &Person, ticket: crate::support::Ticket, lines: &[(&str, &str)]) -> String {
    let mut terminal = Terminal::open(&person.door, &ticket).await;
    terminal.until("$ ").await;
    for (line, answer) in lines {
        terminal.type_line(line).await;
        terminal.until(&format!("{answer}\r\n$ ")).await;
    }
    terminal.type_line("exit").await;
    terminal.closed().await;
    terminal.session
}

async fn indexed(house: &House, recordings: f64) {
    let series = "postern_catalogue_recordings_total{result=\"indexed\"}";
    until_some("the index", || async { (house.metric(series).await == recordings).then_some(()) }).await;
}

async fn search(person: &Person, what: &Value) -> Value {
    person.call(Call::post("/v1/search", what)).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_tells_everybody_what_they_may_replay() {
    let house = House::start().await;
    let (alice, bob, carol) = (house.alice().await, house.sign_in("bob").await, house.sign_in("carol").await);
    let line = ("echo nee''dle-$((40+2))", "needle-42");
    let session = shell(&alice, alice.start(DEV).await, &[line]).await;
    indexed(&house, 1.0).await;

    let what = json!({"text": "NEEDLE-42"});
    for (person, hits) in [(&alice, 1), (&bob, 0), (&carol, 1)] {
        let found = search(person, &what).await;
        assert_eq!(found["hits"].as_array().unwrap().len(), hits, "{found}");
        assert_eq!(found["next"], Value::Null);
    }
    let found = search(&carol, &json!({"regex": "^needle-[0-9]+$"})).await;
    let hit = &found["hits"][0];
    assert_eq!((hit["session"].as_str(), hit["text"].as_str()), (Some(session.as_str()), Some("needle-42")));
    assert_eq!((hit["target"].as_str(), &hit["source"]), (Some(DEV), &Value::Null));
    assert!(hit["principal"].as_str().unwrap().ends_with("user/alice"), "{hit}");

    // Telling of a recording is a decision, as replaying it is.
    let decided = "postern_decisions_total{action=\"replayRecording\",result=\"allow\"}";
    assert!(house.metric(decided).await >= 3.0);
    for wrong in [
        json!({}),
        json!({"text": "a", "regex": "b"}),
        json!({"regex": "("}),
        json!({"text": "a", "token": "x"}),
    ] {
        assert_eq!(alice.call(Call::post("/v1/search", &wrong)).await.status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_recording_has_an_outline_for_whoever_may_replay_it() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let short = shell(&alice, alice.start(DEV).await, &[("echo sho''rt", "short")]).await;
    // Twenty scenes and more, which `postern replay` would have to read through.
    let long = shell(&alice, alice.start(DEV).await, &[("seq 1000000 2600000; echo do''ne", "done")]).await;
    indexed(&house, 2.0).await;
    let asked = |session: &str| Call::get(&format!("/v1/sessions/{session}/outline"));
    let answer = alice.call(asked(&long)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let outline = Outline::unpack(&answer.body).unwrap();
    let path = house.spool.join(format!("{long}.cast.zst"));
    let (found, known) = (Scenes::of(&path).unwrap(), Scenes::with(&path, outline).unwrap());
    assert!(known.starts(None).len() > 20 && known.starts(None) == found.starts(None));
    assert_eq!(alice.call(asked(&short)).await.status, 204, "a pass finds that in a moment");
    assert_eq!(bob.call(asked(&long)).await.status, bob.call(asked("alice-none")).await.status);
    assert_ne!(bob.call(asked(&long)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_found_by_how_they_are_known() {
    let house = House::start().await;
    let alice = house.alice().await;
    let line = ("echo wo''rd-$((1+1))", "word-2");
    // Keys are recorded on this machine, so nothing has to be guessed.
    let ticket = alice.start_as(&json!({"Target": PROD, "Reason": "to look"})).await;
    shell(&alice, ticket, &[line]).await;
    shell(&alice, alice.start(DEV).await, &[line]).await;
    indexed(&house, 2.0).await;
    let found = search(&alice, &json!({"text": "echo wo''rd", "commands": true})).await;
    let known: Vec<(&str, &str)> = found["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| {
            assert_eq!(hit["text"], "echo wo''rd-$((1+1))");
            (hit["target"].as_str().unwrap(), hit["source"].as_str().unwrap())
        })
        .collect();
    assert_eq!(known, [(DEV, "guess"), (PROD, "input")]);
}
