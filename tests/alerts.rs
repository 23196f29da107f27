//! Rules look at commands and output live: counted, marked, told, obeyed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use postern::asciicast::EventCode;
use postern::config::Config;
use serde_json::Value;

use crate::support::{DEV, House, Recorded, Terminal, until, until_some};

const RULES: &str = r#"
[[alert]]
name = "shadow"
on = "command"
matches = '/etc/g?shadow\b'
publish = true

[[alert]]
name = "secret"
on = "output"
matches = 'BEGIN SECRET'

[[alert]]
name = "never"
on = "output"
matches = 'nothing says this'
"#;

const TOPIC: &str = "arn:aws:sns:eu-west-1:111122223333:alerts";

/// The rules, and where the SNS is.
fn publishing_to(sns: SocketAddr) -> impl FnOnce(&mut Config) {
    move |config| {
        std::fs::write(config.policy.directory.join("alerts.toml"), RULES).unwrap();
        config.alerts.topic_arn = Some(TOPIC.to_owned());
        config.alerts.sns_endpoint_url = Some(format!("http://{sns}"));
    }
}

async fn raised(house: &House, rule: &str, times: f64) {
    let series = format!("postern_alerts_total{{rule=\"{rule}\"}}");
    until_some(&series, || async { (house.metric(&series).await == times).then_some(()) }).await;
}

/// What an SNS was asked to publish; it refuses the first call.
#[derive(Clone, Default)]
struct FakeSns {
    calls: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    /// It refuses every call.
    down: Arc<AtomicBool>,
}

