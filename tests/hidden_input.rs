//! What is typed while the terminal does not show it is kept nowhere.

use std::path::Path;

use postern::asciicast::EventCode;
use postern::recorder::read::LineReader;

use crate::support::{DISK, House, Recorded, Terminal, until};

const SECRET: &str = "correct-horse-battery";

/// Whether any file below the folder has the text, compressed or not.
fn kept(folder: &Path, text: &str) -> bool {
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return kept(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let mut lines = LineReader::new(bytes.as_slice());
        let mut in_lines = false;
        while let Ok(Some(line)) = lines.next_line() {
            in_lines |= has(line);
        }
        in_lines || has(&bytes)
    })
}

async fn types_secrets(terminal: &mut Terminal, house: &House) {
    // A prompt that says what it wants, as sudo's.
    terminal.type_line("stty -echo; printf '[sudo] password %s' 'for alice: '; read one; stty echo").await;
    terminal.until("[sudo] password for alice: ").await;
    terminal.type_line(SECRET).await;
    terminal.until(": $ ").await;
    // One that does not, and somebody who types key by key.
    terminal.type_line("stty -echo; echo rea''dy; read two; stty echo").await;
    terminal.until("ready\r\n").await;
    for key in SECRET.chars() {
        terminal.send(data_channel::PayloadType::Output, key.to_string().as_bytes()).await;
    }
    terminal.type_line("").await;
    terminal.until("ready\r\n$ ").await;
    terminal.delivered().await;
    assert!(!kept(house.folder.path(), SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_typed_unseen_is_in_no_file() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DISK).await;
    terminal.type_line("echo sh''own").await;
    terminal.until("shown\r\n$ ").await;
    until("the line is kept", || kept(&house.spool, "sh''own")).await;
    types_secrets(&mut terminal, &house).await;
    terminal.type_line("echo ne''xt").await;
    terminal.until("next\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    assert!(!kept(house.folder.path(), SECRET));
    let typed = recorded.of_kind(EventCode::Input).concat();
    let asked = "stty -echo; printf '[sudo] password %s' 'for alice: '; read one; stty echo";
    assert!(typed.starts_with(&format!("echo sh''own\r{asked}\r*\r")), "{typed}");
    assert!(typed.contains(&format!("{}\r", "*".repeat(SECRET.len()))) && !typed.contains(SECRET), "{typed}");
    assert!(typed.contains("echo ne''xt\r"), "{typed}");
    // What the machine makes of it is not changed.
    assert_eq!(recorded.bytes(), terminal.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_line_editor_shows_is_kept_key_by_key() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DISK).await;
    terminal.type_line("PS1='ed''it> ' bash --norc --noprofile -i").await;
    terminal.until("edit> ").await;
    let line = "echo edi''ted";
    for key in line.chars() {
        terminal.send(data_channel::PayloadType::Output, key.to_string().as_bytes()).await;
    }
    terminal.type_line("").await;
    terminal.until("edited\r\n").await;
    terminal.type_line("exit").await;
    terminal.until("exit\r\n$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    let typed = recorded.of_kind(EventCode::Input).concat();
    assert!(typed.contains(&format!("{line}\r")), "{typed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_other_output_says_too_is_hidden() {
    let house = House::start().await;
    let alice = house.alice().await;
    let mut terminal = Terminal::shell(&alice, DISK).await;
    terminal.type_line("PS1='db-pr''od$ '").await;
    terminal.until("db-prod$ ").await;
    // The next prompt says it, and so does what runs next.
    terminal.type_line("stty -echo; echo o''ff; read one; stty echo").await;
    terminal.until("\r\noff\r\n").await;
    terminal.type_line("prod").await;
    terminal.until("\r\noff\r\ndb-prod$ ").await;
    terminal.type_line("K='Unseal Key (will be hid''den): '").await;
    terminal.until("den): '\r\ndb-prod$ ").await;
    terminal.type_line("stty -echo; printf \"$K\"; read two; stty echo; echo for''mat").await;
    terminal.until("hidden): ").await;
    terminal.type_line("format").await;
    terminal.until("format\r\ndb-prod$ ").await;
    terminal.type_line("exit").await;
    terminal.closed().await;
    let recorded = Recorded::of(&house, &terminal.session).await;
    let typed = recorded.of_kind(EventCode::Input).concat();
    assert!(!typed.contains("\rprod\r") && !typed.contains("\rformat\r"), "{typed}");
    assert_eq!(typed.matches("*\r").count(), 2, "{typed}");
    assert!(typed.ends_with("exit\r"), "{typed}");
}
