"""What is told of machines: as much as AWS tells, in its own words, and found by it."""

import datetime

import pytest

from support.account import Account

PING = datetime.datetime(2026, 11, 26, 8, 30, 15, 421000, tzinfo=datetime.UTC)
THERMOSTAT, LAPTOP = "mi-0123456789abcdef0", "mi-0123456789abcdef1"
EVERYTHING = {
    "InstanceId": THERMOSTAT,
    "PingStatus": "ConnectionLost",
    "LastPingDateTime": PING.timestamp(),
    "AgentVersion": "3.3.987.0",
    "IsLatestVersion": False,
    "PlatformType": "Linux",
    "PlatformName": "Amazon Linux",
    "PlatformVersion": "2023",
    "ActivationId": "0d0e0000-0000-4000-8000-000000000001",
    "IamRole": "service-role/Edge",
    "RegistrationDate": 1500000000,
    "ResourceType": "ManagedInstance",
    "Name": "thermostat",
    "IPAddress": "192.0.2.7",
    "ComputerName": "thermostat.internal",
    "AssociationStatus": "Failed",
    "LastAssociationExecutionDate": 1500000100.5,
    "LastSuccessfulAssociationExecutionDate": 1500000050,
    "AssociationOverview": {
        "DetailedStatus": "Failed",
        "InstanceAssociationStatusAggregatedCount": {"Success": 2, "Failed": 1},
    },
    "SourceId": "thing-1",
    "SourceType": "AWS::IoT::Thing",
}
LITTLE = {"InstanceId": LAPTOP, "PingStatus": "Online", "ResourceType": "ManagedInstance", "Name": "laptop"}
# Keys of filters, each with a value that the thermostat has and nobody else.
FOUND_BY = {
    "InstanceIds": THERMOSTAT,
    "AgentVersion": "3.3.987.0",
    "PingStatus": "ConnectionLost",
    "PlatformTypes": "Linux",
    "ActivationIds": "0d0e0000-0000-4000-8000-000000000001",
    "IamRole": "service-role/Edge",
    "AssociationStatus": "Failed",
}
FOUND_BY_NEWER = FOUND_BY | {"PlatformType": "Linux", "SourceIds": "thing-1", "SourceTypes": "AWS::IoT::Thing"}


@pytest.fixture
def gateway(demo, gateways):
    account = Account(demo.facts["identities"][0]["arn"].split(":")[4], [EVERYTHING, LITTLE], {"site": "cellar"})
    yield gateways(account.configured)
    account.stop()


@pytest.fixture
def alice(client, gateway, monkeypatch):
    """boto3's client of that gateway; alice sees these machines and the demo's."""
    monkeypatch.setenv("AWS_CONFIG_FILE", gateway.env["AWS_CONFIG_FILE"])
    return client("alice")


def test_boto3_reads_everything_that_aws_tells(alice):
    ours = [{"Key": "tag:site", "Values": ["cellar"]}]
    everything, little = alice.describe_instance_information(Filters=ours)["InstanceInformationList"]
    assert everything["LastPingDateTime"] == PING
    moments = {key: value for key, value in everything.items() if isinstance(value, datetime.datetime)}
    assert everything | {key: moment.timestamp() for key, moment in moments.items()} == EVERYTHING
    members = alice.meta.service_model.shape_for("InstanceInformation").members
    assert set(EVERYTHING) == set(members), "a field of AWS is in no test"
    assert little == LITTLE, "what AWS does not tell is not made up"


def test_boto3_finds_machines_by_every_key(alice):
    def found(**filters):
        return [row["InstanceId"] for row in alice.describe_instance_information(**filters)["InstanceInformationList"]]

    site = {"Key": "tag:site", "Values": ["cellar"]}
    for key, value in FOUND_BY_NEWER.items():
        assert found(Filters=[site, {"Key": key, "Values": [value]}]) == [THERMOSTAT], key
    for key, value in FOUND_BY.items():
        filters = [{"key": key, "valueSet": [value]}, {"key": "InstanceIds", "valueSet": [THERMOSTAT, LAPTOP]}]
        assert found(InstanceInformationFilterList=filters) == [THERMOSTAT], key
    assert found(Filters=[site, {"Key": "ResourceType", "Values": ["ManagedInstance"]}]) == [THERMOSTAT, LAPTOP]
    known = alice.meta.service_model.shape_for("InstanceInformationFilterKey").enum
    assert set(known) == set(FOUND_BY) | {"ResourceType"}, "a key of AWS is in no test"


def test_the_cli_shows_and_filters_them(gateway):
    words = ("describe-instance-information", "--filters")
    answer = gateway.aws_json(*words, "Key=IamRole,Values=service-role/Edge", profile="alice")
    [row] = answer["InstanceInformationList"]
    # The older CLI shows a moment as it was told, the newer one in words.
    assert row["LastPingDateTime"] in (EVERYTHING["LastPingDateTime"], PING.isoformat())
    assert row["AssociationOverview"] == EVERYTHING["AssociationOverview"]
    query = ("--query", "InstanceInformationList[].[PlatformName,PlatformVersion,IPAddress]", "--output", "text")
    done = gateway.aws(*words, "Key=SourceIds,Values=thing-1", *query, profile="alice")
    assert done.stdout.split("\t") == ["Amazon Linux", "2023", "192.0.2.7\n"]


def test_our_own_list_says_which_system_it_is_and_when_it_was_heard_of(gateway):
    done = gateway.run("postern", "targets", profile="alice")
    [line] = [line for line in done.stdout.splitlines() if line.startswith(THERMOSTAT)]
    assert line.split("  ")[-1] == "2026-11-26 08:30:15Z" and "Amazon Linux 2023" in line and "offline" in line
    told = {target["target"]: target for target in gateway.postern_json("targets", "--json")}
    assert told[THERMOSTAT]["last_ping_ms"] == PING.timestamp() * 1000
    assert (told[THERMOSTAT]["platform_name"], told[THERMOSTAT]["platform_version"]) == ("Amazon Linux", "2023")
    assert told[LAPTOP]["last_ping_ms"] is told[LAPTOP]["platform_name"] is None
