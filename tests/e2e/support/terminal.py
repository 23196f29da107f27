"""A person at a terminal: types, looks, resizes the window."""

import re

import pexpect

from .demo import PATIENCE, Demo, session_of

# Colours, cursor movements, modes, titles: what a terminal acts on and does not show.
CONTROLS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[ -~])")

# Characters at the end of what has come that a text is looked for in.
LOOKED_THROUGH = 8192


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, demo: Demo, *command, size: tuple[int, int] = (24, 80), profile: str = "alice"):
        words = [str(word) for word in command]
        self.child = pexpect.spawn(
            words[0],
            [*words[1:], "--profile", profile],
            env=demo.env,
            dimensions=size,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        # Keys go out at once; nobody here needs a pause to see what they type.
        self.child.delaybeforesend = None
        self.seen = ""

    def expect(self, text: str) -> str:
        """Waits until this very text appears; gives what came before it."""
        return self.matches(re.escape(text)).before

    def matches(self, pattern: str):
        """Waits until a pattern appears; gives the pexpect child."""
        try:
            # Looking through a whole flood again for each piece of it would be slower than the flood.
            self.child.expect(pattern, searchwindowsize=LOOKED_THROUGH)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            kind = type(error).__name__
            raise AssertionError(f"{kind}, no {pattern!r} at the end of {self.child.before[-LOOKED_THROUGH:]!r}") from None
        self.seen += self.child.before + self.child.after
        return self.child

    def type(self, keys: str):
        self.child.send(keys)

    def line(self, text: str):
        """Types a line and Enter."""
        self.child.send(text + "\r")

    def resize(self, rows: int, cols: int):
        """The person pulls at the window's corner: SIGWINCH."""
        self.child.setwinsize(rows, cols)

    def leave(self) -> int:
        """Waits for the command's own end; its exit code."""
        self.child.expect(pexpect.EOF)
        self.seen += self.child.before
        self.child.close()
        assert self.child.signalstatus is None, f"ended by signal {self.child.signalstatus}"
        return self.child.exitstatus

    def close(self):
        self.child.close(force=True)

    @property
    def text(self) -> str:
        """Everything seen, without what a terminal only acts on."""
        return CONTROLS.sub("", self.seen)


class Shell(Terminal):
    """A terminal with an open session whose prompt was seen."""

    def __init__(self, demo: Demo, *command, prompt: str = "web-dev$ ", **options):
        super().__init__(demo, *command, **options)
        self.prompt = prompt
        self.matches(r"SessionId: \S+")
        self.id = session_of(self.seen)
        self.expect(prompt)

    def ask(self, command: str) -> str:
        """Runs a command in the shell; gives what it printed."""
        # The shell's echo of the line shows the quotes, its output does not.
        self.line(f"echo 'be''gin'; {command}; echo 'en''d'")
        self.matches("begin\r\n")
        self.matches("end\r\n")
        before = self.child.before
        self.expect(self.prompt)
        return CONTROLS.sub("", before).replace("\r\n", "\n")

    def exit(self) -> int:
        self.line("exit")
        return self.leave()
