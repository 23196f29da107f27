//! The AWS clients, configured as every AWS tool is.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use http::Uri;

use super::dial::is_loopback;
use super::gate::Gate;
use super::place::{Place, account_of};
use super::roots::Roots;
use super::{BrokerConfig, BrokerError, Operation};

/// TCP and TLS to AWS.
const CONNECT: Duration = Duration::from_secs(3);
/// One attempt of a call that may be tried again.
const ATTEMPT: Duration = Duration::from_secs(8);
/// Attempts of a call that changes nothing, the first one included.
const ATTEMPTS: u32 = 3;
/// How AWS's logs name the gateway.
const APP_NAME: &str = "postern";

/// The clients and where their keys come from.
pub(super) struct Aws {
    pub(super) ssm: aws_sdk_ssm::Client,
    pub(super) kms: aws_sdk_kms::Client,
    pub(super) tagging: aws_sdk_resourcegroupstagging::Client,
    pub(super) sts: aws_sdk_sts::Client,
    pub(super) credentials: SharedCredentialsProvider,
    region: String,
}

impl Aws {
    /// Reads the AWS configuration; opens no connection to the services.
    pub(super) async fn connect(config: &BrokerConfig, roots: &Roots) -> Result<Self, BrokerError> {
        let sdk = sdk_config(config, roots).await?;
        let region = sdk.region().map(ToString::to_string).ok_or_else(|| {
            BrokerError::Config("no region: set region here or in the AWS configuration".to_owned())
        })?;
        let credentials = sdk.credentials_provider().ok_or_else(|| {
            BrokerError::Credentials("the AWS configuration names no source of keys".to_owned())
        })?;
        let mut ssm = aws_sdk_ssm::config::Builder::from(&sdk);
        if let Some(url) = &config.ssm_endpoint_url {
            ssm = ssm.endpoint_url(endpoint(url)?);
        }
        let mut sts = aws_sdk_sts::config::Builder::from(&sdk);
        if let Some(url) = &config.sts_endpoint_url {
            sts = sts.endpoint_url(endpoint(url)?);
        }
        let mut kms = aws_sdk_kms::config::Builder::from(&sdk);
        if let Some(url) = &config.kms_endpoint_url {
            kms = kms.endpoint_url(endpoint(url)?);
        }
        let mut tagging = aws_sdk_resourcegroupstagging::config::Builder::from(&sdk);
        if let Some(url) = &config.tagging_endpoint_url {
            tagging = tagging.endpoint_url(endpoint(url)?);
        }
        Ok(Self {
            tagging: aws_sdk_resourcegroupstagging::Client::from_conf(tagging.build()),
            kms: aws_sdk_kms::Client::from_conf(kms.build()),
            ssm: aws_sdk_ssm::Client::from_conf(ssm.build()),
            sts: aws_sdk_sts::Client::from_conf(sts.build()),
            credentials,
            region,
        })
    }

    /// Where the machines are: as configured, the role's account, or ours.
    pub(super) async fn place(&self, config: &BrokerConfig, calls: &Gate) -> Result<Place, BrokerError> {
        let of_role = config.role_arn.as_deref().map(account_of).transpose()?;
        let account = match (config.account.as_str(), of_role) {
            ("", Some(account)) => account.to_owned(),
            ("", None) => calls.run(Operation::GetCallerIdentity, self.own_account()).await?,
            (account, Some(of_role)) if account != of_role => {
                return Err(BrokerError::Config("account is not the account of role_arn".to_owned()));
            }
            (account, _) => account.to_owned(),
        };
        Place::new(&self.region, &account)
    }

    async fn own_account(&self) -> Result<String, BrokerError> {
        let operation = Operation::GetCallerIdentity;
        // Asked first, so that missing keys are told as missing keys.
        let keys = self.credentials.provide_credentials().await;
        keys.map_err(|error| BrokerError::no_credentials(&error))?;
        let answer = self.sts.get_caller_identity().send().await;
        let answer = answer.map_err(|error| BrokerError::of(operation, &error))?;
        answer.account.ok_or(BrokerError::Malformed { operation, what: "Account" })
    }
}

/// The AWS configuration for another service's client.
///
/// Region, keys and roots are those of the broker's own calls.
pub async fn aws_config(config: &BrokerConfig) -> Result<SdkConfig, BrokerError> {
    sdk_config(config, &Roots::load(config.ca_bundle.as_deref())?).await
}

async fn sdk_config(config: &BrokerConfig, roots: &Roots) -> Result<SdkConfig, BrokerError> {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(roots.http_client()?)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    if let Ok(name) = AppName::new(APP_NAME) {
        loader = loader.app_name(name);
    }
    if !config.region.is_empty() {
        loader = loader.region(Region::new(config.region.clone()));
    }
    if let Some(keys) = &config.static_keys {
        loader = loader.credentials_provider(keys.credentials());
    }
    Ok(loader.load().await)
}

/// An endpoint that may see tokens: TLS, or this machine.
pub fn endpoint(url: &str) -> Result<&str, BrokerError> {
    let wrong = || BrokerError::Config(format!("{url} must be https://…, or http://… on loopback"));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(url),
        (Some("http"), Some(host)) if is_loopback(host) => Ok(url),
        _ => Err(wrong()),
    }
}
