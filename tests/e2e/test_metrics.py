"""What a scraper sees: valid metrics that move when something happens."""

import subprocess
import urllib.error
import urllib.request

import pytest

from support.demo import eventually, program


def scrape(demo) -> str:
    with urllib.request.urlopen(demo.facts["metrics_url"], timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.read().decode()


def total(demo, name: str, *labels: str) -> float:
    """The sum over the series of a metric that have these labels."""
    lines = (line.rpartition(" ") for line in scrape(demo).splitlines() if not line.startswith("#"))
    series = ((left, value) for left, _, value in lines if left.partition("{")[0] == name)
    return sum(float(value) for left, value in series if all(label in left for label in labels))


@pytest.mark.skipif(not program("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about(demo):
    done = subprocess.run(["promtool", "check", "metrics"], input=scrape(demo), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_sessions_and_bytes_are_counted(demo, open_shell):
    bytes_before = total(demo, "postern_relay_bytes_total")
    running = total(demo, "postern_sessions")
    shell = open_shell()
    assert total(demo, "postern_sessions") == running + 1
    shell.ask("seq 1000")
    assert shell.exit() == 0
    demo.ended(shell.id)
    eventually(lambda: total(demo, "postern_sessions") == running, "the session to be gone from the gauge")
    assert total(demo, "postern_relay_bytes_total") > bytes_before + 3000


def test_a_denial_is_counted(demo):
    before = total(demo, "postern_decisions_total", 'result="deny"')
    demo.aws("start-session", "--target", demo.target("db-prod"), profile="bob")
    assert total(demo, "postern_decisions_total", 'result="deny"') == before + 1


def test_says_what_was_built_and_nothing_secret(demo):
    text = scrape(demo)
    assert "postern_build_info{" in text
    for word in ("alice", "SecretAccess", "session_token", demo.target("web-dev")):
        assert word not in text


def test_health_is_told(demo):
    base = demo.facts["metrics_url"].removesuffix("/metrics")
    for path in ("/healthz", "/readyz"):
        with urllib.request.urlopen(base + path, timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(base + "/nothing", timeout=10)
    assert missing.value.code == 404
