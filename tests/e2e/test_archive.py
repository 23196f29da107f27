"""The archive: a directory of the demo's, and S3 as moto has it."""

import hashlib
import json
import re

import pytest

from support.demo import eventually
from support.moto import KEYS, REGION

BUCKET = "recordings"


@pytest.fixture
def s3(moto):
    """S3 with one bucket; and what a program needs to reach it."""
    client = moto.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client, {"AWS_ENDPOINT_URL_S3": moto.url}


def record(demo, words: str) -> str:
    done = demo.run("postern", "connect", "web-dev", profile="alice", input=f"{words}\nexit\n")
    assert done.returncode == 0, done.stderr
    session = done.stderr.split("SessionId: ")[1].split()[0]
    demo.ended(session)
    return session


def archived(demo, session: str) -> dict:
    """What is told of the session once it is archived."""

    def shown():
        told = demo.postern_json("sessions", "show", session, "--json", profile="carol")
        return told if "archived_ms" in told else None

    return eventually(shown, f"{session} in the archive")


def is_shipped(logs, group: str, session: str) -> bool:
    try:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, logStreamNames=[session])
        return any('"sessionEnd"' in event["message"] for page in pages for event in page["events"])
    except logs.exceptions.ResourceNotFoundException:
        return False


def verify(demo, location, *words, env=None):
    return demo.run("postern", "verify", "--archive", location, *words, env=env or {}, profile="carol")


