"""Every command that the demo prints works as printed, pasted into a shell."""

import os
import stat

import pexpect
import pytest

from support.demo import PATIENCE, plain_environment

# What a line of the tour does: words in it, how it ends, and what it shows.
SESSION, REFUSED, OUTPUT, SERVES = "session", "refused", "output", "serves"
LINES = [
    ("aws ssm start-session --profile alice --target {web-dev}", SESSION, "web-dev$ "),
    ("postern connect --profile alice web-dev", SESSION, "web-dev$ "),
    ("postern exec --profile alice web-dev -- uname -a", OUTPUT, "Linux"),
    ("postern forward --profile alice web-dev 0:", SERVES, "Ctrl-C ends it"),
    ("aws ssm start-session --profile bob --target {db-prod}", REFUSED, "contractors work in dev only"),
    ("--target {db-prod} --reason 'look at the disk'", SESSION, "db-prod$ "),
    ("postern sessions list --history --profile carol", OUTPUT, "alice"),
    ("postern replay --profile carol last", OUTPUT, "db-prod$ "),
    ("postern search --profile carol --commands exit", OUTPUT, "--at "),
    ("postern policy check", OUTPUT, "valid"),
    ("curl -s", OUTPUT, "# HELP postern_"),
    ("postern doctor --profile alice", OUTPUT, "ok "),
]


def commands(demo) -> list[str]:
    """The lines to paste: indented below the heading, comments left out."""
    tour = demo.tour.partition("Paste these")[2].splitlines()
    return [line.strip() for line in tour if line.startswith("  ") and not line.strip().startswith("#")]


def paste(demo, command: str, size=(24, 80)) -> pexpect.spawn:
    """Runs a printed line in a fresh shell with nothing of ours in its environment."""
    env = plain_environment() | {"TERM": "xterm-256color"}
    # Like the shell of a person, it outlives the Ctrl-C that ends what it runs.
    return pexpect.spawn("sh", ["-c", f"trap : INT; {command}"], env=env, encoding="utf-8", timeout=PATIENCE, dimensions=size)


def test_the_tour_is_what_the_tests_know(demo):
    assert len(commands(demo)) == len(LINES)


@pytest.mark.parametrize("number", range(len(LINES)), ids=[line[0].split(" --")[0] for line in LINES])
def test_a_printed_command_works(demo, number):
    words, kind, shown = LINES[number]
    for target in demo.facts["targets"]:
        words = words.replace("{" + target["name"] + "}", target["id"])
    command = commands(demo)[number]
    assert words in command
    child = paste(demo, command)
    child.expect_exact(shown)
    if kind == SESSION:
        child.send("exit\r")
    if kind == SERVES:
        child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == (255 if kind == REFUSED else 0), child.before


def test_its_files_are_private_and_complete(demo):
    for name in ("demo.json", "env.sh", "aws/credentials", "aws/config", "identities.json", "tls/ca.key"):
        assert stat.S_IMODE(os.stat(demo.state / name).st_mode) == 0o600, name
    for key in ("ca_bundle", "aws_config_file", "environment_file", "recordings", "policies"):
        assert os.path.exists(demo.facts[key]), key
    assert {identity["name"] for identity in demo.facts["identities"]} == {"alice", "bob", "carol"}
    for identity in demo.facts["identities"]:
        assert identity["may"] and identity["name"] in demo.tour


def test_its_log_has_no_colours_in_a_file(demo):
    log = demo.log.read_text()
    assert "listening" in log and "\x1b" not in log


def test_each_identity_may_do_what_it_says(demo, open_shell):
    shell = open_shell(profile="bob")
    assert "Contractor access: this session is recorded." in shell.text
    assert shell.exit() == 0
    refused = demo.aws("start-session", "--target", demo.target("web-dev"), profile="carol")
    assert refused.returncode in (254, 255)
    assert "auditors replay sessions, they do not start them" in refused.stderr
    demo.ended(shell.id)
    for who, works in (("bob", True), ("carol", True), ("alice", False)):
        done = demo.run("postern", "replay", shell.id, profile=who)
        assert (done.returncode == 0) is works, (who, done.stderr)
