"""README's five-minute tour, taken out of README itself and pasted into a terminal."""

import re
from pathlib import Path

import pexpect
import pytest

from support.demo import PATIENCE, plain_environment

README = Path(__file__).parents[2] / "README.md"
# What may be seen on the way: a shell's prompt, a server that waits, an SSH server that asks, none, or the end.
PROMPT, SERVES, SSH_ASKS, NO_SSH, END = range(5)
SIGHTS = [r"(?:web-dev|db-prod)\$ $", "Ctrl-C ends it", r"\(yes/no|[Pp]assword:", "Unable to connect to specified port", pexpect.EOF]
# What README's comments say of lines that do not simply work.
REFUSED, SSH = "refused", "SSH if it has an SSH server"


def tour() -> list[tuple[str, str]]:
    """Every command of the tour with the comment above it, in README's order."""
    section = README.read_text().partition("## The five-minute tour\n")[2].partition("\n## ")[0]
    lines, comment = [], ""
    for block in re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        for line in filter(None, block.splitlines()):
            if line.startswith("#"):
                comment = line
            else:
                lines.append((comment, line))
    return lines


def paste(lines: str, home: Path, folder: Path) -> tuple[int, set[int], str]:
    """Does what a person would, whatever comes: leaves a shell, ends a server. The exit code, what came, the screen."""
    env = plain_environment() | {"TERM": "xterm-256color", "HOME": str(home)}
    env.pop("XDG_STATE_HOME", None)
    script = f"trap : INT; {lines}"
    child = pexpect.spawn("sh", ["-c", script], env=env, cwd=str(folder), encoding="utf-8", timeout=PATIENCE, dimensions=(50, 200))
    came, screen = set(), ""
    try:
        while True:
            sight = child.expect(SIGHTS)
            screen += child.before + (child.after if sight != END else "")
            if sight == END:
                break
            if sight == PROMPT and PROMPT not in came:
                child.send("exit\r")
            elif sight in (SERVES, SSH_ASKS):
                child.sendintr()
            came.add(sight)
    except pexpect.TIMEOUT:
        raise AssertionError(f"nothing more came of {lines!r} after {screen + child.before!r}") from None
    finally:
        child.close(force=True)
    return child.exitstatus, came, screen


@pytest.fixture
def home(demos, tmp_path):
    """A person's home, with the demo where `make demo` puts it."""
    state = tmp_path / "home/.local/state/postern-demo"
    state.parent.mkdir(parents=True)
    demos(state)
    return tmp_path / "home"


def test_every_command_of_the_tour_in_readme_works(home, tmp_path):
    (_, source), *lines = tour()
    assert source.startswith(". ") and lines
    comments = " ".join(comment for comment, _ in lines)
    assert REFUSED in comments and SSH in comments
    refused, shells = set(), 0
    for comment, line in lines:
        code, came, screen = paste(f"{source}\n{line}", home, tmp_path)
        told = f"{line}\n{screen}"
        shells += PROMPT in came
        # Below such a comment the first line is refused, the next one is allowed.
        if REFUSED in comment and comment not in refused:
            refused.add(comment)
            assert code != 0 and "denied by policy" in screen, told
        elif line.startswith("postern ssh"):
            assert came & {SSH_ASKS, NO_SSH} or code == 0, told
        else:
            assert code == 0, told
    assert shells >= 2
    exported = {path.name for path in tmp_path.glob("session.*")}
    assert exported == set(re.findall(r"--output (\S+)", " ".join(line for _, line in lines)))
    assert "db-prod$ " in (tmp_path / "session.txt").read_text()


def test_what_readme_says_of_profiles_is_enough():
    """Beside the tour, too, whatever asks the gateway says as whom."""
    asking = re.compile(r"`(postern (?:replay|verify|search|connect|exec|audit|decisions|console)\b[^`]* [^`]*)`")
    for command in asking.findall(README.read_text()):
        has_keys = "--key " in command and ("--archive " in command or "--cloudwatch " in command)
        assert "--profile " in command or has_keys, command


def test_a_user_without_a_name_is_refused_with_a_sentence(demo):
    done = demo.run("postern", "ssh", "@web-dev", profile="alice")
    assert (done.returncode, done.stdout) == (255, ""), done
    assert "no user stands before the @" in done.stderr and "usage" not in done.stderr
