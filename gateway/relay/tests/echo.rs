//! What is typed is kept if the terminal showed it, and hidden if not.

use std::time::Duration;

use tokio::time::Instant;

use super::super::echo::{ECHO_WITHIN, Echo};

/// A terminal in which a test types and shows.
struct Screen {
    echo: Echo,
    now: Instant,
    number: i64,
    recorded: Vec<String>,
}

impl Screen {
    fn new() -> Self {
        Self { echo: Echo::default(), now: Instant::now(), number: 0, recorded: Vec::new() }
    }

    fn types(&mut self, typed: &str) -> &mut Self {
        self.echo.typed((self.number, 0), typed.as_bytes(), self.now);
        self.number += 1;
        self.record()
    }

    /// Each character is a message, as from somebody who types.
    fn keys(&mut self, typed: &str) -> &mut Self {
        for c in typed.chars() {
            self.types(&c.to_string());
        }
        self
    }

    fn shows(&mut self, shown: &str) -> &mut Self {
        self.echo.shows(shown.as_bytes());
        self.record()
    }

    /// Each key is shown, one by one.
    fn echoes(&mut self, typed: &str) -> &mut Self {
        for c in typed.chars() {
            self.types(&c.to_string()).shows(&c.to_string());
        }
        self
    }

    fn waits(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.record()
    }

    fn record(&mut self) -> &mut Self {
        while let Some(typed) = self.echo.next(self.now) {
            assert_eq!(typed.hidden, typed.bytes.contains(&b'*'));
            self.recorded.push(String::from_utf8(typed.bytes).unwrap());
        }
        self
    }

    /// What is recorded once nothing more is shown.
    fn recorded(&mut self) -> String {
        self.waits(ECHO_WITHIN);
        assert_eq!(self.recorded.len() as i64, self.number, "every message is recorded once");
        self.recorded.concat()
    }
}

#[test]
fn what_is_shown_key_by_key_is_kept_at_once() {
    let mut screen = Screen::new();
    screen.shows("alice@web-1:~$ ").echoes("ls -la").types("\r").shows("\r\ntotal 0\r\nalice@web-1:~$ ");
    assert_eq!(screen.recorded.concat(), "ls -la\r");
}

#[test]
fn a_line_in_one_message_is_kept_however_its_echo_is_cut() {
    for cut in 0..=3 {
        let mut screen = Screen::new();
        let (first, rest) = "ls\r".split_at(cut);
        screen.shows("$ ").types("ls\r").shows(first).shows(rest).shows("\r\n");
        assert_eq!(screen.recorded.concat(), "ls\r");
    }
}

#[test]
fn keys_that_are_faster_than_their_echo_are_kept() {
    let mut screen = Screen::new();
    screen.shows("$ ").keys("whoami\r").shows("who").shows("ami\r\n").shows("alice\r\n$ ");
    assert_eq!(screen.recorded.concat(), "whoami\r");
}

#[test]
fn a_prompt_for_a_secret_hides_all_of_the_line_at_once() {
    for prompt in [
        "[sudo] password for alice: ",
        "Enter passphrase for key '/home/alice/.ssh/id': ",
        "\x1b[1mPIN\x1b[0m for token: ",
        "AWS Secret Access Key [None]: ",
        "Verification code: ",
    ] {
        let mut screen = Screen::new();
        screen.shows("$ ").types("sudo ls\r").shows("sudo ls\r\n").shows(prompt);
        // sudo's stars, and even an echo, change nothing.
        screen.types("h").shows("*").keys("unter2").shows("hunter2");
        assert_eq!(screen.recorded.concat(), "sudo ls\r*******", "{prompt}");
        screen.types("\r").shows("\r\n$ ").echoes("id").types("\r");
        assert_eq!(screen.recorded(), "sudo ls\r*******\rid\r");
    }
}

#[test]
fn what_no_prompt_asks_for_and_nothing_shows_is_hidden() {
    let mut screen = Screen::new();
    screen.shows("$ ").types("read -s x\r").shows("read -s x\r\n").keys("hunter2");
    assert_eq!(screen.recorded.concat(), "read -s x\r", "nothing is kept before it is known");
    assert_eq!(screen.recorded(), "read -s x\r*******");
    // The rest of the line does not wait.
    screen.keys("more");
    assert_eq!(screen.recorded.concat(), "read -s x\r***********");
    screen.types("\r").shows("$ ").echoes("pwd").types("\r");
    assert_eq!(screen.recorded(), "read -s x\r***********\rpwd\r");
}

