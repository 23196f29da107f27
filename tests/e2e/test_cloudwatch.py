"""Sessions in CloudWatch Logs, as boto3 finds them there and as the gateway reads them back."""

import json
import signal
import subprocess

import pytest

from support.demo import PATIENCE, binary, eventually
from support.moto import KEYS
from support.network import Serving, echo, say, server
from support.terminal import Shell

GROUP = "/postern/demo"


@pytest.fixture
def logs(moto):
    return moto.client("logs")


@pytest.fixture
def shipping(demos, moto):
    """A demo that ships to moto."""
    return demos(arguments=["--log-group", GROUP], environment={"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": moto.url})


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
    cloud = {**KEYS, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": moto.url}
    key = shipping.state / "gateway" / "keys" / "recording.key.pub"
    check = ("postern", "verify", "--cloudwatch", GROUP, shell.id, "--key", key)
    checked = shipping.run(*check, env=cloud)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "sealed and unaltered" in checked.stdout


def test_without_a_gateway_only_what_was_signed_is_shown(shipping, logs, moto, tmp_path):
    """CloudWatch and the public key are enough; what somebody else wrote into the stream is told."""
    cloud = {**KEYS, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": moto.url, "AWS_PROFILE": "default"}
    key = shipping.state / "gateway" / "keys" / "recording.key.pub"

    def recorded(words: str) -> str:
        done = shipping.run("postern", "connect", "web-dev", profile="alice", input=f"{words}\nexit\n")
        session = done.stderr.split("SessionId: ")[1].split()[0]
        eventually(lambda: events(logs, session, "sessionEnd"), "the end in CloudWatch")
        return session

    own, other = recorded("echo mi''ne"), recorded("seq 1 2000; echo not-mi''ne")
    sealed = shipping.recorded(own).read_bytes()
    file = tmp_path / "own.cast.zst"
    replay = ("postern", "replay", "--cloudwatch", GROUP, "--key", key)
    played = shipping.run(*replay, own, env=cloud)
    assert played.returncode == 0 and "mine" in played.stdout, played.stderr
    assert shipping.run(*replay, own, "--output", file, env=cloud).returncode == 0
    assert file.read_bytes() == sealed

    # Somebody who may write there adds the other session's recording as this one's.
    forged = [event | {"sessionId": own, "run": event["run"] + 1} for event in events(logs, other, "recording")]
    batch = [{"timestamp": event["eventTimeMs"], "message": json.dumps(event)} for event in forged]
    logs.put_log_events(logGroupName=GROUP, logStreamName=own, logEvents=batch)
    verify = ("postern", "verify", "--cloudwatch", GROUP, "--key", key)
    checked = shipping.run(*verify, own, env=cloud)
    assert checked.returncode == 1, checked.stdout
    assert f"session {own}" in checked.stdout and "put there by no gateway: damaged" in checked.stdout
    assert f"recording of another session, {other}" in checked.stdout
    played = shipping.run(*replay, own, env=cloud)
    assert played.returncode == 0 and "mine" in played.stdout and "not-mine" not in played.stdout
    assert "put there by no gateway" in played.stderr

    # Where nothing else is there, there is nothing to show.
    empty = f"{own[:-3]}aaa"
    logs.create_log_stream(logGroupName=GROUP, logStreamName=empty)
    for event in forged:
        event["sessionId"] = empty
    batch = [{"timestamp": event["eventTimeMs"], "message": json.dumps(event)} for event in forged]
    logs.put_log_events(logGroupName=GROUP, logStreamName=empty, logEvents=batch)
    for command in (verify, replay):
        done = shipping.run(*command, empty, env=cloud)
        assert done.returncode != 0 and "of another session" in done.stdout + done.stderr
        assert "not-mine" not in done.stdout


def test_what_went_through_a_port_is_told_connection_by_connection(shipping, logs):
    with server(echo) as behind:
        serving = Serving(shipping, "web-dev", f"0:{behind}")
        session = serving.event("listening")["session"]
        assert say(serving.port(), b"SSH-2.0-made_up\r\n") == b"SSH-2.0-made_up\r\n"
        assert say(serving.port(), b"x" * 70_000) == b"x" * 70_000
        ended = lambda: {end["connection"]: end for end in events(logs, session, "connectionEnd")}
        # While the session goes on.
        eventually(lambda: len(ended()) == 2, "both connections in CloudWatch")
        assert not events(logs, session, "sessionEnd")
        assert serving.stop(signal.SIGINT) == 0
    eventually(lambda: events(logs, session, "sessionEnd"), "the end in CloudWatch")
    starts = events(logs, session, "connectionStart")
    assert [(start["connection"], start["host"], start["port"]) for start in starts] == [
        (1, "localhost", behind), (2, "localhost", behind),
    ]  # fmt: skip
    first, second = ended()[1], ended()[2]
    assert (first["protocol"], first["looksLike"]) == ("ssh", "ssh SSH-2.0-made_up, ssh SSH-2.0-made_up")
    assert (second["bytesUp"], second["bytesDown"], second["endedBy"]) == (70_000, 70_000, "client")
    assert first["principal"].endswith("user/alice") and first["eventTimeMs"] <= second["eventTimeMs"]


def test_a_log_group_that_the_gateway_creates_has_the_configured_key(gateways, logs, moto):
    key, group = moto.key("for log groups"), "/postern/with-a-key"
    shipper = f'[shipper]\nlog_group = "{group}"\ncreate = true\nretention_days = 30\nkms_key_arn = "{key}"\n'
    gateways(f'{shipper}endpoint_url = "{moto.url}"\ntags = {{ team = "security" }}\n')
    (made,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert (made["logGroupName"], made["kmsKeyId"], made["retentionInDays"]) == (group, key, 30)
    assert logs.list_tags_for_resource(resourceArn=made["arn"].removesuffix(":*"))["tags"] == {"team": "security"}


def test_doctor_tells_an_operator_what_is_wrong_with_the_log_group(gateways, logs, moto):
    key, other, group = moto.key("wanted"), moto.key("other"), "/postern/looked-at"
    logs.create_log_group(logGroupName=group, kmsKeyId=other)
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    shipper = f'[shipper]\nlog_group = "{group}"\nretention_days = 30\nkms_key_arn = "{key}"\n'
    # It starts, and says the same.
    gateway = gateways(f'{shipper}endpoint_url = "{moto.url}"\n')
    log = gateway.log.read_text()
    assert "it keeps events 7 days, not 30 days" in log and f"it has the KMS key {other}, not {key}" in log

    def told(*changes) -> tuple[int, list[dict]]:
        text = (gateway.folder / "postern.toml").read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        config = gateway.folder / "changed.toml"
        config.write_text(text)
        command = [binary(), "doctor", "--json", "--config", config]
        done = subprocess.run(command, env=gateway.environment, capture_output=True, text=True, timeout=PATIENCE)
        checks = json.loads(done.stdout)
        return done.returncode, [check for check in checks if check["check"] == "log group"]

    code, (retention, encryption) = told()
    assert code == 0 and {retention["verdict"], encryption["verdict"]} == {"warn"}
    # What it says to do is a command that AWS's CLI takes, and then all is well.
    assert retention["advice"] == f"aws logs put-retention-policy --log-group-name {group} --retention-in-days 30"
    assert encryption["advice"].startswith(f"aws logs associate-kms-key --log-group-name {group} --kms-key-id {key} ")
    logs.put_retention_policy(logGroupName=group, retentionInDays=30)
    code, (well,) = told((f'kms_key_arn = "{key}"', f'kms_key_arn = "{other}"'))
    assert (code, well["verdict"], well["found"]) == (0, "ok", f"{group} is as configured")

    code, (missing,) = told((group, "/postern/not-there"))
    assert (code, missing["verdict"], missing["found"]) == (1, "fail", "/postern/not-there is not there")
    assert missing["advice"].startswith("aws logs create-log-group --log-group-name /postern/not-there, or set create")
    code, (coming,) = told((group, "/postern/not-there"), ("[shipper]", "[shipper]\ncreate = true"))
    assert (code, coming["verdict"]) == (0, "ok") and "creates it when it starts" in coming["found"]
    code, (away,) = told((moto.url, "http://127.0.0.1:1"))
    assert (code, away["verdict"]) == (1, "fail") and "endpoint_url" in away["advice"]
