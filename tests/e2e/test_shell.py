"""A shell through the gateway feels like one without: both clients, a real terminal."""

from support.demo import eventually


def test_types_and_sees_its_output(shell):
    assert shell.ask("echo $((6 * 7))") == "42\n"
    assert shell.exit() == 0
    assert f"Exiting session with sessionId: {shell.id}." in shell.text


def test_follows_the_size_of_the_window(shell):
    assert shell.ask("stty size") == "24 80\n"
    shell.resize(41, 133)
    # A command that is typed at once may be there before the far side has heard of it.
    eventually(lambda: shell.ask("stty size") == "41 133\n", "the new size")
    assert shell.exit() == 0


def test_carries_every_character(shell):
    text = "naïve café 🚀 👩‍💻 e\u0301 한국어 Ω"
    expected = text.encode().hex(" ")
    answer = shell.ask(f"printf %s '{text}' | od -An -v -tx1")
    assert " ".join(answer.split()) == expected
    assert shell.ask(f"printf '%s\\n' '{text}'") == f"{text}\n"
    assert shell.exit() == 0


# The job says itself that it has the terminal: before that, keys are the shell's.
SLEEP = 'sh -c "echo sl\'\'eeping; exec sleep 100"'


def test_ctrl_c_goes_to_the_far_side(shell):
    shell.line(SLEEP)
    shell.expect("sleeping\r\n")
    shell.type("\x03")
    shell.expect(shell.prompt)
    shell.line("echo exit=$?")
    shell.expect("exit=130\r\n")
    assert shell.exit() == 0


def test_ctrl_z_and_ctrl_backslash_go_to_the_far_side(shell):
    # Keys are lines only once the shell has given the terminal away.
    shell.line("echo on''ce; cat")
    shell.expect("once\r\n")
    shell.line("here")
    shell.expect("here\r\nhere\r\n")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect(shell.prompt)
    shell.line("echo tw''ice; fg")
    shell.expect("twice\r\n")
    # Only in the foreground it reads, and only there a key is its signal.
    shell.line("again")
    shell.expect("again\r\nagain\r\n")
    shell.type("\x1c")
    shell.expect(shell.prompt)
    assert shell.exit() == 0


def test_ctrl_d_ends_it(shell):
    shell.type("\x04")
    assert shell.leave() == 0


def test_shows_much_output_whole(shell):
    lines = shell.ask("seq 20000").split()
    assert lines == [str(n) for n in range(1, 20001)]
    assert shell.exit() == 0


def test_takes_a_long_paste_whole(shell):
    shell.line("cat > /dev/null <<'STOP'")
    for n in range(400):
        shell.line(f"line {n} of a long paste, pasted faster than anybody types")
    shell.line("STOP")
    shell.line("echo pa''sted")
    shell.expect("pasted\r\n")
    assert shell.exit() == 0


def test_production_with_a_reason_shows_the_banner(demo, open_shell):
    words = ("aws", "ssm", "start-session", "--target", demo.target("db-prod"), "--reason", "INC-42 disk full")
    shell = open_shell(*words, prompt="db-prod$ ")
    assert "Production. This session is recorded, keystrokes included." in shell.text
    assert shell.exit() == 0
    assert demo.ended(shell.id)["reason"] == "INC-42 disk full"
