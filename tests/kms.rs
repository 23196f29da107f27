//! Sessions whose target encrypts with KMS: recorded in clear, all the same.

use data_channel::PayloadType;
use postern::asciicast::{EventCode, Stream, exact_output};
use postern::local_ssm::{LocalConfig, LocalTarget};
use serde_json::{Value, json};

use crate::support::{DEV, Heard, House, Recorded, Terminal, spool_holds, target, until, until_some};

/// A machine whose sessions are encrypted, and its key.
const SEALED: &str = "mi-0000000000000001e";
const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/11112222-3333-4444-5555-666677778888";
/// A machine whose key is not there any more.
const MISKEYED: &str = "mi-0000000000000002e";

/// A house with both.
async fn house() -> House {
    house_with(|_| {}).await
}

async fn house_with(change: impl FnOnce(&mut postern::config::Config)) -> House {
    House::with_aws(add_keys, change).await
}

fn add_keys(aws: &mut LocalConfig) {
    aws.kms_keys.push(KEY.to_owned());
    let hello = json!({
        "schemaVersion": "1.0", "description": "Says hello", "sessionType": "InteractiveCommands",
        "inputs": {"kmsKeyId": KEY}, "properties": {"linux": {"commands": "echo hello"}},
    });
    aws.documents.insert("Sealed-Hello".to_owned(), hello.to_string());
    for (id, key) in [(SEALED, KEY), (MISKEYED, "gone")] {
        aws.targets.push(LocalTarget { kms_key: Some(key.to_owned()), ..target(id, "dev") });
    }
}

/// Starts a session and waits for the sentence that ends it.
async fn ended(house: &House, target: &str) -> (String, String) {
    let alice = house.alice().await;
    let ticket = alice.start(target).await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    let said = terminal.closed().await;
    assert!(terminal.output.is_empty(), "{}", terminal.text());
    (ticket.session, said)
}

/// Why a session ended, once that is registered.
async fn end_reason(house: &House, session: &str) -> String {
    let alice = house.alice().await;
    let look = || async { Some(alice.session(session).await["end_reason"].as_str()?.to_owned()) };
    until_some("the end in the registry", look).await
}

