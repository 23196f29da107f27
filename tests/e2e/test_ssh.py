"""The real OpenSSH, scp and rsync through a session, by our client and by the AWS CLI."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.demo import PATIENCE, eventually
from support.network import free_port

ALICE = {"POSTERN_PROFILE": "alice"}


def sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert found, "sshd is not installed; .ci/setup test does it"
    return found


def keygen(path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@pytest.fixture(scope="module")
def machine(demo, tmp_path_factory):
    """An SSH server of our own on loopback, and a configuration that goes to it."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        keygen(folder / name)
    port = free_port()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        # Where it locks its unprivileged child in; Debian's service makes it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = (folder / "sshd.log").open("wb")
    server = subprocess.Popen([sshd(), "-D", "-e", "-f", folder / "sshd_config"], stderr=log, stdin=subprocess.DEVNULL)
    options = (
        f"Port {port}\nUser {user}\nIdentityFile {folder}/user\nIdentitiesOnly yes\nStrictHostKeyChecking accept-new\n"
        f"UserKnownHostsFile {folder}/known_hosts\nLogLevel ERROR\n"
    )
    (folder / "options").write_text(options)
    (folder / "config").write_text(f"Host i-* mi-*\n  ProxyCommand postern ssh-proxy %h %p\n{options}")
    aws = (
        "aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p --profile alice"
    )
    (folder / "aws").write_text(f'Host i-* mi-*\n  ProxyCommand sh -c "{aws}"\n{options}')
    eventually(lambda: answers(port), "sshd")
    yield SimpleNamespace(folder=folder, port=port, id=demo.target("web-dev"), user=user)
    server.send_signal(signal.SIGTERM)
    server.wait(PATIENCE)
    log.close()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.fixture(params=["config", "aws"])
def config(machine, request):
    """`~/.ssh/config` as people write it: with our client, with the AWS CLI."""
    return machine.folder / request.param


def test_ssh_runs_a_command_with_its_streams_and_code(demo, machine, config):
    done = demo.run("ssh", "-F", config, machine.id, "cat; echo err >&2; exit 3", input="piped\n", env=ALICE)
    assert (done.stdout, done.returncode) == ("piped\n", 3), done.stderr
    assert "err\n" in done.stderr


def test_our_ssh_takes_names_users_and_arguments(demo, machine):
    options = ("-F", machine.folder / "options")
    done = demo.run("postern", "ssh", f"{machine.user}@WEB-dev", "--", *options, "echo 'two  words'; exit 4", env=ALICE)
    assert (done.stdout, done.returncode) == ("two  words\n", 4), done.stderr
    done = demo.run("postern", "ssh", "tag:env=dev", "--", *options, "-T", "true", env=ALICE)
    assert done.returncode == 0, done.stderr


def test_scp_carries_a_file_both_ways(demo, machine, config, tmp_path):
    sent = os.urandom(3_000_000)
    (tmp_path / "here").write_bytes(sent)
    there = f"{machine.id}:{tmp_path}/there"
    up = demo.run("scp", "-q", "-F", config, tmp_path / "here", there, env=ALICE)
    assert up.returncode == 0, up.stderr
    down = demo.run("scp", "-q", "-F", config, there, tmp_path / "back", env=ALICE)
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "back").read_bytes() == sent


def test_rsync_carries_a_tree(demo, machine, tmp_path):
    assert shutil.which("rsync"), "rsync is not installed; .ci/setup test does it"
    for n in range(40):
        path = tmp_path / "here" / f"folder {n % 5}" / f"file {n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(n * 1000))
    shell = f"ssh -F {machine.folder}/config"
    there = f"{machine.id}:{tmp_path}/there"
    done = demo.run("rsync", "-a", "-e", shell, f"{tmp_path}/here/", there, env=ALICE)
    assert done.returncode == 0, done.stderr
    same = subprocess.run(["diff", "-r", tmp_path / "here", tmp_path / "there"], capture_output=True)
    assert same.returncode == 0, same.stdout


def test_a_denial_is_what_ssh_says_it_ends_for(demo, machine):
    done = demo.run("ssh", "-F", machine.folder / "config", demo.target("db-prod"), "true", env=ALICE)
    assert done.returncode == 255
    assert "AccessDeniedException" in done.stderr


def test_the_session_ends_with_ssh(demo, machine):
    before = ids(demo)
    assert demo.run("ssh", "-F", machine.folder / "config", machine.id, "true", env=ALICE).returncode == 0
    eventually(lambda: ids(demo, "--history") - before, "the session")
    eventually(lambda: not ids(demo) - before, "the end of the session")


def ids(demo, *words) -> set[str]:
    return {row["id"] for row in demo.postern_json("sessions", "list", "--json", *words, profile="carol")}
