//! Every decision is on record, and every id leads to every other.

use postern::shipper::ShipperConfig;
use serde_json::{Value, json};

use crate::support::{
    Browser, CLOSED, Call, DEV, FakeLogs, Fault, House, PROD, Person, Recorded, Terminal,
    auditors_administer, until, until_some,
};

const GROUP: &str = "/postern/sessions";

/// A house in which carol administers, and which ships if there are logs.
async fn house(logs: Option<&FakeLogs>) -> House {
    let url = logs.map(|logs| logs.url.clone());
    House::with(move |config| {
        auditors_administer(config);
        if let Some(url) = url {
            config.shipper = ShipperConfig {
                log_group: GROUP.into(),
                endpoint_url: Some(url),
                ..ShipperConfig::default()
            };
        }
    })
    .await
}

async fn get(person: &Person, path: &str) -> Value {
    person.call(Call::get(path)).await.ok()
}

/// The decision's id in a denial.
fn decision_of(denial: &str) -> String {
    let (_, rest) = denial.split_once("(decision ").unwrap();
    rest.trim_end_matches(')').to_owned()
}

async fn denied(person: &Person) -> String {
    let told = person.api("StartSession", &json!({"Target": CLOSED})).await;
    decision_of(&told.refused("AccessDeniedException"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_leads_to_every_other() {
    let house = house(None).await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    let about = recorded.header.postern.clone().unwrap();
    let digest = until_some("the digest in the registry", || async {
        alice.session(&terminal.session).await["recording_sha256"].as_str().map(str::to_owned)
    })
    .await;
    let upstream = alice.upstream(&terminal.session).await;
    let decision = about["decision"].as_str().unwrap();
    for id in [decision, terminal.session.as_str(), upstream.as_str(), digest.as_str(), "alice"] {
        let found = get(&carol, &format!("/v1/audit?id={id}")).await;
        let chain = &found["chains"][0];
        assert_eq!(chain["principal"]["arn"], "arn:aws:iam::111122223333:user/alice", "{id}");
        assert_eq!(chain["decision"]["id"], decision, "{id}");
        assert_eq!(chain["decision"]["started"], terminal.session.as_str());
        assert_eq!(chain["source_identity"], "alice");
        assert_eq!(chain["session"]["id"], terminal.session.as_str());
        assert_eq!(chain["ssm_session_id"], upstream.as_str());
        assert_eq!(chain["recording_sha256"], digest.as_str());
    }
    // Her own chain is shown to alice; an id that leads nowhere says so to carol alone.
    assert!(get(&alice, &format!("/v1/audit?id={digest}")).await["chains"][0].is_object());
    carol.call(Call::get("/v1/audit?id=nothing")).await.refused("DoesNotExistException");
    alice.call(Call::get("/v1/audit?id=nothing")).await.refused("AccessDeniedException");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_kept_with_all_that_was_asked_and_told_to_whom_it_concerns() {
    let house = house(None).await;
    let (alice, bob, carol) = (house.alice().await, house.sign_in("bob").await, house.sign_in("carol").await);
    let id = denied(&alice).await;
    let path = format!("/v1/decisions/{id}");
    let own = get(&alice, &path).await;
    assert_eq!(own, get(&carol, &path).await);
    bob.call(Call::get(&path)).await.refused("DoesNotExistException");
    assert_eq!((&own["allowed"], &own["policies"]), (&json!(false), &json!(["closed-to-all"])));
    assert_eq!(own["request"]["action"], "startShell");
    assert_eq!(own["request"]["resource"]["instance"]["tags"]["env"], "closed");
    assert_eq!(own["request"]["source_ip"], "127.0.0.1");
    assert!(own["took_us"].as_u64().unwrap() > 0 && own["policy_digest"].as_str().unwrap().len() == 64);
    let chain = get(&carol, &format!("/v1/audit?id={id}")).await;
    assert_eq!(
        (&chain["chains"][0]["decision"]["id"], &chain["chains"][0]["session"]),
        (&json!(id), &Value::Null)
    );

    let started = alice.start_as(&json!({"Target": PROD, "Reason": "OPS-17"})).await;
    let mine = get(&alice, "/v1/decisions?principal=me").await;
    let newest = &mine["decisions"][0];
    assert_eq!(newest["started"], started.session.as_str());
    assert_eq!(newest["request"]["reason"], "OPS-17");
    assert_eq!(newest["obligations"]["require_reason"], true);
    let refusals = get(&carol, "/v1/decisions?result=deny&limit=1").await;
    assert_eq!(refusals["decisions"].as_array().unwrap().len(), 1);
    assert!(refusals["next"].is_string(), "bob was refused too");
}

/// The ids of the decisions in an answer, newest first.
fn ids(answer: &Value) -> Vec<String> {
    let rows = answer["decisions"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_and_console_tell_everybody_of_the_same_decisions() {
    let house = house(None).await;
    let (alice, bob, carol) = (house.alice().await, house.sign_in("bob").await, house.sign_in("carol").await);
    let dave = house.sign_in("dave").await;
    let (hers, his) = (denied(&alice).await, denied(&bob).await);
    let session = Terminal::shell(&alice, DEV).await.session;
    let started = get(&alice, "/v1/decisions?limit=1&principal=me").await["decisions"][0].clone();
    assert_eq!(started["started"], session.as_str());
    let started = started["id"].as_str().unwrap().to_owned();
    let cases = [(&alice, vec![&started, &hers]), (&bob, vec![&his]), (&dave, vec![])];
    for (person, expected) in cases {
        let browser = Browser::of(&house, person).await;
        let told = get(person, "/v1/decisions").await;
        let shown = browser.get("/decisions").await.ok();
        assert_eq!(ids(&told), ids(&shown));
        assert_eq!((ids(&told).iter().collect::<Vec<_>>(), &told["all"]), (expected, &json!(false)));
    }
    // Whoever administers is told of all, and it is on record once that they read.
    let browser = Browser::of(&house, &carol).await;
    let told = ids(&get(&carol, "/v1/decisions").await);
    assert_eq!(told, ids(&browser.get("/decisions").await.ok()));
    assert!([&started, &hers, &his].iter().all(|id| told.contains(id)), "{told:?}");
    let reads = get(&carol, "/v1/decisions?principal=me").await;
    let reads = reads["decisions"].as_array().unwrap();
    assert_eq!(reads.iter().filter(|row| row["action"] == "administer").count(), 1, "{reads:?}");
    // One by one the rule is the same.
    get(&alice, &format!("/v1/decisions/{started}")).await;
    let hidden = bob.call(Call::get(&format!("/v1/decisions/{hers}"))).await.refused("DoesNotExistException");
    let none = bob.call(Call::get("/v1/decisions/xx")).await.refused("DoesNotExistException");
    assert_eq!(hidden, none.replace("xx", &hers), "nobody learns that it is there");
    assert!(none.contains("postern decisions list"), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_reaches_cloudwatch_over_an_outage_and_a_restart() {
    let logs = FakeLogs::start().await;
    logs.make_group(GROUP);
    let mut house = house(Some(&logs)).await;
    logs.outage(Some(Fault::Broken));
    let mut expected = vec![denied(&house.alice().await).await];
    until("a call that failed", || logs.calls("PutLogEvents") > 0).await;
    house.take_gateway().stop().await;
    house.start_again().await;
    logs.outage(None);
    expected.push(denied(&house.alice().await).await);
    let stream = || {
        let group = logs.group(GROUP).unwrap();
        group.streams.keys().find(|name| name.starts_with("policy/")).cloned().unwrap_or_default()
    };
    until("both denials in CloudWatch", || logs.events(GROUP, &stream(), "policy").len() >= 2).await;
    let mut events = logs.events(GROUP, &stream(), "policy");
    events.sort_by_key(|event| event["eventTimeMs"].as_u64());
    let came: Vec<&str> = events.iter().map(|event| event["decisionId"].as_str().unwrap()).collect();
    assert_eq!(came, expected);
    for event in &events {
        assert_eq!((&event["decision"], &event["policyIds"]), (&json!("deny"), &json!("closed-to-all")));
        assert_eq!((&event["targetId"], &event["target"]["id"]), (&json!(CLOSED), &json!(CLOSED)));
    }
    logs.assert_kept_to_quotas();
}
