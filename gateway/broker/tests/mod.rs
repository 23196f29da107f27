//! The broker against a hand-made AWS, through the real SDKs and sockets.

mod dialled;
mod documents;
mod fake_aws;
mod inventory;
mod kms;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Broker, BrokerConfig};
use crate::metrics::Metrics;
use crate::session::{AuthMethod, Document, Facts, Principal, SessionId, SessionRequest, Target};

async fn broker(config: BrokerConfig) -> Broker {
    Broker::new(config, Arc::new(Metrics::new().unwrap())).await.unwrap()
}

fn alice() -> Principal {
    Principal {
        id: "AROAEXAMPLE:alice@example.com".into(),
        arn: "arn:aws:sts::111122223333:assumed-role/Ops/alice@example.com".into(),
        account: "111122223333".into(),
        name: "alice@example.com".into(),
        role: Some("Ops".into()),
        method: AuthMethod::StsProof,
        authenticated_at: 1_790_000_000,
        facts: Facts::default(),
    }
}

fn shell_on(target: &str) -> SessionRequest {
    SessionRequest {
        target: Target::parse(target).unwrap(),
        document: Document::shell(),
        parameters: BTreeMap::new(),
        reason: Some("disk is full".into()),
    }
}

fn own_id() -> SessionId {
    SessionId::parse("alice@example.com-aaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap()
}
