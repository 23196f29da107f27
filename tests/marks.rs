//! Commands are marked in the recording itself, while it is written.

use postern::asciicast::{Event, EventCode};
use postern::replay::{Format, Timeline, export};

use crate::support::{DEV, House, Recorded, Terminal, spool_holds, until};

/// A prompt as a shell with OSC 133 draws it, around what is typed.
const MARKED: &str = "printf '\\033]133;A\\007w''eb> \\033]133;B\\007'; read x; \
                      printf '\\033]133;C\\007ran %s\\n' \"$x\"";
/// A password prompt.
const UNSEEN: &str = "stty -echo; printf 'Password: '; read x; stty echo; echo thanks";

async fn exported(house: &House, session: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut timeline = Timeline::open(&house.spool.join(format!("{session}.cast.zst"))).unwrap();
    export(&mut timeline, Format::V2, &mut out).unwrap();
    let lines = out.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
    let events = lines.map(|line| Event::parse(line).unwrap());
    events.filter(|event| event.code == EventCode::Marker).map(|event| event.data).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_the_shell_marks_is_marked_while_the_session_runs() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.type_line(MARKED).await;
    terminal.until("web> ").await;
    terminal.type_line("ls -l").await;
    terminal.until("ran ls -l").await;
    until("the marker", || spool_holds(&house, &terminal.session, "ls -l [shell]")).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    recorded.assert_once();
    assert_eq!(recorded.of_kind(EventCode::Marker), ["ls -l [shell]"]);
    let marks = exported(&house, &terminal.session).await;
    assert_eq!(marks.iter().filter(|mark| *mark == "ls -l [shell]").count(), 1, "{marks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_rules_look_at_commands_those_that_are_guessed_are_marked_too() {
    let house = House::with(|config| {
        let rule = "[[alert]]\nname = \"never\"\non = \"command\"\nmatches = 'nobody types this'\n";
        std::fs::write(config.policy.directory.join("alerts.toml"), rule).unwrap();
    })
    .await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DEV).await;
    terminal.until("$ ").await;
    terminal.type_line("echo $((40 + 2))").await;
    terminal.until("42\r\n$ ").await;
    until("the marker", || spool_holds(&house, &terminal.session, "echo $((40 + 2)) [guess]")).await;
    terminal.type_line(UNSEEN).await;
    terminal.until("Password: ").await;
    terminal.type_line("hunter2").await;
    terminal.until("thanks\r\n$ ").await;
    terminal.type_line("echo again").await;
    until("the marker", || spool_holds(&house, &terminal.session, "echo again [guess]")).await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    recorded.assert_once();
    let marks = recorded.of_kind(EventCode::Marker);
    assert!(!marks.iter().any(|mark| mark.contains("hunter2")), "{marks:?}");
    let exported = exported(&house, &terminal.session).await;
    for command in ["echo $((40 + 2)) [guess]", "echo again [guess]"] {
        assert_eq!(marks.iter().filter(|mark| **mark == command).count(), 1, "{marks:?}");
        assert_eq!(exported.iter().filter(|mark| *mark == command).count(), 1, "{exported:?}");
    }
}
