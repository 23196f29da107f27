//! The calls to CloudWatch Logs: one attempt each, and what went wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::config::retry::RetryConfig;
use aws_sdk_cloudwatchlogs::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatchlogs::types::RejectedLogEventsInfo;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::batch::{self, LogEvent};
use super::pace::Bucket;
use super::{ShipperConfig, ShipperError};
use crate::broker::{self, BrokerConfig};

/// One attempt of a call; a batch is up to 1 MB.
const ATTEMPT: Duration = Duration::from_secs(20);
/// TCP and TLS to AWS.
const CONNECT: Duration = Duration::from_secs(3);

/// One log group, with keys that are taken anew when they stop working.
pub(super) struct Logs {
    pub(super) group: String,
    pub(super) region: String,
    pub(super) endpoint_url: Option<String>,
    broker: BrokerConfig,
    client: Mutex<Client>,
    streams: Mutex<Bucket>,
}

impl Logs {
    /// Reads the AWS configuration; opens no connection.
    pub(super) async fn connect(
        config: &ShipperConfig,
        broker: &BrokerConfig,
    ) -> Result<Arc<Self>, ShipperError> {
        let (client, region) = client(config.endpoint_url.as_deref(), broker).await?;
        Ok(Arc::new(Self {
            group: config.log_group.clone(),
            region,
            endpoint_url: config.endpoint_url.clone(),
            broker: broker.clone(),
            client: Mutex::new(client),
            streams: Mutex::new(Bucket::new(Instant::now())),
        }))
    }

    /// Reads the AWS configuration again: files and roles may have new keys.
    pub(super) async fn renew(&self) -> Result<(), ShipperError> {
        let (client, _) = client(self.endpoint_url.as_deref(), &self.broker).await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// Creates a log stream; one that is there already is as good.
    pub(super) async fn create_stream(&self, stream: &str) -> Result<(), ShipperError> {
        let wait = self.streams.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let call = self.client().create_log_stream().log_group_name(&self.group).log_stream_name(stream);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_resource_already_exists_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(ShipperError::of("CreateLogStream", &error)),
        }
    }

    /// Stores a batch; gives the events that were outside AWS's times.
    pub(super) async fn put(&self, stream: &str, batch: &[LogEvent]) -> Result<Vec<LogEvent>, ShipperError> {
        let body = batch::body(&self.group, stream, batch).map_err(std::io::Error::from);
        let body = Bytes::from(body.map_err(ShipperError::io("write a batch"))?);
        let call = self.client().put_log_events().log_group_name(&self.group).log_stream_name(stream);
        // The events are in the body that takes the place of the SDK's.
        let call = call.set_log_events(Some(Vec::new())).customize().mutate_request(move |request| {
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = SdkBody::from(body.clone());
        });
        let answer = call.send().await.map_err(|error| ShipperError::of("PutLogEvents", &error))?;
        Ok(answer.rejected_log_events_info().map_or_else(Vec::new, |info| rejected(batch, info)))
    }

    /// One page of a stream from its head on, and the token of the next.
    pub(super) async fn page(
        &self,
        stream: &str,
        token: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), ShipperError> {
        let call = self.client().get_log_events().log_group_name(&self.group).log_stream_name(stream);
        let answer = call.start_from_head(true).set_next_token(token).send().await;
        let answer = answer.map_err(|error| match ShipperError::of("GetLogEvents", &error) {
            missing if missing.trouble() == Some(super::Trouble::Missing) => {
                ShipperError::NoStream { group: self.group.clone(), stream: stream.to_owned() }
            }
            other => other,
        })?;
        let messages = answer.events.unwrap_or_default().into_iter().filter_map(|event| event.message);
        Ok((messages.collect(), answer.next_forward_token))
    }

    pub(super) fn client(&self) -> Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn client(endpoint_url: Option<&str>, broker: &BrokerConfig) -> Result<(Client, String), ShipperError> {
    let sdk = broker::aws_config(broker).await?;
    let region = sdk.region().map(ToString::to_string).ok_or_else(|| {
        ShipperError::Config("no region: set broker.region or the AWS configuration's".to_owned())
    })?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let mut config = Builder::from(&sdk).timeout_config(timeouts).retry_config(RetryConfig::disabled());
    if let Some(url) = endpoint_url {
        config = config.endpoint_url(broker::endpoint(url)?);
    }
    Ok((Client::from_conf(config.build()), region))
}

/// The events that were not stored, whichever way AWS counts the last one.
fn rejected(batch: &[LogEvent], info: &RejectedLogEventsInfo) -> Vec<LogEvent> {
    let index = |at: Option<i32>| at.and_then(|at| usize::try_from(at).ok());
    let old = [index(info.too_old_log_event_end_index), index(info.expired_log_event_end_index)];
    let new = index(info.too_new_log_event_start_index).unwrap_or(batch.len());
    let old = old.into_iter().flatten().max().map_or(0, |end| end.saturating_add(1));
    batch
        .iter()
        .enumerate()
        .filter(|(at, _)| *at < old || *at >= new)
        .map(|(_, event)| event.clone())
        .collect()
}
