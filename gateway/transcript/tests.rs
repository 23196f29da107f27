//! Tests.

use super::*;

fn header() -> Header {
    Header::new(0)
}

/// Feeds `o`, `i` and `r` events, one every 100 ms.
fn seen(header: &Header, events: &[(char, &str)]) -> Seen {
    let mut transcript = Transcript::of(header).unwrap();
    let mut all = Seen::default();
    for (index, (code, data)) in events.iter().enumerate() {
        let event =
            Event { time_ms: index as u64 * 100, code: EventCode::from(*code), data: (*data).to_owned() };
        transcript.event(&event);
        let seen = transcript.take();
        all.lines.extend(seen.lines);
        all.commands.extend(seen.commands);
    }
    let rest = transcript.finish();
    all.lines.extend(rest.lines);
    all.commands.extend(rest.commands);
    all
}

fn lines(seen: &Seen) -> Vec<(u64, &str)> {
    seen.lines.iter().map(|line| (line.time_ms, line.text.as_str())).collect()
}

fn commands(seen: &Seen) -> Vec<(u64, &str, Source)> {
    seen.commands.iter().map(|command| (command.time_ms, command.text.as_str(), command.source)).collect()
}

#[test]
fn lines_have_the_time_at_which_they_were_begun() {
    let mut events = vec![('o', "one\r\n"), ('o', "two"), ('o', "-and a half\r\n")];
    events.extend([('o', "x\r\n"); 30]);
    let seen = seen(&header(), &events);
    assert_eq!(lines(&seen)[..3], [(0, "one"), (100, "two-and a half"), (300, "x")]);
    assert_eq!(lines(&seen).last(), Some(&(3200, "x")));
    assert_eq!(seen.lines.len(), 32);
}

#[test]
fn what_was_cleared_was_seen() {
    let seen =
        seen(&header(), &[('o', "first\r\n\u{1b}[H\u{1b}[2J"), ('o', "second\u{1b}c"), ('o', "third")]);
    assert_eq!(lines(&seen).iter().map(|line| line.1).collect::<Vec<_>>(), ["first", "second", "third"]);
}

#[test]
fn each_line_of_a_full_screen_program_is_taken_once() {
    let seen = seen(
        &header(),
        &[
            ('o', "$ less x\r\n\u{1b}[?1049h\u{1b}[Hpage one\r\nfooter"),
            ('o', "\u{1b}[H\u{1b}[2Jpage two\r\nfooter"),
            ('o', "\u{1b}[?1049lback\r\n"),
        ],
    );
    let full: Vec<&str> =
        seen.lines.iter().filter(|line| line.full_screen).map(|line| line.text.as_str()).collect();
    assert_eq!(full, ["page one", "footer", "page two"]);
    assert_eq!(seen.lines.iter().filter(|line| !line.full_screen).count(), 2);
}

/// What each line said, of the main screen and of full-screen programs.
fn texts(seen: &Seen, full_screen: bool) -> Vec<&str> {
    let lines = seen.lines.iter().filter(|line| line.full_screen == full_screen);
    lines.map(|line| line.text.as_str()).collect()
}

/// The same text again and again: time passes, and the screen stays.
fn for_ms(ms: u64) -> Vec<(char, &'static str)> {
    vec![('o', ""); (ms / 100) as usize]
}

#[test]
fn what_was_erased_or_overwritten_after_it_stood_was_seen() {
    for erase in [
        "\r\u{1b}[K",
        "\r\u{1b}[2K",
        "\u{1b}[H\u{1b}[J",
        "\u{1b}[1J",
        "\u{1b}[H\u{1b}[M",
        "\r\u{1b}[20P",
        "\r\u{1b}[20X",
        "\rmore than that, it is",
        "\u{1b}[H\u{1b}[2J",
        "\u{1b}c",
    ] {
        let mut events = vec![('o', "token 4711")];
        events.extend(for_ms(300));
        events.extend([('o', erase), ('o', "\r\ndone\r\n")]);
        let seen = seen(&header(), &events);
        let found: Vec<_> = lines(&seen).into_iter().filter(|line| line.1 == "token 4711").collect();
        assert_eq!(found, [(0, "token 4711")], "{erase:?}: {seen:?}");
    }
}

