"""`postern exec`: a command there, as if it ran here."""

import pexpect
import pytest

from support.demo import PATIENCE

ALICE = {"POSTERN_PROFILE": "alice"}


@pytest.fixture
def run(demo):
    def run(*words, **options):
        return demo.run("postern", "exec", "web-dev", "--", *words, env=ALICE, **options)

    return run


def test_output_error_and_exit_code_are_the_command_s(run):
    done = run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_success_says_nothing_else(run):
    done = run("true")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("code", [1, 130, 143, 255])
def test_codes_of_signals_pass_through(run, code):
    assert run("sh", "-c", f"exit {code}").returncode == code


def test_every_word_arrives_as_it_was(run):
    words = ["two words", "", "it's", '"quoted"', "$HOME", "a\\b", "#", "*", "tab\there", "line\nbreak", "Zoë 🚀", "-n"]
    done = run("printf", "<%s>", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"<{word}>" for word in words)


def test_much_output_arrives_whole(run):
    done = run("seq", "300000")
    assert done.returncode == 0
    assert done.stdout == "".join(f"{n}\n" for n in range(1, 300_001))


def test_what_is_piped_in_is_not_read(run):
    done = run("cat", input="not for you\n")
    assert (done.stdout, done.returncode) == ("", 0)


def test_ctrl_c_reaches_the_command(demo):
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    child = pexpect.spawn(
        "postern", ["exec", "web-dev", "--", "sh", "-c", script], env=demo.env | ALICE, timeout=PATIENCE, encoding="utf-8"
    )
    child.expect_exact("ready")
    child.sendintr()
    child.expect_exact("caught")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 9


def test_on_a_terminal_it_has_one(demo):
    child = pexpect.spawn(
        "postern", ["exec", "--tty", "web-dev", "--", "sh", "-c", "read -p 'name? ' n; tty; echo \"hi <$n>\""],
        env=demo.env | ALICE, timeout=PATIENCE, encoding="utf-8",
    )
    child.expect_exact("name? ")
    child.send("Zoë\r")
    child.expect_exact("/dev/pts/")
    child.expect_exact("hi <Zoë>")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_command_that_is_not_there_is_not_a_success(run):
    done = run("no-such-program")
    assert done.returncode == 255
    assert done.stderr.startswith("postern: Unable to start command: ") and not done.stdout


def test_a_denial_is_a_sentence_and_255(demo):
    done = demo.run("postern", "exec", "db-prod", "--", "id", env=ALICE)
    assert done.returncode == 255
    assert done.stderr.startswith("postern: ") and len(done.stderr.splitlines()) == 1
    assert "say why with --reason" in done.stderr


@pytest.mark.parametrize("word", ["tag:env=dev", "WEB-dev"])
def test_machines_are_found_by_tag_and_name(demo, word):
    done = demo.run("postern", "exec", word, "--", "echo", "here", env=ALICE)
    assert (done.stdout, done.returncode) == ("here\n", 0), done.stderr
