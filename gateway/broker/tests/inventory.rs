//! What the broker tells of machines, and when it would rather not.

use serde_json::json;

use super::super::BrokerError;
use super::broker;
use super::fake_aws::FakeAws;
use crate::session::Target;

fn target(id: &str) -> Target {
    Target::parse(id).unwrap()
}

#[tokio::test]
async fn every_page_is_listed_and_kept() {
    let aws = FakeAws::start().await;
    let broker = broker(aws.config()).await;
    let list = broker.instances().await.unwrap();
    let again = broker.instances().await.unwrap();
    assert_eq!(list, again);
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
    broker.instances().await.unwrap_err();

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
    broker.instances().await.unwrap();
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