impl FakeSns {
    async fn start() -> (Self, SocketAddr) {
        let (sns, listener) = (Self::default(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().route("/", post(Self::publish)).with_state(sns.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (sns, address)
    }

    async fn publish(State(sns): State<Self>, body: String) -> (StatusCode, &'static str) {
        let fields = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let mut calls = sns.calls.lock().unwrap();
        calls.push(fields);
        if calls.len() == 1 || sns.down.load(Ordering::Acquire) {
            return (
                StatusCode::FORBIDDEN,
                "<ErrorResponse><Error><Code>AuthorizationError</Code></Error></ErrorResponse>",
            );
        }
        let published = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
             <MessageId>1</MessageId></PublishResult></PublishResponse>";
        (StatusCode::OK, published)
    }

    /// The messages that it was asked to publish.
    fn told(&self) -> Vec<Value> {
        self.calls().iter().map(|call| serde_json::from_str(&call["Message"]).unwrap()).collect()
    }

    fn calls(&self) -> Vec<BTreeMap<String, String>> {
        self.calls.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_and_a_line_raise_alerts_and_mark_the_recording() {
    let (sns, address) = FakeSns::start().await;
    let house = House::with(publishing_to(address)).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo /etc/shadow | wc -c").await;
    terminal.until("12\r\n$ ").await;
    raised(&house, "shadow", 1.0).await;
    terminal.type_line("printf 'BEGIN %s\\n' \"$(printf '\\033[1mSECRET')\"").await;
    raised(&house, "secret", 1.0).await;
    // The first call was refused, so there is a second one.
    until("the alert at SNS", || sns.calls().len() == 2).await;
    let call = sns.calls().pop().unwrap();
    assert_eq!((call["Action"].as_str(), call["TopicArn"].as_str()), ("Publish", TOPIC));
    let told: Value = serde_json::from_str(&call["Message"]).unwrap();
    assert_eq!((told["alert"].as_str(), told["target"].as_str()), (Some("shadow"), Some(DEV)));
    assert_eq!(told["text"], "echo /etc/shadow | wc -c");
    assert_eq!(told["principal"], "arn:aws:iam::111122223333:user/alice");
    assert!(told["replay"].as_str().unwrap().contains(&terminal.session));
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    let marks = recorded.of_kind(EventCode::Marker);
    let alerts: Vec<_> = marks.iter().filter(|mark| mark.starts_with("alert ")).collect();
    assert_eq!(alerts, [&"alert shadow: echo /etc/shadow | wc -c", &"alert secret: BEGIN SECRET"]);
    assert_eq!(house.metric("postern_alerts_published_total{result=\"published\"}").await, 1.0);
    assert_eq!(house.metric("postern_alerts_total{rule=\"never\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_ends_a_session_that_met_a_rule() {
    let house = House::with(|config| {
        let rules = RULES.replace("publish = true", "");
        std::fs::write(config.policy.directory.join("alerts.toml"), rules).unwrap();
        let policy = "@id(\"no-shadow\") @message(\"passwords are not yours to read\")
            forbid (principal, action in Postern::Action::\"startSession\", resource)
            when { context has alerts && context.alerts.contains(\"shadow\") };";
        std::fs::write(config.policy.directory.join("alerts.cedar"), policy).unwrap();
    })
    .await;
    let alice = house.alice().await;
    let (mut bad, mut good) = (Terminal::shell(&alice, DEV).await, Terminal::shell(&alice, DEV).await);
    good.type_line("printf 'BEGIN %s\\n' SECRET").await;
    raised(&house, "secret", 1.0).await;
    bad.type_line("cat /etc/shadow > /dev/null; sleep 60").await;
    let sentence = bad.closed().await;
    assert!(sentence.contains("\"no-shadow\": passwords are not yours to read"), "{sentence}");
    good.type_line("echo still-$((40 + 2))").await;
    good.until("still-42").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_publish_want_a_topic_and_wrong_ones_stop_the_start() {
    let start = |rules: &'static str| async move {
        let folder = tempfile::tempdir().unwrap();
        let tls = crate::support::certificate(folder.path());
        let config = crate::support::configuration(folder.path(), &tls, "https://127.0.0.1:9");
        std::fs::write(config.policy.directory.join("alerts.toml"), rules).unwrap();
        let started = postern::serve::Gateway::start(config).await;
        started.err().expect("the gateway does not start").to_string()
    };
    let told = start(RULES).await;
    assert!(told.contains("rule \"shadow\" publishes, but alerts.topic_arn is not set"), "{told}");
    let told = start("[[alert]]\nname = \"x\"\non = \"output\"\nmatches = '('\n").await;
    assert!(told.contains("alerts.toml:4: the pattern of \"x\""), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_raises_no_alert_again_and_goes_on_looking() {
    let mut house = House::apart().await;
    let rules = RULES.replace("publish = true", "");
    std::fs::write(house.folder.path().join("policies/alerts.toml"), rules).unwrap();
    house.apart.take().unwrap().kill();
    house.again().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("true /etc/shadow").await;
    raised(&house, "shadow", 1.0).await;
    until("the mark", || crate::support::spool_holds(&house, &terminal.session, "alert shadow")).await;
    house.apart.take().unwrap().kill();
    house.again().await;
    terminal.resume(&alice).await;
    terminal.type_line("true /etc/gshadow").await;
    raised(&house, "shadow", 1.0).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    let mut marks = recorded.of_kind(EventCode::Marker);
    marks.retain(|mark| mark.starts_with("alert "));
    assert_eq!(marks, ["alert shadow: true /etc/shadow", "alert shadow: true /etc/gshadow"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_sns_did_not_take_is_published_after_a_kill() {
    let (sns, address) = FakeSns::start().await;
    sns.down.store(true, Ordering::Release);
    let mut house = House::apart_with(|_| {}, publishing_to(address)).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("true /etc/shadow").await;
    raised(&house, "shadow", 1.0).await;
    until("the mark", || crate::support::spool_holds(&house, &terminal.session, "alert shadow")).await;
    until("a try", || !sns.calls().is_empty()).await;
    house.apart.take().unwrap().kill();
    let refused = sns.told();
    sns.down.store(false, Ordering::Release);
    house.again().await;
    // Its mark is in the recording, so nobody raises it again: it was kept.
    until("the alert at SNS", || sns.told().len() > refused.len()).await;
    assert_eq!(house.metric("postern_alerts_total{rule=\"shadow\"}").await, 0.0);
    let first = sns.told().pop().unwrap();
    assert_eq!(first["text"], "true /etc/shadow");
    assert_eq!(first["id"].as_str().map(str::len), Some(32));
    assert!(refused.iter().all(|told| *told == first), "{refused:?}");
    let published = "postern_alerts_published_total{result=\"published\"}";
    until_some("one published", || async { (house.metric(published).await == 1.0).then_some(()) }).await;

    // Once SNS has it, another kill brings it back no more.
    house.apart.take().unwrap().kill();
    house.again().await;
    terminal.resume(&alice).await;
    terminal.type_line("true /etc/gshadow").await;
    until("the next alert", || sns.told().iter().any(|told| told["text"] == "true /etc/gshadow")).await;
    let accepted = sns.told().split_off(refused.len());
    let texts: Vec<&str> = accepted.iter().map(|told| told["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["true /etc/shadow", "true /etc/gshadow"]);
    assert_ne!(accepted[0]["id"], accepted[1]["id"]);
}
