//! Somebody can write to the spool while no gateway runs, and has no key.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use data_channel::PayloadType;
use postern::recorder::{RECORDING_SUFFIX, is_sealed};
use serde_json::{Value, json};

use crate::support::{DEV, DISK, House, Person, Recorded, Terminal, spool_holds, until};

fn recording(house: &House, session: &str, suffix: &str) -> PathBuf {
    house.spool.join(format!("{session}{RECORDING_SUFFIX}{suffix}"))
}

/// Packs the lines anew, as `zstd -1 --no-check` does.
fn forge(path: &Path, change: impl Fn(String) -> String) {
    let mut text = String::new();
    zstd::Decoder::new(fs::File::open(path).unwrap()).unwrap().read_to_string(&mut text).unwrap();
    let mut frame = zstd::Encoder::new(Vec::new(), 1).unwrap();
    frame.include_checksum(false).unwrap();
    frame.write_all(change(text).as_bytes()).unwrap();
    fs::write(path, frame.finish().unwrap()).unwrap();
}

/// The lines that are in an open file; it may end inside a frame.
fn lines_so_far(path: &Path) -> Vec<u8> {
    let (packed, mut lines) = (fs::read(path).unwrap(), Vec::new());
    let _ = zstd::Decoder::new(packed.as_slice()).unwrap().read_to_end(&mut lines);
    lines
}

/// A shell that has shown a word which somebody may want to be another.
async fn shell(person: &Person) -> Terminal {
    let mut terminal = Terminal::shell(person, DEV).await;
    terminal.type_line("echo e''vil").await;
    terminal.until("evil\r\n$ ").await;
    terminal
}

fn lie(text: String) -> String {
    assert!(text.contains("evil"));
    text.replace("evil", "good")
}

/// `postern verify --json`: its status and what it says of the file.
fn verify(house: &House, path: &Path) -> (Option<i32>, Value) {
    let key = house.folder.path().join("state/keys/recording.key.pub");
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    let told = command.arg("verify").arg(path).arg("--key").arg(key).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&told.stderr);
    let found: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{text}"));
    (told.status.code(), found[0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_recording_that_was_forged_is_not_signed_by_the_next_start() {
    for (keeps_registry, keeps_begun) in [(true, true), (true, false), (false, false)] {
        let mut house = House::apart().await;
        let alice = house.alice().await;
        let mut terminal = shell(&alice).await;
        let path = recording(&house, &terminal.session, "");
        let begun = recording(&house, &terminal.session, ".begun");
        let kept = fs::read(&begun).unwrap();
        terminal.type_line("exit").await;
        terminal.closed().await;
        until("the seal", || is_sealed(&path).unwrap_or(false) && !begun.exists()).await;
        assert_eq!(verify(&house, &path).0, Some(0));
        assert_eq!(house.apart.take().unwrap().terminate().await, Some(0));

        forge(&path, lie);
        if keeps_begun {
            fs::write(&begun, kept).unwrap();
        }
        if !keeps_registry {
            fs::remove_file(house.folder.path().join("state/postern.db")).unwrap();
        }
        house.again().await;
        let broken = recording(&house, &terminal.session, ".broken");
        until("the forged file to be set aside", || broken.exists()).await;
        assert!(!path.exists() && !begun.exists());
        let gateway = house.apart.as_ref().unwrap();
        until("the reason", || gateway.said("is not sealed, but set aside")).await;
        assert!(house.metric("postern_recorder_errors_total").await > 0.0);
        assert_eq!(verify(&house, &broken).0, Some(2), "nothing proves it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_was_changed_while_no_gateway_ran_does_not_go_on_as_if_nothing_was() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = shell(&alice).await;
    let path = recording(&house, &terminal.session, "");
    let checkpoint = recording(&house, &terminal.session, ".checkpoint");
    until("the file to have it", || lines_so_far(&path).windows(4).any(|four| four == b"evil")).await;
    until("the checkpoint", || checkpoint.exists()).await;
    house.apart.take().unwrap().kill();

    fs::remove_file(checkpoint).unwrap();
    for segment in fs::read_dir(house.spool.join("journal")).unwrap() {
        fs::remove_file(segment.unwrap().path()).unwrap();
    }
    // What is whole is kept.
    fs::write(&path, zstd::encode_all(lines_so_far(&path).as_slice(), 1).unwrap()).unwrap();
    forge(&path, lie);

    house.again().await;
    terminal.resume(&alice).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(!recorded.evidence.end.recovered);
    let (status, found) = verify(&house, &path);
    assert_eq!((status, found["takeovers"][0]["signed_lines"].as_u64()), (Some(3), Some(1)), "{found}");
    let doubt = found["doubts"][0].as_str().unwrap();
    assert!(doubt.contains("had been signed before"), "{doubt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_nobody_used_is_told_and_not_doubted() {
    let mut house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = shell(&alice).await;
    let checkpoint = recording(&house, &terminal.session, ".checkpoint");
    until("the checkpoint", || checkpoint.exists()).await;
    house.apart.take().unwrap().kill();
    house.again().await;
    terminal.resume(&alice).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert_eq!(recorded.evidence.takeovers.len(), 1);
    let (status, found) = verify(&house, &recording(&house, &terminal.session, ""));
    assert_eq!((status, &found["doubts"]), (Some(0), &json!([])), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_large_message_of_control_bytes_leaves_the_recording_readable() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DISK).await;
    // Each of them is `\u00XX` in a line.
    let bytes: Vec<u8> =
        data_channel::Uuid::new_v4().as_bytes().iter().map(|byte| 0x0e + byte % 13).collect();
    let bytes: Vec<u8> = bytes.into_iter().cycle().take(250_000).collect();
    terminal.send(PayloadType::Output, &bytes).await;
    let escaped: String = bytes.iter().take(40).map(|byte| format!("\\u{byte:04x}")).collect();
    until("the input in the spool", || spool_holds(&house, &terminal.session, &escaped)).await;
    alice.api("TerminateSession", &json!({"SessionId": terminal.session})).await.ok();
    let recorded = Recorded::of(&house, &terminal.session).await;
    let input = recorded.of_kind(postern::asciicast::EventCode::Input).concat();
    assert!(input.as_bytes() == bytes, "{} bytes of input", input.len());
    assert_eq!(verify(&house, &recording(&house, &terminal.session, "")).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_key_a_recording_is_whole_but_not_proved() {
    let house = House::apart().await;
    let alice = house.alice().await;
    let mut terminal = shell(&alice).await;
    let path = recording(&house, &terminal.session, "");
    terminal.type_line("exit").await;
    terminal.closed().await;
    until("the seal", || is_sealed(&path).unwrap_or(false)).await;
    let empty = house.folder.path().join("nobody");
    fs::create_dir(&empty).unwrap();
    let keyless = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.env_clear().env("HOME", &empty).arg("verify").arg(&path);
        let told = command.output().unwrap();
        let text = [told.stdout, told.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (told.status.code(), text)
    };
    let (status, told) = keyless();
    assert_eq!(status, Some(4), "{told}");
    for words in ["NOT PROVED", "hash chain", "whose key that is", "--key FILE", "--profile NAME"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (status, told) = keyless();
    assert_eq!(status, Some(1), "{told}");
}