#[test]
fn what_is_still_there_is_not_taken_twice() {
    let mut events = vec![('o', "\u{1b}[2;20r\u{1b}[Hhead\r\none\r\ntwo\r\nhalf")];
    events.extend(for_ms(300));
    // Grown, moved by a line above it, scrolled within its region, cut anew.
    events.push(('o', "-whole\u{1b}[2H\u{1b}[L"));
    events.extend(for_ms(300));
    events.extend([('o', "\u{1b}[20H\n"), ('r', "40x24")]);
    events.extend(for_ms(300));
    let seen = seen(&header(), &events);
    assert_eq!(texts(&seen, false), ["head", "one", "two", "half-whole"]);
}

#[test]
fn a_line_that_is_drawn_again_and_again_costs_what_could_be_read() {
    let spinner: Vec<String> =
        (0..600).map(|n| format!("\r{} working", ['|', '/', '-', '\\'][n % 4])).collect();
    let mut events: Vec<(char, &str)> = spinner.iter().map(|text| ('o', text.as_str())).collect();
    events.push(('o', "\r\u{1b}[Kdone\r\n"));
    let fast = seen(&header(), &events);
    assert!(fast.lines.len() <= 5, "{fast:?}");
    // One that changes once in half a second can be read each time.
    let progress: Vec<String> = (0..100).map(|n| format!("\r{n} %")).collect();
    let mut events = Vec::new();
    for text in &progress {
        events.push(('o', text.as_str()));
        events.extend(for_ms(400));
    }
    assert_eq!(seen(&header(), &events).lines.len(), 100);
}

#[test]
fn lost_rows_are_bounded_and_begin_again_with_time() {
    let mut transcript = Transcript::of(&header()).unwrap();
    let mut lost = 0;
    for n in 0..21_000u64 {
        transcript.output(n * 300, &format!("\r{n}x"));
        lost += transcript.take().lines.len() as u64;
    }
    // 6300 seconds would allow as many more, so none is missing.
    assert!(lost >= 20_900, "{lost}");
    for n in 0..30_000u64 {
        transcript.output(6_300_000 + n * 251, &format!("\r{n}y\u{1b}[H\u{1b}[3;1H{n}z\u{1b}[H"));
        lost += transcript.take().lines.len() as u64;
    }
    assert!(lost <= 20_000 + (6_300_000 + 30_000 * 251) / 1000 + 1, "{lost}");
}

#[test]
fn a_row_that_a_full_screen_program_overwrites_was_seen() {
    let mut events = vec![('o', "\u{1b}[?1049h\u{1b}[H"), ('o', "load 0.42")];
    events.extend(for_ms(300));
    // Two messages at once: the screen stands as the second one left it.
    events.extend([('o', "\u{1b}[Hload 0.99"), ('o', "\u{1b}[K")]);
    events.extend(for_ms(300));
    events.extend([('o', "\u{1b}[Hload 0.42"), ('o', "\u{1b}[?1049l$ ")]);
    assert_eq!(texts(&seen(&header(), &events), true), ["load 0.42", "load 0.99"]);
}

#[test]
fn a_command_without_a_terminal_keeps_its_lines_apart() {
    let mut header = header();
    header.postern = serde_json::json!({"kind": "non_interactive_command"}).as_object().cloned();
    let seen = seen(&header, &[('o', "a\nb\n"), ('o', "c")]);
    assert_eq!(lines(&seen), [(0, "a"), (0, "b"), (100, "c")]);
}

#[test]
fn a_shell_that_marks_its_commands_is_believed() {
    let prompt = "\u{1b}]133;A\u{7}$ \u{1b}]133;B\u{7}";
    let seen = seen(
        &header(),
        &[
            ('o', prompt),
            ('o', "sl\u{8} \u{8}\u{8} \u{8}ls -l"),
            ('o', "\r\n\u{1b}]133;C\u{7}"),
            ('o', "total 0\r\n\u{1b}]133;D;0\u{7}"),
            ('o', prompt),
        ],
    );
    assert_eq!(commands(&seen), [(200, "ls -l", Source::Shell)]);
}

