"""`postern connect`: escapes, pipes, names, exit codes."""

import signal
import subprocess

import pytest

from support.demo import session_of
from support.terminal import Terminal


def test_tilde_dot_leaves_and_ends_the_session(demo, open_shell):
    shell = open_shell()
    shell.line("")
    shell.expect(shell.prompt)
    shell.type("~.")
    assert shell.leave() == 0
    assert f"Exiting session with sessionId: {shell.id}." in shell.text
    assert demo.ended(shell.id)["state"] == "Terminated"


def test_other_tildes_are_typed(open_shell):
    shell = open_shell()
    assert shell.ask("cd ~; echo ~.") == "~.\n"
    shell.type("~?")
    shell.expect("~.  end the session")
    # The tilde pair at a line's start is one; what it runs does not exist.
    shell.line("")
    shell.expect(shell.prompt)
    shell.line("~~no-such-user")
    shell.expect("~no-such-user: ")
    assert shell.exit() == 0


def test_every_key_goes_to_the_far_side(open_shell):
    """Raw mode: nothing is held back, translated or answered on this side."""
    shell = open_shell()
    shell.line("stty raw -echo; echo re''ady; dd bs=1 count=8 2>/dev/null | od -An -v -tx1; stty sane")
    shell.expect("ready")
    shell.type("\x03\x04\x11\x13\x1a\x1c\x7f\r")
    shell.expect("03 04 11 13 1a 1c 7f 0d")
    shell.expect(shell.prompt)
    assert shell.exit() == 0


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("echo pi''ped\n", "piped"),
        ("echo pi''ped", "piped"),
        ("cat <<'STOP'\nhi <Zoë>\nSTOP\nexit\n", "\nhi <Zoë>\n"),
    ],
    ids=["a line", "no line end", "several lines"],
)
def test_runs_what_is_piped_in_and_ends(demo, typed, shown):
    done = demo.run("postern", "connect", "web-dev", profile="alice", input=typed)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout.replace("\r\n", "\n")
    # Words of ours are for people; a pipe gets the far side's only.
    assert "SessionId" not in done.stdout and "SessionId" in done.stderr
    demo.ended(session_of(done.stderr))


def test_carries_a_large_pipe_whole(demo):
    lines = "".join(f"line {n}\n" for n in range(20_000))
    typed = f"stty -echo; cksum <<'STOP'\n{lines}STOP\nexit\n"
    expected = subprocess.run(["cksum"], input=lines.encode(), capture_output=True).stdout.decode().strip()
    done = demo.run("postern", "connect", "web-dev", profile="alice", input=typed)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_a_closed_output_ends_the_session(demo):
    done = demo.run("sh", "-c", "echo 'seq 1000000' | postern connect web-dev --profile alice | head -n 3")
    assert "1" in done.stdout
    demo.ended(session_of(done.stderr))


def test_output_without_a_terminal_is_byte_for_byte(demo):
    options = ("--document-name", "AWS-StartNonInteractiveCommand", "--parameters", "command=seq 100000")
    done = demo.run("postern", "connect", "web-dev", *options, profile="alice")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{n}\n" for n in range(1, 100_001))


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nowhere", "no machine that you may see is called nowhere; `postern targets` lists them"),
        ("mi-0d0e00000000000ff", "mi-0d0e00000000000ff is not connected"),
        ("db-prod", "say why with --reason"),
        ("a name\x1b[2J", "no machine that you may see is called a name[2J"),
    ],
)
def test_a_failure_is_one_sentence_and_255(demo, target, sentence):
    done = demo.run("postern", "connect", target, profile="alice")
    assert done.returncode == 255
    assert sentence in done.stderr
    assert done.stderr.startswith("postern: ") and len(done.stderr.splitlines()) == 1, done.stderr
    assert not done.stdout


def test_finds_a_machine_by_name_in_any_case_and_by_id(demo):
    for target in ("WEB-dev", demo.target("web-dev")):
        done = demo.run("postern", "connect", target, profile="alice", input="exit\n")
        assert done.returncode == 0, done.stderr


def test_only_what_one_may_see_has_a_name(demo):
    done = demo.run("postern", "connect", "db-prod", profile="bob")
    assert done.returncode == 255
    assert "no machine that you may see is called db-prod" in done.stderr


def test_several_machines_are_listed_where_nobody_can_choose(demo):
    done = demo.run("postern", "connect", "tag:team=demo", profile="alice")
    assert done.returncode == 2
    assert demo.target("web-dev") in done.stderr and demo.target("db-prod") in done.stderr
    assert done.stderr.splitlines()[-1] == "postern: 2 machines have the tags team=demo; name one by its id"


def test_a_person_chooses_among_several_machines(demo):
    terminal = Terminal(demo, "postern", "connect", "tag:team=demo")
    terminal.expect("Which one?")
    terminal.expect("db-prod")
    terminal.type("web\r")
    terminal.expect("web-dev$ ")
    terminal.line("exit")
    assert terminal.leave() == 0


def test_a_person_who_chooses_none_goes_nowhere(demo):
    terminal = Terminal(demo, "postern", "connect", "tag:team=demo")
    terminal.expect("Which one?")
    terminal.type("\x1b")
    terminal.expect("name one by its id")
    assert terminal.leave() == 2


def test_all_tags_have_to_be_there(demo):
    done = demo.run("postern", "connect", "tag:team=demo,tag:env=dev", profile="alice", input="exit\n")
    assert done.returncode == 0, done.stderr


def test_a_signal_gives_the_terminal_back(demo, open_shell):
    shell = open_shell()
    shell.child.kill(signal.SIGTERM)
    shell.child.expect("Exiting session")
    shell.child.wait()
    assert shell.child.exitstatus == 128 + signal.SIGTERM
    assert demo.ended(shell.id)["state"] == "Terminated"


def test_two_at_once_are_two_sessions(open_shell):
    first, second = open_shell(), open_shell()
    assert first.id != second.id
    assert first.ask("tty") != second.ask("tty")
    assert first.exit() == 0 and second.exit() == 0


def test_targets_are_listed_for_people_and_programs(demo):
    done = demo.run("postern", "targets", profile="alice")
    assert done.stdout.splitlines()[0].split() == ["TARGET", "NAME", "PLATFORM", "AGENT", "STATE", "LAST", "PING"]
    targets = demo.postern_json("targets", "--json")
    assert [target["name"] for target in targets] == ["db-prod", "web-dev"]
    assert all(target["last_ping_ms"] > 1_700_000_000_000 for target in targets)


def test_what_is_mistyped_is_explained(demo):
    done = demo.run("postern", "conect", "web-dev")
    assert done.returncode == 2 and "connect" in done.stderr
    done = demo.run("postern", "connect", "web-dev", profile="nobody")
    assert done.returncode == 255 and "no AWS profile nobody" in done.stderr
