//! Sessions through the data channel: shells, commands, losses, ends.

use bytes::Bytes;
use data_channel::payload::exit_code;
use data_channel::{HandshakeComplete, PayloadType};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite;

use super::support::*;
use crate::local_ssm::LocalSsm;

#[tokio::test]
async fn a_shell_echoes_and_its_exit_closes_the_channel() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("echo a$((40+2))b").await;
    client.until("a42b").await;
    assert_eq!(client.received[0].0, PayloadType::Output, "no handshake");
    client.type_line("exit").await;
    assert_eq!(client.closed().await, "");
    assert_eq!(client.output(), running.sent(&client.session));
    running.stop().await;
}

#[tokio::test]
async fn a_shell_sees_the_size_of_the_clients_terminal() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.resize(101, 33).await;
    client.type_line("stty size").await;
    client.until("33 101").await;
    client.resize(80, 25).await;
    client.type_line("stty size; tty; [ $(ps -o sid= -p $$) = $$ ] && echo lead''er").await;
    client.until("25 80").await;
    client.until("/dev/pts/").await;
    client.until("leader").await;
    running.stop().await;
}

#[tokio::test]
async fn a_cut_connection_loses_and_repeats_nothing() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("seq 1 30000; echo do''ne").await;
    for text in ["1000\r\n", "20000\r\n"] {
        client.until(text).await;
        // The text may have come before the last resume was through.
        while !running.drop_connections(&client.session).await {}
        client.gone().await;
        client.resume(&running).await;
    }
    client.until("done").await;
    client.until("done").await;
    let numbers: String = (1..=30_000).map(|n| format!("{n}\r\n")).collect();
    assert!(client.text().contains(&numbers));
    client.type_line("exit").await;
    client.closed().await;
    assert_eq!(client.output(), running.sent(&client.session));
    assert_eq!(running.counts(&client.session).unwrap().connections, 3);
    running.stop().await;
}

#[tokio::test]
async fn what_is_typed_while_disconnected_arrives_after_the_resume() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.until("$ ").await;
    assert!(running.close_with_bye(&client.session).await);
    client.gone().await;
    client.type_line("echo ty''ped").await;
    client.resume(&running).await;
    client.until("typed").await;
    running.stop().await;
}

#[tokio::test]
async fn an_end_while_disconnected_is_told_after_the_resume() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("echo rea''dy; read x; echo la''st; exit").await;
    client.until("ready").await;
    client.type_line("now").await;
    assert!(running.drop_connections(&client.session).await);
    client.gone().await;
    client.resume(&running).await;
    assert_eq!(client.closed().await, "");
    assert!(client.text().contains("last"), "{:?}", client.text());
    running.stop().await;
}

#[tokio::test]
async fn a_terminated_session_is_closed_and_its_processes_are_gone() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    let pids = client.pids_of("sleep 1000 &").await;
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    let api = ssm(&running, alice());
    api.terminate_session().session_id(&client.session).send().await.unwrap();
    assert_eq!(client.closed().await, "");
    let resumed = api.resume_session().session_id(&client.session).send().await.unwrap();
    assert_eq!((resumed.token_value(), resumed.stream_url()), (None, None));
    running.stop().await;
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
}

#[tokio::test]
async fn stopping_leaves_no_process_behind() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    let pids = client.pids_of("trap '' HUP TERM; (trap '' HUP; sleep 1000) &").await;
    assert!(pids.iter().all(|pid| is_alive(pid)), "{pids:?}");
    running.stop().await;
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
}

#[tokio::test]
async fn a_job_left_behind_does_not_hold_the_session_open() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    let pids = client.pids_of("trap '' HUP; sleep 1000 & disown;").await;
    client.type_line("exit").await;
    assert_eq!(client.closed().await, "");
    running.stop().await;
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
}

#[tokio::test]
async fn an_unacknowledged_message_is_sent_again() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.ignore_once.extend([0, 2]);
    client.type_line("echo o''ne; echo t''wo").await;
    client.until("two").await;
    client.type_line("exit").await;
    client.closed().await;
    assert_eq!(client.output(), running.sent(&client.session));
    assert!(running.counts(&client.session).unwrap().resends >= 1);
    running.stop().await;
}

#[tokio::test]
async fn a_repeated_input_message_is_acknowledged_again_and_typed_once() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("echo on''ce").await;
    client.until("once").await;
    client.acknowledged().await;
    client.acknowledges.clear();
    // The same bytes with the same number, as if the answer was lost.
    let raw = data_channel::Draft {
        message_type: data_channel::MessageType::InputStreamData,
        created_ms: 1,
        sequence: 0,
        flags: 0,
        id: uuid::Uuid::new_v4(),
        payload_type: PayloadType::Output,
        payload: b"echo on''ce\r",
    }
    .encode();
    client.send_raw(tungstenite::Message::Binary(raw)).await;
    while !client.acknowledges.contains(&0) {
        client.next().await;
    }
    client.type_line("exit").await;
    client.closed().await;
    assert_eq!(client.text().matches("once").count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn garbage_and_wrong_digests_are_dropped_and_nothing_breaks() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.until("$ ").await;
    let mut wrong = data_channel::Acknowledge {
        message_type: data_channel::MessageType::OutputStreamData,
        message_id: uuid::Uuid::nil(),
        sequence: 0,
    }
    .encode(1)
    .to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    for garbage in [vec![], vec![0; 10], vec![0xff; 500], wrong] {
        client.send_raw(tungstenite::Message::Binary(Bytes::from(garbage))).await;
    }
    client.send_raw(tungstenite::Message::text("x".repeat(300))).await;
    client.type_line("echo still''here").await;
    client.until("stillhere").await;
    assert_eq!(running.counts(&client.session).unwrap().rejects, 5);
    running.stop().await;
}

