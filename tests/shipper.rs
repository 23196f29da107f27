//! Sessions are in CloudWatch Logs while they run, and can be had back.

use data_channel::smux::Command;
use postern::broker::{BrokerConfig, Secret, StaticKeys};
use postern::config::Config;
use postern::recorder::{PublicKey, Report, verify};
use postern::shipper::ShipperConfig;
use serde_json::{Value, json};

use crate::support::{
    Answer, Call, DEV, FakeLogs, Fault, House, PROD, Person, REMOTE, Recorded, Terminal, Tunnel, echo,
    silent_port, until,
};

const GROUP: &str = "/postern/sessions";

async fn house(logs: &FakeLogs) -> House {
    let url = logs.url.clone();
    House::with(move |config| ship_to(config, url)).await
}

fn ship_to(config: &mut Config, url: String) {
    config.shipper =
        ShipperConfig { log_group: GROUP.into(), endpoint_url: Some(url), ..ShipperConfig::default() };
}

async fn logs() -> FakeLogs {
    let logs = FakeLogs::start().await;
    logs.make_group(GROUP);
    logs
}

/// Everything that transcript events of a session say was on its screen.
fn text(logs: &FakeLogs, session: &str) -> String {
    let events = logs.events(GROUP, session, "output");
    let lines = events.iter().flat_map(|event| event["sessionData"].as_array().unwrap());
    lines.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

async fn shipped(logs: &FakeLogs, session: &str) {
    until("the end in CloudWatch", || !logs.events(GROUP, session, "sessionEnd").is_empty()).await;
}

async fn ended(house: &House, person: &Person, target: &str, command: &str) -> (String, Recorded) {
    let mut terminal = Terminal::shell(person, target).await;
    terminal.type_line(command).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(house, &terminal.session).await;
    (terminal.session.clone(), recorded)
}

fn is_sealed(answer: &Answer) -> bool {
    answer.headers.contains("x-postern-sealed: true")
}

async fn fetched(person: &Person, session: &str) -> Answer {
    person.call(Call::get(&format!("/v1/sessions/{session}/recording"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_can_be_read_in_cloudwatch_while_it_runs() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo m''ark-one").await;
    let session = terminal.session.clone();
    terminal.until("mark-one").await;
    until("the text in CloudWatch", || text(&logs, &session).contains("mark-one")).await;

    let start = &logs.events(GROUP, &session, "sessionStart")[0];
    assert_eq!(start["target"]["id"], DEV);
    assert_eq!(start["userIdentity"]["arn"], "arn:aws:iam::111122223333:user/alice");
    assert_eq!(start["policyIds"], "developers-dev");
    assert!(logs.events(GROUP, &session, "sessionEnd").is_empty(), "it runs still");
    assert!(!logs.events(GROUP, &session, "recording").is_empty());
    terminal.type_line("exit").await;
    terminal.closed().await;
    shipped(&logs, &session).await;
    logs.assert_kept_to_quotas();
    assert!(house.metric("postern_shipped_events_total").await > 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_connection_of_a_port_session_is_told_while_it_runs() {
    let (logs, server) = (logs().await, echo().await);
    let house = house(&logs).await;
    let alice = house.alice().await;
    let mut tunnel = Tunnel::to_port(&alice, DEV, server.port()).await;
    let session = tunnel.terminal.session.clone();
    // The weather: the first batch is stored, and its answer is lost.
    logs.fail("PutLogEvents", Fault::DoneAndCut);
    tunnel.say(Command::Open, 3).await;
    tunnel.write(3, b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n").await;
    tunnel.until(3, b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n").await;
    until("its start in CloudWatch", || !logs.events(GROUP, &session, "connectionStart").is_empty()).await;
    assert_eq!(logs.events(GROUP, &session, "connectionEnd").len(), 0, "it is open still");
    tunnel.say(Command::Close, 3).await;
    tunnel.until_ended(3).await;
    until("its end in CloudWatch", || !logs.events(GROUP, &session, "connectionEnd").is_empty()).await;

    let mut refused = Tunnel::to_port(&alice, DEV, silent_port().await).await;
    refused.say(Command::Open, 3).await;
    refused.until_ended(3).await;
    for tunnel in [&tunnel, &refused] {
        let request = json!({"SessionId": tunnel.terminal.session});
        alice.api("TerminateSession", &request).await.ok();
        shipped(&logs, &tunnel.terminal.session).await;
    }
    let start = &logs.events(GROUP, &session, "connectionStart")[0];
    assert_eq!((&start["connection"], &start["host"]), (&json!(1), &json!("localhost")));
    assert_eq!((&start["port"], &start["target"]["id"]), (&json!(server.port()), &json!(DEV)));
    assert_eq!(start["principal"], "arn:aws:iam::111122223333:user/alice");
    let ends = logs.events(GROUP, &session, "connectionEnd");
    let end = ends.last().unwrap();
    assert_eq!((&end["connection"], &end["endedBy"]), (&json!(1), &json!("client")));
    assert_eq!((&end["bytesUp"], &end["bytesDown"]), (&json!(30), &json!(30)));
    assert_eq!((&end["protocol"], &end["looksLike"]), (&json!("http"), &json!("http GET web")));
    assert!(end["durationMs"].is_u64() && end["sessionData"] == json!([]), "{end}");
    let other = &logs.events(GROUP, &refused.terminal.session, "connectionEnd")[0];
    assert_eq!((&other["endedBy"], &other["bytesDown"]), (&json!("refused"), &json!(0)));
    // Whatever came twice is known by its number, and none is missing.
    let stored = logs.stream(GROUP, &session);
    let events = stored.iter().map(|event| serde_json::from_str::<Value>(&event.message).unwrap());
    let mut numbers: Vec<u64> = events.filter_map(|event| event["seq"].as_u64()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    logs.assert_kept_to_quotas();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_the_spool_has_lost_comes_back_byte_for_byte() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    let (session, _) = ended(&house, &alice, DEV, "seq 1 20000; printf '\\377\\376'").await;
    shipped(&logs, &session).await;

    let path = house.spool.join(format!("{session}.cast.zst"));
    let sealed = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let answer = fetched(&alice, &session).await;
    assert!(answer.status == 200 && is_sealed(&answer), "{}", answer.text());
    assert!(answer.body == sealed, "the file that was read back is another");
    let copies = house.folder.path().join("state/shipper/read_back");
    assert_eq!(std::fs::read_dir(copies).unwrap().count(), 0, "copies were left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_in_cloudwatch_is_not_given_out_as_a_recording() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    let (session, _) = ended(&house, &alice, DEV, "seq 1 20000").await;
    shipped(&logs, &session).await;
    std::fs::remove_file(house.spool.join(format!("{session}.cast.zst"))).unwrap();

    let whole = logs.stream(GROUP, &session);
    let recording = |message: &str| message.contains("\"eventName\":\"recording\"");
    for (at, _) in whole.iter().enumerate().filter(|(_, event)| recording(&event.message)) {
        logs.tamper(GROUP, &session, |events| drop(events.remove(at)));
        let left = fetched(&alice, &session).await;
        // Without its end a recording is one that is not sealed.
        let unsealed = left.status == 200 && !is_sealed(&left);
        assert!(left.status == 500 || unsealed, "{}: event {at} was not missed", left.status);
        logs.tamper(GROUP, &session, |events| *events = whole.clone());
    }
    logs.tamper(GROUP, &session, |events| {
        let event = events.iter_mut().find(|event| recording(&event.message)).unwrap();
        let mut altered: Value = serde_json::from_str(&event.message).unwrap();
        altered["lines"] = 7.into();
        event.message = altered.to_string();
    });
    assert_eq!(fetched(&alice, &session).await.status, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_an_event_of_its_own() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    let ticket = alice.start_as(&json!({"Target": PROD, "Reason": "T-1"})).await;
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    terminal.until("$ ").await;
    terminal.type_line("sudo -n true").await;
    let session = terminal.session.clone();
    until("the command", || {
        let commands = logs.events(GROUP, &session, "command");
        commands.iter().any(|event| event["command"] == "sudo -n true")
    })
    .await;
    assert_eq!(logs.events(GROUP, &session, "sessionStart")[0]["reason"], "T-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_policy_says_remote_nothing_is_acknowledged_before_cloudwatch_has_it() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, REMOTE).await;
    let upstream = alice.upstream(&terminal.session).await;
    let heard = || house.local.counts(&upstream).unwrap().acknowledges;
    until("the first acknowledges", || heard() == terminal.acknowledged.len() as u64).await;

    logs.outage(Some(Fault::Throttled));
    let (before, failed) = (heard(), logs.calls("PutLogEvents"));
    terminal.type_line("echo m''ark").await;
    terminal.until("mark\r\n$ ").await;
    until("failed calls", || logs.calls("PutLogEvents") > failed + 3).await;
    assert_eq!(heard(), before, "something was acknowledged that CloudWatch has not");
    logs.outage(None);
    until("the acknowledges", || heard() == terminal.acknowledged.len() as u64).await;
    assert!(text(&logs, &terminal.session).contains("mark"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_whose_role_may_not_is_told_what_to_allow() {
    let logs = logs().await;
    logs.fail("DescribeLogGroups", Fault::Denied);
    let shipper = ShipperConfig {
        log_group: GROUP.into(),
        endpoint_url: Some(logs.url.clone()),
        ..ShipperConfig::default()
    };
    let keys = StaticKeys {
        access_key_id: "AKIAPOSTERNBROKER001".into(),
        secret_access_key: Secret::new(crate::support::BROKER_KEY.1),
        session_token: None,
    };
    let broker =
        BrokerConfig { region: "eu-west-1".into(), static_keys: Some(keys), ..BrokerConfig::default() };
    let error = postern::shipper::examine(&shipper, &broker).await.unwrap_err();
    let told = error.with_advice();
    assert!(told.contains("logs:DescribeLogGroups failed: AccessDeniedException"), "{told}");
    let advice =
        "allow logs:DescribeLogGroups to the gateway's role; deploy/iam/shipper.json has all that it needs";
    assert!(told.ends_with(advice), "{told}");
}

/// The person is told why nothing comes any more, and when it does again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_output_waits_for_cloudwatch_sees_why_and_since_when() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, REMOTE).await;
    logs.outage(Some(Fault::Broken));
    terminal.type_line("echo m''ark").await;
    terminal.until("output is held back until CloudWatch Logs has it; nothing was stored since ").await;
    assert_eq!(house.metric("postern_held_back_sessions").await, 1.0);
    logs.outage(None);
    terminal.until("what was held back is stored; the session goes on").await;
    assert_eq!(house.metric("postern_held_back_sessions").await, 0.0);
    assert!(house.metric("postern_held_back_seconds_total").await >= 5.0);
    terminal.type_line("exit").await;
    terminal.closed().await;
    shipped(&logs, &terminal.session).await;
    // What the person was told is in the recording, too.
    assert!(
        text(&logs, &terminal.session).contains("*** postern: output is held back until CloudWatch Logs")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_cloudwatch_loses_nothing_and_stops_nobody() {
    let logs = logs().await;
    let house = house(&logs).await;
    let alice = house.alice().await;
    logs.outage(Some(Fault::Broken));
    let (session, _) = ended(&house, &alice, DEV, "echo during-the-out''age").await;
    until("failed calls", || logs.calls("CreateLogStream") > 1).await;
    assert_eq!(house.admin("/readyz").await.0, 200);
    logs.outage(None);
    shipped(&logs, &session).await;
    assert!(text(&logs, &session).contains("during-the-outage"));
    assert!(house.metric("postern_shipped_errors_total{kind=\"unavailable\"}").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_begins_no_session_and_says_why() {
    let logs = logs().await;
    let url = logs.url.clone();
    let house = House::with(move |config| {
        ship_to(config, url);
        config.shipper.spool_limit_mb = 1;
    })
    .await;
    let alice = house.alice().await;
    std::fs::write(house.spool.join("ballast"), vec![0; 2 << 20]).unwrap();
    let why = crate::support::until_some("the limit", || async {
        let (status, text) = house.admin("/readyz").await;
        (status == 503).then_some(text)
    })
    .await;
    assert!(why.contains("the spool holds 2 MB, its limit is 1 MB"), "{why}");
    let told =
        alice.api("StartSession", &json!({"Target": DEV})).await.refused("ServiceUnavailableException");
    assert!(told.contains("takes no sessions now"), "{told}");
    std::fs::remove_file(house.spool.join("ballast")).unwrap();
    crate::support::until_some("room", || async { (house.admin("/readyz").await.0 == 200).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_reserve_on_the_disk_no_session_begins() {
    let house = House::with(|config| config.recorder.reserve_mb = u64::MAX >> 20).await;
    let alice = house.alice().await;
    let (status, why) = house.admin("/readyz").await;
    assert!(status == 503 && why.contains("recorder.reserve_mb"), "{status} {why}");
    let told =
        alice.api("StartSession", &json!({"Target": DEV})).await.refused("ServiceUnavailableException");
    assert!(told.contains("MB are free in"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_made_by_removing_what_cloudwatch_has_and_nothing_else() {
    let logs = logs().await;
    let url = logs.url.clone();
    let house = House::with(move |config| {
        ship_to(config, url);
        config.shipper.spool_limit_mb = 1;
        config.shipper.at_limit = postern::shipper::AtLimit::RemoveShipped;
    })
    .await;
    let (alice, carol) = (house.alice().await, house.sign_in("carol").await);
    let (held, _) = ended(&house, &alice, DEV, "echo held").await;
    carol.call(Call::post(&format!("/v1/sessions/{held}/hold"), &json!({}))).await.ok();
    let (shipped_one, _) = ended(&house, &alice, DEV, "echo first").await;
    shipped(&logs, &held).await;
    shipped(&logs, &shipped_one).await;
    logs.outage(Some(Fault::Broken));
    let (waiting, _) = ended(&house, &alice, DEV, "echo second").await;
    std::fs::write(house.spool.join("ballast"), vec![0; 2 << 20]).unwrap();

    let path = |session: &str| house.spool.join(format!("{session}.cast.zst"));
    until("room", || !path(&shipped_one).exists()).await;
    crate::support::until_some("the limit", || async {
        (house.admin("/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert!(path(&waiting).exists(), "what CloudWatch has not was removed");
    assert!(path(&held).exists(), "what is held was removed");
    logs.outage(None);
    until("room", || !path(&waiting).exists()).await;
    assert!(path(&held).exists(), "what is held was removed");
    for session in [shipped_one, waiting] {
        assert!(is_sealed(&fetched(&alice, &session).await));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_archive_has_stays_in_the_spool_until_cloudwatch_has_it() {
    let logs = logs().await;
    let url = logs.url.clone();
    let house = House::with(move |config| {
        ship_to(config, url);
        let folder = config.state_directory.with_file_name("archive").display().to_string();
        config.archive.location = Some(folder);
        config.archive.keep_local_days = Some(0);
    })
    .await;
    let alice = house.alice().await;
    logs.outage(Some(Fault::Broken));
    let (session, _) = ended(&house, &alice, DEV, "echo later").await;
    let told = |series: &'static str| house.metric(series);
    for series in [
        "postern_archived_recordings_total{result=\"archived\"}",
        "postern_catalogue_recordings_total{result=\"indexed\"}",
    ] {
        crate::support::until_some(series, || async { (told(series).await >= 1.0).then_some(()) }).await;
    }
    logs.outage(None);
    shipped(&logs, &session).await;
    assert!(text(&logs, &session).contains("later"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_group_is_created_as_configured_or_named() {
    let logs = FakeLogs::start().await;
    let mut house = house_or_error(&logs, false).await;
    let told = house.err().unwrap();
    assert!(told.contains(GROUP) && told.contains("create = true"), "{told}");
    house = house_or_error(&logs, true).await;
    let group = logs.group(GROUP).unwrap();
    assert_eq!(group.retention_days, Some(30));
    assert_eq!(group.about["logGroupClass"], "INFREQUENT_ACCESS");
    assert_eq!(group.about["tags"], json!({"team": "security"}));
    drop(house);
}

/// A shipper over an empty spool, or why there is none.
async fn house_or_error(logs: &FakeLogs, create: bool) -> Result<House, String> {
    let url = logs.url.clone();
    let change = move |config: &mut Config| {
        ship_to(config, url);
        config.shipper.create = create;
        config.shipper.retention_days = 30;
        config.shipper.class = postern::shipper::LogClass::InfrequentAccess;
        config.shipper.tags.insert("team".into(), "security".into());
    };
    House::attempt(|_| {}, change).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_start_ships_what_the_last_one_could_not() {
    let logs = logs().await;
    let mut house = house(&logs).await;
    let alice = house.alice().await;
    logs.outage(Some(Fault::Expired));
    let (session, _) = ended(&house, &alice, DEV, "echo be''fore").await;
    house.take_gateway().stop().await;
    logs.outage(None);
    house.start_again().await;
    shipped(&logs, &session).await;
    assert!(text(&logs, &session).contains("before"));

    let keys = Call::get("/v1/recording-keys").send(&house.door).await.ok();
    let key = PublicKey::from_pem(keys[0]["pem"].as_str().unwrap()).unwrap();
    let path = house.spool.join(format!("{session}.cast.zst"));
    assert!(matches!(verify(&path, &[key]), Ok(Report::Sealed(_))));
}
