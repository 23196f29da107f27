//! `postern replay` as a person meets it: in a terminal, and in a pipe.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use pty_process::blocking::{Pty, open};

const POSTERN: &str = env!("CARGO_BIN_EXE_postern");
/// The second output is an hour away: only a key ends the replay.
const CAST: &str = concat!(
    "{\"version\":2,\"width\":120,\"height\":24}\n",
    "[0.0,\"o\",\"\\u001b[?25l\\u001b[31mfirst\\r\\n\"]\n",
    "[3600.0,\"o\",\"last\\r\\n\"]\n",
);

/// A folder with one recording in it.
fn recorded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.cast"), CAST).unwrap();
    folder
}

/// Reads until the text was seen, or to the end; tells what came.
fn read_until(pty: &mut Pty, text: &str) -> String {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains(text) {
        // Linux says EIO once the other side of a terminal is gone.
        match pty.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(got) => seen.extend_from_slice(&buffer[..got]),
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Replays in a terminal of 80 by 24, between two looks at its settings.
fn on_a_terminal(script: &str) -> (Pty, std::process::Child, tempfile::TempDir) {
    let folder = recorded();
    let (pty, pts) = open().unwrap();
    pty.resize(pty_process::Size::new(24, 80)).unwrap();
    let shell = pty_process::blocking::Command::new("sh")
        .args(["-c", script])
        .env("POSTERN", POSTERN)
        .env("TERM", "xterm-256color")
        .current_dir(folder.path());
    let child = shell.spawn(pts).unwrap();
    (pty, child, folder)
}

#[test]
fn a_key_ends_a_replay_and_the_terminal_is_as_it_was() {
    let script = "stty -g; \"$POSTERN\" replay x.cast; echo \"ended $?\"; stty -g; echo over";
    let (mut pty, mut child, _folder) = on_a_terminal(script);
    let begun = read_until(&mut pty, "first");
    pty.write_all(b"q").unwrap();
    let rest = read_until(&mut pty, "over");
    child.wait().unwrap();

    let before = begun.lines().next().unwrap().trim();
    let (restored, after) = rest.split_once("ended 0").unwrap();
    assert!(before.contains(':'), "no settings of the terminal in {begun:?}");
    assert_eq!(after.split_whitespace().next(), Some(before));
    assert!(restored.contains("\u{1b}[?25h"), "the cursor stayed hidden: {restored:?}");
    assert!(!rest.contains("last"));
    assert!(begun.contains("the recording is 120x24 and this window 80x24"), "{begun:?}");
}

#[test]
fn a_signal_ends_a_replay_and_the_terminal_is_as_it_was() {
    let script = "stty -g; sh -c 'echo pid=$$=; exec \"$POSTERN\" replay x.cast'; stty -g; echo over";
    let (mut pty, mut child, _folder) = on_a_terminal(script);
    let begun = read_until(&mut pty, "first");
    let player = begun.split('=').nth(1).unwrap();
    assert!(Command::new("kill").args(["-TERM", player]).status().unwrap().success());
    let rest = read_until(&mut pty, "over");
    child.wait().unwrap();
    let before = begun.lines().next().unwrap().trim();
    assert!(rest.contains(before), "{before:?} is not in {rest:?}");
}

#[test]
fn a_pipe_gets_the_output_at_once_and_no_key_is_read() {
    let folder = recorded();
    let output = Command::new(POSTERN)
        .args(["replay", "x.cast"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"\x1b[?25l\x1b[31mfirst\r\nlast\r\n");
    assert_eq!(output.stderr, b"");
}

#[test]
fn what_is_no_recording_is_told_in_one_line() {
    let folder = recorded();
    std::fs::write(folder.path().join("y.cast"), "\u{1b}[2Jhello\n").unwrap();
    let output =
        Command::new(POSTERN).args(["replay", "y.cast"]).current_dir(folder.path()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(told.lines().count(), 1, "{told:?}");
    assert!(told.contains("y.cast: this is not a recording") && !told.contains('\u{1b}'), "{told:?}");
}
