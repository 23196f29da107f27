"""The SSM API as an SDK sees it: shapes, paging, error codes."""

import datetime
import json
import ssl
import urllib.error
import urllib.request

import botocore.auth
import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError


def refusal(call, **arguments) -> tuple[str, str, int]:
    """The error's code, sentence and HTTP status."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    response = raised.value.response
    return response["Error"]["Code"], response["Error"]["Message"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_session_from_start_to_history(demo, client):
    alice, target = client("alice"), demo.target("web-dev")
    started = alice.start_session(Target=target, Reason="boto3")
    session = started["SessionId"]
    assert started["StreamUrl"].startswith("wss://") and started["TokenValue"]
    active = alice.describe_sessions(State="Active", Filters=[{"key": "SessionId", "value": session}])
    assert [row["SessionId"] for row in active["Sessions"]] == [session]
    assert isinstance(active["Sessions"][0]["StartDate"], datetime.datetime)
    assert alice.resume_session(SessionId=session)["TokenValue"]
    assert alice.terminate_session(SessionId=session)["SessionId"] == session
    demo.ended(session)
    history = alice.describe_sessions(State="History", Filters=[{"key": "SessionId", "value": session}])
    assert history["Sessions"][0]["Status"] == "Terminated"
    assert "TokenValue" not in alice.resume_session(SessionId=session)


def test_two_sessions_in_one_second(demo, client):
    """Two scripts, one target, at once: both are served."""
    alice = client("alice")
    sessions = {alice.start_session(Target=demo.target("web-dev"))["SessionId"] for _ in range(3)}
    for session in sessions:
        alice.terminate_session(SessionId=session)
    assert len(sessions) == 3


def test_instances_come_page_by_page(demo, client):
    pages = client("alice").get_paginator("describe_instance_information").paginate(MaxResults=5)
    found = [instance for page in pages for instance in page["InstanceInformationList"]]
    assert {instance["InstanceId"] for instance in found} == {demo.target("web-dev"), demo.target("db-prod")}
    assert all(isinstance(instance["LastPingDateTime"], datetime.datetime) for instance in found)


def test_sessions_come_page_by_page(demo, client):
    alice, target = client("alice"), demo.target("web-dev")
    started = set()
    for number in range(3):
        session = alice.start_session(Target=target, Reason=f"page {number}")["SessionId"]
        alice.terminate_session(SessionId=session)
        demo.ended(session)
        started.add(session)
    pages = alice.get_paginator("describe_sessions").paginate(State="History", MaxResults=1)
    found = []
    for page in pages:
        assert len(page["Sessions"]) <= 1
        found += [row["SessionId"] for row in page["Sessions"]]
        if started <= set(found):
            break
    assert started <= set(found) and len(found) == len(set(found))


@pytest.mark.parametrize(
    ("profile", "arguments", "code", "sentence"),
    [
        ("bob", {"Target": "mi-0d0e0000000000002"}, "AccessDeniedException", "contractors-no-prod"),
        ("alice", {"Target": "mi-0d0e0000000000002"}, "AccessDeniedException", "say why"),
        ("alice", {"Target": "mi-0d0e00000000000ff"}, "TargetNotConnected", "is not connected"),
        ("alice", {"Target": "../../etc/passwd"}, "ValidationException", "target"),
        ("alice", {"Target": "mi-0d0e0000000000001", "DocumentName": "Nope"}, "InvalidDocument", "Nope"),
    ],
)
def test_start_session_is_refused_with_a_code(client, profile, arguments, code, sentence):
    got, message, status = refusal(client(profile).start_session, **arguments)
    assert got == code
    assert sentence in message and "\n" not in message
    assert status == 400


def test_other_calls_are_refused_with_a_code(client):
    alice = client("alice")
    assert refusal(alice.terminate_session, SessionId="alice-0123456789abcdef0")[0] == "DoesNotExistException"
    bad = [{"key": "SessionId", "value": "../x"}]
    assert refusal(alice.describe_sessions, State="Active", Filters=bad)[0] == "ValidationException"
    for call, words in (
        (alice.describe_instance_information, {"MaxResults": 51}),
        (alice.describe_sessions, {"State": "Active", "MaxResults": 201}),
    ):
        assert refusal(call, **words)[0] == "ValidationException"
        words["MaxResults"] = 50
        assert refusal(call, NextToken="mi-0d0e0000000000001", **words)[0] == "InvalidNextToken"
    colour = [{"Key": "Colour", "Values": ["red"]}]
    code, message, _ = refusal(alice.describe_instance_information, Filters=colour)
    assert code == "InvalidFilterKey" and "there is no filter Colour" in message and "IamRole" in message
    code, message, _ = refusal(alice.describe_parameters)
    assert code in ("UnknownOperationException", "AccessDeniedException")
    assert "this gateway answers StartSession" in message


def test_a_retried_start_is_one_session(demo, client):
    """The SDK marks repeats of a call; a repeat opens nothing new."""
    alice = client("alice")

    def mark(request, **_):
        request.headers["amz-sdk-invocation-id"] = "11111111-2222-3333-4444-555555555555"

    alice.meta.events.register("before-send.ssm.StartSession", mark)
    words = {"Target": demo.target("web-dev"), "Reason": "once"}
    first, second = (alice.start_session(**words)["SessionId"] for _ in range(2))
    assert first == second
    alice.terminate_session(SessionId=first)


# Real SSM says the first, as every AWS service does.
UNSIGNED = ("MissingAuthenticationTokenException", "IncompleteSignatureException")


def signed(demo, at: datetime.datetime | None = None, secret: str | None = None) -> AWSRequest:
    """A DescribeSessions request signed by botocore, perhaps wrongly."""
    keys = botocore.session.Session(profile="alice").get_credentials().get_frozen_credentials()
    if secret:
        keys = keys._replace(secret_key=secret)
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AmazonSSM.DescribeSessions",
    }
    body = json.dumps({"State": "Active"}).encode()
    request = AWSRequest("POST", demo.facts["endpoint"] + "/", headers=headers, data=body)
    if at:
        real = botocore.auth.get_current_datetime
        botocore.auth.get_current_datetime = lambda *_, **__: at
        try:
            SigV4Auth(keys, "ssm", "us-east-1").add_auth(request)
        finally:
            botocore.auth.get_current_datetime = real
    else:
        SigV4Auth(keys, "ssm", "us-east-1").add_auth(request)
    return request


def send(demo, request) -> tuple[int, dict]:
    context = ssl.create_default_context(cafile=demo.facts["ca_bundle"])
    raw = urllib.request.Request(request.url, data=request.body, headers=dict(request.headers), method="POST")
    try:
        with urllib.request.urlopen(raw, context=context) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_signature_is_checked(demo, client):
    client("alice")
    assert send(demo, signed(demo))[0] == 200
    status, answer = send(demo, signed(demo, secret="x" * 40))
    assert status in (400, 403) and "Signature" in answer["__type"], answer
    tampered = signed(demo)
    tampered.data = tampered.data.replace(b"Active", b"History")
    status, answer = send(demo, tampered)
    assert status in (400, 403) and "Signature" in answer["__type"], answer
    unsigned = signed(demo)
    del unsigned.headers["Authorization"]
    status, answer = send(demo, unsigned)
    assert status in (400, 403) and answer["__type"] in UNSIGNED, answer


def test_an_old_signature_names_both_clocks(demo, client):
    client("alice")
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    for minutes in (-6, 6):
        status, answer = send(demo, signed(demo, at=now + datetime.timedelta(minutes=minutes)))
        assert status in (400, 403), answer
        assert answer["message"].count("T") >= 2 or "clock" in answer["message"], answer
