"""What runs over ports goes on when the gateway is stopped or killed: OpenSSH, scp, forwards."""

import hashlib
import os
import re
import signal
import subprocess
import threading

import pexpect
import pytest

from support.demo import PATIENCE, eventually
from support.network import connect, echo, server
from test_ssh import ALICE, machine  # noqa: F401  (a fixture)

BOTH = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])


@pytest.fixture
def apart(gateways):
    return gateways()


def flows(apart, session: str) -> str:
    """The table of a session's connections, as an auditor reads it."""
    apart.ended(session)
    checked = apart.run("postern", "verify", apart.recorded(session), profile="alice")
    assert checked.returncode == 0, checked.stdout
    return apart.run("postern", "replay", apart.recorded(session), "--format", "text").stdout


@BOTH
@pytest.mark.parametrize("client", ["config", "aws"])
def test_scp_goes_on_over_a_restart(apart, machine, client, number, tmp_path):  # noqa: F811
    sent = os.urandom(4_000_000)
    (tmp_path / "here").write_bytes(sent)
    there = tmp_path / "there"
    # 1 MB/s, so that it is not over before the gateway is.
    copy = subprocess.Popen(
        ["scp", "-q", "-l", "8000", "-F", machine.folder / client, tmp_path / "here", f"{machine.id}:{there}"],
        env=apart.env | ALICE,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for part in (1, 2):
        eventually(lambda: there.exists() and there.stat().st_size > part * 400_000, "a part of the file")
        apart.end(number)
        assert copy.poll() is None, "it was over before the restart"
        apart.start()
    _, error = copy.communicate(timeout=PATIENCE)
    assert copy.returncode == 0, error
    assert there.read_bytes() == sent
    down = apart.run(
        "scp", "-q", "-F", machine.folder / client, f"{machine.id}:{there}", tmp_path / "back", env=ALICE
    )
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "back").read_bytes() == sent


@BOTH
def test_a_shell_of_openssh_goes_on_over_a_restart(apart, machine, number):  # noqa: F811
    child = pexpect.spawn(
        "ssh", ["-tt", "-F", str(machine.folder / "aws"), machine.id, "exec sh"], env=apart.env | ALICE,
        encoding="utf-8", timeout=PATIENCE,
    )
    child.sendline("kept=$((20+1))")
    child.sendline("echo be''fore-$kept")
    child.expect("before-21")
    apart.end(number)
    apart.start()
    child.sendline("echo aft''er-$kept")
    child.expect("after-21")
    child.sendline("exit 7")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7


@BOTH
def test_a_forward_of_the_aws_cli_carries_a_connection_over_a_restart(apart, number):
    with server(echo) as behind:
        child = pexpect.spawn(
            "aws",
            [
                "ssm", "start-session", "--target", apart.target("web-dev"), "--profile", "alice",
                "--document-name", "AWS-StartPortForwardingSession",
                "--parameters", f"portNumber={behind},localPortNumber=0",
            ],
            env=apart.env, encoding="utf-8", timeout=PATIENCE,
        )  # fmt: skip
        child.expect(r"SessionId: (\S+)")
        session = child.match.group(1)
        child.expect(r"Port (\d+) opened")
        data, got = os.urandom(1_000_000), bytearray()
        with connect(int(child.match.group(1))) as connection:
            connection.settimeout(PATIENCE)
            sender = threading.Thread(target=connection.sendall, args=(data,), daemon=True)
            sender.start()
            for part in (300_000, 600_000, len(data)):
                while len(got) < part:
                    piece = connection.recv(65536)
                    assert piece, "the connection was lost"
                    got += piece
                if part < len(data):
                    apart.end(number)
                    apart.start()
            sender.join(PATIENCE)
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
    table = flows(apart, session)
    assert re.match(rf"1 connections to localhost:{behind}, {len(data)} bytes up, {len(data)} bytes down", table), table
