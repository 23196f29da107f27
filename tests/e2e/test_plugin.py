"""Our session-manager-plugin, called as the AWS CLI of any generation calls it."""

import json
import re
import uuid
from pathlib import Path

import pexpect
import pytest

from support.demo import PATIENCE, eventually
from support.network import echo, free_port, say, server
from support.terminal import Shell

VARIABLE = "AWS_SSM_START_SESSION_RESPONSE"


@pytest.fixture
def started(demo, client):
    """A session that StartSession has opened and nobody carries yet."""
    target = demo.target("web-dev")
    answer = client("alice").start_session(Target=target, Reason=str(uuid.uuid4()))
    answer.pop("ResponseMetadata")
    yield json.dumps(answer), json.dumps({"Target": target}), answer
    client("alice").terminate_session(SessionId=answer["SessionId"])


def carry(demo, *words, env=None):
    return pexpect.spawn(
        "session-manager-plugin",
        list(words),
        env=demo.env | (env or {}),
        encoding="utf-8",
        timeout=PATIENCE,
    )


def use(child, session):
    child.expect_exact(f"Starting session with SessionId: {session}")
    child.expect_exact("web-dev$ ")
    child.send("echo $((6*7))\r")
    child.expect("42\r\n")
    child.send("exit\r")
    child.expect_exact(f"Exiting session with sessionId: {session}.")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_says_its_version_and_that_it_is_there(demo):
    version = demo.run("session-manager-plugin", "--version")
    assert version.returncode == 0
    assert [part.isdigit() for part in version.stdout.strip().split(".")] == [True] * 4
    alone = demo.run("session-manager-plugin")
    assert alone.returncode == 0
    assert "The Session Manager plugin was installed successfully" in alone.stdout


def test_takes_the_session_from_a_variable(demo, started):
    response, request, answer = started
    words = (VARIABLE, "us-east-1", "StartSession", "alice", request, demo.facts["endpoint"])
    use(carry(demo, *words, env={VARIABLE: response}), answer["SessionId"])


def test_takes_the_session_from_its_arguments(demo, started):
    response, request, answer = started
    words = (response, "us-east-1", "StartSession", "alice", request, demo.facts["endpoint"])
    use(carry(demo, *words), answer["SessionId"])


def test_takes_an_empty_profile_and_the_environment_s_instead(demo, started):
    response, request, answer = started
    words = (response, "us-east-1", "StartSession", "", request, demo.facts["endpoint"])
    use(carry(demo, *words, env={"AWS_PROFILE": "alice"}), answer["SessionId"])


def test_the_token_is_in_no_process_listing(demo, started):
    response, request, answer = started
    words = (VARIABLE, "us-east-1", "StartSession", "alice", request, demo.facts["endpoint"])
    child = carry(demo, *words, env={VARIABLE: response})
    child.expect_exact("web-dev$ ")
    assert not list(listed(answer["TokenValue"]))
    child.send("exit\r")
    child.expect(pexpect.EOF)


def test_the_cli_s_own_call_shows_no_token(demo):
    shell = Shell(demo, "aws", "ssm", "start-session", "--target", demo.target("web-dev"))
    plugins = eventually(lambda: children(shell.child.pid), "the plugin")
    for pid in plugins:
        for name in ("cmdline", "environ"):
            assert "TokenValue" not in Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    assert shell.exit() == 0


def listed(secret: str):
    """Where a process shows the secret: arguments, environment."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                if secret in (process / name).read_text(errors="replace"):
                    yield f"{process.name}/{name}"
            except OSError:
                continue


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_a_broken_session_is_a_sentence_without_the_token(demo, started):
    response, request, answer = started
    broken = response.replace('"StreamUrl"', '"Stream"')
    done = demo.run("session-manager-plugin", broken, "us-east-1", "StartSession", "alice", request, "")
    assert done.returncode != 0
    assert answer["TokenValue"] not in done.stdout + done.stderr
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout


def test_what_only_another_plugin_knows_is_refused(demo):
    done = demo.run("session-manager-plugin", "{}", "us-east-1", "StopSession", "", "{}", "")
    assert done.returncode != 0 and "Unknown operation" in done.stdout


def test_a_used_up_session_does_not_hang(demo, client, started):
    response, request, answer = started
    client("alice").terminate_session(SessionId=answer["SessionId"])
    demo.ended(answer["SessionId"])
    words = (response, "us-east-1", "StartSession", "alice", request, demo.facts["endpoint"])
    done = demo.run("session-manager-plugin", *words)
    assert answer["SessionId"] in done.stdout
    assert answer["TokenValue"] not in done.stdout + done.stderr


PORT = "AWS-StartPortForwardingSession"


@pytest.fixture
def echoing():
    with server(echo) as port:
        yield port


def forwarding(demo, document: str, **parameters) -> pexpect.spawn:
    """The stock AWS CLI with our plugin, at a terminal."""
    words = ["ssm", "start-session", "--target", demo.target("web-dev"), "--document-name", document]
    given = json.dumps({name: [str(value)] for name, value in parameters.items()})
    return pexpect.spawn(
        "aws", [*words, "--parameters", given, "--profile", "alice"], env=demo.env, encoding="utf-8", timeout=PATIENCE
    )


@pytest.mark.parametrize("local", ["0", None], ids=["any port", "no port"])
def test_a_forwarded_port_has_the_stock_plugin_s_words(demo, echoing, local):
    parameters = {"portNumber": echoing} | ({"localPortNumber": local} if local else {})
    child = forwarding(demo, PORT, **parameters)
    child.expect(r"\r\nStarting session with SessionId: (\S+)\r\n")
    session = child.match.group(1)
    child.expect(rf"Port (\d+) opened for sessionId {re.escape(session)}\.\r\nWaiting for connections\.\.\.\r\n")
    port = int(child.match.group(1))
    assert say(port, b"one") == b"one"
    child.expect_exact(f"\r\nConnection accepted for session [{session}]\r\n")
    assert say(port, b"two") == b"two"
    child.sendintr()
    child.expect_exact("Terminate signal received, exiting.\r\n")
    child.expect_exact(f"\r\n\r\nExiting session with sessionId: {session}.\r\n\r\n")
    child.expect(pexpect.EOF)
    assert "accepted" not in child.before
    assert demo.ended(session)["state"] == "Terminated"


def test_a_forwarded_port_listens_where_it_is_told(demo, echoing):
    local = free_port()
    child = forwarding(demo, f"{PORT}ToRemoteHost", host="localhost", portNumber=echoing, localPortNumber=local)
    child.expect(rf"Port {local} opened for sessionId \S+")
    assert say(local, b"over there") == b"over there"
    child.sendintr()
    child.expect(pexpect.EOF)


def test_a_refused_port_is_told_and_the_session_goes_on(demo):
    child = forwarding(demo, PORT, portNumber=free_port(), localPortNumber=0)
    child.expect(r"Port (\d+) opened")
    assert say(int(child.match.group(1)), b"x") == b""
    child.expect_exact("\r\nConnection to destination port failed, check SSM Agent logs.\r\n")
    child.sendintr()
    child.expect(pexpect.EOF)


def test_a_local_port_that_is_taken_is_a_sentence(demo, echoing):
    child = forwarding(demo, PORT, portNumber=echoing, localPortNumber=echoing)
    child.expect_exact(f"Cannot perform start session: cannot listen on 127.0.0.1:{echoing}")
    child.expect(pexpect.EOF)