#[test]
fn a_typed_line_that_the_screen_shows_is_a_command() {
    let seen = seen(
        &header(),
        &[
            ('o', "$ "),
            ('i', "lss"),
            ('o', "lss"),
            ('i', "\u{7f} /tmp\r"),
            ('o', "\u{8} \u{8} /tmp\r\n"),
            ('o', "a\r\nb\r\n$ "),
            ('i', "cat a\t"),
            ('o', "cat alpha "),
            ('i', "\r"),
            ('o', "\r\nhello\r\n$ "),
        ],
    );
    assert_eq!(commands(&seen), [(300, "ls /tmp", Source::Input), (800, "cat alpha", Source::Input)]);
}

#[test]
fn what_is_not_echoed_is_no_command() {
    let seen = seen(
        &header(),
        &[
            ('o', "$ "),
            ('i', "sudo -s\r"),
            ('o', "sudo -s\r\n[sudo] password for alice: "),
            ('i', "hunter2\r"),
            ('o', "\r\n# "),
            ('i', "hunter\u{1b}[D3\r"),
            ('o', "******\r\n"),
        ],
    );
    assert_eq!(commands(&seen), [(100, "sudo -s", Source::Input)]);
    assert!(!format!("{seen:?}").contains("hunter"));
}

#[test]
fn lines_sent_ahead_are_known_by_their_echo() {
    let seen = seen(
        &header(),
        &[('o', "$ "), ('i', "id\rpwd\r"), ('o', "id\r\npwd\r\n"), ('o', "uid=0\r\n$ pwd\r\n/\r\n$ ")],
    );
    assert_eq!(commands(&seen), [(100, "id", Source::Input), (100, "pwd", Source::Input)]);
}

#[test]
fn without_keys_what_follows_a_prompt_is_guessed() {
    let seen = seen(
        &header(),
        &[
            ('o', "Welcome 87% \r\nroot@web:/# "),
            ('o', "l"),
            ('o', "s $ x"),
            ('o', "\r\nfile\r\nroot@web:/# "),
            ('o', "oops^C\r\nroot@web:/# "),
            ('o', "\r\nroot@web:/# "),
            ('o', "50% "),
            ('o', "done\r\n"),
        ],
    );
    assert_eq!(commands(&seen), [(300, "ls $ x", Source::Guess), (700, "50% done", Source::Guess)]);
}

#[test]
fn lines_typed_ahead_are_guessed_by_a_prompt_seen_before() {
    let seen = seen(
        &header(),
        &[('o', "web$ "), ('o', "id\r\n0\r\nweb$ pwd\r\n/\r\nweb$ \r\nweb$ ls^C\r\nweb$ "), ('o', "x\r\n")],
    );
    assert_eq!(
        commands(&seen),
        [(100, "id", Source::Guess), (100, "pwd", Source::Guess), (200, "x", Source::Guess)]
    );
}

#[test]
fn a_line_is_guessed_where_a_shell_draws_its_prompt_again() {
    let again = "\r\u{1b}[K\rweb$ sudo id\r\nuid=0\r\nweb$ ";
    let seen =
        seen(&header(), &[('o', "web$ "), ('r', "300x100"), ('o', again), ('o', "\r\u{1b}[K\rweb$ x\r\n")]);
    assert_eq!(commands(&seen), [(200, "sudo id", Source::Guess), (300, "x", Source::Guess)]);
}

#[test]
fn a_command_may_be_wider_than_the_screen() {
    let long = format!("echo {}", "x".repeat(200));
    let half = &long[..100];
    let seen = seen(&header(), &[('o', "$ "), ('o', half), ('o', &long[100..]), ('o', "\r\n")]);
    assert_eq!(commands(&seen), [(300, long.as_str(), Source::Guess)]);
}

#[test]
fn no_control_character_gets_through() {
    let seen = seen(
        &header(),
        &[('o', "a\u{9b}31mb\u{85}c\u{1b}]0;title\u{7}\u{200}\r\n"), ('r', "x"), ('r', "0x0")],
    );
    assert!(seen.lines.iter().all(|line| !line.text.chars().any(char::is_control)));
}
