//! What the broker tells of machines, and when it would rather not.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::BrokerError;
use super::broker;
use super::fake_aws::FakeAws;
use crate::session::{Details, Machine, Target};

fn target(id: &str) -> Target {
    Target::parse(id).unwrap()
}

#[tokio::test]
async fn every_page_is_listed_and_kept() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let list = broker.machines().await.unwrap();
    let again = broker.machines().await.unwrap();
    assert!(Arc::ptr_eq(&list, &again));
    let list: Vec<_> = list.iter().map(|machine| &machine.instance).collect();
    let ids: Vec<&str> = list.iter().map(|one| one.target.as_str()).collect();
    assert_eq!(ids, ["i-0123456789abcdef0", "i-0123456789abcdef1", "mi-0123456789abcdef0"]);
    assert_eq!(list[0].name.as_deref(), Some("web-1.internal"));
    assert_eq!(list[0].platform.as_deref(), Some("Linux"));
    assert!(list[0].online && !list[1].online);
    assert_eq!((list[0].account.as_str(), list[0].region.as_str()), ("111122223333", "eu-west-1"));
    assert_eq!(list[0].tags["env"], "dev");
    assert!(list[1].tags.is_empty());
    assert_eq!(aws.calls("DescribeInstanceInformation").len(), 2);
    assert_eq!(aws.calls("ListTagsForResource").len(), 1);
    assert_eq!(aws.calls("GetResources").len(), 1, "the tags of many machines come with one call");
}

/// The machines of an account that answers with these rows.
async fn machines(rows: Value) -> Vec<Arc<Machine>> {
    let aws = FakeAws::start().await;
    aws.script("DescribeInstanceInformation", 200, json!({"InstanceInformationList": rows}));
    broker(aws.config()).await.machines().await.unwrap().to_vec()
}

#[tokio::test]
async fn all_that_ssm_tells_of_a_machine_is_kept_beside_what_policy_goes_by() {
    let row = json!({
        "InstanceId": "mi-0123456789abcdef0", "PingStatus": "Inactive", "LastPingDateTime": 1_582_221_233.421,
        "IsLatestVersion": false, "PlatformName": "Amazon Linux", "PlatformVersion": "2023",
        "ActivationId": "0d0e0000-0000-4000-8000-000000000001", "IamRole": "service-role/Edge",
        "RegistrationDate": 1_500_000_000, "Name": "edge", "IPAddress": "192.0.2.7",
        "ComputerName": "edge.internal", "AssociationStatus": "Failed",
        "LastAssociationExecutionDate": 1_582_221_000.5, "LastSuccessfulAssociationExecutionDate": 1_582_000_000,
        "AssociationOverview": {"DetailedStatus": "Failed",
            "InstanceAssociationStatusAggregatedCount": {"Success": 2, "Failed": 1}},
        "SourceId": "thermostat", "SourceType": "AWS::IoT::Thing",
    });
    let list = machines(json!([row, {"InstanceId": "i-0123456789abcdef1"}])).await;
    let details = &list[0].details;
    assert!(details.inactive && !list[0].instance.online);
    for (told, expected) in [
        (&details.platform_name, "Amazon Linux"),
        (&details.platform_version, "2023"),
        (&details.activation_id, "0d0e0000-0000-4000-8000-000000000001"),
        (&details.iam_role, "service-role/Edge"),
        (&details.name, "edge"),
        (&details.computer_name, "edge.internal"),
        (&details.ip_address, "192.0.2.7"),
        (&details.association_status, "Failed"),
        (&details.source_id, "thermostat"),
        (&details.source_type, "AWS::IoT::Thing"),
    ] {
        assert_eq!(told.as_deref(), Some(expected));
    }
    for (told, expected) in [
        (details.last_ping_ms, 1_582_221_233_421),
        (details.registered_ms, 1_500_000_000_000),
        (details.associated_ms, 1_582_221_000_500),
        (details.associated_well_ms, 1_582_000_000_000),
    ] {
        assert_eq!(told, Some(expected));
    }
    assert_eq!(details.latest_agent, Some(false));
    let associations = details.associations.as_ref().unwrap();
    assert_eq!(associations.status.as_deref(), Some("Failed"));
    assert_eq!(json!(associations.counts), json!({"Failed": 1, "Success": 2}));
    assert!(!format!("{:?}", list[0]).contains("192.0.2"), "an address is in no log");
    assert!(list[1].details == Details::default(), "what was not told is not there");
}

