"""Alerts, as whoever subscribes to the SNS topic gets them."""

import json
import time

import pytest

from support.demo import eventually, session_of
from test_metrics import total

RULES = """\
[[alert]]
name = "sudo"
on = "command"
matches = '^\\s*(?:\\S*/)?sudo(?:\\s|$)'
publish = true

[[alert]]
name = "quiet"
on = "output"
matches = 'nobody is told of this'
"""


class Inbox:
    """An SQS queue that is subscribed to a topic of its own."""

    def __init__(self, moto, name: str):
        sns, self.sqs = moto.client("sns"), moto.client("sqs")
        self.topic = sns.create_topic(Name=name)["TopicArn"]
        self.queue = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        about = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=about["Attributes"]["QueueArn"])
        self.read = []

    def messages(self) -> list[dict]:
        """Every message so far, as SNS delivered it."""
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in found:
            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            self.read.append(json.loads(message["Body"]))
        return self.read


@pytest.fixture
def alerting(gateways, moto, tmp_path):
    """A gateway that publishes to a topic, and the topic's inbox."""

    def start(topic: str | None = None):
        inbox = Inbox(moto, f"alerts-{time.monotonic_ns()}")
        rules = tmp_path / "alerts.toml"
        rules.write_text(RULES)
        settings = f'rules = "{rules}"\ntopic_arn = "{topic or inbox.topic}"\nsns_endpoint_url = "{moto.url}"\n'
        return gateways(f"[alerts]\n{settings}"), inbox

    return start


def typed(gateway, words: str) -> str:
    """Types the words in a shell; the session's id."""
    done = gateway.run("postern", "connect", "web-dev", profile="alice", input=f"{words}\nexit\n")
    assert done.returncode == 0, done.stderr
    return session_of(done.stderr)


def test_a_command_that_meets_a_rule_is_in_the_queue_behind_the_topic(alerting):
    gateway, inbox = alerting()
    # A recording says in whole seconds when it began.
    began = int(time.time()) * 1000
    typed(gateway, "echo nobody is told of th''is")
    session = typed(gateway, "echo before\nsudo -n true")
    (message,) = eventually(inbox.messages, "the alert in the queue")
    assert message["Type"] == "Notification" and message["TopicArn"] == inbox.topic
    assert message["Subject"] == f"Postern alert sudo in {session}"[:100]
    alert = json.loads(message["Message"])
    assert (alert["alert"], alert["session"], alert["text"]) == ("sudo", session, "sudo -n true")
    assert alert["principal"].endswith("user/alice") and alert["target"] == gateway.target("web-dev")
    assert began <= alert["time_ms"] <= time.time() * 1000

    # The words in it lead to the moment.
    gateway.ended(session)
    assert alert["replay"].startswith(f"postern replay {session} --at ")
    played = gateway.run(*alert["replay"].split(), "--format", "text", profile="alice")
    assert played.returncode == 0 and "sudo -n true" in played.stdout, played.stderr
    assert [total(gateway, "postern_alerts_total", rule) for rule in ('"sudo"', '"quiet"')] == [1, 1]
    assert total(gateway, "postern_alerts_published_total", '"published"') == 1
    assert inbox.messages() == [message], "it was published once, and the other rule not at all"


def test_an_alert_waits_for_a_topic_that_is_not_there_yet(alerting, moto):
    name = f"later-{time.monotonic_ns()}"
    sns = moto.client("sns")
    topic = sns.create_topic(Name=name)["TopicArn"]
    sns.delete_topic(TopicArn=topic)
    gateway, _ = alerting(topic)
    session = typed(gateway, "sudo -n true")
    eventually(lambda: "an alert is not published yet" in gateway.log.read_text(), "a failed try")
    inbox = Inbox(moto, name)
    (message,) = eventually(inbox.messages, "the alert in the queue")
    assert json.loads(message["Message"])["session"] == session