def flip(path, whole: bytes, at: int):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_damage_that_is_found_midway_is_told_as_what_it_is(demo):
    # What does not compress: longer than what is read before the answer begins.
    session = record(demo, "head -c 2000000 /dev/urandom | base64 -w 0; echo")
    archived(demo, session)
    kept = demo.state / "archive/recordings" / f"{session}.cast.zst"
    demo.recorded(session).unlink()
    whole = kept.read_bytes()
    assert len(whole) > 1_000_000
    flip(kept, whole, len(whole) // 2)
    # It is known by the second time; the client asks once more by itself.
    for _ in range(2):
        played = demo.run("postern", "replay", session, profile="alice")
        assert (played.returncode, played.stdout) == (255, ""), played.stderr
        (line,) = played.stderr.splitlines()
        assert f"the recording of {session} is not what was archived" in line and "its bytes are not the" in line, line
        assert "cannot reach" not in line
    kept.write_bytes(whole)


def test_what_the_archive_has_damaged_is_shown_as_cloudwatch_has_it(gateways, moto, tmp_path):
    folder, group = tmp_path / "archive", "/postern/as-well"
    gateway = gateways(
        f'[archive]\nlocation = "{folder}"\n[shipper]\nlog_group = "{group}"\ncreate = true\nendpoint_url = "{moto.url}"\n'
    )
    # Damage is found before the answer begins in the one, at its end in the other.
    short = record(gateway, "echo wh''ole")
    long = record(gateway, "head -c 600000 /dev/urandom | base64 -w 0; echo; echo wh''ole")
    logs = moto.client("logs")
    damaged = 0
    for session in (short, long):
        archived(gateway, session)
        eventually(lambda: is_shipped(logs, group, session), "all of it in CloudWatch")
        recorded = gateway.recorded(session).read_bytes()
        gateway.recorded(session).unlink()
        flip(folder / "recordings" / f"{session}.cast.zst", recorded, len(recorded) // 2)
        copy = tmp_path / f"{session}.cast.zst"
        for words in ((), ("--output", copy)):
            played = gateway.run("postern", "replay", session, *words, profile="alice")
            assert played.returncode == 0 and (words or "whole" in played.stdout), played.stderr
            (line,) = (line for line in played.stderr.splitlines() if "archive" in line)
            assert "is not what was archived, so it is shown as CloudWatch Logs has it" in line, line
        assert copy.read_bytes() == recorded
        metrics = gateway.run("curl", "-sS", gateway.facts["metrics_url"]).stdout
        (count,) = re.findall(r'archived_recordings_total\{result="damaged"\} (\d+)', metrics)
        assert int(count) > damaged
        damaged = int(count)
        log = gateway.log.read_text()
        said = [line for line in log.splitlines() if session in line]
        assert any("the archive's copy is damaged" in line for line in said)
        assert any("an archived recording breaks off" in line for line in said) == (session == long)


def test_every_recording_is_kept_in_a_directory_and_can_be_checked(demo, tmp_path):
    session = record(demo, "echo ke''pt")
    archived(demo, session)
    folder = demo.state / "archive"
    kept = folder / "recordings" / f"{session}.cast.zst"
    assert kept.read_bytes() == demo.recorded(session).read_bytes()
    done = verify(demo, folder)
    assert done.returncode == 0 and f"{session}: whole and unaltered" in done.stdout, done.stdout + done.stderr
    demo.recorded(session).unlink()
    played = demo.run("postern", "replay", session, profile="alice")
    assert played.returncode == 0 and "kept" in played.stdout
    # One byte is not what it was: refused in a sentence that says which recording, what is wrong and what to do.
    whole = kept.read_bytes()
    flip(kept, whole, len(whole) // 2)
    for words in (("replay", session), ("replay", session, "--output", tmp_path / "copy.cast.zst")):
        played = demo.run("postern", *words, profile="alice")
        assert (played.returncode, played.stdout) == (255, ""), played
        (line,) = played.stderr.splitlines()
        assert f"the recording of {session} is not what was archived" in line and "its bytes are not the" in line, line
        assert "postern verify --archive" in line and "cannot reach" not in line, line
        assert not (tmp_path / "copy.cast.zst").exists()
    kept.write_bytes(whole[:-1])
    done = verify(demo, folder)
    assert done.returncode == 1 and f"{session}: its recording was altered" in done.stdout
    kept.unlink()
    (folder / "recordings" / f"{session}.json").unlink()


def test_every_recording_is_kept_in_s3_and_read_from_there(demos, s3):
    client, env = s3
    demo = demos(arguments=("--archive", f"s3://{BUCKET}/of/us"), environment=env)
    session = record(demo, "echo in s''3")
    archived(demo, session)
    key = f"of/us/recordings/{session}"
    body = client.get_object(Bucket=BUCKET, Key=f"{key}.cast.zst")["Body"].read()
    manifest = json.loads(client.get_object(Bucket=BUCKET, Key=f"{key}.json")["Body"].read())
    assert body == demo.recorded(session).read_bytes()
    assert (manifest["bytes"], manifest["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert manifest["target"] == demo.target("web-dev") and manifest["principal"].endswith("/alice")

    demo.recorded(session).unlink()
    played = demo.run("postern", "replay", session, profile="carol")
    assert played.returncode == 0 and "in s3" in played.stdout, played.stderr

    # Somebody else checks it, with the gateway's public key and keys of S3.
    public = next(demo.state.rglob("recording.key.pub"))
    command = ["postern", "verify", "--archive", f"s3://{BUCKET}/of/us", "--key", public]
    done = demo.run(*command, env=KEYS | env | {"AWS_PROFILE": "default"})
    assert done.returncode == 0 and f"{session}: whole" in done.stdout, done.stdout + done.stderr
    client.put_object(Bucket=BUCKET, Key=f"{key}.cast.zst", Body=body[:-1] + b"x")
    done = demo.run(*command, env=KEYS | env | {"AWS_PROFILE": "default"})
    assert done.returncode == 1 and "altered" in done.stdout
    assert demo.stop() == 0


def test_an_archive_that_is_away_is_caught_up_with(demos, s3):
    """A bucket that is not there yet; and a restart in between."""
    client, env = s3
    options = {"arguments": ("--archive", "s3://not-there-yet"), "environment": env}
    demo = demos(**options)
    session = record(demo, "echo wai''ting")
    log = lambda: "the recording is not archived yet" in demo.log.read_text()
    eventually(log, "a failed try")
    assert demo.stop() == 0
    client.create_bucket(Bucket="not-there-yet")
    demo = demos(state=demo.state, **options)
    archived(demo, session)
    names = [item["Key"] for item in client.list_objects_v2(Bucket="not-there-yet")["Contents"]]
    assert {f"recordings/{session}.cast.zst", f"recordings/{session}.json"} <= set(names)
    assert demo.stop() == 0


def test_what_is_archived_is_encrypted_with_the_configured_key(gateways, s3, moto):
    """A small object goes in one call, a large one in parts: both have the key."""
    client, _ = s3
    key = moto.key("for recordings")
    gateway = gateways(
        f'[archive]\nlocation = "s3://{BUCKET}/encrypted"\nregion = "{REGION}"\nkms_key_id = "{key}"\nendpoint_url = "{moto.url}"\n'
    )
    small = record(gateway, "echo ci''phered")
    # What does not compress: more than one part of 16 MB.
    large = record(gateway, "head -c 20000000 /dev/urandom | base64 -w 0; echo")
    for session in (small, large):
        archived(gateway, session)
        for name in (f"{session}.cast.zst", f"{session}.json"):
            found = client.head_object(Bucket=BUCKET, Key=f"encrypted/recordings/{name}")
            assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", key)
    kept = client.get_object(Bucket=BUCKET, Key=f"encrypted/recordings/{large}.cast.zst")["Body"].read()
    assert len(kept) > 16 << 20 and kept == gateway.recorded(large).read_bytes()
    gateway.recorded(small).unlink()
    played = gateway.run("postern", "replay", small, profile="alice")
    assert played.returncode == 0 and "ciphered" in played.stdout, played.stderr
