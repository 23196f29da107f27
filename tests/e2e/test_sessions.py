"""`postern sessions`: who is where, who was, and ending it."""

import json
import os
import signal

import pytest
from support.demo import eventually

HEADINGS = ["SESSION", "WHO", "TARGET", "KIND", "STATE", "STARTED", "ENDED", "BY"]


def table(demo, *words, profile) -> list[list[str]]:
    done = demo.run("postern", "sessions", "list", *words, profile=profile)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == HEADINGS
    return lines[1:]


def test_a_running_session_is_listed_to_whoever_may_know(demo, open_shell):
    shell = open_shell()
    for profile, sees in (("alice", True), ("carol", True), ("bob", False)):
        rows = table(demo, profile=profile)
        row = next((row for row in rows if row[0] == shell.id), None)
        assert (row is not None) is sees, profile
        if row:
            assert row[1:5] == ["alice", demo.target("web-dev"), "shell", "Connected"]
        assert shell.id not in [row[0] for row in table(demo, "--history", profile=profile)]
    assert shell.exit() == 0


def test_json_is_for_programs(demo, open_shell):
    shell = open_shell()
    rows = demo.postern_json("sessions", "list", "--json")
    row = next(row for row in rows if row["id"] == shell.id)
    assert row["principal"] == "arn:aws:iam::000000000000:user/alice"
    assert row["ended_ms"] is None and row["started_ms"] > 0
    shown = demo.postern_json("sessions", "show", shell.id, "--json")
    assert {key: shown[key] for key in ("id", "target", "kind")} == {key: row[key] for key in ("id", "target", "kind")}
    assert shell.exit() == 0
    ended = demo.ended(shell.id)
    assert ended["ended_ms"] >= ended["started_ms"]
    assert ended["bytes_out"] > 0 and len(ended["recording_sha256"]) == 64


def test_show_tells_everything_line_by_line(demo, open_shell):
    shell = open_shell()

    def connected():
        done = demo.run("postern", "sessions", "show", shell.id, profile="alice")
        lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
        assert lines["id"].strip() == shell.id
        # The registry hears of it a moment after the person.
        return lines["state"].strip() == "Connected"

    eventually(connected, f"{shell.id} to be Connected")
    assert shell.exit() == 0


@pytest.mark.parametrize("json_wanted", [True, False], ids=["json", "text"])
def test_end_tells_the_person_who_and_why(demo, shell, json_wanted):
    words = ("--json",) if json_wanted else ()
    reason = "left open \x1b[2Jovernight"
    done = demo.run("postern", "sessions", "end", shell.id, "--reason", reason, *words, profile="carol")
    assert done.returncode == 0, done.stderr
    if json_wanted:
        assert json.loads(done.stdout)["session"] == shell.id
    else:
        assert done.stdout == f"ended {shell.id}\n"
    shell.leave()
    assert f"SessionId: {shell.id} : ended by carol: left open [2Jovernight" in shell.seen
    assert demo.ended(shell.id)["end_reason"].startswith("ended by carol: left open")


def test_whoever_took_nothing_when_it_ended_is_told_why_afterwards(demo, shell):
    shell.line("yes")
    shell.expect("y\r\ny\r\n")
    os.kill(shell.child.pid, signal.SIGSTOP)
    done = demo.run("postern", "sessions", "end", shell.id, "--reason", "left open", profile="carol")
    assert done.returncode == 0, done.stderr
    # The flood jams the connection: the last words do not fit.
    demo.ended(shell.id)
    os.kill(shell.child.pid, signal.SIGCONT)
    shell.expect(f"SessionId: {shell.id} : ended by carol: left open")
    shell.leave()


def test_only_who_may_ends_and_sees(demo, open_shell):
    shell = open_shell()
    for words in (("end", shell.id), ("show", shell.id)):
        done = demo.run("postern", "sessions", *words, profile="bob")
        assert done.returncode == 255 and len(done.stderr.splitlines()) == 1, done.stderr
    assert shell.ask("echo still here") == "still here\n"
    assert shell.exit() == 0


def test_an_unknown_session_is_a_sentence(demo):
    for words in (("show", "alice-nobody0123456789"), ("end", "alice-nobody0123456789"), ("show", "../../etc")):
        done = demo.run("postern", "sessions", *words, profile="carol")
        assert done.returncode == 255
        assert done.stderr.startswith("postern: ") and len(done.stderr.splitlines()) == 1


def test_the_list_is_as_long_as_asked_for(demo, open_shell):
    for _ in range(2):
        shell = open_shell()
        assert shell.exit() == 0
        demo.ended(shell.id)
    rows = table(demo, "--history", "--limit", "1", profile="alice")
    assert [row[0] for row in rows] == [shell.id]
