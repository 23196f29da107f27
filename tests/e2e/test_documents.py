"""Session documents: commands with parameters, and what is refused."""

import json

import pytest

from support.terminal import Terminal

INTERACTIVE = "AWS-StartInteractiveCommand"
NON_INTERACTIVE = "AWS-StartNonInteractiveCommand"


def parameters(command: str) -> str:


    return json.dumps({"command": [command]})


@pytest.fixture(params=["aws", "connect"])
def run(demo, request):
    """Runs a document's command on web-dev, at a terminal; gives code and text."""

    def run(document: str, command: str):
        words = {
            "aws": ("aws", "ssm", "start-session", "--target", demo.target("web-dev")),
            "connect": ("postern", "connect", "web-dev"),
        }[request.param]
        options = ("--document-name", document, "--parameters", parameters(command))
        terminal = Terminal(demo, *words, *options)
        return terminal.leave(), terminal.text.replace("\r\n", "\n")

    return run


def test_an_interactive_command_has_a_terminal_and_a_shell(run):
    code, text = run(INTERACTIVE, "tty && echo $((40 + 2)) && stty size")
    assert code == 0
    assert "/dev/pts/" in text and "\n42\n" in text and "24 80" in text


def test_a_non_interactive_command_is_run_without_a_shell(run):
    code, text = run(NON_INTERACTIVE, "echo 'two words' $HOME")
    assert code == 0
    assert "two words $HOME\n" in text


def test_an_interactive_command_takes_keys(demo):
    options = ("--document-name", INTERACTIVE, "--parameters", parameters("read -p 'name? ' n; echo \"hi <$n>\""))
    terminal = Terminal(demo, "postern", "connect", "web-dev", *options)
    terminal.expect("name? ")
    terminal.line("Zoë")
    terminal.expect("hi <Zoë>")
    assert terminal.leave() == 0


def test_an_unknown_document_is_refused(demo):
    done = demo.aws("start-session", "--target", demo.target("web-dev"), "--document-name", "No-Such-Document")
    assert done.returncode in (254, 255)
    assert "(InvalidDocument)" in done.stderr and "No-Such-Document" in done.stderr


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("AWS-StartPortForwardingSession", "portNumber=80,localPortNumber=18080"),
        ("AWS-StartPortForwardingSessionToRemoteHost", "host=localhost,portNumber=80,localPortNumber=18080"),
        ("AWS-StartSSHSession", "portNumber=22"),
    ],
)
def test_connect_names_the_command_for_a_port(demo, document, words):
    options = ("--document-name", document, "--parameters", words)
    done = demo.run("postern", "connect", "web-dev", *options, profile="alice")
    assert done.returncode == 255
    assert done.stderr == "postern: this document opens a port: use `postern forward` or `postern ssh`\n"


def test_a_missing_parameter_is_named(demo):
    options = ("--document-name", INTERACTIVE)
    done = demo.aws("start-session", "--target", demo.target("web-dev"), *options)
    assert done.returncode in (254, 255)
    assert "command" in done.stderr
