"""What policy says: explained, listed, recorded, followed and tried out beforehand."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.demo import binary, plain_environment
from support.terminal import Shell

POLICIES = Path(__file__).parents[2] / "policies"
COMPANY = POLICIES / "tests/entities/company.json"


def policy(*words):
    command = [str(binary()), "policy", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=plain_environment(), timeout=60)


def explained(*words) -> dict:
    done = policy("explain", POLICIES, "--entities", COMPANY, "--json", *words)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_a_denial_is_explained_with_lines_and_the_smallest_change():
    asked = ["--principal", "omar", "--action", "startShell", "--resource", "web-prod", "--source-ip", "198.51.100.7"]
    denied = explained(*asked)
    assert not denied["allowed"] and denied["needs_reason"]
    assert denied["changes"][0] == [{"change": "reason", "text": ""}]
    (by,) = [found for found in denied["decided_by"] if found["id"] == "oncall-in-prod"]
    source = (POLICIES / by["file"]).read_text().splitlines()
    assert source[by["line"] - 1] == '@id("oncall-in-prod")'
    assert explained(*asked, "--reason", "OPS-17")["allowed"]
    text = policy("explain", POLICIES, "--entities", COMPANY, *asked)
    assert text.returncode == 1 and "the smallest change that would allow it\n  - give a reason" in text.stdout


def test_an_arn_and_a_tag_need_no_file_of_entities():
    arn = "arn:aws:sts::111122223333:assumed-role/Developer/new-hire"
    asked = ["--principal", arn, "--action", "startShell", "--resource", "i-0123456789abcdef0"]
    done = policy("explain", POLICIES, *asked, "--tag", "env=dev")
    assert done.returncode == 0 and "permitted by developers-in-dev" in done.stdout, done.stdout + done.stderr
    assert policy("explain", POLICIES, *asked, "--tag", "env=staging").returncode == 1


def test_a_case_of_the_folder_is_a_request(tmp_path):
    case = json.loads((POLICIES / "tests/prod-oncall.json").read_text())[0]
    case["entities"] = json.loads(COMPANY.read_text())
    file = tmp_path / "case.json"
    file.write_text(json.dumps(case))
    done = policy("explain", POLICIES, "--request", file, "--json")
    assert json.loads(done.stdout)["allowed"] == (case["decision"] == "allow"), done.stderr


def test_who_reaches_what_is_listed():
    done = policy("list", POLICIES, "--entities", COMPANY, "--principal", "ada", "--json")
    rows = json.loads(done.stdout)
    dev = [row for row in rows if "000d" in row["resource"] and row["action"] == "startShell"]
    assert dev and dev[0]["with"] == [] and "developers-in-dev" in dev[0]["policies"]
    assert not [row for row in rows if "000b" in row["resource"]], "ada is not on call"
    done = policy("who", POLICIES, "--entities", COMPANY, "--target", "web-prod", "--json")
    shells = {row["principal"]: row for row in json.loads(done.stdout) if row["action"] == "startShell"}
    omar = shells['Postern::User::"AROAONCALL:omar"']
    assert {change["change"] for change in omar["with"]} == {"reason", "network"}
    # Without a file: everybody whom groups.toml names.
    done = policy("who", POLICIES, "--target", "i-0123456789abcdef0", "--tag", "env=dev", "--account", "111122223333")
    assert "arn:aws:sts::111122223333:assumed-role/Developer/*" in done.stdout


def test_odd_policies_are_told_and_layout_is_checked(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    file = folder / "a.cedar"
    file.write_text('@id("a")permit(principal,action,resource);')
    assert policy("check", folder).returncode == 0
    done = policy("check", folder, "--deny-warnings")
    assert done.returncode == 1 and "a.cedar:1:1: over_broad" in done.stdout
    assert policy("fmt", folder, "--check").returncode == 1
    assert policy("fmt", folder).returncode == 0
    assert policy("fmt", folder, "--check").returncode == 0
    assert "permit (principal, action, resource);" in file.read_text()
    for words in (["check", POLICIES / "demo", "--deny-warnings"], ["test", POLICIES / "demo"], ["fmt", POLICIES, "--check"]):
        assert policy(*words).returncode == 0, words


@pytest.fixture(scope="module")
def denial(demo):
    """The decision that refused bob."""
    done = demo.run("aws", "ssm", "start-session", "--target", demo.target("db-prod"), profile="bob")
    assert "(decision " in done.stderr, done.stderr
    return done.stderr.partition("(decision ")[2].partition(")")[0]


def test_a_recorded_decision_is_shown_and_explained(demo, denial):
    shown = demo.run("postern", "decisions", "show", denial, "--json", profile="bob")
    record = json.loads(shown.stdout)
    assert record["id"] == denial and not record["allowed"]
    listed = demo.run("postern", "decisions", "list", "--result", "deny", "--json", profile="carol")
    assert denial in [row["id"] for row in json.loads(listed.stdout)]
    hers = demo.run("postern", "decisions", "list", "--json", profile="alice").stdout
    assert denial not in [row["id"] for row in json.loads(hers)], "she may not read others'"
    folder = demo.state / "policies"
    done = demo.run("postern", "policy", "explain", folder, "--decision", denial, profile="carol")
    assert done.returncode == 1 and "forbidden by contractors-no-prod" in done.stdout, done.stderr


def test_any_id_leads_to_the_whole_chain(demo):
    shell = Shell(demo, "postern", "connect", "web-dev")
    assert shell.exit() == 0
    session = demo.ended(shell.id)
    for id in (shell.id, session["decision_id"], session["upstream_id"], session["recording_sha256"]):
        done = demo.run("postern", "audit", id, profile="carol")
        assert done.returncode == 0, done.stderr
        for link in ("alice", session["decision_id"], shell.id, session["upstream_id"], session["recording_sha256"]):
            assert link in done.stdout, (id, done.stdout)


def test_a_proposed_set_is_tried_on_what_was_decided(demo, denial, tmp_path):
    exported = demo.run("postern", "decisions", "export", profile="carol").stdout
    export = tmp_path / "decisions.jsonl"
    export.write_text(exported)
    same = demo.run("postern", "policy", "backtest", "--against", demo.state / "policies", "--from", export, "--json")
    assert same.returncode == 0, same.stdout + same.stderr
    proposed = tmp_path / "new"
    shutil.copytree(demo.state / "policies", proposed)
    (proposed / "moved.cedar").write_text(
        '@id("dev-moves") forbid (principal, action == Postern::Action::"startShell", resource);\n'
    )
    done = demo.run("postern", "policy", "backtest", "--against", proposed, "--json", profile="carol")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["denied"] and all("dev-moves" in change["would_be"] for change in report["denied"])
    assert {change["session"] for change in report["denied"] if change["session"]}
