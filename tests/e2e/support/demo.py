"""A running `postern demo`, used as people and scripts use it: through its files."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

# Seconds until something counts as stuck; a busy machine with debug builds is slow.
PATIENCE = 60
# The last words of the tour: everything that is written is there by then.
TOUR_END = "Ctrl-C stops it"


def binary() -> Path:
    """The `postern` under test."""
    given = os.environ.get("POSTERN_BIN") or os.environ.get("POSTERN")
    if given:
        return Path(given).resolve()
    target = os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parents[3] / "target"
    return Path(target).resolve() / "debug" / "postern"


def plain_environment() -> dict:
    """This environment without anybody's AWS settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "POSTERN_", "SSL_CERT_"))}
    return kept | {"LC_ALL": "C.UTF-8"}


def eventually(question, what: str, patience: float = PATIENCE):
    """Asks until the answer is truthy and gives that; fails by naming what was waited for."""
    end = time.monotonic() + patience
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"after {patience} s still waiting for {what}")
        time.sleep(0.05)


class Demo:
    """One demo process and everything that its `demo.json` says."""

    def __init__(self, state: Path, wait: bool = True, arguments=(), environment=None):
        self.state = state
        self.log = state.parent / f"{state.name}.log"
        command = [binary(), "demo", "--state", state, "--listen", "127.0.0.1:0", *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=plain_environment() | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                # A background job of a script has it ignored, and every shell of the demo would, too.
                preexec_fn=lambda: signal.signal(signal.SIGQUIT, signal.SIG_DFL),
            )
        if wait:
            self.tour = self._read_tour()
            self.facts = json.loads((state / "demo.json").read_text())
            self.env = self._environment()
            eventually(self.is_ready, "the demo to be ready")

    def _read_tour(self) -> str:
        """What it prints until the tour is complete; its end of file is a failed start."""
        text, pipe, end = b"", self.process.stdout.fileno(), time.monotonic() + PATIENCE
        while TOUR_END.encode() not in text or not text.endswith(b"\n"):
            readable, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(pipe, 65536) if readable else b""
            if not piece:
                self.kill()
                raise AssertionError(f"the demo did not start:\n{text.decode()}\n{self.log.read_text()}")
            text += piece
        return text.decode()

    def _environment(self) -> dict:
        """What a shell has after `. env.sh`, with the demo's own answers unpaged."""
        script = '. "$0" && env -0'
        out = subprocess.run(
            ["sh", "-c", script, self.facts["environment_file"]],
            env=plain_environment(),
            capture_output=True,
            check=True,
        ).stdout
        pairs = (pair.split("=", 1) for pair in out.decode().split("\0") if pair)
        return {name: value for name, value in pairs} | {"AWS_PAGER": "", "TERM": "xterm-256color"}

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.facts["ready_url"], timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def readiness(self) -> tuple[int, str]:
        """What `/readyz` answers: its status and its words."""
        try:
            with urllib.request.urlopen(self.facts["ready_url"], timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()

    def target(self, name: str) -> str:
        return next(target["id"] for target in self.facts["targets"] if target["name"] == name)

    @property
    def recordings(self) -> list[Path]:
        """Every recording of a session that has ended."""
        paths = sorted(Path(self.facts["recordings"]).glob("*.cast.zst"))
        rows = self.postern_json("sessions", "list", "--json", profile="carol")
        running = {f"{row['id']}.cast.zst" for row in rows}
        return [path for path in paths if path.name not in running]

    def run(self, *command, profile: str | None = None, timeout: float = PATIENCE, **options):
        """Runs a command as a user of the demo; its output is text."""
        env = self.env | options.pop("env", {})
        if profile:
            command = (*command, "--profile", profile)
        options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
        if "input" in options:
            del options["stdin"]
        options.setdefault("capture_output", True)
        return subprocess.run(
            [str(word) for word in command],
            env=env,
            timeout=timeout,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            **options,
        )

    def aws(self, operation: str, *words, profile: str = "alice", **options):
        """`aws ssm OPERATION`, whatever it exits with."""
        return self.run("aws", "ssm", operation, *words, profile=profile, **options)

    def aws_json(self, operation: str, *words, profile: str = "alice"):
        """`aws ssm OPERATION` that must work, its answer parsed."""
        done = self.aws(operation, *words, profile=profile)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def postern_json(self, *words, profile: str = "alice"):
        """`postern …` that must work and prints JSON."""
        done = self.run("postern", *words, profile=profile)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ended(self, session: str) -> dict:
        """The session's record, once it has ended."""

        def row():
            rows = self.postern_json("sessions", "list", "--history", "--json", profile="carol")
            return next((row for row in rows if row["id"] == session), None)

        return eventually(row, f"the end of {session}")

    def recorded(self, session: str) -> Path:
        """The recording of a session that has ended; also of a stopped demo."""
        path = Path(self.facts["recordings"]) / f"{session}.cast.zst"
        assert path.is_file(), path
        return path

    def stop(self) -> int:
        """Ctrl-C, as in a terminal; the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.stdout.close()

    def kill(self):
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def session_of(text: str) -> str:
    """The session's id, out of what a client printed."""
    return re.search(r"SessionId: (\S+)", text).group(1)


def program(name: str) -> str | None:
    """A program on this machine's PATH."""
    return shutil.which(name)
