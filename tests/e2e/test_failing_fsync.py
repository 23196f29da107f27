"""A disk that cannot flush: `fsync` answers EIO below the recordings, in a real gateway."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support.demo import eventually, session_of
from support.terminal import Shell

SHIM = Path(__file__).parent / "support/failing_fsync.c"
# What the system says then.
WHY = "Input/output error"


class Flushing:
    """Says whether `fsync` works, to the gateway that the library is loaded into."""

    def __init__(self, folder: Path, below: Path):
        library, self._flag = folder / "failing_fsync.so", folder / "fsync fails"
        command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SHIM, "-ldl"]
        subprocess.run(command, check=True)
        self.variables = {
            "LD_PRELOAD": str(library),
            "FSYNC_FAILS_BELOW": str(below),
            "FSYNC_FAILS_WHILE": str(self._flag),
        }

    def fails(self):
        self._flag.touch()

    def works(self):
        self._flag.unlink()


@pytest.fixture
def flushing(tmp_path):
    # The first gateway of a test is in this folder. LD_PRELOAD knows no name with a space.
    return Flushing(tmp_path, tmp_path / "gateway 0/state/recordings")


@pytest.fixture
def gateway(demo, gateways, flushing, tmp_path):
    """Contractors have to be recorded `disk`, developers not."""
    policies = tmp_path / "policies"
    shutil.copytree(demo.state / "policies", policies)
    file = policies / "demo.cedar"
    rule = '@id("contractors-dev")'
    assert rule in file.read_text()
    file.write_text(file.read_text().replace(rule, f'{rule}\n@record("disk")'))
    return gateways(policies=policies, variables=flushing.variables)


@pytest.fixture
def open_shell():
    """Opens a person's shell at a gateway; none outlives the test."""
    opened = []

    def start(gateway, who: str) -> Shell:
        opened.append(Shell(gateway, "postern", "connect", "web-dev", profile=who))
        return opened[-1]

    yield start
    for shell in opened:
        shell.close()


def connect(gateway, who: str, words: str):
    return gateway.run("postern", "connect", "web-dev", profile=who, input=f"{words}\nexit\n")


def record(gateway, who: str, words: str) -> str:
    """A session from its beginning to its seal."""
    done = connect(gateway, who, words)
    assert done.returncode == 0, done.stderr
    session = session_of(done.stderr)
    gateway.ended(session)
    return session


def replayed(gateway, session: str) -> str:
    return gateway.run("postern", "replay", session, profile="carol").stdout


def verified(gateway, session: str):
    done = gateway.run("postern", "verify", gateway.recorded(session), profile="carol")
    print(done.stdout, done.stderr)
    return done


def assert_whole(gateway, session: str):
    assert verified(gateway, session).returncode == 0


def test_a_disk_that_cannot_flush_ends_what_needs_it_and_nothing_else(gateway, flushing, open_shell):
    before = record(gateway, "bob", "echo ear''lier")
    on_disk = open_shell(gateway, "bob")
    in_process = open_shell(gateway, "alice")
    on_disk.ask("echo ac''knowledged")
    eventually(lambda: "acknowledged" in replayed(gateway, on_disk.id), "what was acknowledged in the recording")

    flushing.fails()
    on_disk.line("echo un''kept")
    on_disk.expect("the session ended because it can no longer be recorded")
    on_disk.expect(f"the journal cannot be flushed to disk: {WHY}")
    assert on_disk.leave() != 0
    code, why = gateway.readiness()
    assert code == 503 and WHY in why, why
    # Who is promised what a process can keep is kept that.
    assert in_process.ask("echo go''es on") == "goes on\n"
    for who in ("bob", "alice"):
        refused = connect(gateway, who, "echo ne''ver")
        assert refused.returncode != 0 and "takes no sessions now" in refused.stderr, refused.stderr
        assert WHY in refused.stderr and "never" not in refused.stdout
    assert_whole(gateway, before)

    flushing.works()
    eventually(gateway.is_ready, "the gateway to be ready again")
    assert_whole(gateway, record(gateway, "bob", "echo la''ter"))
    assert in_process.exit() == 0
    gateway.ended(in_process.id)
    assert "goes on" in replayed(gateway, in_process.id)
    assert_whole(gateway, in_process.id)
    eventually(lambda: verified(gateway, on_disk.id).returncode == 0, "the seal of what could not be flushed")
    assert "acknowledged" in replayed(gateway, on_disk.id)
    # Sealed late, it is as good as others: in the catalogue, and known by its digest.
    command = ("postern", "search", "acknowledged", "--profile", "carol")
    eventually(lambda: on_disk.id in gateway.run(*command).stdout, "what was sealed late to be found")
