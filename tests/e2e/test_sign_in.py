"""Other ways to sign in than a signed request to STS."""

import json
import shlex
from pathlib import Path

from test_credentials import process


def test_the_aws_cli_works_with_a_token_of_sts(demo, tmp_path):
    command = [*process(demo), "--web-identity"]
    config = Path(demo.facts["aws_config_file"]).read_text() + (
        f"\n[profile web]\nregion = us-east-1\nservices = web\ncredential_process = {shlex.join(command)}\n"
        f"\n[services web]\nssm =\n  endpoint_url = {demo.facts['endpoint']}\n"
    )
    (tmp_path / "config").write_text(config)
    env = {"POSTERN_CACHE_DIR": str(tmp_path / "cache"), "AWS_CONFIG_FILE": str(tmp_path / "config")}
    done = demo.run(*command, env=env)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads(done.stdout)["AccountId"] == "000000000000"
    listed = demo.run(
        "aws", "ssm", "describe-instance-information", "--profile", "web", "--output", "json", env=env
    )
    assert listed.returncode == 0, listed.stderr
    names = [machine["ComputerName"] for machine in json.loads(listed.stdout)["InstanceInformationList"]]
    assert "web-dev" in names


def test_without_a_provider_login_says_what_to_do(demo, tmp_path):
    env = {"POSTERN_CACHE_DIR": str(tmp_path / "cache")}
    done = demo.run("postern", "login", "--profile", "alice", env=env)
    assert done.returncode != 0
    assert "no identity provider" in done.stderr


def test_who_does_not_administer_sees_no_shadow_sessions(demo):
    done = demo.run("postern", "sessions", "shadow", "--profile", "alice")
    assert done.returncode != 0 and "AccessDeniedException" in done.stderr, done.stdout