#[tokio::test]
async fn what_a_machine_says_of_itself_is_kept_short_and_printable() {
    let counts: serde_json::Map<String, Value> = (10..40).map(|n| (format!("State{n}"), json!(n))).collect();
    let row = json!({
        "InstanceId": "i-0123456789abcdef0", "PlatformName": "x\u{1b}[2J".repeat(1000),
        "ComputerName": "é".repeat(1000), "PlatformVersion": "\u{7}\u{202e}", "LastPingDateTime": 1e12,
        "RegistrationDate": -1,
        "AssociationOverview": {"InstanceAssociationStatusAggregatedCount": counts},
    });
    let list = machines(json!([row])).await;
    let details = &list[0].details;
    assert_eq!(details.platform_name.as_deref(), Some("x[2J".repeat(32).as_str()));
    assert_eq!(details.computer_name.as_deref(), Some("é".repeat(255).as_str()));
    assert_eq!(details.platform_version, None, "nothing of it can be seen");
    assert_eq!((details.last_ping_ms, details.registered_ms), (None, None), "no reader knows such a moment");
    let kept = &details.associations.as_ref().unwrap().counts;
    assert_eq!((kept.len(), kept.get("State10"), kept.get("State26")), (16, Some(&10), None));
}

#[tokio::test]
async fn one_machine_comes_with_its_tags_and_is_asked_for_once() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let id = target("mi-0123456789abcdef0");
    let (one, other) = tokio::join!(broker.instance(&id), broker.instance(&id));
    let one = one.unwrap();
    assert_eq!(one, other.unwrap());
    assert_eq!(one.tags["env"], "prod");
    assert_eq!(one.name.as_deref(), Some("edge-1[2J"), "a control character reached a name");
    assert_eq!(aws.calls("DescribeInstanceInformation").len(), 1);
    assert_eq!(aws.calls("ListTagsForResource").len(), 1);
}

#[tokio::test]
async fn a_machine_is_never_described_without_its_tags() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let refusal = json!({"__type": "AccessDeniedException", "Message": "no"});
    aws.script("ListTagsForResource", 400, refusal.clone());
    let error = broker.instance(&target("mi-0123456789abcdef0")).await.unwrap_err();
    assert!(matches!(error, BrokerError::AccessDenied { .. }), "{error}");
    aws.script("ListTagsForResource", 400, refusal);
    broker.machines().await.unwrap_err();

    let refusal = json!({"__type": "AccessDeniedException", "Message": "no"});
    aws.script("GetResources", 400, refusal);
    let error = broker.instance(&target("i-0123456789abcdef0")).await.unwrap_err();
    assert!(matches!(error, BrokerError::AccessDenied { .. }), "{error}");
}

#[tokio::test]
async fn an_instance_of_ec2_comes_with_its_tags() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let one = broker.instance(&target("i-0123456789abcdef0")).await.unwrap();
    assert_eq!(one.tags["env"], "dev");
    assert_eq!(broker.instance(&target("i-0123456789abcdef1")).await.unwrap().tags.len(), 0);
}

#[tokio::test]
async fn an_unknown_machine_is_not_connected() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let unknown = target("i-0123456789abcdeff");
    let error = broker.instance(&unknown).await.unwrap_err();
    assert_eq!(error, BrokerError::TargetNotConnected(unknown));
    let gone = target("i-0123456789abcdefe");
    aws.script("DescribeInstanceInformation", 400, json!({"__type": "InvalidInstanceId"}));
    assert_eq!(broker.instance(&gone).await.unwrap_err(), BrokerError::TargetNotConnected(gone));
}

#[tokio::test]
async fn a_task_of_ecs_is_named_by_its_cluster() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let task = broker.instance(&target("ecs:demo_0a1b_0a1b-2c3d")).await.unwrap();
    assert_eq!((task.name.as_deref(), task.tags.len()), (Some("demo/0a1b"), 0));
    let asked = aws.calls("GetResources");
    assert_eq!(
        asked[0].input["ResourceARNList"],
        json!(["arn:aws:ecs:eu-west-1:111122223333:task/demo/0a1b"])
    );
    assert!(aws.calls("DescribeInstanceInformation").is_empty(), "SSM describes no tasks");
}

#[tokio::test]
async fn the_inventory_is_read_with_keys_that_open_nothing() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config_with_role()).await;
    broker.machines().await.unwrap();
    assert!(broker.connection_status(&target("i-0123456789abcdef0")).await.unwrap());
    let assumed = aws.calls("AssumeRole");
    assert_eq!(assumed.len(), 1, "the inventory's keys are kept");
    assert_eq!(assumed[0].input["RoleSessionName"], "postern");
    assert!(!assumed[0].input["Policy"].as_str().unwrap().contains("StartSession"));
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_told() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    aws.script("GetConnectionStatus", 200, json!({"Target": "x", "Status": "notconnected"}));
    assert!(!broker.connection_status(&target("i-0123456789abcdef0")).await.unwrap());
}
