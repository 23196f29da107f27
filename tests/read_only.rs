//! In a read-only session one reads, and nothing that is typed arrives.

use data_channel::PayloadType;
use postern::asciicast::EventCode;
use serde_json::json;

use crate::support::{DEV, House, Person, Recorded, Terminal, until_some};

const WATCHED: &str = "@id(\"only-watch\") @read_only
    permit (principal in Postern::Group::\"developers\",
            action in Postern::Action::\"startSession\", resource is Postern::Instance)
    when { resource.hasTag(\"env\") && resource.getTag(\"env\") == \"dev\" };";
const TOLD: &str = "*** postern: this session is read only, so what you type is not passed on ***";

async fn watched() -> (House, Person) {
    let house = House::start().await;
    std::fs::write(house.folder.path().join("policies/watch.cedar"), WATCHED).unwrap();
    house.reload().await;
    let alice = house.alice().await;
    (house, alice)
}

/// A command that shows what reaches it and how large its window is.
async fn reader(alice: &Person) -> Terminal {
    let command = "trap 'stty size' WINCH; echo go; while :; do sleep 0.1; done";
    let ticket = alice.start_command(DEV, &format!("bash -c \"{command}\"")).await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    terminal.until("go").await;
    terminal
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_in_a_read_only_session_reaches_nobody() {
    let (house, alice) = watched().await;
    let mut terminal = reader(&alice).await;
    terminal.type_line("rm -rf everything").await;
    terminal.until(TOLD).await;
    for key in "more and more\r".chars() {
        terminal.send(PayloadType::Output, key.to_string().as_bytes()).await;
    }
    // What is kept from the agent is acknowledged, so the client does not repeat it for ever.
    terminal.delivered().await;
    terminal.send(PayloadType::Size, br#"{"cols":101,"rows":37}"#).await;
    terminal.until("37 101").await;
    assert_eq!(terminal.text().matches(TOLD).count(), 1, "{}", terminal.text());
    // A terminal shows what it gets.
    assert!(!terminal.text().contains("everything"), "{}", terminal.text());
    alice.api("TerminateSession", &json!({"SessionId": terminal.session})).await.ok();
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(recorded.of_kind(EventCode::Input).is_empty());
    assert!(house.metric("postern_relay_dropped_messages_total{reason=\"read_only\"}").await >= 15.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_runs_becomes_read_only_when_policy_says_so() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo be-$((40 + 2))").await;
    terminal.until("be-42").await;
    std::fs::write(house.folder.path().join("policies/watch.cedar"), WATCHED).unwrap();
    house.reload().await;
    terminal.type_line("echo af-$((40 + 2))").await;
    terminal.until(TOLD).await;
    terminal.delivered().await;
    assert!(!terminal.text().contains("af-42"), "{}", terminal.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_cannot_be_read_only() {
    let (_house, alice) = watched().await;
    let body = json!({
        "Target": DEV, "DocumentName": "AWS-StartPortForwardingSession", "Parameters": {"portNumber": ["80"]},
    });
    let told = alice.api("StartSession", &body).await.refused("AccessDeniedException");
    assert!(told.contains("cannot be read only"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_runs_as_the_user_that_policy_names() {
    let house = House::start().await;
    let alice = house.alice().await;
    let run_as = |user: &str, id: &str| {
        let cedar = format!(
            "@id(\"{id}\") @run_as(\"{user}\")
             permit (principal, action == Postern::Action::\"startShell\", resource);"
        );
        std::fs::write(house.folder.path().join(format!("policies/{id}.cedar")), cedar).unwrap();
    };
    let plain = alice.start(DEV).await;
    assert_eq!(house.local.run_as(&alice.upstream(&plain.session).await), None);
    for (user, expected) in [("$name", "alice"), ("ec2-user", "ec2-user")] {
        run_as(user, "as");
        house.reload().await;
        let ticket = alice.start(DEV).await;
        let upstream = alice.upstream(&ticket.session).await;
        assert_eq!(house.local.run_as(&upstream).as_deref(), Some(expected));
    }
    // Carol chose the name of her role's session.
    let carol = house.sign_in("carol").await;
    run_as("$name", "as");
    house.reload().await;
    let told = carol.api("StartSession", &json!({"Target": DEV})).await.refused("AccessDeniedException");
    assert!(told.contains("may have chosen"), "{told}");
    run_as("ec2-user", "as");
    house.reload().await;
    run_as("deploy", "as-other");
    house.reload().await;
    let told = alice.api("StartSession", &json!({"Target": DEV})).await.refused("AccessDeniedException");
    assert!(told.contains("different users (deploy, ec2-user)"), "{told}");
    // One that runs as somebody else than policy now says does not go on.
    let ended = || async { alice.session(&plain.session).await["end_reason"].as_str().map(str::to_owned) };
    let why = until_some("the end of the session", ended).await;
    assert!(why.contains("run as another user"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tag_of_its_machine_ends_a_session() {
    let house = House::with(|config| config.broker.describe_seconds = 1).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo it-$((40 + 2))").await;
    terminal.until("it-42").await;
    let tags = [("env".to_owned(), "closed".to_owned())].into();
    house.local.set_tags(DEV, tags);
    let sentence = terminal.closed().await;
    assert!(
        sentence.contains("denied by policy \"closed-to-all\": this machine is being taken down"),
        "{sentence}"
    );
    assert_eq!(Recorded::of(&house, &terminal.session).await.evidence.end.reason, "policy");
    alice.api("StartSession", &json!({"Target": DEV})).await.refused("AccessDeniedException");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_past_the_gateway_is_found_and_told_of() {
    let house = House::with(|config| config.sessions.shadow_seconds = 1).await;
    std::fs::write(
        house.folder.path().join("policies/admin.cedar"),
        "@id(\"admin\") permit (principal in Postern::Group::\"auditors\", action == Postern::Action::\"administer\", resource);",
    )
    .unwrap();
    house.reload().await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let honest = Terminal::shell(&alice, DEV).await;
    let looked = || async {
        let seen = carol.call(crate::support::Call::get("/v1/shadow-sessions")).await.ok();
        seen["looked_ms"].as_u64().map(|_| seen["sessions"].clone())
    };
    assert_eq!(until_some("a look", looked).await, json!([]));
    let started = house.past_the_gateway("bob", DEV).await;
    let found = || async {
        let seen = looked().await?;
        (!seen.as_array().unwrap().is_empty()).then_some(seen)
    };
    let seen = until_some("the session", found).await;
    assert_eq!(seen.as_array().unwrap().len(), 1, "{seen}");
    assert_eq!((&seen[0]["id"], &seen[0]["target"]), (&json!(started), &json!(DEV)));
    assert_eq!(seen[0]["owner"], "arn:aws:iam::111122223333:user/bob");
    assert_eq!(house.metric("postern_shadow_sessions").await, 1.0);
    assert!(house.local.terminate(&started));
    let gone = || async { (looked().await? == json!([])).then_some(()) };
    until_some("its end", gone).await;
    assert_eq!(house.metric("postern_shadow_sessions").await, 0.0);
    assert_eq!(house.metric("postern_shadow_sessions_seen_total").await, 1.0);
    alice.call(crate::support::Call::get("/v1/shadow-sessions")).await.refused("AccessDeniedException");
    drop(honest);
}
