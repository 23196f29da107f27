"""Finding what was on a screen, and jumping there."""

import json
import re
import shlex
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from support.demo import eventually
from support.terminal import CONTROLS, Shell, Terminal


# Seconds: more than a row has to stand on a screen to count as seen, a quarter of one.
STOOD = 0.5


@pytest.fixture(scope="module")
def session(demo):
    """A session of two commands that can be searched."""
    shell = Shell(demo, "postern", "connect", "web-dev")
    shell.line("echo hay''stack $((6*7))")
    shell.expect("haystack 42")
    shell.expect(shell.prompt)
    assert shell.exit() == 0
    session = shell.id
    eventually(lambda: found(demo, "haystack 42"), "the session in the catalogue")
    return session


def found(demo, *words) -> list:
    done = demo.run("postern", "search", "--json", *words, profile="carol")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_a_hit_says_where_to_jump_to_and_that_works(demo, session):
    (hit,) = found(demo, "HAYSTACK 42")
    assert (hit["session"], hit["text"]) == (session, "haystack 42")
    done = demo.run(*shlex.split(hit["jump"]), profile="carol")
    assert done.returncode == 0 and "haystack 42" in done.stdout, done.stderr
    done = demo.run("postern", "search", "haystack 42", profile="carol")
    assert hit["jump"] in done.stdout and session in done.stdout


def test_commands_are_found_and_shown_with_their_source(demo, session):
    command = "echo hay''stack $((6*7))"
    (hit,) = found(demo, "--commands", "--regex", r"echo .*stack \$")
    assert hit["text"] == command and hit["source"] in ("shell", "guess", "input")
    done = demo.run("postern", "sessions", "show", session, profile="alice")
    line = next(line for line in done.stdout.splitlines() if line.startswith("command:") and "stack" in line)
    assert line.endswith(f"[{hit['source']}]  {command}")
    exported = demo.run("postern", "replay", session, "--format", "v2", profile="alice").stdout
    markers = [data for _, code, data in map(json.loads, exported.splitlines()[1:]) if code == "m"]
    assert f"{command} [{hit['source']}]" in markers


def test_what_stood_on_the_screen_and_was_erased_is_found_once_at_its_moment(demo, open_shell):
    shell = open_shell()
    # The words are not those of the command line: its quotes are in them. The last thing erases the row.
    gone = {"brief''ly seen": r"printf '\r\033[K'", "cleared ''away": "clear", "never ''there": ""}
    for words, erases in gone.items():
        row = words.replace("''", "")
        if erases:
            shell.line(f"printf '{words}'; read -rs; {erases}")
        else:
            # Erased in the same breath: nobody could read it.
            shell.line(f"printf '{words}\\r\\033[K'; read -rs")
        shell.expect(row)
        seen = time.monotonic()

        def stood() -> bool:
            kept = row in demo.run("postern", "replay", shell.id, profile="carol").stdout
            return kept and time.monotonic() - seen > STOOD

        eventually(stood, "the row to have stood for a while")
        shell.type("\r")
        shell.expect(shell.prompt)
    assert shell.exit() == 0
    eventually(lambda: found(demo, "--commands", "printf 'cleared"), "the session in the catalogue")
    exported = demo.run("postern", "replay", shell.id, "--format", "v2", profile="carol").stdout
    events = [json.loads(line) for line in exported.splitlines()[1:]]
    for row in ("briefly seen", "cleared away"):
        (hit,) = found(demo, row)
        (shown,) = (at for at, code, data in events if code == "o" and row in data)
        assert (hit["session"], hit["text"], hit["time_ms"]) == (shell.id, row, round(shown * 1000))
        done = demo.run(*shlex.split(hit["jump"]), profile="carol")
        assert done.returncode == 0 and row in done.stdout, done.stderr
    assert found(demo, "never there") == []


def test_nothing_found_is_exit_1_and_a_wrong_expression_a_sentence(demo, session):
    assert demo.run("postern", "search", "no such words", profile="carol").returncode == 1
    done = demo.run("postern", "search", "--regex", "(", profile="carol")
    assert done.returncode == 255 and len(done.stderr.splitlines()) == 1
    # Bob may not replay alice's session.
    assert demo.run("postern", "search", "haystack 42", profile="bob").returncode == 1


