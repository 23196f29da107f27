"""Stopped, killed, started again: what must be there still is."""

import json
import os
import signal
import socket
import subprocess
import urllib.request

import pytest

from support.demo import PATIENCE, TOUR_END, binary, eventually, plain_environment
from support.terminal import Shell

CONNECT = ("postern", "connect", "web-dev")


def short_session(demo, mark: str) -> str:
    done = demo.run(*CONNECT, profile="alice", input=f"echo '{mark}'\nexit\n")
    assert done.returncode == 0, done.stderr
    session = done.stderr.split("SessionId: ")[1].split()[0]
    demo.ended(session)
    return session


def test_started_again_it_has_identities_and_recordings(demos):
    first = demos()
    session = short_session(first, "before the restart")
    keys = (first.state / "aws/credentials").read_text()
    authority = (first.state / "tls/ca.pem").read_text()
    (first.state / "policies/demo.cedar").write_text((first.state / "policies/demo.cedar").read_text() + "// mine\n")
    assert first.stop() == 0
    second = demos(first.state)
    assert second.facts["pid"] != first.facts["pid"]
    assert (second.state / "aws/credentials").read_text() == keys
    assert (second.state / "tls/ca.pem").read_text() == authority
    assert (second.state / "policies/demo.cedar").read_text().endswith("// mine\n")
    played = second.run("postern", "replay", session, profile="alice")
    assert played.returncode == 0 and "before the restart" in played.stdout
    history = second.aws_json("describe-sessions", "--state", "History")["Sessions"]
    assert session in [row["SessionId"] for row in history]
    checked = second.run("postern", "verify", second.recorded(session), profile="alice")
    assert checked.returncode == 0, checked.stdout
    short_session(second, "after the restart")
    assert second.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stopping_ends_sessions_with_a_sentence_and_seals(demos, number):
    demo = demos()
    shell = Shell(demo, *CONNECT)
    shell.ask("echo un''til the end")
    shells = shell.ask("echo $$").strip()
    demo.process.send_signal(number)
    assert demo.process.wait(PATIENCE) == 0
    assert shell.leave() == 255
    assert f"SessionId: {shell.id} : the gateway is stopping" in shell.text
    assert not os.path.exists(f"/proc/{shells}"), "the shell outlives its gateway"
    subprocess.run(["zstd", "-q", "-t", demo.recorded(shell.id)], check=True)
    said = demo.log.read_text()
    assert "is not archived yet" not in said and "closed pool" not in said, said
    again = demos(demo.state)
    archived = again.state / "archive/recordings" / f"{shell.id}.json"
    eventually(archived.exists, "what the stop cut off is archived after the next start")
    assert again.ended(shell.id)["state"] == "Terminated"
    checked = again.run("postern", "verify", again.recorded(shell.id), profile="alice")
    assert checked.returncode == 0, checked.stdout
    assert again.stop() == 0


def test_a_kill_loses_no_recording(demos):
    demo = demos()
    shell = Shell(demo, *CONNECT)
    shell.ask("echo be''fore the kill")

    # Output is shown at once; only what was recorded too must survive.
    def is_recorded():
        return "before the kill" in demo.run("postern", "replay", shell.id, profile="alice").stdout

    eventually(is_recorded, "the output in the recording")
    demo.kill()
    shell.close()
    again = demos(demo.state)
    record = again.ended(shell.id)
    assert record["ended_ms"] and record["state"] in ("Terminated", "Failed")
    assert again.postern_json("sessions", "list", "--json", profile="carol") == []
    recording = again.recorded(shell.id)
    subprocess.run(["zstd", "-q", "-t", recording], check=True)
    played = again.run("postern", "replay", shell.id, profile="alice")
    assert played.returncode == 0 and "before the kill" in played.stdout
    checked = again.run("postern", "verify", recording, profile="alice")
    assert checked.returncode in (0, 2), checked.stdout
    short_session(again, "all is well")
    assert again.stop() == 0


def test_a_client_hears_of_a_gateway_that_was_killed(demos):
    demo = demos()
    shell = Shell(demo, *CONNECT)
    demo.kill()
    # It may try for a while to come back; Ctrl-C and ~. must work meanwhile.
    shell.type("\r~.")
    assert shell.leave() in (0, 255)


def test_two_at_once_on_one_state_are_told_apart(demos):
    first = demos()
    facts = (first.state / "demo.json").read_text()
    second = demos(first.state, wait=False)
    out, _ = second.process.communicate(timeout=PATIENCE)
    assert second.process.returncode not in (0, None)
    assert TOUR_END.encode() not in out
    error = [line for line in second.log.read_text().splitlines() if line.startswith("postern: ")]
    assert len(error) == 1 and str(first.state) in error[0], error
    assert (first.state / "demo.json").read_text() == facts
    short_session(first, "the first one goes on")
    assert first.stop() == 0


def test_a_taken_address_is_a_sentence(demos, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [binary(), "demo", "--state", tmp_path / "s", "--listen", address],
            env=plain_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 255
    assert f"cannot listen on {address}" in done.stderr.splitlines()[-1]


def test_policies_that_do_not_validate_stop_the_start(demos):
    first = demos()
    assert first.stop() == 0
    broken = first.state / "policies/broken.cedar"
    broken.write_text('@id("broken")\npermit (\n  principal,\n  action == Postern::Action::"startShel",\n  resource\n);\n')
    second = demos(first.state, wait=False)
    out, _ = second.process.communicate(timeout=PATIENCE)
    assert second.process.returncode == 255 and TOUR_END.encode() not in out
    text = second.log.read_text()
    assert "broken.cedar:4" in text and "startShel" in text, text
    checked = subprocess.run([first.facts["bin"] + "/postern", "policy", "check", broken.parent], capture_output=True)
    assert checked.returncode != 0


def test_readiness_ends_with_the_demo(demos):
    demo = demos()
    assert demo.is_ready()
    with urllib.request.urlopen(demo.facts["ready_url"], timeout=10) as answer:
        assert answer.status == 200
    assert demo.stop() == 0
    assert not demo.is_ready()
    assert json.loads((demo.state / "demo.json").read_text())["pid"] == demo.process.pid