#[test]
fn a_secret_in_one_message_is_one_star_and_its_length_is_not_told() {
    let mut screen = Screen::new();
    screen.shows("$ ").types("hunter2\r").shows("\r\nSorry, try again.\r\n");
    assert_eq!(screen.recorded(), "*\r");
}

#[test]
fn other_output_meanwhile_is_no_echo() {
    for noise in
        ["Loading\r\n", "done\r\n$ ", "\rh 10%", "hello", "\x1b[32mhey\x1b[0m", "the user hunter\r\n"]
    {
        let mut screen = Screen::new();
        screen.shows("$ ").keys("hunter2").shows(noise);
        assert_eq!(screen.recorded(), "*******", "{noise:?}");
    }
}

#[test]
fn a_paste_of_lines_is_kept_where_it_is_shown() {
    let mut screen = Screen::new();
    screen.shows("$ ").types("cd /srv/app\rsudo -S ls\rhunter2\rls -la /tmp\r");
    screen.shows("cd /srv/app\r\n$ sudo -S ls\r\n").shows("app.log\r\n$ ls -la /t").shows("mp\r\n");
    assert_eq!(screen.recorded(), "cd /srv/app\rsudo -S ls\r*\rls -la /tmp\r");
}

#[test]
fn a_line_that_wraps_and_one_that_is_shown_in_colours_are_kept() {
    let mut screen = Screen::new();
    let long = "echo ".to_owned() + &"abcdefgh ".repeat(20);
    screen.shows("$ ").types(&long).shows(&long[..78]).shows(" \r").shows(&long[78..]);
    assert_eq!(screen.recorded.concat(), long);
    let mut screen = Screen::new();
    screen
        .shows("% ")
        .types("l")
        .shows("\x1b[4ml\x1b[24m")
        .types("s")
        .shows("\x08\x1b[32ml\x1b[32ms\x1b[39m");
    assert_eq!(screen.recorded.concat(), "ls");
}

#[test]
fn text_that_is_put_into_a_line_is_kept() {
    let mut screen = Screen::new();
    screen.shows("$ ").echoes("lsla").types("\x1b[D").shows("\x08").types("\x1b[D").shows("\x08");
    screen.types(" ").shows(" la\x08\x08").types("-").shows("-la\x08\x08");
    assert_eq!(screen.recorded.concat(), "lsla\x1b[D\x1b[D -");
}

#[test]
fn an_editor_keeps_its_text_and_may_hide_its_commands() {
    let mut screen = Screen::new();
    screen.shows("\x1b[2J\x1b[1;1H\x1b[34m~\x1b[0m").types("i").shows("\x1b[24;1H-- INSERT --\x1b[1;1H");
    screen.waits(ECHO_WITHIN);
    screen.types("d").shows("d\x1b[1;2H").types("e").shows("e").types("f").shows("f").types("\x1b");
    screen.types("j").shows("\x1b[2;1H").waits(ECHO_WITHIN);
    screen.types(":").shows("\x1b[24;1H:").types("w").shows("w").types("\r");
    assert_eq!(screen.recorded(), "**ef\x1b**w\r");
}

#[test]
fn what_waits_is_bounded_and_what_is_too_much_is_hidden() {
    let mut screen = Screen::new();
    screen.shows("$ ");
    for _ in 0..100 {
        screen.types(&"x".repeat(1024));
    }
    assert!(screen.recorded.len() > 30, "{}", screen.recorded.len());
    assert_eq!(screen.recorded(), "*".repeat(100));
}

#[test]
fn what_is_shown_after_a_secret_does_not_tell_it() {
    for (prompt, secret, shown) in [
        // `read -s`, which shows no line end, at an empty line.
        ("", "prod", "\x1b[?2004hdb-prod$ "),
        ("", "prod", "\x1b[1mprod\x1b[0m$ "),
        ("", "Linux", "Linux\r\n$ "),
        ("Пароль: ", "Linux", "\r\nLinux\r\n$ "),
        ("Пароль: ", "Linux", "Linux\r\n$ "),
        ("Salasana: ", "Linux", "Linux\r\n$ "),
        ("Unseal Key (will be hidden): ", "format", "\r\nKey            format\r\n"),
        ("Unseal Key (will be hidden): ", "format", "format\r\n"),
    ] {
        let mut screen = Screen::new();
        screen.shows("db-prod$ ").types("read -s a2\r").shows("read -s a2\r\n").shows(prompt);
        screen.types(&format!("{secret}\r")).shows(shown);
        assert_eq!(screen.recorded(), "read -s a2\r*\r", "{prompt:?} {shown:?}");
        let mut screen = Screen::new();
        screen.shows(prompt).keys(secret).types("\r").shows(shown);
        let stars = "*".repeat(secret.len());
        assert_eq!(screen.recorded(), format!("{stars}\r"), "{prompt:?} {shown:?}");
    }
}

