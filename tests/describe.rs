//! The lists of the SSM API: their limits, filters, pages and refusals.

use serde_json::{Value, json};

use crate::support::{Browser, DEV, House, PROD, Person};

async fn machines(person: &Person, body: &Value) -> Vec<String> {
    let answer: Value = person.api("DescribeInstanceInformation", body).await.ok();
    let rows = answer["InstanceInformationList"].as_array().unwrap();
    rows.iter().map(|row| row["InstanceId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_filtered_and_refused_as_by_aws() {
    let house = House::start().await;
    let alice = house.alice().await;
    let filter = |key: &str, values: &[&str]| json!({"Filters": [{"Key": key, "Values": values}]});
    let older = |key: &str, values: &[&str]| json!({"InstanceInformationFilterList": [{"key": key, "valueSet": values}]});
    for body in [
        filter("InstanceIds", &[DEV]),
        filter("tag:env", &["dev"]),
        older("InstanceIds", &[DEV]),
        json!({"Filters": [{"Key": "tag:env", "Values": ["dev"]}, {"Key": "PlatformType", "Values": ["Linux"]}]}),
    ] {
        assert_eq!(machines(&alice, &body).await, [DEV], "{body}");
    }
    let all = machines(&alice, &json!({})).await;
    for (key, value) in [
        ("ResourceType", "ManagedInstance"),
        ("SourceTypes", "AWS::SSM::ManagedInstance"),
        ("PlatformTypes", "Linux"),
        ("PingStatus", "Online"),
        ("tag-key", "env"),
    ] {
        assert_eq!(machines(&alice, &filter(key, &[value])).await, all, "{key}");
    }
    assert!(machines(&alice, &filter("InstanceIds", &["i-0123456789abcdef0"])).await.is_empty());
    assert_eq!(machines(&alice, &filter("SourceIds", &[DEV])).await, [DEV]);
    for (key, value) in [
        ("AgentVersion", "1.0.0.0"),
        ("IamRole", "service-role/Edge"),
        ("ActivationIds", "0d0e0000-0000-4000-8000-000000000001"),
        ("AssociationStatus", "Success"),
    ] {
        assert!(machines(&alice, &filter(key, &[value])).await.is_empty(), "{key}");
    }
    for (key, value) in [("IamRole", "x"), ("AssociationStatus", "Failed"), ("ActivationIds", "x")] {
        assert!(machines(&alice, &older(key, &[value])).await.is_empty(), "{key}");
    }
    let both = json!({"Filters": [{"Key": "PingStatus", "Values": ["Online"]}],
                      "InstanceInformationFilterList": [{"key": "PingStatus", "valueSet": ["Online"]}]});
    let many = vec!["x"; 101];
    for (body, code) in [
        (json!({"MaxResults": 4}), "ValidationException"),
        (json!({"MaxResults": 51}), "ValidationException"),
        (json!({"MaxResults": -1}), "ValidationException"),
        (both, "ValidationException"),
        (filter("InstanceIds", &[]), "ValidationException"),
        (filter("tag:env", &[""]), "ValidationException"),
        (filter("tag:env", &many), "ValidationException"),
        (older("tag:env", &["dev"]), "ValidationException"),
        (filter("Colour", &["red"]), "InvalidFilterKey"),
        (filter("tag:", &["red"]), "InvalidFilterKey"),
        (filter("iamRole", &["x"]), "InvalidFilterKey"),
        (older("SourceIds", &[DEV]), "ValidationException"),
        (filter("AssociationStatus", &["Sleepy"]), "InvalidInstanceInformationFilterValue"),
        (filter("PingStatus", &["Sleepy"]), "InvalidInstanceInformationFilterValue"),
        (filter("ResourceType", &["Document"]), "InvalidInstanceInformationFilterValue"),
        (filter("InstanceIds", &["../x"]), "InvalidInstanceInformationFilterValue"),
        (json!({"NextToken": DEV}), "InvalidNextToken"),
    ] {
        alice.api("DescribeInstanceInformation", &body).await.refused(code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_described_with_what_is_known_of_it_and_no_more() {
    let house = House::start().await;
    let alice = house.alice().await;
    let body = json!({"Filters": [{"Key": "InstanceIds", "Values": [DEV]}]});
    let answer: Value = alice.api("DescribeInstanceInformation", &body).await.ok();
    let row = &answer["InstanceInformationList"][0];
    assert!(row["LastPingDateTime"].is_f64() && row["IsLatestVersion"] == true, "{row}");
    for (field, value) in [
        ("InstanceId", DEV),
        ("PlatformType", "Linux"),
        ("IPAddress", "127.0.0.1"),
        ("ResourceType", "ManagedInstance"),
        ("SourceId", DEV),
        ("SourceType", "AWS::SSM::ManagedInstance"),
    ] {
        assert_eq!(row[field], value, "{row}");
    }
    for field in ["ActivationId", "IamRole", "RegistrationDate", "AssociationStatus", "AssociationOverview"] {
        assert!(row.get(field).is_none(), "{row}");
    }
    let targets = Browser::of(&house, &alice).await.get("/targets").await.ok();
    let shown = targets["targets"].as_array().unwrap().iter().find(|target| target["id"] == DEV).unwrap();
    let last_ping = shown["last_ping_ms"].as_u64().unwrap() as f64;
    assert!((last_ping / 1000.0 - row["LastPingDateTime"].as_f64().unwrap()).abs() < 1e-6, "{shown}");
    assert_eq!(shown["platform_name"], row["PlatformName"], "{shown}");
    assert!(shown.get("ip_address").is_none(), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_machines_goes_on_for_its_reader_only() {
    let house = House::start().await;
    let (alice, bob) = (house.alice().await, house.sign_in("bob").await);
    let body = json!({"MaxResults": 5});
    let first: Value = alice.api("DescribeInstanceInformation", &body).await.ok();
    let token = first["NextToken"].as_str().expect("alice sees more than five machines").to_owned();
    assert!(!token.contains("mi-"), "{token}");
    let next = json!({"MaxResults": 5, "NextToken": token});
    let rest = machines(&alice, &next).await;
    let seen = machines(&alice, &json!({"MaxResults": 50})).await;
    assert_eq!(rest, seen[5..]);
    assert!(seen.contains(&PROD.to_owned()));
    bob.api("DescribeInstanceInformation", &next).await.refused("InvalidNextToken");
    let elsewhere = json!({"State": "Active", "NextToken": token});
    alice.api("DescribeSessions", &elsewhere).await.refused("InvalidNextToken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_filtered_and_refused_as_by_aws() {
    let house = House::start().await;
    let alice = house.alice().await;
    let session = alice.start(DEV).await.session;
    let filter =
        |key: &str, value: &str| json!({"State": "Active", "Filters": [{"key": key, "value": value}]});
    for (key, value, count) in [
        ("Target", DEV, 1),
        ("Target", PROD, 0),
        ("SessionId", session.as_str(), 1),
        ("Status", "Connecting", 1),
        ("Status", "Connected", 0),
        ("AccessType", "Standard", 1),
        ("AccessType", "JustInTime", 0),
        ("InvokedAfter", "2020-01-01T00:00:00Z", 1),
        ("InvokedBefore", "2020-01-01T00:00:00Z", 0),
    ] {
        let answer: Value = alice.api("DescribeSessions", &filter(key, value)).await.ok();
        assert_eq!(answer["Sessions"].as_array().unwrap().len(), count, "{key} {value}");
    }
    let twice = json!([{"key": "Target", "value": DEV}, {"key": "Target", "value": PROD}]);
    let seven = vec![json!({"key": "Target", "value": DEV}); 7];
    for (body, code) in [
        (json!({"State": "Active", "MaxResults": 0}), "ValidationException"),
        (json!({"State": "Active", "MaxResults": 201}), "ValidationException"),
        (json!({"State": "Sleeping"}), "ValidationException"),
        (json!({}), "ValidationException"),
        (json!({"State": "Active", "Filters": []}), "ValidationException"),
        (json!({"State": "Active", "Filters": seven}), "ValidationException"),
        (json!({"State": "Active", "Filters": twice}), "ValidationException"),
        (filter("Owner", ""), "ValidationException"),
        (filter("Owner", &"x".repeat(401)), "ValidationException"),
        (filter("Status", "Sleeping"), "ValidationException"),
        (filter("AccessType", "Sometimes"), "ValidationException"),
        (filter("InvokedAfter", "yesterday"), "ValidationException"),
        (filter("Colour", "red"), "InvalidFilterKey"),
        (json!({"State": "Active", "NextToken": "x"}), "InvalidNextToken"),
    ] {
        alice.api("DescribeSessions", &body).await.refused(code);
    }
}
