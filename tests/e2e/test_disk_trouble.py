"""A spool that is full, and one that turns read-only: real file systems, mounted by root."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from support.demo import eventually, session_of
from support.terminal import Shell

# Megabytes of the whole file system, and those taken from the start.
SIZE, BALLAST = 48, 28
FLOOD = "base64 /dev/urandom"


class Disk:
    """A file system of its own under the demo's recordings."""

    def __init__(self, folder: Path):
        self.state = folder / "state"
        self.path = self.state / "recordings"
        self.path.mkdir(parents=True)
        image = folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(SIZE << 20)
        self._run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        self._run("mount", "-o", "loop,errors=remount-ro", image, self.path)
        self.path.chmod(0o700)
        self._ballast = self.path / "ballast"
        self._ballast.write_bytes(os.urandom(BALLAST << 20))
        self._filler = self.path / "filler"

    def fill(self):
        """Takes what room there is; sealing a recording may have made some."""
        with self._filler.open("ab") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error

    def has_room_again(self):
        self._ballast.unlink()
        self._filler.unlink(missing_ok=True)

    def turns_read_only(self):
        """What the kernel does when a disk fails."""
        device = self._run("findmnt", "-no", "SOURCE", self.path).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("a test of this machine")

    def unmount(self):
        subprocess.run(["umount", "--lazy", self.path], check=False)

    def _run(self, *words) -> str:
        # Not on the path of everybody.
        env = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        words = [str(word) for word in words]
        return subprocess.run(words, check=True, capture_output=True, text=True, env=env).stdout


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    try:
        disk = Disk(tmp_path)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"this machine makes no file systems: {error} {getattr(error, 'stderr', '')}")
    yield disk
    disk.unmount()


def record(demo, words: str) -> str:
    done = demo.run("postern", "connect", "web-dev", profile="alice", input=f"{words}\nexit\n")
    assert done.returncode == 0, done.stderr
    session = session_of(done.stderr)
    demo.ended(session)
    return session


def assert_whole(demo, session: str):
    done = demo.run("postern", "verify", demo.recorded(session), profile="carol")
    assert done.returncode == 0, done.stdout + done.stderr


def unready(demo) -> str | None:
    """Why the gateway is not ready, if it is not."""
    code, text = demo.readiness()
    return text if code == 503 else None


def refused(demo, why: str) -> bool:
    done = demo.run("postern", "connect", "web-dev", profile="alice", input="exit\n")
    print(f"connect: {done.returncode} {done.stderr}")
    return done.returncode != 0 and "record" in done.stderr and why in done.stderr


def test_a_full_disk_ends_what_it_cannot_record_and_loses_nothing_before(demos, disk):
    demo = demos(state=disk.state)
    before = record(demo, "echo ear''lier")
    shell = Shell(demo, "postern", "connect", "web-dev")
    shell.line(FLOOD)
    shell.expect("the session ended because it can no longer be recorded")
    assert shell.leave() != 0
    assert_whole(demo, before)

    def told_of_the_full_disk() -> bool:
        disk.fill()
        why = "No space left on device"
        return refused(demo, why) and why in (unready(demo) or "")

    eventually(told_of_the_full_disk, "a session to be refused and the gateway to be unready")
    disk.has_room_again()
    eventually(lambda: demo.readiness()[0] == 200, "the gateway to be ready again")
    assert_whole(demo, record(demo, "echo la''ter"))


def test_a_spool_that_turns_read_only_ends_sessions_and_says_why(demos, disk):
    demo = demos(state=disk.state)
    before = record(demo, "echo ear''lier")
    shell = Shell(demo, "postern", "connect", "web-dev")
    disk.turns_read_only()
    shell.line("echo un''seen")
    shell.expect("the session ended because it can no longer be recorded")
    assert shell.leave() != 0
    assert "Read-only file system" in eventually(lambda: unready(demo), "the gateway to be unready")
    assert_whole(demo, before)
