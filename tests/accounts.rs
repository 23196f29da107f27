//! Machines of several accounts, each behind a role of its own.

use postern::broker::AccountConfig;
use postern::local_ssm::{LocalSsm, Running};
use serde_json::json;

use crate::support::{Call, DEV, House, Terminal, local_config, target, until_some};

const OTHER: &str = "444455556666";
/// A machine of the other account.
const THERE: &str = "mi-000000000000444d";

/// The other account's AWS; its roles ask for an external id.
async fn other_aws() -> (tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let mut aws = local_config(&crate::support::certificate(folder.path()));
    aws.tls = None;
    aws.account = OTHER.to_owned();
    aws.roles = vec![format!("arn:aws:iam::{OTHER}:role/PosternBroker")];
    aws.external_id = Some("between-us".to_owned());
    aws.targets = vec![target(THERE, "dev")];
    (folder, LocalSsm::start(aws).await.unwrap())
}

async fn house(there: &Running, external_id: Option<&str>) -> House {
    let url = Some(there.url().to_owned());
    let account = AccountConfig {
        role_arn: format!("arn:aws:iam::{OTHER}:role/PosternBroker"),
        external_id: external_id.map(str::to_owned),
        region: None,
        ssm_endpoint_url: url.clone(),
        sts_endpoint_url: url.clone(),
        kms_endpoint_url: url.clone(),
        tagging_endpoint_url: url,
    };
    House::with(|config| {
        config.broker.accounts = vec![account];
        config.sessions.shadow_seconds = 1;
    })
    .await
}

async fn works(terminal: &mut Terminal) {
    terminal.type_line("echo it-$((40 + 2))").await;
    terminal.until("it-42").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_opens_in_the_account_of_its_machine() {
    let (_folder, there) = other_aws().await;
    let mut house = house(&there, Some("between-us")).await;
    let alice = house.alice().await;
    let (mut here, mut away) = (Terminal::shell(&alice, DEV).await, Terminal::shell(&alice, THERE).await);
    works(&mut here).await;
    works(&mut away).await;
    assert_eq!((house.local.live_sessions().len(), there.live_sessions().len()), (1, 1));
    let upstream = alice.upstream(&away.session).await;
    assert_eq!(there.live_sessions(), std::slice::from_ref(&upstream));
    // A lost connection is resumed there too.
    assert!(there.drop_connections(&upstream).await);
    works(&mut away).await;
    let listed = alice.api("DescribeInstanceInformation", &json!({})).await.ok().to_string();
    assert!(listed.contains(THERE) && listed.contains(DEV), "{listed}");
    // So does a gateway that starts again.
    away.cut();
    house.take_gateway().stop().await;
    house.start_again().await;
    let alice = house.alice().await;
    let ticket = until_some("the session again", || alice.resume(&away.session)).await;
    assert_eq!(ticket.session, away.session);
    alice.api("TerminateSession", &json!({"SessionId": away.session})).await.ok();
    until_some("its end there", || async { there.live_sessions().is_empty().then_some(()) }).await;
    // None of them is taken for one that went past the gateway.
    until_some("a look", || async {
        (house.metric("postern_upstream_seconds_count{operation=\"describe_sessions\"}").await >= 4.0)
            .then_some(())
    })
    .await;
    assert_eq!(house.metric("postern_shadow_sessions_seen_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_does_not_trust_us_opens_nothing() {
    let (_folder, there) = other_aws().await;
    let house = house(&there, Some("somebody-elses")).await;
    let alice = house.alice().await;
    let answer = alice.api("StartSession", &json!({"Target": THERE})).await;
    assert_ne!(answer.status, 200, "{}", answer.text());
    let mut here = Terminal::shell(&alice, DEV).await;
    works(&mut here).await;
    let listed = alice.call(Call::ssm("DescribeInstanceInformation", &json!({}))).await.ok().to_string();
    assert!(listed.contains(DEV) && !listed.contains(THERE), "{listed}");
}
