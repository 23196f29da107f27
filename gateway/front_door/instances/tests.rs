//! Filters and rows of machines of which everything is known, or little.

use std::collections::BTreeMap;

use super::*;
use crate::session::Details;

/// A thing that an activation registered, of which SSM tells everything.
fn thing() -> Machine {
    let text = |text: &str| Some(text.into());
    let instance = Instance {
        target: Target::parse("mi-0123456789abcdef0").unwrap(),
        account: "111122223333".to_owned(),
        region: "eu-west-1".to_owned(),
        name: Some("edge".to_owned()),
        platform: Some("Linux".to_owned()),
        agent_version: Some("3.3.987.0".to_owned()),
        online: false,
        tags: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
    };
    let counts = BTreeMap::from([("Failed".into(), 1), ("Success".into(), 2)]);
    let details = Details {
        inactive: false,
        last_ping_ms: Some(1_582_221_233_421),
        latest_agent: Some(false),
        platform_name: text("Amazon Linux"),
        platform_version: text("2023"),
        activation_id: text("0d0e0000-0000-4000-8000-000000000001"),
        iam_role: text("service-role/Edge"),
        registered_ms: Some(1_500_000_000_000),
        name: text("edge"),
        computer_name: text("edge.internal"),
        ip_address: text("192.0.2.7"),
        association_status: text("Failed"),
        associated_ms: Some(1_582_221_000_500),
        associated_well_ms: Some(1_582_000_000_000),
        associations: Some(Box::new(Associations { status: text("Failed"), counts })),
        source_id: text("thermostat"),
        source_type: text("AWS::IoT::Thing"),
    };
    Machine { instance, details }
}

/// An instance of EC2 of which SSM tells no more than its id.
fn bare() -> Machine {
    let Machine { instance, .. } = thing();
    let instance = Instance {
        target: Target::parse("i-0123456789abcdef0").unwrap(),
        name: None,
        platform: None,
        agent_version: None,
        tags: BTreeMap::new(),
        ..instance
    };
    Machine { instance, details: Details::default() }
}

#[test]
fn a_row_has_every_field_of_aws_and_no_other() {
    let expected = json!({
        "InstanceId": "mi-0123456789abcdef0",
        "PingStatus": "ConnectionLost",
        "LastPingDateTime": 1_582_221_233.421,
        "AgentVersion": "3.3.987.0",
        "IsLatestVersion": false,
        "PlatformType": "Linux",
        "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023",
        "ActivationId": "0d0e0000-0000-4000-8000-000000000001",
        "IamRole": "service-role/Edge",
        "RegistrationDate": 1_500_000_000.0,
        "ResourceType": "ManagedInstance",
        "Name": "edge",
        "IPAddress": "192.0.2.7",
        "ComputerName": "edge.internal",
        "AssociationStatus": "Failed",
        "LastAssociationExecutionDate": 1_582_221_000.5,
        "LastSuccessfulAssociationExecutionDate": 1_582_000_000.0,
        "AssociationOverview": {
            "DetailedStatus": "Failed",
            "InstanceAssociationStatusAggregatedCount": {"Failed": 1, "Success": 2},
        },
        "SourceId": "thermostat",
        "SourceType": "AWS::IoT::Thing",
    });
    assert_eq!(machine_json(&thing()), expected);
}

#[test]
fn a_row_says_nothing_that_is_not_known() {
    let expected = json!({
        "InstanceId": "i-0123456789abcdef0", "PingStatus": "ConnectionLost", "ResourceType": "EC2Instance",
    });
    assert_eq!(machine_json(&bare()), expected);
    let mut machine = bare();
    machine.details.associations = Some(Box::default());
    assert_eq!(machine_json(&machine)["AssociationOverview"], json!({}));
}

#[test]
fn a_machine_is_called_by_its_tag_or_by_its_activation_but_not_by_its_host_name() {
    let mut machine = thing();
    machine.instance.tags.insert("Name".to_owned(), "edge-1".to_owned());
    let row = machine_json(&machine);
    assert_eq!((&row["Name"], &row["ComputerName"]), (&json!("edge-1"), &json!("edge.internal")));
    machine.instance.tags.insert("Name".to_owned(), String::new());
    assert_eq!(machine_json(&machine)["Name"], "edge");
    machine.details.name = None;
    assert!(machine_json(&machine).get("Name").is_none());
}

#[test]
fn every_key_of_aws_finds_what_has_its_value_and_nothing_else() {
    for (key, value, other) in [
        ("InstanceIds", "mi-0123456789abcdef0", "mi-0123456789abcdef1"),
        ("AgentVersion", "3.3.987.0", "3.3.98"),
        ("PingStatus", "ConnectionLost", "Inactive"),
        ("PlatformType", "Linux", "Windows"),
        ("PlatformTypes", "Linux", "MacOS"),
        ("ActivationIds", "0d0e0000-0000-4000-8000-000000000001", "0d0e0000-0000-4000-8000-000000000002"),
        ("IamRole", "service-role/Edge", "Edge"),
        ("ResourceType", "ManagedInstance", "EC2Instance"),
        ("AssociationStatus", "Failed", "Success"),
        ("SourceIds", "thermostat", "mi-0123456789abcdef0"),
        ("SourceTypes", "AWS::IoT::Thing", "AWS::SSM::ManagedInstance"),
        ("tag-key", "env", "Name"),
        ("tag:env", "prod", "dev"),
    ] {
        let filter = |values: &[&str]| InstanceFilter {
            key: key.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert!(filter(&[value, other]).check().is_ok(), "{key}");
        assert!(filter(&[value]).fits(&thing()) && filter(&[other, value]).fits(&thing()), "{key}");
        assert!(!filter(&[other]).fits(&thing()), "{key}");
        assert!(key == "PingStatus" || !filter(&[value]).fits(&bare()), "{key}: nothing is known of it");
    }
    assert!(KEYS.iter().all(|(key, _)| is_older(key) != NEWER.contains(key)));
}

#[test]
fn a_machine_that_was_given_up_is_told_and_found_as_inactive() {
    let mut machine = bare();
    machine.details.inactive = true;
    assert_eq!(machine_json(&machine)["PingStatus"], "Inactive");
    let filter =
        |value: &str| InstanceFilter { key: "PingStatus".to_owned(), values: vec![value.to_owned()] };
    assert!(filter("Inactive").fits(&machine) && !filter("ConnectionLost").fits(&machine));
}

#[test]
fn a_key_that_aws_has_not_is_refused_with_those_that_it_has() {
    let wrong = |key: &str, value: &str| {
        let filter = InstanceFilter { key: key.to_owned(), values: vec![value.to_owned()] };
        filter.check().unwrap_err()
    };
    let refusal = wrong("IAMRole", "x");
    assert_eq!(refusal.code, Code::InvalidFilterKey);
    assert!(KEYS.iter().all(|(key, _)| refusal.to_string().contains(key)), "{refusal}");
    let refusal = wrong("AssociationStatus", "Sleeping");
    assert_eq!(refusal.code, Code::InvalidInstanceInformationFilterValue);
    assert!(refusal.to_string().contains("Success, Pending, Failed"), "{refusal}");
}