#[test]
fn a_background_job_that_prints_a_letter_tells_no_secret_of_it() {
    for noise in ["s", "s\r\n", "\rs"] {
        let mut screen = Screen::new();
        screen.shows("$ ").types("read -s x\r").shows("read -s x\r\n").keys("sssss");
        for _ in 0..8 {
            screen.shows(noise);
        }
        screen.types("\r");
        assert_eq!(screen.recorded(), "read -s x\r*****\r", "{noise:?}");
    }
    // One that prints as fast as somebody types, and once more.
    let mut screen = Screen::new();
    screen.types("read -s x\r").echoes("sssss").shows("s").types("\r");
    assert!(screen.recorded().ends_with("*****\r"));
}

#[test]
fn a_slow_typist_and_a_single_letter_are_kept() {
    let mut screen = Screen::new();
    screen.shows("Continue? [Y/n] ").echoes("y").types("\r").shows("\r\n$ ");
    assert_eq!(screen.recorded.concat(), "y\r");
    for key in ["l", "l"] {
        screen.types(key).shows(key).waits(ECHO_WITHIN);
    }
    assert_eq!(screen.recorded(), "y\rll");
}

#[test]
fn prompts_for_secrets_are_known_in_many_languages() {
    for prompt in [
        "Passwort für alice: ",
        "Mot de passe : ",
        "Phrase de passe : ",
        "Contraseña: ",
        "Palavra-passe: ",
        "Senha: ",
        "Parola d'ordine: ",
        "Пароль: ",
        "密码：",
        "請輸入密碼：",
        "パスワード: ",
        "暗証番号：",
        "비밀번호: ",
        "Hasło: ",
        "Wachtwoord: ",
        "Şifre: ",
        "كلمة المرور: ",
        "पासवर्ड: ",
        "Enter PIN: ",
        "OTP: ",
        "Token? ",
        "Client secret: ",
        "Unseal Key (will be hidden): ",
        "Password",
    ] {
        let mut screen = Screen::new();
        screen.shows(prompt).echoes("hunter").types("\r").shows("\r\n$ ");
        assert_eq!(screen.recorded(), "******\r", "{prompt}");
    }
}

#[test]
fn commands_that_are_typed_ahead_are_kept_where_their_prompt_shows_them() {
    let mut screen = Screen::new();
    screen.shows("db$ ").types("ls\rid\r").shows("ls\r\na\r\nb\r\n").shows("db$ id\r\nuid=0\r\ndb$ ");
    assert_eq!(screen.recorded(), "ls\rid\r");
    // And not where other output has the word.
    let mut screen = Screen::new();
    screen.shows("db$ ").types("read -s x\rLinux\r").shows("read -s x\r\n").shows("db$ ");
    screen.types("uname\r").shows("uname\r\nLinux\r\n");
    assert_eq!(screen.recorded(), "read -s x\r*\runame\r");
}

#[test]
fn a_paste_of_several_lines_is_kept_if_all_of_it_is_shown() {
    let mut screen = Screen::new();
    screen.shows("\x1b[?2004h$ ").types("\x1b[200~ls -la\rid\x1b[201~");
    screen.shows("\x1b[7mls -la\r\n\x1b[7mid\x1b[27m").types("\r").shows("\r\n");
    assert_eq!(screen.recorded(), "\x1b[200~ls -la\rid\x1b[201~\r");
    let mut screen = Screen::new();
    screen.shows("").types("\x1b[200~hunter2\rprod\x1b[201~\r").shows("\r\nhunter2 prod\r\n");
    assert_eq!(screen.recorded(), "\x1b[200~*\r*\x1b[201~\r");
}

#[test]
fn what_an_earlier_process_showed_counts_only_at_its_prompt() {
    for (history, kept) in
        [("$ echo on\r\non\r\n$ ", "echo on\r"), ("$ cat f\r\nthe echo on f\r\necho on\r\n$ ", "*\r")]
    {
        let mut screen = Screen::new();
        screen.echo.go_on([history.as_bytes()].into_iter(), screen.now);
        assert_eq!(screen.types("echo on\r").recorded(), kept);
    }
}