def test_a_folder_is_searched_without_a_gateway(demo, session, tmp_path):
    (tmp_path / f"{session}.cast.zst").write_bytes(demo.recorded(session).read_bytes())
    search = ["postern", "search", "--dir", tmp_path, "haystack 42", "--json"]
    for _ in ("without an index", "with one"):
        (hit,) = json.loads(demo.run(*search).stdout)
        assert hit["session"] == session
        done = demo.run("postern", "index", tmp_path)
        assert done.returncode == 0 and "1 in all" in done.stdout
    assert (tmp_path / "catalogue.db").stat().st_mode & 0o777 == 0o600
    done = demo.run("postern", "index", "--anew", tmp_path)
    assert "1 recordings indexed now" in done.stdout


def test_a_running_session_is_followed_to_its_end(demo, open_shell):
    shell = open_shell()
    command = ["postern", "replay", "--follow", shell.id, "--profile", "carol"]
    follower = subprocess.Popen(command, env=demo.env, stdout=subprocess.PIPE, text=True)
    watcher = Terminal(demo, "postern", "replay", "--follow", shell.id, profile="carol")
    shell.ask("echo fol''lowed")
    watcher.expect("followed")
    assert shell.exit() == 0
    shown, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0 and "followed" in shown
    assert watcher.leave() == 0


@contextmanager
def followed(apart, output):
    """A shell, and who follows it: what that one is shown goes to a file."""
    shell = Shell(apart, "postern", "connect", "web-dev")
    command = ["postern", "replay", "--follow", shell.id, "--profile", "carol"]
    with output.open("wb") as file:
        follower = subprocess.Popen(command, env=apart.env, stdout=file)
    try:
        yield shell, follower
    finally:
        follower.kill()
        shell.close()


def as_text(shown: bytes) -> str:
    """As Python reads output: each line's end is a line feed."""
    return shown.decode().replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_who_follows_sees_everything_once_over_restarts_of_the_gateway(gateways, number, tmp_path):
    apart, output = gateways(), tmp_path / "shown"
    with followed(apart, output) as (shell, follower):
        eventually(lambda: output.stat().st_size, "something that the follower shows")
        for part in range(3):
            shell.ask(f"seq -f 'part-{part}-%g' 500")
            # In the middle of what is shown, as far as the follower has come.
            shell.line(f"seq -f 'over-{part}-%g' 3000")
            shell.expect(f"over-{part}-100\r\n")
            apart.end(number)
            assert follower.poll() is None and shell.child.isalive(), "over before the restart"
            apart.start()
            shell.expect(f"over-{part}-3000\r\n")
            shell.expect(shell.prompt)
        assert shell.exit() == 0
        assert follower.wait(timeout=60) == 0
    shown = output.read_bytes()
    found = re.findall(r"^(?:part|over)-\d-\d+", CONTROLS.sub("", shown.decode()).replace("\r", ""), re.MULTILINE)
    counts = (("part", 500), ("over", 3000))
    expected = [f"{name}-{part}-{n}" for part in range(3) for name, most in counts for n in range(1, most + 1)]
    assert found == expected
    # What was shown is what the recording has.
    apart.ended(shell.id)
    played = apart.run("postern", "replay", shell.id, profile="carol")
    assert played.returncode == 0 and as_text(shown) == played.stdout


def test_who_follows_sees_what_came_while_nobody_sent_it_and_the_session_ended(gateways, tmp_path):
    apart, output = gateways(), tmp_path / "shown"
    with followed(apart, output) as (shell, follower):
        shell.ask("seq -f 'first-%g' 20")
        eventually(lambda: b"first-20" in output.read_bytes(), "something that the follower shows")
        follower.send_signal(signal.SIGSTOP)
        apart.end(signal.SIGKILL)
        apart.start()
        shell.ask("seq -f 'last-%g' 2000")
        assert shell.exit() == 0
        apart.ended(shell.id)
        follower.send_signal(signal.SIGCONT)
        assert follower.wait(timeout=60) == 0
    played = apart.run("postern", "replay", shell.id, profile="carol")
    assert "last-2000" in played.stdout
    assert as_text(output.read_bytes()) == played.stdout


def test_a_watcher_leaves_with_a_key(demo, open_shell):
    shell = open_shell()
    watcher = Terminal(demo, "postern", "replay", "--follow", shell.id, profile="carol")
    shell.ask("echo se''en")
    watcher.expect("seen")
    watcher.type("q")
    assert watcher.leave() == 0
    assert shell.exit() == 0
