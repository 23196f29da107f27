//! Running sessions obey the policies as they are now.

use serde_json::json;

use crate::support::{DEV, House, PROD, Person, Recorded, Terminal, Ticket, until_some};

/// Puts a policy file in place as git and mounted volumes do: whole.
fn put(house: &House, name: &str, cedar: &str) {
    let next = house.folder.path().join("next");
    std::fs::write(&next, cedar).unwrap();
    std::fs::rename(next, house.folder.path().join("policies").join(name)).unwrap();
}

async fn metric_is(house: &House, series: &str, value: f64) {
    until_some(series, || async { (house.metric(series).await == value).then_some(()) }).await;
}

async fn in_prod(person: &Person) -> Terminal {
    let asked = json!({"Target": PROD, "Reason": "disk full"});
    let ticket = Ticket::of(&person.api("StartSession", &asked).await.ok()).unwrap();
    let mut terminal = Terminal::open(&person.door, &ticket).await;
    terminal.until("$ ").await;
    terminal
}

async fn answers(terminal: &mut Terminal) {
    terminal.type_line("echo still-$((40 + 2))").await;
    terminal.until("still-42").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_a_new_policy_forbids_ends_with_its_reason() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let mut cut = Terminal::shell(&alice, DEV).await;
    let mut spared = in_prod(&bob).await;
    let moving = format!(
        "@id(\"dev-moves\") @message(\"this machine moves\")
         forbid (principal, action, resource == Postern::Instance::\"{DEV}\");"
    );
    put(&house, "moving.cedar", &moving);
    let sentence = cut.closed().await;
    let expected = "denied by policy \"dev-moves\": this machine moves (decision ";
    assert!(sentence.contains(expected), "{sentence}");
    let recorded = Recorded::of(&house, &cut.session).await;
    assert_eq!(recorded.evidence.end.reason, "policy");
    recorded.assert_once();
    let why = || async { alice.session(&cut.session).await["end_reason"].as_str().map(str::to_owned) };
    assert_eq!(until_some("the end in the registry", why).await, sentence);
    answers(&mut spared).await;
    metric_is(&house, "postern_policy_loads_total{result=\"in_force\"}", 1.0).await;
    metric_is(&house, "postern_sessions_asked_again_total{result=\"denied\"}", 1.0).await;
    // Whoever asks now hears the same.
    let told = alice.api("StartSession", &json!({"Target": DEV})).await.refused("AccessDeniedException");
    assert!(told.contains("\"dev-moves\""), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_refused_changes_nothing_and_says_so() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    put(&house, "broken.cedar", "@id(\"broken\") forbid (principal, action, resource == 7);");
    metric_is(&house, "postern_policy_refused", 1.0).await;
    answers(&mut terminal).await;
    std::fs::remove_file(house.folder.path().join("policies/broken.cedar")).unwrap();
    metric_is(&house, "postern_policy_refused", 0.0).await;
    assert_eq!(house.metric("postern_policy_loads_total{result=\"refused\"}").await, 1.0);
    // The folder is gone for a while, and comes back as another one.
    let policies = house.folder.path().join("policies");
    std::fs::rename(&policies, house.folder.path().join("elsewhere")).unwrap();
    metric_is(&house, "postern_policy_refused", 1.0).await;
    answers(&mut terminal).await;
    std::fs::rename(house.folder.path().join("elsewhere"), &policies).unwrap();
    metric_is(&house, "postern_policy_refused", 0.0).await;
    put(&house, "nobody.cedar", "@id(\"nobody\") forbid (principal, action, resource);");
    assert!(terminal.closed().await.contains("denied by policy \"nobody\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_when_its_time_is_over() {
    let house = House::start().await;
    let alice = house.alice().await;
    let visits = "@id(\"short-visits\") @message(\"two seconds are enough\")
        forbid (principal, action in Postern::Action::\"startSession\", resource)
        when { context has sessionAge && context.sessionAge > duration(\"2s\") };";
    put(&house, "visits.cedar", visits);
    metric_is(&house, "postern_policy_loads_total{result=\"in_force\"}", 1.0).await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let sentence = terminal.closed().await;
    assert!(sentence.contains("\"short-visits\": two seconds are enough"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_obligations_are_kept_by_sessions_that_run() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    let mut other = Terminal::shell(&alice, DEV).await;
    let limited = format!(
        "@id(\"limited\") @max_duration(\"1s\")
         permit (principal, action == Postern::Action::\"startShell\", resource == Postern::Instance::\"{DEV}\");"
    );
    put(&house, "limited.cedar", &limited);
    assert_eq!(terminal.closed().await, "the session reached its longest duration of 1s");
    assert_eq!(other.closed().await, "the session reached its longest duration of 1s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_begin_in_the_middle_ends_the_session() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    put(
        &house,
        "captured.cedar",
        "@id(\"captured\") @capture_traffic permit (principal, action == Postern::Action::\"startShell\", resource);",
    );
    let sentence = terminal.closed().await;
    assert_eq!(
        sentence,
        "policy now obliges this session to have its traffic captured; open it again to go on"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sessions_are_cut_by_one_change() {
    let house = House::with(|config| config.sessions.per_principal = 200).await;
    let alice = house.alice().await;
    let mut terminals = Vec::new();
    for _ in 0..100 {
        let ticket = alice.start(DEV).await;
        terminals.push(Terminal::open(&house.door, &ticket).await);
    }
    put(&house, "nobody.cedar", "@id(\"nobody\") forbid (principal, action, resource);");
    for terminal in &mut terminals {
        assert!(terminal.closed().await.contains("denied by policy \"nobody\""));
    }
}
