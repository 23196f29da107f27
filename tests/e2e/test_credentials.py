"""`credentials`, `configure` and `doctor`: from nothing to a working `aws`."""

import configparser
import json
import shlex
import stat
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest


def process(demo, profile="alice") -> list[str]:
    """The credential_process that the demo wrote."""
    config = configparser.ConfigParser()
    config.read(demo.facts["aws_config_file"])
    return shlex.split(config[f"profile {profile}"]["credential_process"])


@pytest.fixture
def cache(tmp_path):
    return {"POSTERN_CACHE_DIR": str(tmp_path / "cache")}


def test_prints_what_a_credential_process_prints_and_nothing_else(demo, cache):
    done = demo.run(*process(demo), env=cache)
    assert done.returncode == 0 and done.stderr == ""
    keys = json.loads(done.stdout)
    assert keys["Version"] == 1
    assert not keys["AccessKeyId"].startswith(("AKIA", "ASIA"))
    assert keys["SecretAccessKey"] and keys["SessionToken"]
    left = datetime.fromisoformat(keys["Expiration"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
    assert 50 * 60 < left.total_seconds() <= 60 * 60 + 1


def test_warm_keys_are_the_same_and_fast(demo, cache):
    cold = demo.run(*process(demo), env=cache)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        warm = demo.run(*process(demo), env=cache)
        times.append((time.perf_counter() - began) * 1000)
        assert warm.stdout == cold.stdout and warm.stderr == ""
    print(f"warm credentials: {min(times):.1f} ms at best, {sorted(times)[5]:.1f} ms in the middle")
    # Generous: a busy machine and a debug build. A sign-in takes longer.
    assert min(times) < 500


def test_the_cache_is_for_its_owner_only(demo, cache):
    demo.run(*process(demo), env=cache)
    folder = Path(cache["POSTERN_CACHE_DIR"])
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_fresh_keys_are_new_keys(demo, cache):
    first = json.loads(demo.run(*process(demo), env=cache).stdout)
    again = json.loads(demo.run(*process(demo), "--fresh", env=cache).stdout)
    assert first["SessionToken"] != again["SessionToken"]


def test_a_damaged_cache_only_costs_a_sign_in(demo, cache):
    demo.run(*process(demo), env=cache)
    for path in Path(cache["POSTERN_CACHE_DIR"]).rglob("*"):
        if path.is_file():
            path.write_text("{")
    done = demo.run(*process(demo), env=cache)
    assert done.returncode == 0 and json.loads(done.stdout)["Version"] == 1


def test_an_unreachable_gateway_is_a_sentence(demo, cache):
    words = process(demo)
    words[words.index("--gateway") + 1] = "https://127.0.0.1:1"
    done = demo.run(*words, env=cache)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.startswith("postern: ") and len(done.stderr.splitlines()) == 1


def test_unknown_keys_are_refused_in_a_sentence(demo, cache, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.write_text("[alice-iam]\naws_access_key_id = AKIAAAAAAAAAAAAAAAAA\naws_secret_access_key = no\n")
    env = cache | {"AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    done = demo.run(*process(demo), env=env)
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    # The AWS CLI shows the sentence to the person.
    listed = demo.aws("describe-instance-information", env=env)
    assert listed.returncode != 0 and "postern: " in listed.stderr, listed.stderr


@pytest.mark.parametrize("config", ["", "[profile me]\nregion = us-east-1\n", None])
@pytest.mark.parametrize("keys", [None, "[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = hidden\n"])
def test_without_keys_one_line_names_the_files(demo, cache, tmp_path, config, keys):
    """The shared file is not there or has no such profile; the profile is in the other file or nowhere."""
    files = {"AWS_CONFIG_FILE": (tmp_path / "config", config), "AWS_SHARED_CREDENTIALS_FILE": (tmp_path / "keys", keys)}
    for path, text in files.values():
        if text is not None:
            path.write_text(text)
    words = process(demo)
    words[words.index("--source-profile") + 1] = "me"
    done = demo.run(*words, env=cache | {name: str(path) for name, (path, _) in files.items()})
    assert (done.returncode, done.stdout) == (255, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("postern: no AWS credentials to sign in with: ") and "hidden" not in line
    assert ("there is no AWS profile me: " if not config else "profile me has none and no way to get any: ") in line
    for path, text in files.values():
        assert (f"{path} (which does not exist)" if text is None else f"{path}") in line
        assert text is None or f"{path} (which" not in line


def test_a_configuration_that_cannot_be_read_is_named(demo, cache, tmp_path):
    (tmp_path / "config").write_text("[profile me\nregion")
    done = demo.run(*process(demo), env=cache | {"AWS_CONFIG_FILE": str(tmp_path / "config")})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (255, "", 1)
    assert done.stderr.startswith("postern: the AWS configuration cannot be read: ") and str(tmp_path) in done.stderr


@pytest.fixture
def configured(demo, cache, tmp_path):
    """A fresh configuration file that `postern configure` has written to."""
    path = tmp_path / "aws" / "config"
    path.parent.mkdir()
    source = "# mine\n[profile me]\nregion = us-east-1\n"
    path.write_text(source)
    keys = Path(demo.facts["aws_shared_credentials_file"]).read_text().replace("[alice-iam]", "[me]")
    (tmp_path / "credentials").write_text(keys)
    env = cache | {
        "AWS_CONFIG_FILE": str(path),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CA_BUNDLE": "",
        "SSL_CERT_FILE": "",
    }
    words = ["--gateway", demo.facts["endpoint"], "--source-profile", "me", "--region", "us-east-1"]

    def configure(*more):
        bundle = ("--ca-bundle", demo.facts["ca_certificate"])
        return demo.run("postern", "configure", *words, *bundle, *more, profile="gw", env=env)

    return configure, path, env


def test_configure_then_everything_works(demo, configured):
    configure, path, env = configured
    done = configure()
    assert done.returncode == 0, done.stderr
    assert path.read_text().startswith("# mine\n[profile me]\nregion = us-east-1\n")
    listed = demo.aws("describe-instance-information", profile="gw", env=env)
    assert listed.returncode == 0, listed.stderr
    session = demo.run("postern", "connect", "web-dev", profile="gw", env=env, input="exit\n")
    assert session.returncode == 0, session.stderr
    session = demo.aws("start-session", "--target", demo.target("web-dev"), profile="gw", env=env, input="exit\n")
    assert session.returncode == 0, session.stderr
    before = path.read_text()
    again = configure()
    assert again.returncode == 0 and "nothing to change" in again.stdout
    assert path.read_text() == before


def test_configure_makes_the_file_if_there_is_none(demo, configured):
    configure, path, _ = configured
    path.unlink()
    path.parent.rmdir()
    assert configure().returncode == 0
    assert "[profile gw]" in path.read_text()


def checks(demo, *words, profile="alice", env=None) -> tuple[int, dict]:
    done = demo.run("postern", "doctor", "--json", *words, profile=profile, env=env or {})
    assert done.stderr == ""
    return done.returncode, {check["check"]: check for check in json.loads(done.stdout)}


def test_doctor_finds_nothing_wrong(demo):
    code, found = checks(demo, "--target", demo.target("web-dev"))
    assert code == 0
    assert {name: check["verdict"] for name, check in found.items()} == dict.fromkeys(
        ["profile", "TLS (cli)", "TLS (plugin)", "clock", "plugin", "aws", "sign-in", "session"], "ok"
    )


def test_doctor_tells_what_policy_would_say(demo):
    code, found = checks(demo, "--target", demo.target("db-prod"), profile="bob")
    assert code == 1
    assert "contractors-no-prod" in found["session"]["found"] and found["session"]["advice"]


def test_doctor_finds_a_ca_that_is_not_the_gateway_s(demo, cache, tmp_path):
    other = tmp_path / "other.pem"
    pem = Path("/etc/ssl/certs/ca-certificates.crt").read_text().partition("-----END CERTIFICATE-----")
    other.write_text(pem[0] + pem[1] + "\n")
    env = cache | {"AWS_CA_BUNDLE": str(other), "SSL_CERT_FILE": str(other)}
    code, found = checks(demo, env=env)
    assert code == 1
    assert found["TLS (cli)"]["verdict"] == "fail" and "--ca-bundle" in found["TLS (cli)"]["advice"]
    assert found["TLS (plugin)"]["verdict"] == "fail"


def test_doctor_finds_a_ca_bundle_that_is_none(demo, cache, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    code, found = checks(demo, env=cache | {"AWS_CA_BUNDLE": str(empty), "SSL_CERT_FILE": str(empty)})
    assert code == 1
    assert found["TLS (cli)"]["verdict"] == "fail" and str(empty) in found["TLS (cli)"]["found"]


def test_doctor_without_a_profile_says_how_to_write_one(demo):
    code, found = checks(demo, profile="nobody")
    assert code == 1
    assert "postern configure" in found["profile"]["advice"]
