"""Sessions in CloudWatch Logs, as boto3 finds them there and as the gateway reads them back."""

import json
import re
import signal
import subprocess
import sys

import boto3
import pytest

from support.demo import PATIENCE, eventually
from support.terminal import Shell

GROUP = "/postern/demo"
# moto takes any keys.
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAANYBODY", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    """The URL of a moto server on a port of its own choice."""
    log = tmp_path_factory.mktemp("moto") / "moto.log"
    with log.open("wb") as out:
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        listens = lambda: re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
        yield eventually(listens, "moto to listen").group(0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.fixture
def logs(moto):
    return boto3.client(
        "logs",
        endpoint_url=moto,
        region_name=KEYS["AWS_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def shipping(demos, moto):
    """A demo that ships to moto."""
    return demos(arguments=["--log-group", GROUP], environment={"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": moto})


def events(logs, session: str, name: str) -> list[dict]:
    """The events of that name in a session's stream, each once."""
    try:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=GROUP, logStreamNames=[session])
        messages = dict.fromkeys(event["message"] for page in pages for event in page["events"])
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event for event in map(json.loads, messages) if event["eventName"] == name]


def test_a_session_is_shipped_found_and_read_back(shipping, logs, moto):
    shell = Shell(shipping, "aws", "ssm", "start-session", "--target", shipping.target("web-dev"))
    shell.ask("echo from-the-ma''chine")
    lines = lambda: [line for event in events(logs, shell.id, "output") for line in event["sessionData"]]
    eventually(lambda: "from-the-machine" in lines(), "the line in CloudWatch")
    assert shell.exit() == 0
    eventually(lambda: events(logs, shell.id, "sessionEnd"), "the end in CloudWatch")
    shell.close()

    start = events(logs, shell.id, "sessionStart")[0]
    assert start["target"]["id"] == shipping.target("web-dev")
    assert (start["eventVersion"], start["sessionId"]) == ("1.0", shell.id)

    sealed = shipping.recorded(shell.id)
    sealed.unlink()
    played = shipping.run("postern", "replay", shell.id, "--format", "text", profile="alice")
    assert played.returncode == 0, played.stderr
    assert "from-the-machine" in played.stdout

    # An auditor needs CloudWatch and the public key, and no gateway.
    cloud = {**KEYS, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": moto}
    key = shipping.state / "gateway" / "keys" / "recording.key.pub"
    check = ("postern", "verify", "--cloudwatch", GROUP, shell.id, "--key", key)
    checked = shipping.run(*check, env=cloud)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "sealed and unaltered" in checked.stdout