#[tokio::test]
async fn a_wrong_token_is_told_so_and_the_session_goes_on() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.until("$ ").await;
    let url = format!("ws://{}/v1/data-channel/{}?role=publish_subscribe", running.addr, client.session);
    for url in [url.as_str(), &url.replace("alice", "mallory")] {
        let mut intruder = Client::dial("x", url, "forged").await;
        assert_eq!(intruder.closed().await, "The token is not valid for this session.");
    }
    client.type_line("echo unim''pressed").await;
    client.until("unimpressed").await;
    running.stop().await;
}

#[tokio::test]
async fn a_token_is_for_one_client_and_void_after_a_resume() {
    let running = start().await;
    let opened = ssm(&running, alice()).start_session().target(WEB).send().await.unwrap();
    let (url, token) = (opened.stream_url().unwrap(), opened.token_value().unwrap());
    let mut first = open(url, token, "client-1").await;
    assert!(first.next().await.is_some(), "the prompt");
    let mut other = Client::dial("x", url, token).await;
    assert_eq!(other.closed().await, "The token is not valid for this session.");
    let resumed = ssm(&running, alice())
        .resume_session()
        .session_id(opened.session_id().unwrap())
        .send()
        .await
        .unwrap();
    assert_ne!(resumed.token_value().unwrap(), token);
    let mut late = Client::dial("x", url, token).await;
    assert_eq!(late.closed().await, "The token is not valid for this session.");
    running.stop().await;
}

#[tokio::test]
async fn an_interactive_command_runs_on_a_terminal_without_handshake() {
    let running = start().await;
    let mut client =
        connect(&running, Some(("AWS-StartInteractiveCommand", "tty && read x && echo got=$x"))).await;
    client.until("/dev/pts/").await;
    client.type_line("it").await;
    assert_eq!(client.closed().await, "");
    assert!(client.text().contains("got=it"));
    running.stop().await;
}

#[tokio::test]
async fn a_command_without_terminal_shakes_hands_and_tells_its_exit_code() {
    let running = start().await;
    let command = r#"sh -c "echo out; echo err >&2; tty; exit 3""#;
    let mut client = connect(&running, Some(("AWS-StartNonInteractiveCommand", command))).await;
    assert_eq!(client.closed().await, "");
    let kinds: Vec<_> = client.received.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds[..2], [PayloadType::HandshakeRequest, PayloadType::HandshakeComplete]);
    HandshakeComplete::parse(&client.received[1].1).unwrap();
    assert_eq!(client.output(), b"out\nnot a tty\n");
    assert_eq!(client.of_type(PayloadType::StdErr), b"err\n");
    let (last, payload) = client.received.last().unwrap();
    assert_eq!((*last, exit_code(payload)), (PayloadType::ExitCode, Some(3)));
    running.stop().await;
}

#[tokio::test]
async fn control_c_interrupts_a_command_without_terminal() {
    let running = start().await;
    let command = "bash -c 'echo up; sleep 1000'";
    let mut client = connect(&running, Some(("AWS-StartNonInteractiveCommand", command))).await;
    client.until("up").await;
    client.send(PayloadType::Output, b"x\x03").await;
    assert_eq!(client.closed().await, "");
    assert_eq!(exit_code(&client.of_type(PayloadType::ExitCode)), Some(130));
    running.stop().await;
}

#[tokio::test]
async fn a_shell_that_cannot_start_is_told_to_the_client() {
    let mut config = config();
    config.targets[0].shell = vec!["/no/such/shell".into()];
    let running = LocalSsm::start(config).await.unwrap();
    let mut client = connect(&running, None).await;
    let told = client.closed().await;
    assert!(told.starts_with("Unable to start command:"), "{told}");
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_nobody_connects_to_ends() {
    let mut config = config();
    config.habits.disconnected_end = std::time::Duration::from_millis(50);
    let running = LocalSsm::start(config).await.unwrap();
    let api = ssm(&running, alice());
    let opened = api.start_session().target(WEB).send().await.unwrap();
    while !running.live_sessions().is_empty() {
        tokio::task::yield_now().await;
    }
    let resumed = api.resume_session().session_id(opened.session_id().unwrap()).send().await.unwrap();
    assert_eq!(resumed.token_value(), None);
    running.stop().await;
}

#[tokio::test]
async fn control_c_passes_a_flood_that_nobody_reads() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("yes; echo sto''pped; exit").await;
    // Not before the flood runs: the shell would be interrupted instead.
    client.until("y\r\ny\r\n").await;
    client.send(PayloadType::Output, b"\x03").await;
    client.type_line("echo ne''xt; exit").await;
    client.closed().await;
    assert_eq!(client.output(), running.sent(&client.session));
    running.stop().await;
}

#[tokio::test]
async fn a_big_paste_is_typed_whole() {
    let running = start().await;
    let mut client = connect(&running, None).await;
    client.type_line("stty raw -echo; echo rea''dy; head -c 300000 | sha256sum; stty sane; exit").await;
    client.until("ready").await;
    let text: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    for chunk in text.chunks(1_024) {
        client.send(PayloadType::Output, chunk).await;
    }
    assert_eq!(client.closed().await, "");
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert!(client.text().contains(&digest), "{:?}", client.text());
    running.stop().await;
}
