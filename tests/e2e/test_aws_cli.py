"""The unmodified AWS CLI: each operation, each refusal, in AWS's words and ours."""

import json
import signal

import pytest

from support.demo import session_of

# What the CLI exits with when the service refused.
REFUSED = (254, 255)


def assert_refused(done, code: str, operation: str, sentence: str):
    assert done.returncode in REFUSED, done.stdout
    assert f"An error occurred ({code}) when calling the {operation} operation: " in done.stderr
    assert sentence in done.stderr
    # One line, so that it reads well in any terminal.
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("profile", "target", "sentence"),
    [
        ("bob", "db-prod", 'denied by policy "contractors-no-prod": contractors work in dev only'),
        ("alice", "db-prod", 'say why with --reason "..." (production wants to know why)'),
        ("carol", "web-dev", "auditors replay sessions, they do not start them"),
    ],
)
def test_a_denial_names_policy_and_reason(demo, profile, target, sentence):
    done = demo.aws("start-session", "--target", demo.target(target), profile=profile)
    assert_refused(done, "AccessDeniedException", "StartSession", sentence)


def test_an_unknown_target_is_not_connected(demo):
    for operation, name in (("start-session", "StartSession"), ("get-connection-status", None)):
        done = demo.aws(operation, "--target", "mi-0d0e00000000000ff")
        if name:
            assert_refused(done, "TargetNotConnected", name, "mi-0d0e00000000000ff")
        else:
            assert json.loads(done.stdout)["Status"] == "notconnected"


def test_lists_the_instances_that_one_may_see(demo):
    def ids(*words, profile):
        answer = demo.aws_json("describe-instance-information", *words, profile=profile)
        return [instance["InstanceId"] for instance in answer["InstanceInformationList"]]

    dev, prod = demo.target("web-dev"), demo.target("db-prod")
    assert ids(profile="alice") == [dev, prod]
    assert ids(profile="bob") == [dev]
    assert ids("--filters", "Key=tag:env,Values=prod", profile="alice") == [prod]
    assert ids("--filters", f"Key=InstanceIds,Values={dev}", profile="alice") == [dev]
    assert ids("--filters", "Key=PingStatus,Values=ConnectionLost", profile="alice") == []
    assert ids("--filters", f"Key=SourceIds,Values={dev}", profile="alice") == [dev]
    assert ids("--filters", "Key=IamRole,Values=nobody", profile="alice") == []
    assert ids("--max-items", "1", profile="alice") == [dev]


def test_the_older_filters_and_a_wrong_value_are_answered_as_by_aws(demo):
    dev, words = demo.target("web-dev"), ("describe-instance-information", "--instance-information-filter-list")
    answer = demo.aws_json(*words, f"key=InstanceIds,valueSet={dev}")
    assert [row["InstanceId"] for row in answer["InstanceInformationList"]] == [dev]
    row = answer["InstanceInformationList"][0]
    assert (row["SourceType"], row["SourceId"], row["IPAddress"]) == ("AWS::SSM::ManagedInstance", dev, "127.0.0.1")
    assert row["LastPingDateTime"] and row["IsLatestVersion"] is True and "IamRole" not in row
    both = demo.aws(*words, f"key=InstanceIds,valueSet={dev}", "--filters", "Key=tag-key,Values=env")
    assert_refused(both, "ValidationException", "DescribeInstanceInformation", "not both")
    done = demo.aws("describe-instance-information", "--filters", "Key=ResourceType,Values=Document")
    assert_refused(
        done, "InvalidInstanceInformationFilterValue", "DescribeInstanceInformation", "EC2Instance, ManagedInstance"
    )


def test_an_unknown_filter_is_named(demo):
    done = demo.aws("describe-instance-information", "--filters", "Key=Colour,Values=red")
    assert_refused(done, "InvalidFilterKey", "DescribeInstanceInformation", "there is no filter Colour")


def test_connection_status_of_a_machine_that_is_there(demo):
    target = demo.target("web-dev")
    answer = demo.aws_json("get-connection-status", "--target", target)
    assert answer == {"Target": target, "Status": "connected"}


