"""Whether what the tests left in their spools is what every zstd and every asciinema reads."""

import json
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .demo import PATIENCE, binary, plain_environment

# Folders with recordings, by the folder in which the key that signs them is.
spools: dict[Path, Path] = {}


def note(spool: Path, state: Path):
    """A spool to look at when all tests are over."""
    spools[spool] = state


def sealed(spool: Path, state: Path) -> list[Path]:
    """Its sealed recordings, by their signature; fails if one of the folder is damaged."""
    files = sorted(spool.glob("*.cast.zst"))
    keys = [word for key in sorted(state.rglob("recording.key.pub")) for word in ("--key", str(key))]
    if not files or not keys:
        return []
    command = [str(binary()), "verify", "--json", *keys, *map(str, files)]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=10 * PATIENCE)
    findings = json.loads(done.stdout)
    assert not [found for found in findings if found["result"] == "damaged"], findings
    return [Path(found["file"]) for found in findings if found["result"] == "sealed"]


def refused_by(path: Path) -> str | None:
    """Which reader refuses a recording and what it says."""
    env = plain_environment() | {"ASCIINEMA_CONFIG_HOME": str(path.parent)}
    for test in ("zstd -q -t FILE", "set -o pipefail; zstdcat FILE | asciinema cat - >/dev/null"):
        command = ["bash", "-c", test.replace("FILE", '"$0"'), str(path)]
        # asciinema makes the terminal raw that it is in, so it is in a new one.
        command = ["script", "-qec", shlex.join(command), "/dev/null"]
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        if done.returncode != 0:
            return f"{path}: {test}: {done.returncode} {done.stdout}{done.stderr}"
    return None


def check() -> int:
    """Looks at every sealed recording; how many there were."""
    files = [file for spool, state in spools.items() for file in sealed(spool, state)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        refused = [why for why in pool.map(refused_by, files) if why]
    assert not refused, "\n".join(refused)
    return len(files)