fn requests(terminal: &Terminal) -> Vec<Value> {
    let requests = terminal.requests.iter();
    requests.map(|payload| serde_json::from_slice(payload).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_is_encrypted_to_the_target_and_clear_in_the_recording() {
    let house = house().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, SEALED).await;
    let upstream = alice.upstream(&terminal.session).await;
    assert_eq!(alice.session(&terminal.session).await["kms_key_id"], KEY);
    terminal.resize(132, 43).await;
    terminal.type_line("stty size; echo cl''ear").await;
    terminal.until("clear\r\n$ ").await;
    assert!(terminal.text().contains("43 132"), "{}", terminal.text());
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");

    // The client was asked for its session type, twice, and for no key.
    for request in requests(&terminal) {
        let actions = request["RequestedClientActions"].as_array().unwrap();
        assert_eq!(actions.len(), 1, "{request}");
        assert_eq!(actions[0]["ActionType"], "SessionType");
    }
    assert_eq!(terminal.requests.len(), 2);
    let [(PayloadType::HandshakeComplete, _)] = &terminal.others[..] else { panic!("{:?}", terminal.others) };

    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(terminal.output == house.local.sent(&upstream), "the terminal got other bytes");
    assert!(recorded.bytes() == house.local.sent(&upstream), "the recording has other bytes");
    recorded.assert_once();
    assert!(recorded.of_kind(EventCode::Resize).contains(&"132x43"));
    let counts = house.local.counts(&upstream).unwrap();
    assert_eq!((counts.rejects, counts.connections), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_session_survives_cuts_of_either_connection() {
    let house = house().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, SEALED).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line("seq 1 100000").await;
    for round in 1..=4_usize {
        while terminal.output.len() < round * 100_000 {
            assert!(matches!(terminal.next().await, Heard::Output | Heard::Acknowledge));
        }
        if round == 2 {
            terminal.cut();
            terminal.resume(&alice).await;
        }
        until_some("a connection to break", || async {
            let broken = match round % 2 {
                0 => house.local.close_with_bye(&upstream).await,
                _ => house.local.drop_connections(&upstream).await,
            };
            broken.then_some(())
        })
        .await;
    }
    terminal.until("100000\r\n$ ").await;
    terminal.type_line("echo typed af''ter all").await;
    terminal.until("typed after all\r\n$ ").await;
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");

    let sent = house.local.sent(&upstream);
    assert!(terminal.output == sent, "the terminal got other bytes than the agent sent");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(recorded.bytes() == sent, "the recording has other bytes than the agent sent");
    recorded.assert_once();
    assert_eq!(house.local.counts(&upstream).unwrap().rejects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_the_middle_of_the_handshake_is_made_good() {
    let house = house().await;
    let alice = house.alice().await;
    let ticket = alice.start(SEALED).await;
    let upstream = alice.upstream(&ticket.session).await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    while terminal.requests.is_empty() {
        terminal.next().await;
    }
    // The answer with the key may be on its way, or not.
    house.local.drop_connections(&upstream).await;
    terminal.until("$ ").await;
    terminal.type_line("echo go''od").await;
    terminal.until("good\r\n$ ").await;
    assert_eq!(house.local.counts(&upstream).unwrap().rejects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_keeps_its_two_streams_and_its_exit_code() {
    let house = house().await;
    let alice = house.alice().await;
    let ticket = alice
        .start_as(&json!({
            "Target": SEALED, "DocumentName": "AWS-StartNonInteractiveCommand",
            "Parameters": {"command": ["sh -c 'echo out; echo err >&2; exit 3'"]},
        }))
        .await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    assert_eq!(terminal.closed().await, "");
    let of = |kind| {
        let others = terminal.others.iter().filter(move |(have, _)| *have == kind);
        others.flat_map(|(_, payload)| payload.clone()).collect::<Vec<u8>>()
    };
    assert_eq!(terminal.text(), "out\n");
    assert_eq!(of(PayloadType::StdErr), b"err\n");
    assert_eq!(of(PayloadType::ExitCode), b"EXIT_CODE: 3");

    let recorded = Recorded::of(&house, &ticket.session).await;
    recorded.assert_once();
    let text = |stream| {
        let events = exact_output(&recorded.events).filter(move |event| event.stream == stream);
        events.flat_map(|event| event.content.into_owned()).collect::<Vec<u8>>()
    };
    assert_eq!(text(Stream::Output), b"out\n");
    assert_eq!(text(Stream::StdErr), b"err\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_may_name_the_key() {
    let house = house().await;
    let alice = house.alice().await;
    let ticket = alice.start_as(&json!({"Target": DEV, "DocumentName": "Sealed-Hello"})).await;
    let mut terminal = Terminal::open(&alice.door, &ticket).await;
    assert_eq!(terminal.closed().await, "");
    assert_eq!((terminal.text().as_str(), terminal.requests.len()), ("hello\r\n", 2));
    assert_eq!(alice.session(&ticket.session).await["kms_key_id"], KEY);
    Recorded::of(&house, &ticket.session).await.assert_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_words_are_recorded_once_and_in_clear() {
    let policy = r#"
        @id("every-key") @input("record")
        permit (principal, action in Postern::Action::"startSession", resource is Postern::Instance);
    "#;
    let house = house_with(|config| {
        std::fs::write(config.policy.directory.join("keys.cedar"), policy).unwrap();
    })
    .await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, SEALED).await;
    terminal.type_line("echo se''cret").await;
    terminal.until("secret\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.of_kind(EventCode::Input).concat(), "echo se''cret\rexit\r");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_does_not_exist_ends_the_session_with_its_name() {
    let house = house().await;
    let (session, said) = ended(&house, MISKEYED).await;
    assert!(said.contains("the KMS key gone, and"), "{said}");
    assert!(said.contains("NotFoundException: check the key in the session preferences"), "{said}");
    let recorded = Recorded::of(&house, &session).await;
    assert!(recorded.bytes().is_empty());
    assert_eq!(end_reason(&house, &session).await, said);
    let counted = "postern_sessions_ended_total{reason=\"key_unavailable\"}";
    until_some("the count", || async { (house.metric(counted).await == 1.0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_kms_ends_the_session_and_it_can_be_tried_again() {
    let house = house().await;
    house.local.set_keys_failing(true);
    let (_, said) = ended(&house, SEALED).await;
    assert!(said.contains(KEY) && said.contains("try again in a minute"), "{said}");
    house.local.set_keys_failing(false);
    let alice = house.alice().await;
    Terminal::shell(&alice, SEALED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_was_altered_ends_the_session_unrecorded() {
    let house = house().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, SEALED).await;
    let upstream = alice.upstream(&terminal.session).await;
    house.local.spoil_next_output(&upstream);
    terminal.type_line("echo al''tered").await;
    let said = terminal.closed().await;
    assert!(said.contains("output that does not decrypt"), "{said}");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.bytes(), terminal.output);
    assert_eq!(end_reason(&house, &terminal.session).await, said);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_session_goes_on_with_its_key_after_a_kill() {
    let mut house = House::apart_with_aws(add_keys).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, SEALED).await;
    let upstream = alice.upstream(&terminal.session).await;
    terminal.type_line("seq 1 50000").await;
    while terminal.output.len() < 100_000 {
        assert!(matches!(terminal.next().await, Heard::Output | Heard::Acknowledge));
    }
    house.apart.take().unwrap().kill();
    house.again().await;
    terminal.resume(&alice).await;
    terminal.until("50000\r\n$ ").await;
    terminal.type_line("echo typed af''terwards").await;
    terminal.until("typed afterwards\r\n$ ").await;
    terminal.type_line("exit").await;
    assert_eq!(terminal.closed().await, "");
    let sent = house.local.sent(&upstream);
    assert!(terminal.output == sent, "the terminal got other bytes than the agent sent");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(recorded.bytes() == sent, "the recording has other bytes than the agent sent");
    recorded.assert_once();
    assert_eq!(house.local.counts(&upstream).unwrap().rejects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_key_cannot_be_opened_again_ends_with_the_sentence() {
    let mut house = House::apart_with_aws(add_keys).await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, SEALED).await;
    // Before that nobody knows whether the handshake was over.
    until("the prompt in the journal", || spool_holds(&house, &terminal.session, "$ ")).await;
    house.apart.take().unwrap().kill();
    house.local.set_keys_failing(true);
    house.again().await;
    let before = terminal.output.clone();
    terminal.resume(&alice).await;
    let said = terminal.closed().await;
    assert!(said.contains(KEY) && said.contains("try again in a minute"), "{said}");
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(recorded.bytes() == before, "something was recorded that nobody can read");
}
