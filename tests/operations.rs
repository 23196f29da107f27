//! What operators see: metrics, readiness, a stop that loses nothing.

use postern::config::OnStop;
use postern::recorder::PublicKey;
use serde_json::json;

use crate::support::{Call, DEV, House, Recorded, Terminal, until_some};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_tell_of_sessions_decisions_bytes_and_times() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line("echo me''tered").await;
    terminal.until("metered\r\n$ ").await;
    let upstream = alice.upstream(&terminal.session).await;
    assert_eq!(house.metric("postern_sessions{state=\"connected\"}").await, 1.0);
    let sent = house.local.sent(&upstream).len() as f64;
    assert_eq!(house.metric("postern_relay_bytes_total{direction=\"output\"}").await, sent);
    let typed = "echo me''tered\r".len() as f64;
    assert_eq!(house.metric("postern_relay_bytes_total{direction=\"input\"}").await, typed);
    house.local.drop_connections(&upstream).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    Recorded::of(&house, &terminal.session).await;

    let ended = "postern_sessions_ended_total{reason=\"target_closed\"}";
    until_some("the count", || async { (house.metric(ended).await == 1.0).then_some(()) }).await;
    for series in [
        "postern_sessions{state=\"connected\"} 0",
        "postern_sessions_started_total{kind=\"shell\"} 1",
        "postern_decisions_total{action=\"startShell\",result=\"allow\"} 1",
        "postern_sign_ins_total{result=\"ok\"} 1",
        "postern_recordings_total{result=\"sealed\"} 1",
        "postern_recorder_errors_total 0",
        "postern_api_requests_total{code=\"ok\",operation=\"StartSession\"} 1",
        "postern_relay_seconds_bucket",
        "postern_acknowledge_wait_seconds_bucket",
        "postern_recorder_write_seconds_bucket",
        "postern_decision_seconds_bucket",
        "postern_upstream_seconds_bucket",
        "postern_connections ",
        "postern_build_info{version=",
    ] {
        let (status, text) = house.admin("/metrics").await;
        assert!(status == 200 && text.contains(series), "{series} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_announced_and_seals_what_runs() {
    let mut house = House::with(|config| config.sessions.on_stop = OnStop::End).await;
    let alice = house.alice().await;
    assert_eq!(house.admin("/readyz").await, (200, "ready\n".to_owned()));
    let keys = Call::get("/v1/recording-keys").send(&house.door).await.ok();
    let key = PublicKey::from_pem(keys[0]["pem"].as_str().unwrap()).unwrap();
    let mut terminal = Terminal::shell(&alice, DEV).await;
    // This one does not hang up, so the stop waits a moment for it.
    let _silent = Terminal::shell(&alice, DEV).await;
    let upstream = alice.upstream(&terminal.session).await;

    let stop = tokio::spawn(house.take_gateway().stop());
    until_some("the notice", || async { (house.admin("/readyz").await.0 == 503).then_some(()) }).await;
    assert!(house.admin("/readyz").await.1.contains("draining"));
    let refused = alice.api("StartSession", &json!({"Target": DEV})).await;
    refused.refused("ServiceUnavailableException");
    assert_eq!(terminal.closed().await, "the gateway is stopping");
    stop.await.unwrap();

    let recorded = Recorded::checked(&house.spool.join(format!("{}.cast.zst", terminal.session)), &key);
    assert_eq!(recorded.evidence.end.reason, "gateway_stopped");
    assert!(!recorded.evidence.end.recovered);
    assert_eq!(recorded.bytes(), house.local.sent(&upstream));
    assert!(house.local.live_sessions().is_empty());
}
