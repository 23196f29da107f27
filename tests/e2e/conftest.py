"""One demo for all tests, started and stopped as a person would."""

import ctypes
import os
import signal
from pathlib import Path

import boto3
import pytest

from support import sound
from support.apart import Apart
from support.demo import Demo
from support.moto import Moto
from support.terminal import Shell

# prctl(2): orphans below this process become its children, so that none hides.
PR_SET_CHILD_SUBREAPER = 36


def pytest_configure(config):
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def left_running() -> list[str]:
    """Our children that still run, orphans of what we started among them."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            left.append(f"{stat.parent.name}: {command}")
    return left


@pytest.fixture(scope="session", autouse=True)
def recordings_are_sound():
    """Whatever a test has recorded is read by zstd and asciinema, once all tests are over."""
    yield
    print(f"\n{sound.check()} sealed recordings are sound")


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    # People have folders with spaces.
    demo = Demo(tmp_path_factory.mktemp("e2e") / "state of the demo")
    sound.note(demo.state / "recordings", demo.state)
    yield demo
    code = demo.stop()
    assert code == 0, demo.log.read_text()
    assert not left_running()


@pytest.fixture
def demos(tmp_path):
    """Starts demos of a test's own; none survives it."""
    started = []

    def start(state: Path | None = None, **options) -> Demo:
        started.append(Demo(state or tmp_path / "state", **options))
        sound.note(started[-1].state / "recordings", started[-1].state)
        return started[-1]

    yield start
    for demo in started:
        if demo.process.poll() is None:
            demo.kill()


@pytest.fixture(scope="session")
def moto():
    moto = Moto()
    yield moto
    moto.stop()


@pytest.fixture
def gateways(demo, tmp_path):
    """Starts gateways of a test's own in front of the demo's machines."""
    started = []

    def start(more: str = "", **options) -> Apart:
        folder = tmp_path / f"gateway {len(started)}"
        folder.mkdir()
        started.append(Apart(demo, folder, more, **options))
        sound.note(folder / "state/recordings", folder)
        return started[-1]

    yield start
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.end(signal.SIGTERM)


@pytest.fixture(params=["aws", "connect"])
def shell(demo, request):
    """A shell on web-dev: once by the AWS CLI, once by our own client."""
    command = {
        "aws": ("aws", "ssm", "start-session", "--target", demo.target("web-dev")),
        "connect": ("postern", "connect", "web-dev"),
    }
    shell = Shell(demo, *command[request.param])
    yield shell
    shell.close()


@pytest.fixture
def open_shell(demo):
    """Opens shells by any command; `postern connect web-dev` if none is given."""
    opened = []

    def start(*command, **options) -> Shell:
        opened.append(Shell(demo, *(command or ("postern", "connect", "web-dev")), **options))
        return opened[-1]

    yield start
    for shell in opened:
        shell.close()


@pytest.fixture
def client(demo, monkeypatch):
    """boto3's SSM client for a profile of the demo, as a script has it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in demo.env.items():
        if name.startswith(("AWS_", "POSTERN_", "SSL_")) or name == "PATH":
            monkeypatch.setenv(name, value)

    def client(profile: str, **options):
        return boto3.Session(profile_name=profile).client("ssm", **options)

    return client