def test_describes_sessions_while_they_run_and_after(demo, open_shell):
    def find(state, *filters, profile="alice"):
        words = ("--filters", *filters) if filters else ()
        answer = demo.aws_json("describe-sessions", "--state", state, *words, profile=profile)
        return {session["SessionId"]: session for session in answer["Sessions"]}

    shell = open_shell()
    dev, owner = demo.target("web-dev"), "arn:aws:iam::000000000000:user/alice"
    running = find("Active")[shell.id]
    assert (running["Target"], running["Owner"], running["Status"]) == (dev, owner, "Connected")
    assert running["DocumentName"] == "SSM-SessionManagerRunShell"
    assert "EndDate" not in running
    assert shell.id not in find("History")
    assert shell.id in find("Active", f"key=Target,value={dev}")
    assert shell.id not in find("Active", f"key=Target,value={demo.target('db-prod')}")
    assert list(find("Active", f"key=SessionId,value={shell.id}")) == [shell.id]
    assert shell.id in find("Active", f"key=Owner,value={owner}", profile="carol")
    assert shell.id not in find("Active", profile="bob")
    shell.exit()
    demo.ended(shell.id)
    ended = find("History", f"key=SessionId,value={shell.id}")[shell.id]
    assert ended["Status"] == "Terminated"
    assert ended["EndDate"] >= ended["StartDate"]
    assert shell.id not in find("Active")
    assert shell.id in find("History", "key=Status,value=Terminated", "key=InvokedAfter,value=2020-01-01T00:00:00Z")
    assert shell.id not in find("History", "key=InvokedBefore,value=2020-01-01T00:00:00Z")


def test_terminate_session_ends_ones_own_shell(demo, shell):
    answer = demo.aws_json("terminate-session", "--session-id", shell.id)
    assert answer == {"SessionId": shell.id}
    assert shell.leave() == 0
    assert f"Exiting session with sessionId: {shell.id}." in shell.text
    assert demo.ended(shell.id)["state"] == "Terminated"
    # Once more is no error.
    assert demo.aws_json("terminate-session", "--session-id", shell.id) == answer


def test_terminate_session_by_another_is_told(demo, shell):
    demo.aws_json("terminate-session", "--session-id", shell.id, profile="carol")
    shell.leave()
    assert f"SessionId: {shell.id} : ended by carol" in shell.text


def test_only_who_may_terminates(demo, open_shell):
    shell = open_shell()
    done = demo.aws("terminate-session", "--session-id", shell.id, profile="bob")
    assert done.returncode in REFUSED
    assert "An error occurred (" in done.stderr
    assert shell.ask("echo still here") == "still here\n"
    assert shell.exit() == 0


def test_resume_session_gives_a_token_while_it_runs(demo, open_shell):
    shell = open_shell()
    answer = demo.aws_json("resume-session", "--session-id", shell.id)
    assert answer["SessionId"] == shell.id
    assert answer["TokenValue"]
    assert answer["StreamUrl"].startswith(demo.facts["endpoint"].replace("https://", "wss://"))
    shell.exit()
    demo.ended(shell.id)
    # A stock client takes a missing token for "timed out"; an error makes it hang.
    assert "TokenValue" not in demo.aws_json("resume-session", "--session-id", shell.id)


def test_a_plain_cli_without_terminal_runs_what_is_piped_in(demo):
    target = demo.target("web-dev")
    done = demo.aws("start-session", "--target", target, input="echo pi''ped\nexit\n")
    assert done.returncode == 0, done.stderr
    assert "piped\n" in done.stdout.replace("\r\n", "\n")
    assert demo.ended(session_of(done.stdout))["kind"] == "shell"


def test_a_hangup_of_the_terminal_ends_the_session(demo, open_shell):
    shell = open_shell()
    shell.child.kill(signal.SIGHUP)
    assert demo.ended(shell.id)["state"] == "Terminated"
