//! The AWS SDK against the gateway: its shapes, its errors.

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::types::{ConnectionStatus, SessionState, SessionStatus};

use crate::support::{CLOSED, DEV, House, Terminal, Ticket};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_reads_as_aws() {
    let house = House::start().await;
    let alice = house.alice().await;
    let sdk = &alice.sdk;
    let machines = sdk.describe_instance_information().send().await.unwrap();
    assert_eq!(machines.instance_information_list().len(), 7);
    let status = sdk.get_connection_status().target(DEV).send().await.unwrap();
    assert_eq!(status.status(), Some(&ConnectionStatus::Connected));

    let started = sdk.start_session().target(DEV).send().await.unwrap();
    let ticket = Ticket {
        session: started.session_id.unwrap(),
        url: started.stream_url.unwrap(),
        token: started.token_value.unwrap(),
    };
    let mut terminal = Terminal::open(&house.door, &ticket).await;
    terminal.until("$ ").await;
    let active = sdk.describe_sessions().state(SessionState::Active).send().await.unwrap();
    assert_eq!(active.sessions()[0].session_id(), Some(ticket.session.as_str()));
    assert_eq!(active.sessions()[0].owner(), Some("arn:aws:iam::111122223333:user/alice"));
    let resumed = sdk.resume_session().session_id(&ticket.session).send().await.unwrap();
    assert_eq!(resumed.stream_url(), Some(ticket.url.as_str()), "the stream URL never changes");

    sdk.terminate_session().session_id(&ticket.session).send().await.unwrap();
    terminal.closed().await;
    let history = crate::support::until_some("the end", || async {
        let history = sdk.describe_sessions().state(SessionState::History).send().await.unwrap();
        history.sessions().first().cloned()
    })
    .await;
    assert_eq!(history.status(), Some(&SessionStatus::Terminated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_reads_as_an_error_of_aws_with_our_sentence() {
    let house = House::start().await;
    let alice = house.alice().await;
    let denied = alice.sdk.start_session().target(CLOSED).send().await.unwrap_err();
    assert_eq!(denied.code(), Some("AccessDeniedException"));
    assert!(denied.message().unwrap().contains("this machine is being taken down"));
    let unknown = alice.sdk.start_session().target("mi-00000000000000000").send().await.unwrap_err();
    assert_eq!(unknown.code(), Some("TargetNotConnected"));
    house.local.set_online(DEV, false);
    let offline = alice.sdk.start_session().target(DEV).send().await.unwrap_err();
    assert_eq!(offline.code(), Some("TargetNotConnected"), "{:?}", offline.message());
}
